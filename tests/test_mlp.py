"""The policy without torch: its initial weights, its answers, and the actions drawn from them."""

import math

import numpy as np
import pytest

from fastac import _core
from fastac.config import A2CConfig
from fastac.mlp import act, initial_params, sample
from fastac.policy import make_policy


def test_the_number_of_parameters_of_the_default_net():
    assert len(initial_params(A2CConfig(seed=0))) == 4 * 64 + 64 + 64 * 64 + 64 + 64 * 2 + 2 + 64 + 1 == 4675


@pytest.mark.parametrize("shared_trunk", [True, False])
@pytest.mark.parametrize("hidden_sizes", [(64, 64), (3,), (2, 50, 7)])
def test_initial_weights_are_orthogonal_and_biases_zero(hidden_sizes, shared_trunk):
    policy = make_policy(A2CConfig(seed=3, hidden_sizes=hidden_sizes, shared_trunk=shared_trunk))
    gains = {"policy_trunk": math.sqrt(2), "value_trunk": math.sqrt(2), "policy_head": 0.01, "value_head": 1.0}
    seen = 0
    for name, p in policy.module.named_parameters():
        weights = p.detach().numpy().astype(np.float64)
        if name.endswith("bias"):
            assert not weights.any()
            continue
        shorter = weights if weights.shape[0] <= weights.shape[1] else weights.T
        gain = gains[name.partition(".")[0]]
        np.testing.assert_allclose(shorter @ shorter.T, gain**2 * np.eye(len(shorter)), atol=1e-6 * gain**2)
        seen += 1
    assert seen == len(hidden_sizes) * (1 if shared_trunk else 2) + 2


def test_initial_weights_have_no_preferred_direction():
    """Each entry of a uniformly drawn orthogonal matrix has mean 0; a QR decomposition alone has signs of its own."""
    n = 400
    first = np.array([initial_params(A2CConfig(seed=seed, hidden_sizes=(4,)))[:16] for seed in range(n)])
    assert np.abs(first.mean(axis=0)).max() < 5 * math.sqrt(2.0 / 4 / n)


def test_the_seed_decides_the_weights():
    first, again, other = (initial_params(A2CConfig(seed=seed)).tolist() for seed in (1, 1, 2))
    assert first == again != other
    with pytest.raises(ValueError, match="resolve_seed"):
        initial_params(A2CConfig())


@pytest.mark.parametrize("n", [0, 1, 63, 64, 65, 200])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("shared_trunk", [True, False])
def test_it_answers_as_in_torch(n, activation, shared_trunk):
    config = A2CConfig(seed=1, hidden_sizes=(20, 33), activation=activation, shared_trunk=shared_trunk)
    random = np.random.default_rng(n)
    params = random.normal(0, 0.3, len(initial_params(config))).astype(np.float32)
    obs = random.normal(size=(n, 4)).astype(np.float32)
    probabilities, values = act(config, params, obs)
    assert probabilities.shape == (n, 2) and values.shape == (n,)
    expected_probabilities, expected_values, _ = make_policy(config, params).act(obs)
    np.testing.assert_allclose(probabilities, expected_probabilities, atol=2e-6)
    np.testing.assert_allclose(values, expected_values, atol=1e-5)


@pytest.mark.parametrize(
    ("what", "error", "words"),
    [
        ({"params": np.zeros(5, np.float32)}, ValueError, "params: expected"),
        ({"params": np.zeros(17, np.float64)}, TypeError, "params: expected"),
        ({"obs": np.zeros((3, 5), np.float32)}, ValueError, "obs: expected"),
        ({"obs": np.zeros(4, np.float32)}, ValueError, "obs: expected"),
        ({"hidden_sizes": ()}, ValueError, "hidden"),
        ({"hidden_sizes": (0,)}, ValueError, "hidden"),
        ({"hidden_sizes": (2**40, 2**40)}, ValueError, "hidden"),
        ({"activation": "gelu"}, ValueError, "activation: expected 'tanh' or 'relu', got 'gelu'"),
    ],
)
def test_bad_arguments(what, error, words):
    good = {"hidden_sizes": (2,), "activation": "tanh", "shared_trunk": True}
    arguments = {"params": np.zeros(19, np.float32), "obs": np.zeros((3, 4), np.float32), **good}
    assert len(_core.act(**arguments)[1]) == 3
    with pytest.raises(error, match=words):
        _core.act(**{**arguments, **what})


def test_sampling_by_inversion():
    probabilities = np.array([[0.25, 0.75]] * 4 + [[0.0, 1.0], [1.0, 0.0]], np.float32)
    uniforms = np.array([0.0, 0.2499, 0.25, 0.9999, 0.0, 0.9999])
    assert sample(probabilities, uniforms).tolist() == [0, 0, 1, 1, 1, 0]
    three = np.array([[0.25, 0.25, 0.5]] * 3, np.float32)
    assert sample(three, np.array([0.1, 0.3, 0.7])).tolist() == [0, 1, 2]


def test_sampling_follows_the_probabilities():
    uniforms = np.random.default_rng(0).random(100_000)
    probabilities = np.tile(np.array([[0.3, 0.7]], np.float32), (len(uniforms), 1))
    assert sample(probabilities, uniforms).mean() == pytest.approx(0.7, abs=0.01)  # 6 standard deviations
