"""Networks of every kind: shapes, initial weights, and the gradient of the written formula, step by step."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from gymnasium import spaces as gym_spaces
from test_any_env import Tape
from torch import nn

from fastac import ConfigError
from fastac.config import A2CConfig
from fastac.networks import initial_params_of, network_of
from fastac.objective import compute_gradient
from fastac.policy import make_policy
from fastac.problem import Problem
from fastac.returns import gae, successor_values
from fastac.rollout import Collector
from fastac.spaces import CARTPOLE, Actions, Spaces

BOX = Actions("box", shape=(2,), low=(-1.0, -1.0), high=(1.0, 1.0))
IMAGE = Spaces((40, 36, 3), Actions("discrete", (3,)), "uint8")
CASES = [
    ("MlpPolicy", CARTPOLE),
    ("MlpPolicy", Spaces((3, 2), BOX)),
    ("MlpLstmPolicy", Spaces((3,), BOX)),
    ("MlpGruPolicy", Spaces((3,), Actions("multi_discrete", (2, 3)))),
    ("CnnPolicy", IMAGE),
    ("CnnLstmPolicy", Spaces((12, 10), BOX, "uint8")),
    ("CnnGruPolicy", Spaces((2, 12, 10), Actions("discrete", (2,)))),
]
each_case = pytest.mark.parametrize(("policy", "spaces"), CASES, ids=lambda value: getattr(value, "obs_dtype", value))


@each_case
def test_shapes_and_weights(policy, spaces):
    config = A2CConfig(policy=policy, engine="torch", seed=5, hidden_sizes=(16, 8), log_std_init=-1.5)
    before = torch.random.get_rng_state()
    made = make_policy(config, None, spaces)
    assert torch.equal(before, torch.random.get_rng_state())  # the user's
    again = initial_params_of(dataclasses.replace(config), spaces)
    assert made.params.tobytes() == again.tobytes()
    assert made.params.tobytes() != initial_params_of(dataclasses.replace(config, seed=6), spaces).tobytes()
    obs = np.random.default_rng(0).integers(0, 200, (5, *spaces.obs_shape)).astype(spaces.obs_dtype)
    acted = made.act(obs, made.no_memory(5))
    assert acted.parameters.shape == (5, made.distribution.n_outputs) and acted.values.shape == (5,)
    sizes = {"Lstm": 16, "Gru": 8}
    expected = next((size for kind, size in sizes.items() if kind in policy), 0)
    assert made.memory_size == expected and (acted.memory is None) == (expected == 0)
    if spaces.actions.kind == "box":
        assert (acted.parameters[:, -2:] == -1.5).all()
    for name, parameter in made.module.named_parameters():
        if parameter.dim() < 2 and name != "log_std":
            assert not parameter.any(), name
        elif name != "log_std":
            rows = parameter.detach().flatten(1).double()
            gram = rows @ rows.T if rows.shape[0] <= rows.shape[1] else rows.T @ rows
            assert torch.allclose(gram, gram[0, 0] * torch.eye(len(gram), dtype=gram.dtype), atol=1e-5), name


@pytest.mark.parametrize("channels_last", [True, False])
def test_images_are_seen_by_channels_and_bytes_are_scaled(channels_last):
    """A convolution of the image as torch wants it, worked out beside the module."""
    shape = (40, 36, 3) if channels_last else (3, 40, 36)
    module = network_of(
        A2CConfig(policy="CnnPolicy", engine="torch", seed=0), Spaces(shape, Actions("discrete", (2,)), "uint8")
    )
    obs = torch.randint(0, 256, (2, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    image = (obs.permute(0, 3, 1, 2) if channels_last else obs).double() / 255
    outputs, values = module(obs)
    features = module.double().features
    x = torch.relu(features.linear(features.convolutions(image).flatten(1)))
    assert torch.allclose(outputs.double(), module.policy_head(x), atol=1e-5)
    assert torch.allclose(values.double(), module.value_head(x).squeeze(-1), atol=1e-5)


def test_separate_trunks_are_of_the_mlp_alone():
    with pytest.raises(ConfigError, match="shared_trunk: expected True with policy=MlpLstmPolicy, got False"):
        A2CConfig(policy="MlpLstmPolicy", shared_trunk=False)


class Reference:
    """The loss of a rollout as it is written in the papers, one env and one step at a time, in double precision."""

    def __init__(self, policy, rollout, config, ent_coef):
        module = Doubled(policy.module)
        total, m = 0.0, rollout.values.size
        for env in range(rollout.values.shape[1]):
            memory = None if rollout.memory is None else torch.from_numpy(rollout.memory[env : env + 1]).double()
            for t in range(len(rollout.values)):
                obs = torch.from_numpy(rollout.obs[t, env : env + 1])
                obs = obs if obs.dtype == torch.uint8 else obs.double()
                outputs, value, *after = module(obs) if memory is None else module(obs, memory)
                if memory is not None:
                    memory = after[0] * (0.0 if rollout.done[t, env] else 1.0)
                taken = torch.from_numpy(np.asarray(rollout.actions[t, env])[None])
                surprise, negative_entropy = policy.distribution.score(outputs, taken)
                total = total + float(rollout.advantages[t, env]) * surprise.squeeze() / m
                total = total + config.vf_coef * (value.squeeze() - float(rollout.returns[t, env])) ** 2 / m
                total = total + ent_coef * negative_entropy / m
        total.backward()
        self.grad = torch.cat([p.grad.flatten() for p in module.parameters()]).numpy()


class Doubled(nn.Module):
    """A copy in double precision, of what it sees, too, which the networks turn into float32."""

    def __init__(self, module):
        super().__init__()
        self.module = copy.deepcopy(module).double()
        for parameter in self.module.parameters():
            parameter.grad = None

    def forward(self, obs, *memory):
        original = torch.Tensor.float
        torch.Tensor.float = torch.Tensor.double
        try:
            return self.module(obs, *memory)
        finally:
            torch.Tensor.float = original


def space_of(actions):
    if actions.kind == "box":
        return gym_spaces.Box(np.float32(actions.low), np.float32(actions.high))
    return (
        gym_spaces.Discrete(actions.nvec[0]) if actions.kind == "discrete" else gym_spaces.MultiDiscrete(actions.nvec)
    )


@each_case
@pytest.mark.parametrize("truncated", [False, True])
def test_the_gradient_is_that_of_the_formula(policy, spaces, truncated):
    """Over a rollout with ends of episodes in it, started in the midst of one: memories are carried and cut."""
    config = A2CConfig(policy=policy, engine="torch", seed=1, hidden_sizes=(8, 8), n_steps=7, max_grad_norm=0.0)
    dtype = np.dtype(spaces.obs_dtype)
    problem = Problem(spaces, lambda: Tape(4, truncated, space_of(spaces.actions), spaces.obs_shape, dtype.type))
    made = make_policy(config, None, spaces)
    made.params += np.random.default_rng(0).normal(0, 0.05, made.n_params).astype(np.float32)
    collector = Collector(config, 0, 2, problem=problem)
    collector.collect(made)
    rollout = collector.collect(made)
    assert rollout.memory is None or np.abs(rollout.memory).max() > 0
    assert (rollout.done.sum(), rollout.done[0].any()) == (4, True)
    compute_gradient(made, rollout, config, ent_coef=0.01)
    expected = Reference(made, rollout, config, 0.01).grad
    assert np.abs(made.grad - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("policy", ["MlpPolicy", "MlpLstmPolicy"])
@pytest.mark.parametrize("truncated", [False, True])
def test_returns_bootstrap_with_the_memory_of_the_moment(policy, truncated):
    """Values of final observations and of the one after the rollout, worked out from the start of each episode."""
    spaces = Spaces((2,), Actions("discrete", (2,)))
    config = A2CConfig(policy=policy, engine="torch", seed=1, hidden_sizes=(8, 8), n_steps=10, reward_scale=0.5)
    made = make_policy(config, None, spaces)
    rollout = Collector(config, 0, 1, problem=Problem(spaces, lambda: Tape(4, truncated))).collect(made)
    values, memory = [], made.no_memory(1)
    for shown in range(5):  # an episode: 0, 1, 2, 3, and 4, the final one
        acted = made.act(np.full((1, 2), shown, np.float32), memory)
        values.append(acted.values[0])
        memory = acted.memory
    seen = np.array([0, 1, 2, 3] * 2 + [0, 1])
    over = np.array([False, False, False, True] * 2 + [False] * 2)[:, None]
    rewards = np.float32([1, 2, 3, 4] * 2 + [1, 2])[:, None] * np.float32(0.5)
    v = np.array(values)[seen][:, None]
    finals = np.where(over, values[4], 0).astype(np.float32)
    successors = successor_values(v, np.array([values[2]]), finals, over & (not truncated), over & truncated)
    advantages, targets = gae(rewards, v, successors, over, config.gamma, config.gae_lambda)
    np.testing.assert_allclose(rollout.values, v, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(rollout.advantages, advantages, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(rollout.returns, targets, rtol=1e-4, atol=1e-5)
