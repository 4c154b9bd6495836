"""The flat vectors are the policy; the gradient is that of the written formula."""

import copy
import pickle

import numpy as np
import pytest
import torch

from fastac.config import A2CConfig
from fastac.networks import ActorCritic
from fastac.objective import compute_gradient
from fastac.policy import FlatPolicy, make_policy, one_torch_thread
from fastac.rollout import Collector
from fastac.spaces import CARTPOLE

CONFIGS = {
    "default": A2CConfig(seed=3),
    "separate relu": A2CConfig(seed=3, shared_trunk=False, activation="relu", hidden_sizes=(16,)),
    "three layers": A2CConfig(seed=3, hidden_sizes=(8, 9, 10)),
}


@pytest.fixture(params=CONFIGS.values(), ids=CONFIGS)
def config(request):
    return request.param


def test_parameters_are_views_of_the_flat_vector(config):
    policy = make_policy(config)
    assert sum(p.numel() for p in policy.module.parameters()) == policy.n_params
    policy.params[:] = np.arange(policy.n_params)
    flat = torch.cat([p.detach().flatten() for p in policy.module.parameters()])
    assert flat.numpy().tolist() == policy.params.tolist()


def test_backward_fills_the_flat_gradient_again_and_again(config):
    """What a hand-over by alias gets wrong: after zero_grad the next gradient must be the next one, not the sum."""
    policy = make_policy(config)
    obs = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    gradients = []
    for _ in range(3):
        policy.zero_grad()
        logits, values = policy.module(obs)
        (logits.square().sum() + values.square().sum()).backward()
        gradients.append(policy.grad.copy())
    assert np.abs(gradients[0]).max() > 0
    assert gradients[0].tolist() == gradients[1].tolist() == gradients[2].tolist()


def test_torchs_global_stream_is_left_alone():
    before = torch.random.get_rng_state()
    make_policy(A2CConfig(seed=1))
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_initial_policy_is_nearly_uniform():
    probabilities, _, _ = make_policy(A2CConfig(seed=0)).act(np.ones((3, 4), np.float32))
    np.testing.assert_allclose(probabilities, 0.5, atol=0.02)


def test_parameters_that_are_given_are_shared():
    params = np.zeros(4675, np.float32)
    policy = make_policy(A2CConfig(seed=0), params)
    params[:] = 1.0
    assert policy.params is params and all((p == 1.0).all() for p in policy.module.parameters())
    with pytest.raises(ValueError, match=r"expected float32\[4675\], got float32\[4674\]"):
        make_policy(A2CConfig(seed=0), params[1:])
    with pytest.raises(ValueError, match=r"expected float32\[4675\], got float64\[4675\]"):
        make_policy(A2CConfig(seed=0), params.astype(np.float64))


@pytest.mark.parametrize("ent_coef", [0.0, 0.1])
def test_the_gradient_is_that_of_the_formula(config, ent_coef):
    """Against the loss written once more, plainly, on a copy of the net with ordinary parameters."""
    policy = make_policy(config)
    rollout = Collector(config, 0, 3).collect(policy)
    stats = compute_gradient(policy, rollout, config, ent_coef)

    plain = ActorCritic(config, CARTPOLE)
    plain.load_state_dict(policy.module.state_dict())
    obs = torch.from_numpy(rollout.obs).flatten(0, 1)
    logits, values = plain(obs)
    actions = torch.from_numpy(rollout.actions).flatten()
    distribution = torch.distributions.Categorical(logits=logits)
    advantages = torch.from_numpy(rollout.advantages).flatten()
    policy_loss = -(advantages * distribution.log_prob(actions)).mean()
    value_loss = torch.nn.functional.mse_loss(values, torch.from_numpy(rollout.returns).flatten())
    entropy = distribution.entropy().mean()
    (policy_loss + config.vf_coef * value_loss - ent_coef * entropy).backward()
    norm = torch.nn.utils.clip_grad_norm_(plain.parameters(), config.max_grad_norm)
    expected = torch.cat([p.grad.flatten() for p in plain.parameters()]).numpy()

    assert stats.grad_norm == pytest.approx(norm.item(), rel=1e-5)
    assert stats.grad_norm > config.max_grad_norm or np.linalg.norm(policy.grad) == pytest.approx(
        stats.grad_norm, rel=1e-5
    )
    np.testing.assert_allclose(policy.grad, expected, atol=1e-6 * np.abs(expected).max())
    assert stats.policy_loss == pytest.approx(policy_loss.item(), rel=1e-5, abs=1e-6)
    assert stats.value_loss == pytest.approx(value_loss.item(), rel=1e-5)
    assert stats.entropy == pytest.approx(entropy.item(), rel=1e-5)


def test_clipping_at_apply_leaves_the_gradient_whole():
    for clip_at, bound in (("worker", 0.01), ("apply", np.inf)):
        config = A2CConfig(seed=3, clip_at=clip_at, max_grad_norm=0.01)
        policy = make_policy(config)
        stats = compute_gradient(policy, Collector(config, 0, 3).collect(policy), config, 0.0)
        assert stats.grad_norm > 0.01
        expected = min(bound, stats.grad_norm)
        assert np.linalg.norm(policy.grad.astype(np.float64)) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    "how", [copy.deepcopy, lambda policy: pickle.loads(pickle.dumps(policy))], ids=["copy", "pickle"]
)
def test_a_copy_has_vectors_of_its_own_that_are_its_modules(how):
    policy = make_policy(A2CConfig(seed=3))
    twin = how(policy)
    assert twin.params.tolist() == policy.params.tolist()
    twin.params[:] = 1.0
    assert all((p == 1.0).all() for p in twin.module.parameters())
    assert not any((p == 1.0).all() for p in policy.module.parameters())
    compute_gradient(twin, Collector(A2CConfig(seed=3), 0, 2).collect(twin), A2CConfig(seed=3), 0.0)
    assert np.abs(twin.grad).max() > 0 and np.abs(policy.grad).max() == 0


def test_a_module_of_ones_own_keeps_its_parameters():
    module = torch.nn.Linear(2, 3)
    before = [p.detach().clone() for p in module.parameters()]
    policy = FlatPolicy(module)
    assert policy.n_params == 9
    assert all(torch.equal(p, was) for p, was in zip(module.parameters(), before, strict=True))


def test_float32_only():
    with pytest.raises(TypeError, match="float32"):
        FlatPolicy(torch.nn.Linear(2, 2).double())


def test_the_number_of_torch_threads_is_given_back():
    before = torch.get_num_threads()
    with one_torch_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
