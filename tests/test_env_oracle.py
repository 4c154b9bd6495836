"""Bit for bit against Gymnasium's SyncVectorEnv of CartPole-v1, which is the guarantee."""

import gymnasium
import numpy as np
import pytest
from equality import assert_same
from gymnasium.error import Error as GymnasiumError
from gymnasium.vector import SyncVectorEnv

from fastac.env import AutoresetMode, CartPoleVectorEnv

# gymnasium 1.0 has NEXT_STEP only, and no reset_mask before 1.1.
MODES = list(AutoresetMode) if hasattr(gymnasium.vector, "AutoresetMode") else [AutoresetMode.NEXT_STEP]
needs_modes = pytest.mark.skipif(len(MODES) == 1, reason="this gymnasium knows one autoreset mode only")
INT = np.int64


def oracle(num_envs, mode=AutoresetMode.NEXT_STEP, max_episode_steps=500, **kwargs):
    def make():
        return gymnasium.make("CartPole-v1", max_episode_steps=max_episode_steps, **kwargs)

    vector_kwargs = {} if len(MODES) == 1 else {"autoreset_mode": mode}
    return SyncVectorEnv([make] * num_envs, **vector_kwargs)


def pair(num_envs, mode=AutoresetMode.NEXT_STEP, max_episode_steps=500, **kwargs):
    ours = CartPoleVectorEnv(num_envs=num_envs, autoreset_mode=mode, max_episode_steps=max_episode_steps, **kwargs)
    return ours, oracle(num_envs, mode, max_episode_steps, **kwargs)


def assert_same_state(ours, theirs):
    expected = np.array([env.unwrapped.state for env in theirs.envs]).T
    assert ours.native.state.tobytes() == np.ascontiguousarray(expected).tobytes()
    for mine, other in zip(ours.np_random, theirs.np_random, strict=True):
        assert mine.bit_generator.state == other.bit_generator.state


def random_actions(rng, obs):
    return rng.integers(0, 2, size=len(obs))


def balancing_actions(rng, obs):
    """Keeps the pole up to the time limit, mostly."""
    return (obs[:, 2] + 0.3 * obs[:, 3] + 0.02 * obs[:, 0] + 0.05 * obs[:, 1] > 0).astype(INT)


def noisy_actions(rng, obs):
    """Long episodes that end at every angle and position."""
    return np.where(rng.random(len(obs)) < 0.15, random_actions(rng, obs), balancing_actions(rng, obs))


def run_both(ours, theirs, policy, env_steps, mode, obs):
    """Step both with the same actions; returns how many episodes were terminated and truncated."""
    rng = np.random.default_rng(len(obs))
    ends = np.zeros(2, dtype=int)
    for t in range(env_steps):
        actions = policy(rng, obs)
        out = ours.step(actions)
        assert_same(out, theirs.step(actions))
        if t % 16 == 0:
            assert_same_state(ours, theirs)
        obs, _, terminated, truncated, _ = out
        ends += [terminated.sum(), truncated.sum()]
        done = terminated | truncated
        if mode is AutoresetMode.DISABLED and done.any():
            # A fresh dict for each: SyncVectorEnv takes the mask out of its caller's.
            results = [env.reset(options={"reset_mask": done.copy()}) for env in (ours, theirs)]
            assert_same(*results)
            obs = results[0][0]
    assert_same_state(ours, theirs)
    return ends.tolist()


@pytest.mark.parametrize("policy", [random_actions, balancing_actions, noisy_actions])
@pytest.mark.parametrize(("num_envs", "env_steps"), [(1, 3000), (3, 1500), (8, 1200), (64, 150)])
@pytest.mark.parametrize("mode", MODES)
def test_every_output_is_equal(mode, num_envs, env_steps, policy):
    ours, theirs = pair(num_envs, mode)
    results = [env.reset(seed=7) for env in (ours, theirs)]
    assert_same(*results)
    terminated, truncated = run_both(ours, theirs, policy, env_steps, mode, results[0][0])
    if policy is random_actions:
        assert terminated > 50
    if policy is balancing_actions and env_steps > 600:
        assert truncated > 0


@pytest.mark.parametrize("sutton_barto_reward", [False, True])
@pytest.mark.parametrize("max_episode_steps", [1, 7, 30])
@pytest.mark.parametrize("mode", MODES)
def test_time_limits_and_rewards(mode, max_episode_steps, sutton_barto_reward):
    ours, theirs = pair(5, mode, max_episode_steps, sutton_barto_reward=sutton_barto_reward)
    results = [env.reset(seed=3) for env in (ours, theirs)]
    ends = run_both(ours, theirs, random_actions, 400, mode, results[0][0])
    assert ends[1] > 0


def test_terminated_and_truncated_at_once():
    ours, theirs = pair(64, max_episode_steps=12)
    obs, _ = ours.reset(seed=1)
    theirs.reset(seed=1)
    both = 0
    rng = np.random.default_rng(0)
    for _ in range(300):
        actions = random_actions(rng, obs)
        out = ours.step(actions)
        assert_same(out, theirs.step(actions))
        both += (out[2] & out[3]).sum()
    assert both > 0


