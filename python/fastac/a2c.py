"""A2C: all envs in one batch, one update for each rollout. a3c.py has the same verbs in the same order."""

from __future__ import annotations

from itertools import cycle
from typing import Any

from fastac import _core
from fastac.algorithm import Algorithm, config_from
from fastac.config import A2CConfig, schedule
from fastac.objective import compute_gradient
from fastac.progress import WaitingProgress
from fastac.rollout import Collector
from fastac.updates import Recorder, Run


class A2C(Algorithm):
    """Synchronous advantage actor-critic: the batched form of Mnih et al. 2016, arXiv:1602.01783.

    A run is reproducible to the last bit from its seed. With `split=k` the envs form k groups that
    update in turn, each from fresh parameters: the update size of A3C without its staleness.

    Args:
        env: "CartPole-v1", played by the native env.
        options: the fields of A2CConfig.

    Raises:
        ConfigError: a value outside its range, or a name that is no field.
    """

    config: A2CConfig
    config_type = A2CConfig

    def __init__(self, env: str = "CartPole-v1", **options: Any) -> None:
        super().__init__(config_from(A2CConfig, env, options))

    def _open(self, progress: WaitingProgress) -> Run:
        return self._new_run(
            progress, 1, "lockfree"
        )  # one worker that holds all envs: nobody to wait for or to race with

    def _train(self, run: Run, total_timesteps: int) -> None:
        config, policy = self.config, self.policy
        session = _core.Session(run.region, 0)
        recorder = Recorder(session, 0)
        size = config.n_envs // config.split
        groups = [Collector(config, first, size, self.learn_calls) for first in range(0, config.n_envs, size)]
        policy.warm_up()
        run.start()
        for collector in cycle(groups):
            version, env_steps = session.read(policy.params)
            if env_steps >= total_timesteps:
                break
            learning_rate = schedule(config.lr_schedule, config.learning_rate, env_steps / total_timesteps)
            ent_coef = schedule(config.ent_schedule, config.ent_coef, env_steps / total_timesteps)

            rollout = collector.collect(policy)
            stats = compute_gradient(policy, rollout, config, ent_coef)
            submitted = session.submit(
                policy.grad, version_read=version, env_steps=rollout.env_steps, learning_rate=learning_rate
            )
            recorder.record(rollout, stats, version, learning_rate, ent_coef, submitted)
            run.tick()
        recorder.flush(lambda: run.tick(now=True))
