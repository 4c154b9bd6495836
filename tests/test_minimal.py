"""If only one file is run, this one: an installed fastac plays, trains, and keeps its books."""

import gymnasium
import numpy as np

import fastac


def test_env_plays():
    envs = gymnasium.make_vec("fastac/CartPole-v1", num_envs=8)
    obs, _ = envs.reset(seed=0)
    assert obs.shape == (8, 4) and obs.dtype == np.float32
    obs, rewards, terminated, truncated, _ = envs.step(np.zeros(8, np.int64))
    assert rewards.tolist() == [1.0] * 8 and not terminated.any() and not truncated.any()
    envs.close()


def test_a3c_learns_and_balances():
    model = fastac.A3C("CartPole-v1", workers=2, update="lockfree", backend="thread", seed=0).learn(20_000)
    assert model.num_timesteps >= 20_000
    model.ledger.check()
    first, last = model.history.episodes["episode_return"][:50].mean(), model.history.final_return()
    assert last > 2 * first


def test_a2c_learns_and_is_evaluated():
    model = fastac.A2C("CartPole-v1", n_envs=4, seed=0).learn(20_000)
    mean, std = fastac.evaluate_policy(model, n_eval_episodes=20, seed=1)
    assert mean > 50 and std >= 0