@pytest.mark.parametrize("seed", [0, 123, 2**31 - 2, 2**70, [5, 1, 5], (9, 8, 7), [0, 2**128, 1], True])
def test_seeds(seed):
    ours, theirs = pair(3)
    assert_same(ours.reset(seed=seed), theirs.reset(seed=seed))
    assert ours.np_random_seed == theirs.np_random_seed
    run_both(ours, theirs, random_actions, 60, None, ours.native.obs.copy())
    assert_same(ours.reset(), theirs.reset())
    assert_same(ours.reset(seed=[None, 4, None]), theirs.reset(seed=[None, 4, None]))
    assert ours.np_random_seed == theirs.np_random_seed
    assert_same_state(ours, theirs)


@pytest.mark.parametrize(
    ("seed", "error"),
    [
        (-1, GymnasiumError),
        ([1, -1, 2], GymnasiumError),
        ([1, 2.5, 3], GymnasiumError),
        ([1, np.int64(2), 3], GymnasiumError),
        ("123", GymnasiumError),
        (1.5, TypeError),
        (np.int64(3), TypeError),
        ([1, 2], ValueError),
        ([], ValueError),
    ],
)
def test_bad_seeds_are_refused_as_gymnasium_refuses_them(seed, error):
    ours, theirs = pair(3)
    ours.reset(seed=0)
    before = ours.get_state()
    with pytest.raises((error, AssertionError)):  # gymnasium before 1.4 asserts
        theirs.reset(seed=seed)
    with pytest.raises(error):
        ours.reset(seed=seed)
    assert_same(ours.get_state(), before)
    assert ours.np_random_seed == (0, 1, 2)


@pytest.mark.parametrize(
    "options",
    [{}, {"low": -0.2}, {"high": 0.1}, {"low": -0.01, "high": 0.3}, {"low": "0.01", "x": 1}, {"low": 0.05}],
)
def test_reset_bounds_hold_for_one_reset(options):
    ours, theirs = pair(4, max_episode_steps=5)
    given = dict(options)
    assert_same(ours.reset(seed=2, options=given), theirs.reset(seed=2, options=dict(options)))
    assert given == options
    run_both(ours, theirs, random_actions, 40, None, ours.native.obs.copy())


@pytest.mark.parametrize("options", [{"low": 1, "high": 0}, {"low": None}, {"high": "much"}, {"low": [1, 2]}])
def test_bad_reset_bounds_are_refused_as_gymnasium_refuses_them(options):
    ours, theirs = pair(2)
    ours.reset(seed=0)
    before = ours.get_state()
    for env in (theirs, ours):
        with pytest.raises(ValueError):
            env.reset(seed=5, options=dict(options))
    assert_same(ours.get_state(), before)


@needs_modes
@pytest.mark.parametrize("mode", MODES)
def test_masked_resets(mode):
    ours, theirs = pair(4, mode, max_episode_steps=6)
    results = [env.reset(seed=2) for env in (ours, theirs)]
    obs = results[0][0]
    rng = np.random.default_rng(5)
    for _ in range(200):
        actions = random_actions(rng, obs)
        out = ours.step(actions)
        assert_same(out, theirs.step(actions))
        obs, _, terminated, truncated, _ = out
        mask = rng.random(4) < 0.3
        if mode is AutoresetMode.DISABLED:
            mask |= terminated | truncated
        if mask.any():
            seed = [None, 3, [None, 5, None, 6]][rng.integers(3)]
            low = rng.uniform(-0.1, 0.0)
            given = {"reset_mask": mask.copy(), "low": low}
            results = [env.reset(seed=seed, options=dict(given)) for env in (ours, theirs)]
            assert_same(*results)
            obs = results[0][0]
            assert_same_state(ours, theirs)
            assert ours.np_random_seed == theirs.np_random_seed


@needs_modes
@pytest.mark.parametrize(
    ("mask", "error"),
    [
        ([True, False], TypeError),
        (None, TypeError),
        (np.array([1, 0]), TypeError),
        (np.zeros(2, bool), ValueError),
        (np.ones(3, bool), ValueError),
        (np.ones((1, 2), bool), ValueError),
    ],
)
def test_bad_masks_are_refused_as_gymnasium_refuses_them(mask, error):
    ours, theirs = pair(2)
    for env in (ours, theirs):
        env.reset(seed=0)
    before = ours.get_state()
    with pytest.raises((error, AssertionError)):  # gymnasium before 1.4 asserts
        theirs.reset(options={"reset_mask": mask})
    options = {"reset_mask": mask}
    with pytest.raises(error, match="reset_mask"):
        ours.reset(options=options)
    assert list(options) == ["reset_mask"]
    assert_same(ours.get_state(), before)


def test_spaces_and_metadata():
    ours, theirs = pair(3)
    for name in ("single_observation_space", "observation_space", "single_action_space", "action_space"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert ours.num_envs == theirs.num_envs
    assert ours.metadata["render_fps"] == theirs.metadata["render_fps"]
