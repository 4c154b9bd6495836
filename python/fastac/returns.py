"""Stage 3, first half. Rewards and values of a rollout in -> returns and advantages [T, N] out.

Before it: rollout.py. After it: objective.py. Pure functions on numpy arrays. T is the rollout length, N the envs.
"""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Floating = TypeVar("Floating", np.float32, np.float64)
Bool = npt.NDArray[np.bool_]


def successor_values(
    values: npt.NDArray[Floating],
    last_values: npt.NDArray[Floating],
    final_values: npt.NDArray[Floating],
    terminated: Bool,
    truncated: Bool,
) -> npt.NDArray[Floating]:
    """What each step may expect from the state that followed it: the one place that decides what is bootstrapped.

    * terminated: 0, whether truncated at the same step or not. The episode is over, nothing follows.
    * truncated: V(final observation). The episode went on, we only stopped watching.
    * otherwise: V(next observation).

    Args:
        values: V(obs[t]), [T, N].
        last_values: V of the observation after the last step, [N].
        final_values: V of the final observation where truncated, [T, N]; read nowhere else.
        terminated: [T, N].
        truncated: [T, N].

    Returns:
        [T, N], a new array.
    """
    following = np.concatenate([values[1:], last_values[None]])
    following = np.where(truncated, final_values, following)
    return np.where(terminated, np.zeros_like(following), following)


def gae(
    rewards: npt.NDArray[Floating],
    values: npt.NDArray[Floating],
    successors: npt.NDArray[Floating],
    done: Bool,
    gamma: float,
    gae_lambda: float,
) -> tuple[npt.NDArray[Floating], npt.NDArray[Floating]]:
    """Generalised advantage estimation and the returns that the value function is fitted to.

        delta[t] = rewards[t] + gamma * successors[t] - values[t]
        advantages[t] = delta[t] + gamma * gae_lambda * (not done[t]) * advantages[t + 1]
        returns[t] = advantages[t] + values[t]

    With gae_lambda = 1 the returns are the n-step returns of A3C: discounted rewards up to the end of the rollout
    or of the episode, then `successors` there. Source: Schulman et al. 2016, arXiv:1506.02438, equations 11 and 16.

    Args:
        rewards, values: [T, N].
        successors: from `successor_values`, [T, N].
        done: terminated or truncated, [T, N]: nothing flows back over the end of an episode.

    Returns:
        advantages [T, N] and returns [T, N], new arrays.

    Raises:
        ValueError: if the shapes differ.
    """
    if not rewards.shape == values.shape == successors.shape == done.shape:
        raise ValueError(
            "expected rewards, values, successors and done of one shape [T, N], "
            f"got {rewards.shape}, {values.shape}, {successors.shape}, {done.shape}"
        )
    discount = rewards.dtype.type(gamma)
    decay = np.where(done, 0.0, gamma * gae_lambda).astype(rewards.dtype)
    advantages = rewards + discount * successors - values
    for t in range(len(rewards) - 2, -1, -1):
        advantages[t] += decay[t] * advantages[t + 1]
    return advantages, advantages + values


def v_trace(
    rewards: npt.NDArray[Floating],
    values: npt.NDArray[Floating],
    successors: npt.NDArray[Floating],
    done: Bool,
    ratios: npt.NDArray[Floating],
    gamma: float,
    gae_lambda: float,
) -> tuple[npt.NDArray[Floating], npt.NDArray[Floating]]:
    """Advantages and returns of a rollout that another policy acted: V-trace with both truncation levels at 1.

        rho[t] = min(1, ratios[t])
        delta[t] = rewards[t] + gamma * successors[t] - values[t]
        advantages[t] = rho[t] * (delta[t] + gamma * gae_lambda * (not done[t]) * advantages[t + 1])
        returns[t] = advantages[t] + values[t]

    The returns are the targets v_s of Espeholt et al. 2018, arXiv:1802.01561, equation 1, with c = gae_lambda * rho.
    With gae_lambda = 1 the advantages are theirs, too: rho[t] * (rewards[t] + gamma * v[t + 1] - values[t]). With less,
    that formula would take v[t + 1], itself a lambda-return, at its full weight, and would not be GAE under equal
    policies; here v[t + 1] and values[t + 1] share it, gae_lambda to 1 - gae_lambda. So with ratios of 1 this is `gae`,
    for any gae_lambda. The native engine's kernel (Collector::reweigh) is tested against it.

    Args:
        rewards, values, successors, done: as of `gae`; values of the policy that learns.
        ratios: pi(action | obs) of the policy that learns to that of the one that acted, [T, N].

    Returns:
        advantages [T, N] and returns [T, N], new arrays.

    Raises:
        ValueError: if the shapes differ.
    """
    if not rewards.shape == values.shape == successors.shape == done.shape == ratios.shape:
        raise ValueError(
            "expected rewards, values, successors, done and ratios of one shape [T, N], "
            f"got {rewards.shape}, {values.shape}, {successors.shape}, {done.shape}, {ratios.shape}"
        )
    rho = np.minimum(ratios, ratios.dtype.type(1))
    decay = np.where(done, 0.0, gamma * gae_lambda).astype(rewards.dtype)
    advantages = rewards + rewards.dtype.type(gamma) * successors - values
    advantages[-1:] *= rho[-1:]
    for t in range(len(rewards) - 2, -1, -1):
        advantages[t] = rho[t] * (advantages[t] + decay[t] * advantages[t + 1])
    return advantages, advantages + values


def normalized(advantages: npt.NDArray[Floating]) -> npt.NDArray[Floating]:
    """Minus their mean, by their standard deviation over the rollout; a new array."""
    mean, variance = mean_and_variance(advantages)
    out: npt.NDArray[Floating] = (advantages - advantages.dtype.type(mean)) / (
        advantages.dtype.type(math.sqrt(variance) + 1e-8)
    )
    return out


def explained_variance(values: npt.NDArray[Floating], returns: npt.NDArray[Floating]) -> float:
    """1 - Var(returns - values) / Var(returns): 1 for a perfect value function, NaN where the returns do not vary."""
    variance = mean_and_variance(returns)[1]
    return float("nan") if variance == 0.0 else 1.0 - mean_and_variance(returns - values)[1] / variance


def mean_and_variance(x: npt.NDArray[Floating]) -> tuple[float, float]:
    """Of all entries. For a few dozen of them np.mean and np.var take several times as long."""
    flat = x.ravel()
    mean = np.add.reduce(flat) / flat.dtype.type(flat.size)
    deviations = flat - mean
    return float(mean), float(np.add.reduce(deviations * deviations)) / flat.size
