"""A collector's rollout against the same episodes played in Gymnasium, one env at a time."""

import copy
import pickle

import gymnasium
import numpy as np
import pytest

from fastac import _core, seeding
from fastac.config import A2CConfig
from fastac.policy import make_policy
from fastac.returns import gae, successor_values
from fastac.rollout import Collector, NativeCollector


def replay(config, policy, first, n_envs, rollouts):
    """The same rollouts by Gymnasium's CartPole-v1 and numpy's generators: the slow reference of the collector."""
    T = config.n_steps
    envs, actions_of, obs = [], [], []
    for e in range(first, first + n_envs):
        env = gymnasium.make("CartPole-v1", max_episode_steps=config.max_episode_steps)
        env.reset(seed=0)
        stream = np.random.SeedSequence(config.seed, spawn_key=(0, 0, e))
        env.unwrapped.np_random = np.random.Generator(np.random.PCG64(stream))
        envs.append(env)
        obs.append(env.reset()[0])
        actions_of.append(
            np.random.Generator(np.random.PCG64(np.random.SeedSequence(config.seed, spawn_key=(0, 1, e))))
        )
    results, running, lengths = [], np.zeros(n_envs), np.zeros(n_envs, int)
    for _ in range(rollouts):
        seen = np.zeros((T, n_envs, 4), np.float32)
        taken = np.zeros((T, n_envs), np.int64)
        rewards, values, finals = (np.zeros((T, n_envs), np.float32) for _ in range(3))
        terminated, truncated = np.zeros((T, n_envs), bool), np.zeros((T, n_envs), bool)
        episodes = []
        for t in range(T):
            seen[t] = obs
            probabilities, values[t], _ = policy.act(seen[t])
            for i, env in enumerate(envs):
                taken[t, i] = int(actions_of[i].random() >= probabilities[i, 0])
                obs[i], rewards[t, i], terminated[t, i], truncated[t, i], _ = env.step(taken[t, i])
                running[i] += rewards[t, i]
                lengths[i] += 1
                if terminated[t, i] or truncated[t, i]:
                    if truncated[t, i]:
                        finals[t, i] = policy.values(np.array([obs[i]]))[0]
                    episodes.append((running[i], lengths[i]))
                    running[i], lengths[i] = 0.0, 0
                    obs[i] = env.reset()[0]
        last = policy.values(np.array(obs, np.float32))
        successors = successor_values(values, last, finals, terminated, truncated)
        scaled = rewards * np.float32(config.reward_scale)
        advantages, returns = gae(scaled, values, successors, terminated | truncated, config.gamma, config.gae_lambda)
        results.append((seen, taken, advantages, returns, episodes, truncated.any()))
    return results


@pytest.mark.parametrize("limit", [500, 15], ids=["episodes terminate", "episodes are truncated"])
def test_a_rollout_is_what_gymnasium_plays(limit):
    config = A2CConfig(seed=7, n_steps=40, max_episode_steps=limit)
    policy = make_policy(config)
    expected = replay(config, policy, first=2, n_envs=3, rollouts=3)
    assert any(cut for *_, cut in expected) == (limit == 15)
    collector = Collector(config, 2, 3)
    for seen, taken, advantages, returns, episodes, _ in expected:
        rollout = collector.collect(policy)
        assert np.array_equal(rollout.obs, seen)
        assert np.array_equal(rollout.actions, taken)
        assert sorted(rollout.episodes) == sorted(episodes) and episodes
        # The values of final observations are computed in another batch here: torch may round them otherwise.
        np.testing.assert_allclose(rollout.advantages, advantages, atol=1e-6)
        np.testing.assert_allclose(rollout.returns, returns, atol=1e-6)
        assert rollout.env_steps == 120


def test_an_env_lives_the_same_life_in_any_batch():
    """Env e has its own streams: whether a worker holds it or a batch of A2C makes no difference to its start."""
    config = A2CConfig(seed=5)
    together = Collector(config, 0, 4).envs.obs.copy()
    alone = np.concatenate([Collector(config, e, 1).envs.obs for e in range(4)])
    assert np.array_equal(together, alone)


def test_streams_of_different_uses_seeds_and_calls_are_different():
    words = [
        seeding.env_words(0, 0, 0, 2),
        seeding.action_words(0, 0, 0, 2),
        seeding.env_words(1, 0, 0, 2),
        seeding.env_words(0, 1, 0, 2),
    ]
    rows = {tuple(row) for block in words for row in block}
    assert len(rows) == 8
    assert len(rows | {tuple(seeding.weights_words(0)), tuple(seeding.weights_words(1))}) == 10


def test_each_step_is_a_sign_of_life():
    """A long rollout is told from a worker that stands still."""
    config = A2CConfig(n_steps=7, hidden_sizes=(8,), seed=0)
    policy = make_policy(config)
    session = _core.Session(_core.Region.create(workers=1, parameters=policy.n_params), 0)
    before = session.heartbeat(0)
    Collector(config, 0, 3).collect(policy, session)
    assert session.heartbeat(0) == before + 7


def test_each_step_in_c_is_a_sign_of_life_too():
    config = A2CConfig(n_steps=7, hidden_sizes=(8,), seed=0)
    collector, policy = NativeCollector(config, 0, 3), make_policy(config)
    region = _core.Region.create(workers=1, parameters=policy.n_params)
    session, observer = _core.Session(region, 0), _core.Session(region, 1)
    before = observer.heartbeat(0)
    collector.collect(policy, session)
    assert observer.heartbeat(0) == before + 7
    collector.collect(policy)
    assert observer.heartbeat(0) == before + 7
    session.close()
    with pytest.raises(_core.SessionClosed):
        collector.collect(policy, session)


def test_collectors_can_take_each_others_place():
    """What one has saved the other goes on from: so a checkpoint is that of either."""
    config = A2CConfig(seed=7, n_steps=40, max_episode_steps=60)
    policy = make_policy(config)
    python, native = Collector(config, 2, 3), NativeCollector(config, 2, 3)
    for _ in range(2):
        expected, rollout = python.collect(policy), native.collect(policy)
        assert np.array_equal(rollout.obs, expected.obs) and np.array_equal(rollout.actions, expected.actions)
        for name in ("values", "advantages", "returns"):
            np.testing.assert_allclose(getattr(rollout, name), getattr(expected, name), atol=1e-5)
        assert rollout.episodes == expected.episodes and rollout.env_steps == 120
        saved = python.get_state(), native.get_state()
        assert saved[0].keys() == saved[1].keys()
        python.set_state(saved[1])
        native.set_state(saved[0])
    kept = rollout.obs.copy()
    native.collect(policy)
    assert np.array_equal(rollout.obs, kept)  # new arrays each time


@pytest.mark.parametrize("kind", [Collector, NativeCollector])
@pytest.mark.parametrize("how", [copy.deepcopy, lambda collector: pickle.loads(pickle.dumps(collector))])
def test_a_copy_goes_on_where_the_collector_is(how, kind):
    config = A2CConfig(seed=7, n_steps=40)
    policy, collector = make_policy(config), kind(config, 2, 3)
    collector.collect(policy)
    twin = how(collector)
    assert np.array_equal(twin.collect(policy).obs, collector.collect(policy).obs)


@pytest.mark.parametrize("kind", [Collector, NativeCollector])
def test_without_a_seed(kind):
    with pytest.raises(ValueError, match="resolve_seed"):
        kind(A2CConfig(), 0, 1)
