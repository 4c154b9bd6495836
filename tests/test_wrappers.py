"""Gymnasium's vector wrappers around the native CartPole give what they give around SyncVectorEnv of CartPole-v1."""

import gymnasium
import numpy as np
import pytest
import torch
from equality import assert_same
from gymnasium.spaces import Box
from gymnasium.wrappers import TransformAction as TransformOneAction
from gymnasium.wrappers import TransformObservation as TransformOneObservation
from gymnasium.wrappers import TransformReward as TransformOneReward
from gymnasium.wrappers import vector as wrappers

from fastac.env import ENV_ID, AutoresetMode

N = 5
pytestmark = pytest.mark.skipif(
    not hasattr(gymnasium.vector, "AutoresetMode"), reason="this gymnasium knows one autoreset mode only"
)


def stack_of_ppo(envs):
    """In the order in which PPO implementations put them."""
    envs = wrappers.RecordEpisodeStatistics(envs)
    envs = wrappers.NormalizeObservation(envs)
    envs = wrappers.TransformObservation(envs, lambda obs: np.clip(obs, -10, 10))
    envs = wrappers.NormalizeReward(envs, gamma=0.9)
    return wrappers.ClipReward(envs, -10, 10)


def doubled(obs):
    return np.array([obs, obs])


# Those that make sense for a Box of four numbers and two actions: not for images, dicts or actions out of a Box.
OF_OBSERVATIONS = {
    "NormalizeObservation": wrappers.NormalizeObservation,
    "TransformObservation": lambda envs: wrappers.TransformObservation(envs, lambda obs: 2 * obs),
    "VectorizeTransformObservation": lambda envs: wrappers.VectorizeTransformObservation(
        envs, TransformOneObservation, func=doubled, observation_space=Box(-np.inf, np.inf, (2, 4))
    ),
    "VectorizeTransformObservation, in place": lambda envs: wrappers.VectorizeTransformObservation(
        envs, TransformOneObservation, func=lambda obs: -obs, observation_space=envs.single_observation_space
    ),
    "FlattenObservation": wrappers.FlattenObservation,
    "ReshapeObservation": lambda envs: wrappers.ReshapeObservation(envs, (2, 2)),
    "DtypeObservation": lambda envs: wrappers.DtypeObservation(envs, np.float64),
    "those of PPO": stack_of_ppo,
}
OTHERS = {
    "RecordEpisodeStatistics": wrappers.RecordEpisodeStatistics,
    "DictInfoToList": wrappers.DictInfoToList,
    "DictInfoToList of RecordEpisodeStatistics": lambda envs: wrappers.DictInfoToList(
        wrappers.RecordEpisodeStatistics(envs)
    ),
    "TransformAction": lambda envs: wrappers.TransformAction(envs, lambda actions: 1 - actions),
    "VectorizeTransformAction": lambda envs: wrappers.VectorizeTransformAction(
        envs, TransformOneAction, func=lambda action: 1 - action, action_space=envs.single_action_space
    ),
    "TransformReward": lambda envs: wrappers.TransformReward(envs, lambda rewards: 3 * rewards),
    "VectorizeTransformReward": lambda envs: wrappers.VectorizeTransformReward(
        envs, TransformOneReward, func=lambda reward: 3 * reward
    ),
    "ClipReward": lambda envs: wrappers.ClipReward(envs, 0.0, 0.5),
    "NormalizeReward": wrappers.NormalizeReward,
}
ALL = OF_OBSERVATIONS | OTHERS
CASES = [(name, AutoresetMode.NEXT_STEP) for name in ALL] + [(name, AutoresetMode.SAME_STEP) for name in OTHERS]


def pair(wrapper, mode=AutoresetMode.NEXT_STEP, max_episode_steps=25):
    options = {"num_envs": N, "max_episode_steps": max_episode_steps}
    ours = gymnasium.make_vec(ENV_ID, autoreset_mode=mode, **options)
    theirs = gymnasium.make_vec(
        "CartPole-v1", vectorization_mode="sync", vector_kwargs={"autoreset_mode": mode}, **options
    )
    return wrapper(ours), wrapper(theirs)


def without_times(infos):
    for info in infos if isinstance(infos, list) else [infos]:
        info.get("episode", {}).pop("t", None)
    return infos


