"""How good a policy is: mean return over episodes played without learning."""

from __future__ import annotations

from typing import Any, Literal, overload

import numpy as np

from fastac import seeding
from fastac.algorithm import Algorithm
from fastac.errors import ConfigError
from fastac.problem import close_batch, make_batch, other_envs


@overload
def evaluate_policy(
    model: Algorithm,
    env: Any = ...,
    n_eval_episodes: int = ...,
    *,
    deterministic: bool = ...,
    seed: int | None = ...,
    return_episode_rewards: Literal[False] = ...,
) -> tuple[float, float]: ...
@overload
def evaluate_policy(
    model: Algorithm,
    env: Any = ...,
    n_eval_episodes: int = ...,
    *,
    deterministic: bool = ...,
    seed: int | None = ...,
    return_episode_rewards: Literal[True],
) -> tuple[list[float], list[int]]: ...


def evaluate_policy(
    model: Algorithm,
    env: Any = None,
    n_eval_episodes: int = 10,
    *,
    deterministic: bool = True,
    seed: int | None = None,
    return_episode_rewards: bool = False,
) -> tuple[float, float] | tuple[list[float], list[int]]:
    """Plays episodes without learning: as many in each env, so that short ones do not count more often.

    Args:
        env: what to play in, an id, a function that makes one, an env or a vector env; the model's own kind if None,
            one for each episode. Rewards are those of the env, whatever the model normalises.
        n_eval_episodes: in all.
        deterministic: take the most probable action instead of sampling.
        seed: of the initial states and of the actions that are sampled; drawn from the system if None.
        return_episode_rewards: return each episode's return and length instead.

    Returns:
        (mean, standard deviation) of the returns; or (returns, lengths), in the order in which the episodes ended.

    Raises:
        ConfigError: n_eval_episodes < 1, or an env that is not of the model's spaces, or that it is training in.
    """
    if isinstance(env, int):
        raise ConfigError(f"env: expected an env, got {env}: for a number of episodes use n_eval_episodes={env}")
    if n_eval_episodes < 1:
        raise ConfigError(f"n_eval_episodes: expected a whole number >= 1, got {n_eval_episodes}")
    problem = other_envs(model.problem, env)
    n_envs = n_eval_episodes if problem.envs is None else problem.envs.num_envs
    envs = make_batch(model.config, problem, seeding.play_words(seed, n_envs))
    try:
        every_return, every_length = _play(model, envs, n_eval_episodes, deterministic, seeding.play_stream(seed))
    finally:
        close_batch(envs)
    if return_episode_rewards:
        return every_return, every_length
    return float(np.mean(every_return)), float(np.std(every_return))


def _play(
    model: Algorithm, envs: Any, n_episodes: int, deterministic: bool, random: np.random.Generator
) -> tuple[list[float], list[int]]:
    """Returns and lengths of the episodes, in the order in which they ended."""
    n_envs = envs.num_envs
    to_play = np.array([(n_episodes + i) // n_envs for i in range(n_envs)])
    returns, lengths = np.zeros(n_envs), np.zeros(n_envs, np.int64)
    every_return: list[float] = []
    every_length: list[int] = []
    state, start = None, np.ones(n_envs, np.bool_)
    while to_play.any():
        actions, state = model.choose(envs.obs, deterministic, state, start, random)
        envs.step(actions)
        returns += envs.reward
        lengths += 1
        start = envs.terminated | envs.truncated
        for i in np.flatnonzero(start & (to_play > 0)):
            every_return.append(float(returns[i]))
            every_length.append(int(lengths[i]))
        to_play -= start & (to_play > 0)
        returns[start], lengths[start] = 0.0, 0
    return every_return, every_length
