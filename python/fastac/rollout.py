"""Stage 2. A policy and its envs in -> T steps of N envs, with the final observations of episodes that were cut.

Before it: env/ and policy.py. After it: returns.py and objective.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fastac import _core, returns, seeding
from fastac.config import Config
from fastac.groups import Arrays, native_worker
from fastac.normalization import SharedStatistics
from fastac.policy import FlatPolicy, no_memory
from fastac.problem import CARTPOLE_PROBLEM, Problem, make_batch

Float32 = npt.NDArray[np.float32]


@dataclass
class Rollout:
    """T steps of N envs under one frozen policy. A Collector reuses its arrays in its next rollout."""

    obs: npt.NDArray[Any]  # [T, N, *obs_shape], what the policy saw
    actions: npt.NDArray[Any]  # [T, N, ...], int64 or float32
    values: Float32  # [T, N], V(obs) of the acting policy, in units of scaled reward
    advantages: Float32  # [T, N]
    returns: Float32  # [T, N], what the value function is fitted to
    episodes: list[tuple[float, int]] = field(default_factory=list)  # (return, length) of those that ended
    memory: Float32 | None = None  # [N, S], what the policy remembered at its start; None where it remembers nothing
    done: npt.NDArray[np.bool_] | None = None  # [T, N], where an episode ended; of a policy that remembers

    @property
    def env_steps(self) -> int:
        return self.values.size


class Collector:
    """N envs and the streams their actions are sampled from, stepped T at a time: for any policy and any env.

    Envs are numbered over all workers from `first`; each has its own stream for initial states and its own for
    actions, so that what env e lives through does not depend on which worker or batch holds it.
    """

    def __init__(
        self,
        config: Config,
        first: int,
        n_envs: int,
        call: int = 0,
        incarnation: int = 0,
        problem: Problem = CARTPOLE_PROBLEM,
    ) -> None:
        if config.seed is None:
            raise ValueError("expected a config with a seed: use config.resolve_seed()")
        self.config = config
        self.first = first
        self._problem = problem
        self.envs = make_batch(config, problem, seeding.env_words(config.seed, call, first, n_envs, incarnation))
        self._actions = _core.UniformStreams(seeding.action_words(config.seed, call, first, n_envs, incarnation))
        self._noise: npt.NDArray[np.float64] | None = None  # uniform numbers of which actions are made, in use
        self._noise_age = 0  # for as many env steps
        self._memory = no_memory(config, problem.module, n_envs)  # what the policy remembers of each env
        self._return = np.zeros(n_envs)
        self._length = np.zeros(n_envs, np.int64)
        self._discounted = np.zeros(n_envs)
        shape = (config.n_steps, n_envs)
        action_shape, action_dtype = problem.spaces.actions.buffer
        obs_dtype = np.float32 if config.normalize_observation else np.dtype(problem.spaces.obs_dtype)
        self._obs: npt.NDArray[Any] = np.empty((*shape, *problem.spaces.obs_shape), obs_dtype)
        self._seen = self._obs if not config.normalize_observation else np.empty_like(self._obs)  # as the envs gave it
        self._taken: npt.NDArray[Any] = np.empty((*shape, *action_shape), action_dtype)
        self._values = np.empty(shape, np.float32)
        self._final_values = np.zeros(shape, np.float32)
        self._rewards = np.empty(shape, np.float32)
        self._terminated = np.empty(shape, np.bool_)
        self._truncated = np.empty(shape, np.bool_)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, a pickled one too, goes on where this one is."""
        return _collector_at, (self.config, self.first, self.envs.num_envs, self._problem, self.get_state())

    @np.errstate(over="ignore", invalid="ignore")  # a policy that diverges is told by its gradient, not by warnings
    def collect(
        self, policy: FlatPolicy, session: _core.Session | None = None, shared: SharedStatistics | None = None
    ) -> Rollout:
        """Acts T steps in each env with `policy` as it is, and works out returns and advantages.

        `session`: whose seat gives a sign of life with each step. `shared`: what normalises, and learns of it.
        """
        envs, config, distribution = self.envs, self.config, policy.distribution
        normalized = _as_they_are if shared is None else shared.read().normalized_obs
        before, memory = self._memory, self._memory
        episodes: list[tuple[float, int]] = []
        for t in range(config.n_steps):
            self._obs[t] = normalized(envs.obs)
            if self._seen is not self._obs:
                self._seen[t] = envs.obs
            acted = policy.act(self._obs[t], memory)
            self._values[t], memory = acted.values, acted.memory
            self._taken[t] = distribution.sample(acted.parameters, self._uniforms(distribution.n_uniforms))
            envs.step(self._taken[t])
            self._rewards[t] = envs.reward
            self._terminated[t] = envs.terminated
            self._truncated[t] = envs.truncated
            if (cut := envs.truncated & ~envs.terminated).any():
                remembered = None if memory is None else memory[cut]
                self._final_values[t, cut] = policy.values(normalized(envs.final_obs[cut]), remembered)
            self._count_episodes(episodes)
            if memory is not None:
                memory = memory * ~(envs.terminated | envs.truncated)[:, None]
            if session is not None:
                session.beat()
        self._memory = memory
        last_values = policy.values(normalized(envs.obs), memory)
        rewards = self._rewards
        if shared is not None:
            rewards = shared.add(self._seen, self._discounted_returns()).normalized_rewards(rewards)
        return self._rollout(rewards, last_values, before, episodes)

    def _uniforms(self, n: int) -> npt.NDArray[np.float64]:
        """Of which actions are made, in [0, 1), [N, n]: of each env's own stream, kept for `noise_steps`."""
        if self._noise is None or self._noise_age == self.config.noise_steps:
            self._noise, self._noise_age = np.stack([self._actions.random() for _ in range(n)], axis=1), 0
        self._noise_age += 1
        return self._noise

    def _rollout(
        self, rewards: Float32, last_values: Float32, memory: Float32 | None, episodes: list[tuple[float, int]]
    ) -> Rollout:
        """What was collected, with returns and advantages. `memory`: that of its start."""
        config = self.config
        done = self._terminated | self._truncated
        successors = returns.successor_values(
            self._values, last_values, self._final_values, self._terminated, self._truncated
        )
        advantages, targets = returns.gae(
            rewards * np.float32(config.reward_scale), self._values, successors, done, config.gamma, config.gae_lambda
        )
        if config.normalize_advantage:
            advantages = returns.normalized(advantages)
        return Rollout(self._obs, self._taken, self._values, advantages, targets, episodes, memory, done)

    def _discounted_returns(self) -> npt.NDArray[np.float64]:
        """sum over k of gamma^k * reward[t - k] in each episode, [T, N]: that whose deviation scales rewards, as in
        Stable-Baselines3's VecNormalize."""
        out, done = np.empty(self._rewards.shape), self._terminated | self._truncated
        for t, reward in enumerate(self._rewards):
            self._discounted = self.config.gamma * self._discounted + reward
            out[t] = self._discounted
            self._discounted[done[t]] = 0.0
        return out

    def get_state(self) -> Arrays:
        """Copies of all that decides the next rollouts, one row for each env; for `set_state`, between two rollouts.

        Raises TypeError for envs that are not native: they cannot be saved.
        """
        if not isinstance(self.envs, _core.CartPole):
            raise TypeError("get_state: expected native envs; those of Gymnasium cannot be saved")
        envs = self.envs.get_state()
        state = {
            "env_state": np.ascontiguousarray(envs["state"].T),  # float64[N, 4]
            "env_elapsed": envs["elapsed"],  # int64[N]
            "env_status": envs["status"],  # uint8[N]
            "env_stream": envs["rng"],  # uint64[N, 4]
            "action_stream": self._actions.state,  # uint64[N, 4]
            "episode_return": self._return.copy(),  # float64[N], of the episodes under way
            "episode_length": self._length.copy(),  # int64[N]
        }
        if self.config.normalize_reward or self.config.normalize_observation:
            state["discounted_return"] = self._discounted.copy()  # float64[N]
        if self._memory is not None:
            state["memory"] = self._memory.copy()  # float32[N, S]
        return state

    def set_state(self, saved: Arrays) -> None:
        """Goes on, bit for bit, where `get_state` was called. Raises KeyError, TypeError or ValueError for no state."""
        assert isinstance(self.envs, _core.CartPole)
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
        if "discounted_return" in saved:
            self._discounted[:] = saved["discounted_return"]
        if self._memory is not None:
            self._memory = saved["memory"].copy()

    def _count_episodes(self, episodes: list[tuple[float, int]]) -> None:
        self._return += self.envs.reward
        self._length += 1
        done = self.envs.terminated | self.envs.truncated
        if done.any():
            for i in np.flatnonzero(done):
                episodes.append((float(self._return[i]), int(self._length[i])))
            self._return[done] = 0.0
            self._length[done] = 0


def _as_they_are(obs: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return obs


def _collector_at(config: Config, first: int, n_envs: int, problem: Problem, state: Arrays) -> Collector:
    collector = Collector(config, first, n_envs, problem=problem)
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
