"""How good a policy is: mean return over episodes played without learning."""

from __future__ import annotations

from typing import Literal, overload

import numpy as np

from fastac import _core
from fastac.algorithm import Algorithm
from fastac.errors import ConfigError


@overload
def evaluate_policy(
    model: Algorithm,
    n_eval_episodes: int = ...,
    *,
    deterministic: bool = ...,
    seed: int | None = ...,
    return_episode_rewards: Literal[False] = ...,
) -> tuple[float, float]: ...
@overload
def evaluate_policy(
    model: Algorithm,
    n_eval_episodes: int = ...,
    *,
    deterministic: bool = ...,
    seed: int | None = ...,
    return_episode_rewards: Literal[True],
) -> tuple[list[float], list[int]]: ...


def evaluate_policy(
    model: Algorithm,
    n_eval_episodes: int = 10,
    *,
    deterministic: bool = True,
    seed: int | None = None,
    return_episode_rewards: bool = False,
) -> tuple[float, float] | tuple[list[float], list[int]]:
    """Plays `n_eval_episodes` episodes side by side, one in each of as many envs: short ones do not count more often.

    Args:
        deterministic: take the most probable action instead of sampling.
        seed: of the initial states; drawn from the system if None.
        return_episode_rewards: return each episode's return and length instead.

    Returns:
        (mean, standard deviation) of the returns; or (returns, lengths).

    Raises:
        ConfigError: n_eval_episodes < 1.
    """
    if n_eval_episodes < 1:
        raise ConfigError(f"n_eval_episodes: expected a whole number >= 1, got {n_eval_episodes}")
    envs = _core.CartPole(n_eval_episodes, model.config.max_episode_steps, "same_step")
    words = [child.generate_state(4, np.uint64) for child in np.random.SeedSequence(seed).spawn(n_eval_episodes)]
    envs.seed(np.arange(n_eval_episodes), np.stack(words))
    envs.reset()
    returns, lengths = np.zeros(n_eval_episodes), np.zeros(n_eval_episodes, np.int64)
    playing = np.ones(n_eval_episodes, np.bool_)
    while playing.any():
        actions, _ = model.predict(envs.obs, deterministic)
        envs.step(actions)
        returns[playing] += envs.reward[playing]
        lengths[playing] += 1
        playing &= ~(envs.terminated | envs.truncated)
    if return_episode_rewards:
        return returns.tolist(), lengths.tolist()
    return float(returns.mean()), float(returns.std())
