"""Running means and variances, shared between workers: what observations and rewards are normalised by.

Each worker adds up what it has seen in a slot of its own (statistics.hpp), and reads everyone's before a rollout: so
nothing is lost where one dies, and nobody waits. Within a rollout they stand still, like the parameters.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastac import _core
from fastac.config import Config
from fastac.spaces import Spaces

Floats = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]

CLIP = 10.0  # of what is normalised, as usual since OpenAI's baselines
_EPSILON = 1e-8


@dataclass
class Moments:
    """Count, mean float64[D] and sum of squared deviations float64[D]."""

    count: float
    mean: Floats
    squares: Floats

    @classmethod
    def of(cls, x: npt.NDArray[Any]) -> Moments:
        """Of the rows of x [M, D]."""
        x = x.astype(np.float64)
        mean = x.mean(axis=0)
        return cls(float(len(x)), mean, ((x - mean) ** 2).sum(axis=0))

    def __add__(self, other: Moments) -> Moments:
        """Of both together: Chan, Golub & LeVeque 1979, "Updating formulae and a pairwise algorithm"."""
        count = self.count + other.count
        if count == 0.0:
            return self
        apart = other.mean - self.mean
        mean = self.mean + apart * (other.count / count)
        squares = self.squares + other.squares + apart * apart * (self.count * other.count / count)
        return Moments(count, mean, squares)

    @property
    def variance(self) -> Floats:
        """Of the whole population; 1 where nothing has been seen."""
        return self.squares / self.count if self.count else np.ones_like(self.squares)

    @property
    def scale(self) -> Floats:
        """The standard deviation, above zero."""
        return np.sqrt(self.variance + _EPSILON)

    def pack(self) -> Floats:
        """float64[1 + 2 D]."""
        return np.concatenate([[self.count], self.mean, self.squares])

    @classmethod
    def unpack(cls, packed: Floats) -> Moments:
        d = len(packed) // 2
        return cls(float(packed[0]), packed[1 : 1 + d].copy(), packed[1 + d :].copy())


@dataclass
class Statistics:
    """Of observations and of discounted returns; whichever is not normalised stays empty."""

    obs: Moments
    returns: Moments
    config: Config

    @classmethod
    def empty(cls, config: Config, spaces: Spaces) -> Statistics:
        return cls.unpack(np.zeros(size_of(config, spaces)), config)

    def __add__(self, other: Statistics) -> Statistics:
        return Statistics(self.obs + other.obs, self.returns + other.returns, self.config)

    def pack(self) -> Floats:
        """float64[size_of(config, spaces)]."""
        return np.concatenate([self.obs.pack(), self.returns.pack()]) if self.wanted else np.zeros(0)

    @classmethod
    def unpack(cls, packed: Floats, config: Config) -> Statistics:
        if not len(packed):
            return cls(Moments.unpack(np.zeros(1)), Moments.unpack(np.zeros(1)), config)
        return cls(Moments.unpack(packed[:-3]), Moments.unpack(packed[-3:]), config)

    @property
    def wanted(self) -> bool:
        return self.config.normalize_observation or self.config.normalize_reward

    def normalized_obs(self, obs: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """obs [N, *obs_shape] as the policy sees it: float32, within +-CLIP; as it is if that is not wanted."""
        if not self.config.normalize_observation or not self.obs.count:
            return obs
        shape = obs.shape[1:]
        mean, scale = self.obs.mean.reshape(shape), self.obs.scale.reshape(shape)
        return np.clip((obs - mean) / scale, -CLIP, CLIP).astype(np.float32)

    def normalized_rewards(self, rewards: Float32) -> Float32:
        """Divided by the standard deviation of the discounted return, within +-CLIP; their mean, and so their sign,
        stays."""
        if not self.config.normalize_reward:
            return rewards
        return np.clip(rewards / self.returns.scale, -CLIP, CLIP).astype(np.float32)


def size_of(config: Config, spaces: Spaces) -> int:
    """Numbers in packed statistics; 0 where nothing is normalised."""
    if not (config.normalize_observation or config.normalize_reward):
        return 0
    return (1 + 2 * spaces.obs_size * config.normalize_observation) + 3


class SharedStatistics:
    """Those of a run, as one of its workers sees them: `before`, what the model knew when the run began, and what every
    worker has seen since, its own with what a dead one in its seat has left."""

    def __init__(self, session: _core.Session, workers: int, before: Statistics) -> None:
        self._session = session
        self._workers = workers
        self._before = before
        self._own = self._of(session.seat)

    def _of(self, worker: int) -> Statistics:
        return Statistics.unpack(self._session.statistics(worker), self._before.config)

    def read(self) -> Statistics:
        """Of all workers."""
        return all_of(self._before, (self._of(worker) for worker in range(self._workers)))

    def add(self, obs: npt.NDArray[Any], discounted_returns: Floats) -> Statistics:
        """What this worker saw in a rollout, obs [T, N, *obs_shape] and discounted returns [T, N]; returns all's."""
        config = self._before.config
        if config.normalize_observation:
            self._own.obs += Moments.of(obs.reshape(discounted_returns.size, -1))
        self._own.returns += Moments.of(discounted_returns.reshape(-1, 1))
        self._session.write_statistics(self._own.pack())
        return self.read()


def all_of(before: Statistics, others: Iterable[Statistics]) -> Statistics:
    """The sum, in this order."""
    total = before
    for its in others:
        total = total + its
    return total
