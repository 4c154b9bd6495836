"""Stage 2. A policy and its envs in -> T steps of N envs, with the final observations of episodes that were cut.

Before it: env/ and policy.py. After it: returns.py and objective.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fastac import _core, returns, seeding
from fastac.config import Config
from fastac.groups import Arrays, native_worker
from fastac.mlp import OBS_DIM, sample
from fastac.policy import FlatPolicy

Float32 = npt.NDArray[np.float32]


@dataclass
class Rollout:
    """T steps of N envs under one frozen policy. A Collector reuses its arrays in its next rollout."""

    obs: Float32  # [T, N, 4], what the policy saw
    actions: npt.NDArray[np.int64]  # [T, N]
    values: Float32  # [T, N], V(obs) of the acting policy, in units of scaled reward
    advantages: Float32  # [T, N]
    returns: Float32  # [T, N], what the value function is fitted to
    episodes: list[tuple[float, int]] = field(default_factory=list)  # (return, length) of those that ended

    @property
    def env_steps(self) -> int:
        return self.actions.size


class Collector:
    """N native envs and the streams their actions are sampled from, stepped T at a time: for any policy.

    Envs are numbered over all workers from `first`; each has its own stream for initial states and its own for
    actions, so that what env e lives through does not depend on which worker or batch holds it.
    """

    def __init__(self, config: Config, first: int, n_envs: int, call: int = 0, incarnation: int = 0) -> None:
        if config.seed is None:
            raise ValueError("expected a config with a seed: use config.resolve_seed()")
        self.config = config
        self.first = first
        self.envs = _core.CartPole(n_envs, config.max_episode_steps, "same_step")
        self.envs.seed(np.arange(n_envs), seeding.env_words(config.seed, call, first, n_envs, incarnation))
        self.envs.reset()
        self._actions = _core.UniformStreams(seeding.action_words(config.seed, call, first, n_envs, incarnation))
        self._return = np.zeros(n_envs)
        self._length = np.zeros(n_envs, np.int64)
        shape = (config.n_steps, n_envs)
        self._obs = np.empty((*shape, OBS_DIM), np.float32)
        self._final_obs = np.empty((*shape, OBS_DIM), np.float32)
        self._taken = np.empty(shape, np.int64)
        self._values = np.empty(shape, np.float32)
        self._rewards = np.empty(shape, np.float32)
        self._terminated = np.empty(shape, np.bool_)
        self._truncated = np.empty(shape, np.bool_)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, a pickled one too, goes on where this one is."""
        return _collector_at, (self.config, self.first, self.envs.num_envs, self.get_state())

    @np.errstate(over="ignore", invalid="ignore")  # a policy that diverges is told by its gradient, not by warnings
    def collect(self, policy: FlatPolicy, beat: Callable[[], object] = lambda: None) -> Rollout:
        """Acts T steps in each env with `policy` as it is, and works out returns and advantages.

        `beat`: called after each step, for whoever watches.
        """
        envs, config = self.envs, self.config
        episodes: list[tuple[float, int]] = []
        for t in range(config.n_steps):
            self._obs[t] = envs.obs
            probabilities, self._values[t] = policy.act(self._obs[t])
            self._taken[t] = sample(probabilities, self._actions.random())
            envs.step(self._taken[t])
            self._rewards[t] = envs.reward
            self._terminated[t] = envs.terminated
            self._truncated[t] = envs.truncated
            self._final_obs[t] = envs.final_obs
            self._count_episodes(episodes)
            beat()
        successors = returns.successor_values(
            self._values,
            policy.values(envs.obs),
            self._final_values(policy),
            self._terminated,
            self._truncated,
        )
        advantages, targets = returns.gae(
            self._rewards * np.float32(config.reward_scale),
            self._values,
            successors,
            self._terminated | self._truncated,
            config.gamma,
            config.gae_lambda,
        )
        return Rollout(self._obs, self._taken, self._values, advantages, targets, episodes)

    def get_state(self) -> Arrays:
        """Copies of all that decides the next rollouts, one row for each env; for `set_state`, between two rollouts."""
        envs = self.envs.get_state()
        return {
            "env_state": np.ascontiguousarray(envs["state"].T),  # float64[N, 4]
            "env_elapsed": envs["elapsed"],  # int64[N]
            "env_status": envs["status"],  # uint8[N]
            "env_stream": envs["rng"],  # uint64[N, 4]
            "action_stream": self._actions.state,  # uint64[N, 4]
            "episode_return": self._return.copy(),  # float64[N], of the episodes under way
            "episode_length": self._length.copy(),  # int64[N]
        }

    def set_state(self, saved: Arrays) -> None:
        """Goes on, bit for bit, where `get_state` was called. Raises KeyError, TypeError or ValueError for no state."""
        self.envs.set_state(
            {
                "state": np.ascontiguousarray(saved["env_state"].T),
                "elapsed": saved["env_elapsed"],
                "status": saved["env_status"],
                "rng": saved["env_stream"],
            }
        )
        self._actions.state = saved["action_stream"]
        self._return[:] = saved["episode_return"]
        self._length[:] = saved["episode_length"]

    def _final_values(self, policy: FlatPolicy) -> Float32:
        """V of the final observations of truncated episodes [T, N]; zero elsewhere, where nobody reads it."""
        values = np.zeros_like(self._values)
        if self._truncated.any():
            values[self._truncated] = policy.values(self._final_obs[self._truncated])
        return values

    def _count_episodes(self, episodes: list[tuple[float, int]]) -> None:
        self._return += self.envs.reward
        self._length += 1
        done = self.envs.terminated | self.envs.truncated
        if done.any():
            for i in np.flatnonzero(done):
                episodes.append((float(self._return[i]), int(self._length[i])))
            self._return[done] = 0.0
            self._length[done] = 0


def _collector_at(config: Config, first: int, n_envs: int, state: Arrays) -> Collector:
    collector = Collector(config, first, n_envs)
    collector.set_state(state)
    return collector


class NativeCollector:
    """What a Collector does, for the MLP of the config: in C++, without the GIL, and equal to it but for rounding.

    tests/test_native.py holds both to that; tests/test_rollout.py holds the Collector to Gymnasium.
    """

    def __init__(self, config: Config, first: int, n_envs: int, call: int = 0, incarnation: int = 0) -> None:
        self.config = config
        self.first = first
        self._worker = native_worker(config, first, n_envs, call, incarnation)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, a pickled one too, goes on where this one is."""
        return _native_collector_at, (self.config, self.first, self.get_state())

    def collect(self, policy: FlatPolicy, session: _core.Session | None = None) -> Rollout:
        """Acts T steps in each env with `policy` as it is, and works out returns and advantages; new arrays.

        `session`: whose seat gives a sign of life with each step.
        """
        self._worker.collect(policy.params, session)
        return Rollout(**self._worker.rollout(), episodes=self._worker.episodes())

    def get_state(self) -> Arrays:
        """That of a Collector."""
        return self._worker.get_state()

    def set_state(self, saved: Arrays) -> None:
        """Goes on, bit for bit, where `get_state` was called. Raises KeyError, TypeError or ValueError for no state."""
        self._worker.set_state(saved)


def _native_collector_at(config: Config, first: int, state: Arrays) -> NativeCollector:
    collector = NativeCollector(config, first, len(state["env_elapsed"]))
    collector.set_state(state)
    return collector