def assert_both_play_the_same(ours, theirs, env_steps=150):
    """One seed, the same random actions; returns how many episodes ended in each way."""
    assert_same(ours.reset(seed=3), theirs.reset(seed=3))
    rng, terminated, truncated = np.random.default_rng(0), 0, 0
    for _ in range(env_steps):
        actions = rng.integers(0, 2, N)
        *mine, my_infos = ours.step(actions.copy())
        *others, infos = theirs.step(actions.copy())
        assert_same(mine, others)
        assert_same(without_times(my_infos), without_times(infos))
        terminated, truncated = terminated + mine[2].sum(), truncated + mine[3].sum()
    assert ours.observation_space == theirs.observation_space
    assert ours.single_observation_space == theirs.single_observation_space
    return terminated, truncated


@pytest.mark.parametrize(("name", "mode"), CASES, ids=[f"{name}-{mode.name}" for name, mode in CASES])
def test_wrapper_gives_what_it_gives_around_sync_vector_env(name, mode):
    terminated, truncated = assert_both_play_the_same(*pair(ALL[name], mode))
    assert terminated > 5 and truncated > 5


@pytest.mark.parametrize("name", OF_OBSERVATIONS)
def test_wrappers_of_observations_refuse_same_step(name):
    """Gymnasium's rule: they would leave the final observations as they are."""
    for envs in pair(lambda envs: envs, AutoresetMode.SAME_STEP):
        with pytest.raises((ValueError, AssertionError)):  # the latter in older versions
            ALL[name](envs)


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP], ids=lambda mode: mode.name)
def test_queues_of_record_episode_statistics(mode):
    ours, theirs = pair(wrappers.RecordEpisodeStatistics, mode)
    assert_both_play_the_same(ours, theirs)
    assert list(ours.return_queue) == list(theirs.return_queue)
    assert list(ours.length_queue) == list(theirs.length_queue)
    assert ours.episode_count == theirs.episode_count > 10


def test_statistics_of_envs_that_are_reset_one_by_one():
    """Gymnasium's SyncVectorEnv takes the mask out of the options, so that its wrapper counts all envs from zero."""
    envs, _ = pair(wrappers.RecordEpisodeStatistics, AutoresetMode.DISABLED, max_episode_steps=500)
    envs.reset(seed=0)
    rng, returns = np.random.default_rng(0), np.zeros(N)
    episodes = 0
    for _ in range(200):
        _, rewards, terminated, _, infos = envs.step(rng.integers(0, 2, N))
        returns += rewards
        if terminated.any():
            episodes += terminated.sum()
            assert_same(infos["episode"]["r"], np.where(terminated, returns, 0.0))
            envs.reset(options={"reset_mask": terminated.copy()})
            returns[terminated] = 0
    assert episodes > 10


def test_frozen_normalization_goes_with_a_copy_of_its_statistics():
    """As in an evaluation beside a training."""
    ours, theirs = pair(wrappers.NormalizeObservation)
    assert_both_play_the_same(ours, theirs)
    for env in (ours, theirs):
        env.update_running_mean = False
    assert_both_play_the_same(ours, theirs)
    assert ours.obs_rms.count == theirs.obs_rms.count


def test_tensors_are_those_from_sync_vector_env():
    ours, theirs = pair(lambda envs: wrappers.NumpyToTorch(wrappers.RecordEpisodeStatistics(envs)))
    rng = np.random.default_rng(0)
    for results in (ours.reset(seed=3), theirs.reset(seed=3)):
        assert results[0].dtype == torch.float32
    for _ in range(100):
        actions = torch.from_numpy(rng.integers(0, 2, N))
        *mine, _ = ours.step(actions)
        *others, _ = theirs.step(actions)
        assert_same([tensor.numpy() for tensor in mine], [tensor.numpy() for tensor in others])


def test_wrappers_of_one_env_inside_sync_vector_env():
    make = [gymnasium.wrappers.TimeAwareObservation, gymnasium.wrappers.RecordEpisodeStatistics]
    ours, theirs = (
        gymnasium.make_vec(name, num_envs=N, vectorization_mode="sync", wrappers=make, max_episode_steps=25)
        for name in (ENV_ID, "CartPole-v1")
    )
    terminated, truncated = assert_both_play_the_same(ours, theirs)
    assert terminated > 5 and truncated > 5
