"""Running statistics: equal to numpy's over everything that was seen, whoever saw it, and what they do to a rollout."""

import os
import signal
import threading

import gymnasium
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_any_env import SMALL, Tape

import fastac
from fastac import ConfigError, WorkerDeathWarning, _core, returns
from fastac.config import A2CConfig, A3CConfig
from fastac.normalization import CLIP, Moments, SharedStatistics, Statistics, size_of
from fastac.policy import make_policy
from fastac.problem import Problem
from fastac.rollout import Collector
from fastac.spaces import Actions, Spaces

SPACES = Spaces((2,), Actions("discrete", (2,)))
BOTH = {"normalize_observation": True, "normalize_reward": True}


def test_by_hand():
    moments = Moments.of(np.array([[1.0, 0.0], [3.0, 0.0]])) + Moments.of(np.array([[5.0, 3.0]]))
    assert (moments.count, moments.mean.tolist(), moments.squares.tolist()) == (3, [3, 1], [8, 6])
    assert moments.variance.tolist() == pytest.approx([8 / 3, 2])


@given(st.lists(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=20), min_size=1, max_size=8))
def test_parts_add_up_to_the_whole(parts):
    total = Moments.unpack(np.zeros(3))
    for part in parts:
        total = total + Moments.of(np.array(part)[:, None])
    whole = np.concatenate(parts)
    assert total.count == len(whole)
    np.testing.assert_allclose([total.mean[0], total.variance[0]], [whole.mean(), whole.var()], rtol=1e-9, atol=1e-6)
    again = Moments.unpack(total.pack())
    assert (again.count, again.mean.tolist(), again.squares.tolist()) == (
        total.count,
        total.mean.tolist(),
        total.squares.tolist(),
    )


@pytest.mark.parametrize("what", [BOTH, {"normalize_observation": True}, {"normalize_reward": True}, {}])
def test_packed_and_unpacked(what):
    config = A2CConfig(**what)
    empty = Statistics.empty(config, SPACES)
    assert (
        len(empty.pack())
        == size_of(config, SPACES)
        == {2: 8, 1: 4 + 4 * ("normalize_observation" in what), 0: 0}[len(what)]
    )
    obs = np.float32([[3, 7]])
    assert empty.normalized_obs(obs) is obs  # nothing is known
    assert empty.normalized_rewards(np.float32([2])).tolist() == [2]


def test_what_is_normalised_is_clipped():
    config = A2CConfig(**BOTH)
    known = Statistics(
        Moments(4, np.array([1.0, 0.0]), np.array([16.0, 4.0])), Moments(2, np.zeros(1), np.array([8.0])), config
    )
    assert known.normalized_obs(np.float32([[3, 1], [999, -999]])).tolist() == [[1, 1], [CLIP, -CLIP]]
    assert known.normalized_rewards(np.float32([[4, -400]])).tolist() == [[2, -CLIP]]


def shared(config, before=None, workers=1):
    region = _core.Region.create(workers=workers, parameters=1, statistics=size_of(config, SPACES))
    sessions = [_core.Session(region, w) for w in range(workers)]
    before = before or Statistics.empty(config, SPACES)
    return [SharedStatistics(session, workers, before) for session in sessions], sessions


def test_a_rollout_stands_on_what_was_known_before_it():
    """Tape shows 0, 1, 2, 0, 1, 2, ... and rewards 1, 2, 3: all of it can be worked out."""
    config = A2CConfig(engine="torch", seed=0, n_steps=3, gamma=0.5, reward_scale=1.0, **BOTH)
    policy = make_policy(config, None, SPACES)
    collector = Collector(config, 0, 1, problem=Problem(SPACES, Tape))
    (its,), _ = shared(config)
    first = collector.collect(policy, shared=its)
    assert first.obs[:, 0, 0].tolist() == [0, 1, 2]  # nothing was known
    discounted = np.array([1, 2.5, 4.25])
    expected = returns.gae(
        np.float32([[1], [2], [3]]) / np.float32(np.sqrt(discounted.var() + 1e-8)),
        first.values,
        np.concatenate([first.values[1:], np.zeros((1, 1), np.float32)]),
        np.array([[False], [False], [True]]),
        0.5,
        config.gae_lambda,
    )[1]
    np.testing.assert_allclose(first.returns, expected, rtol=1e-5)
    second = collector.collect(policy, shared=its)
    std = np.sqrt(np.var([0, 1, 2]) + 1e-8)
    np.testing.assert_allclose(second.obs[:, 0, 0], (np.arange(3) - 1) / std, rtol=1e-6)
    known = its.read()
    assert (known.obs.count, known.obs.mean.tolist(), known.returns.count) == (6, [1, 1], 6)
    np.testing.assert_allclose(
        known.returns.variance, np.tile(discounted, 2).var()
    )  # the sum begins anew with an episode


