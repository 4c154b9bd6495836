"""The env in literal numbers: if only one file of the env is run, this one."""

import numpy as np
import pytest
from gymnasium.error import ResetNeeded

from fastac import _core
from fastac.env import AutoresetMode, CartPoleVectorEnv


def test_first_observations_of_seed_42():
    env = CartPoleVectorEnv(num_envs=3)
    obs, infos = env.reset(seed=42)
    # The numbers in Gymnasium's own documentation of VectorEnv.reset.
    expected = [
        [0.0273956, -0.00611216, 0.03585979, 0.0197368],
        [0.01522993, -0.04562247, -0.04799704, 0.03392126],
        [-0.03774345, -0.02418869, -0.00942293, 0.0469184],
    ]
    np.testing.assert_allclose(obs, expected, rtol=0, atol=5e-9)
    assert obs.dtype == np.float32
    assert infos == {}
    assert env.np_random_seed == (42, 43, 44)


def test_one_step_by_hand():
    env = CartPoleVectorEnv(num_envs=2)
    env.reset(seed=0)
    env.native.state = np.zeros((4, 2))
    obs, reward, terminated, truncated, infos = env.step(np.array([1, 0]))
    # From rest: theta_acc = -(100/11)/(41/66) = -600/41 rad/s^2 and x_acc = 400/41 m/s^2, times 0.02 s.
    np.testing.assert_allclose(env.native.state[:, 0], [0, 8 / 41, 0, -12 / 41], rtol=1e-15)
    np.testing.assert_allclose(env.native.state[:, 1], [0, -8 / 41, 0, 12 / 41], rtol=1e-15)
    assert np.array_equal(obs, env.native.state.T.astype(np.float32))
    assert reward.tolist() == [1.0, 1.0]
    assert reward.dtype == np.float64
    assert terminated.tolist() == truncated.tolist() == [False, False]
    assert infos == {}


# Just inside and just outside of each limit: 2.4 m and 12 degrees = 0.20943951... rad.
@pytest.mark.parametrize(
    ("state", "terminated"),
    [
        ([2.38, 1.0, 0.0, 0.0], False),  # 2.38 + 0.02 rounds to 2.4, which is not beyond 2.4
        ([2.381, 1.0, 0.0, 0.0], True),
        ([-2.379, -1.0, 0.0, 0.0], False),
        ([-2.381, -1.0, 0.0, 0.0], True),
        ([0.0, 0.0, 0.2094, 0.0], False),
        ([0.0, 0.0, 0.2095, 0.0], True),
        ([0.0, 0.0, -0.1894, -1.0], False),
        ([0.0, 0.0, -0.1895, -1.0], True),
    ],
)
def test_limits(state, terminated):
    env = CartPoleVectorEnv()
    env.reset(seed=0)
    env.native.state = np.array(state)[:, np.newaxis]
    assert env.step([1])[2].tolist() == [terminated]


def at_the_edge(mode, **kwargs):
    env = CartPoleVectorEnv(autoreset_mode=mode, **kwargs)
    env.reset(seed=0)
    env.native.state = np.array([[2.39], [1.0], [0.0], [0.0]])
    return env


def test_next_step_ignores_the_action_of_a_finished_env():
    env = at_the_edge("NextStep", max_episode_steps=1)
    obs, reward, terminated, truncated, _ = env.step([1])
    assert (reward[0], terminated[0], truncated[0]) == (1.0, True, True)
    assert obs[0, 0] == np.float32(2.39 + 0.02)
    obs, reward, terminated, truncated, infos = env.step([1])
    assert (reward[0], terminated[0], truncated[0]) == (0.0, False, False)
    assert np.abs(obs).max() < 0.05
    assert infos == {}


def test_same_step_keeps_the_final_observation():
    env = at_the_edge(AutoresetMode.SAME_STEP, sutton_barto_reward=True)
    obs, reward, terminated, truncated, infos = env.step([1])
    assert (reward[0], terminated[0], truncated[0]) == (-1.0, True, False)
    assert np.abs(obs).max() < 0.05
    assert infos["final_obs"][0][0] == np.float32(2.39 + 0.02)
    assert env.step([1])[1].tolist() == [0.0]


def test_disabled_waits_for_a_reset():
    env = at_the_edge("disabled")
    assert env.step([0])[2].tolist() == [True]
    with pytest.raises(ResetNeeded, match="env 0 has ended"):
        env.step([0])
    env.reset(options={"reset_mask": np.array([True])})
    env.step([0])


def test_step_before_reset_names_the_env():
    with pytest.raises(ResetNeeded, match="env 0 was never reset"):
        CartPoleVectorEnv(num_envs=2).step([0, 0])


def test_what_a_step_returns_is_not_reused():
    env = CartPoleVectorEnv(num_envs=2, autoreset_mode="SameStep", max_episode_steps=1)
    native = env.native
    views = [native.obs, native.reward, native.terminated, native.truncated, native.final_obs]
    obs, _ = env.reset(seed=0)
    *returned, infos = env.step([0, 1])
    for array in (obs, *returned, infos["final_obs"][0], infos["_final_obs"], infos["_final_info"]):
        assert not any(np.shares_memory(array, view) for view in views)


def test_streams_draw_numpys_numbers_of_seed_42():
    streams = _core.UniformStreams(np.random.SeedSequence(42).generate_state(4, np.uint64)[np.newaxis])
    assert streams.random().tolist() == [0.7739560485559633]
    assert streams.random().tolist() == [0.4388784397520523]
