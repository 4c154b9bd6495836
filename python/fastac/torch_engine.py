"""The torch engine: rollouts in C++, the gradient by autograd. See engines.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fastac import _core
from fastac.config import Config, scheduled
from fastac.groups import Groups
from fastac.normalization import SharedStatistics, Statistics
from fastac.objective import compute_gradient
from fastac.policy import FlatPolicy, make_policy
from fastac.problem import Problem, close_batch
from fastac.rollout import Collector, NativeCollector
from fastac.updates import Recorder


@dataclass
class TorchEngine:
    """The envs of one worker. Each run gets a policy of its own, whose parameters are those that it reads."""

    config: Config
    groups: Groups[Collector] | Groups[NativeCollector]
    problem: Problem

    def begin(self, session: _core.Session, workers: int, statistics: Statistics) -> _TorchLoop:
        policy = make_policy(self.config, None, self.problem.spaces, self.problem.module)
        policy.warm_up()
        shared = SharedStatistics(session, workers, statistics) if statistics.wanted else None
        return _TorchLoop(self, policy, session, shared)

    def close(self) -> None:
        """Closes the envs that were made here; nothing may follow."""
        for collector in self.groups.members:
            if isinstance(collector, Collector):
                close_batch(collector.envs)


class _TorchLoop:
    def __init__(
        self, engine: TorchEngine, policy: FlatPolicy, session: _core.Session, shared: SharedStatistics | None
    ) -> None:
        self._engine = engine
        self._policy = policy
        self._session = session
        self._shared = shared
        self._recorder = Recorder(session, session.seat)

    def run(self, total_timesteps: int, most_updates: int = 0) -> bool:
        """One update."""
        session, policy, config = self._session, self._policy, self._engine.config
        if session.stop_requested:
            return False
        version, env_steps = session.read(policy.params)
        if env_steps >= total_timesteps:
            return False
        learning_rate = scheduled(config.lr_schedule, config.learning_rate, env_steps / total_timesteps)
        ent_coef = scheduled(config.ent_schedule, config.ent_coef, env_steps / total_timesteps)

        collector = self._engine.groups.current
        if isinstance(collector, NativeCollector):
            rollout = collector.collect(policy, session)
        else:
            rollout = collector.collect(policy, session, self._shared)
        self._engine.groups.advance()
        stats = compute_gradient(policy, rollout, config, ent_coef)
        submitted = session.submit(
            policy.grad, version_read=version, env_steps=rollout.env_steps, learning_rate=learning_rate
        )
        self._recorder.record(rollout, stats, version, learning_rate, ent_coef, submitted)
        return True

    def flush(self, wait: Callable[[], None]) -> None:
        self._recorder.flush(wait)