def test_workers_know_what_all_have_seen():
    config = A3CConfig(workers=3, **BOTH)
    before = Statistics(Moments.of(np.array([[9.0, 9.0]])), Moments.of(np.array([[9.0]])), config)
    theirs, sessions = shared(config, before, 3)
    random, seen = np.random.default_rng(0), [np.array([[9.0, 9.0]])]
    for _ in range(4):
        for one in theirs:
            obs = random.normal(0, 1, (5, 1, 2))
            seen.append(obs[:, 0])
            one.add(obs, random.normal(0, 1, (5, 1)))
    whole = np.concatenate(seen)
    for one in theirs:
        known = one.read().obs
        assert known.count == len(whole)
        np.testing.assert_allclose(known.mean, whole.mean(0))
        np.testing.assert_allclose(known.variance, whole.var(0))
    successor = SharedStatistics(sessions[1], 3, before)  # of the next one in its seat
    successor.add(np.zeros((1, 1, 2)), np.zeros((1, 1)))
    assert theirs[0].read().obs.count == len(whole) + 1


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_a_model_keeps_all_that_its_workers_saw(backend, tmp_path):
    model = fastac.A3C(Tape, workers=3, backend=backend, **SMALL, **BOTH)
    for total in (240, 480):
        model.learn(240)
        assert model.statistics.obs.count == model.statistics.returns.count == model.num_timesteps >= total
        assert model.statistics.obs.mean == pytest.approx([1, 1], abs=0.1)
    loaded = fastac.A3C.load(model.save(tmp_path / "m"), env=Tape)
    assert loaded.statistics.pack().tolist() == model.statistics.pack().tolist()


def test_of_a_killed_worker_counts_what_it_told():
    """Its successor adds to it; nothing is seen twice, nothing gets lost but what it was at."""

    class Deadly(Tape):
        def __init__(self):
            super().__init__()
            self._steps = 0

        def step(self, action):
            self._steps += 1
            if self._steps == 100 and threading.current_thread() is threading.main_thread():
                os.kill(os.getpid(), signal.SIGKILL)
            return super().step(action)

    with pytest.warns(WorkerDeathWarning):
        model = fastac.A3C(Deadly, workers=2, **SMALL, **BOTH).learn(500)
    assert model.ledger.restarts > 0
    # A rollout is told before its gradient is pushed: who dies in between has seen it all the same.
    assert model.num_timesteps <= model.statistics.obs.count <= model.num_timesteps + 8 * model.ledger.deaths


def test_advantages_of_a_rollout():
    x = np.float32([[1, 2], [3, 6]])
    normal = returns.normalized(x)
    np.testing.assert_allclose(normal, (x - 3) / (np.sqrt(3.5) + 1e-8), rtol=1e-6)
    assert returns.normalized(np.ones((2, 2), np.float32)).tolist() == [[0, 0], [0, 0]]


def test_predict_sees_normalised_observations():
    model = fastac.A2C("CartPole-v1", **SMALL, normalize_observation=True).learn(200)
    obs = gymnasium.make("CartPole-v1").reset(seed=0)[0]
    shown = model.statistics.normalized_obs(obs[None])
    assert (model.predict(obs, True)[0] == model.policy.act(shown).parameters.argmax(1)).all()
    assert not np.allclose(shown, obs)


def test_what_it_is_not_for():
    with pytest.raises(ConfigError, match="engine: expected torch or auto with normalize_reward, got native"):
        fastac.A2C(engine="native", normalize_reward=True)
    with pytest.raises(ConfigError, match="normalize_observation: expected False with policy=CnnPolicy"):
        fastac.A2C("CnnPolicy", "CartPole-v1", normalize_observation=True)
    with pytest.raises(ConfigError, match="policy: expected an env that shows images"):
        fastac.A2C("CnnPolicy", "CartPole-v1")
    with pytest.raises(ConfigError, match="noise_steps: expected 1 for actions that are not continuous, got 4"):
        fastac.A2C("Acrobot-v1", noise_steps=4)
