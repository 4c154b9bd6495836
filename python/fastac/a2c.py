"""A2C: all envs in one batch, one update for each rollout. a3c.py has the same verbs in the same order."""

from __future__ import annotations

from typing import Any

from fastac import _core
from fastac.algorithm import Algorithm, config_from
from fastac.checkpoint import Arrays
from fastac.config import A2CConfig, schedule
from fastac.objective import compute_gradient
from fastac.progress import WaitingProgress
from fastac.rollout import Groups
from fastac.signals import let_signals_in, signals_deferred
from fastac.updates import Recorder, Run


class A2C(Algorithm):
    """Synchronous advantage actor-critic: the batched form of Mnih et al. 2016, arXiv:1602.01783.

    A run is reproducible to the last bit from its seed. With `split=k` the envs form k groups that
    update in turn, each from fresh parameters: the update size of A3C without its staleness.

    The envs belong to the model: a next learn(), or a resume() after load(), goes on in the midst of their episodes. So
    an interrupted learn() that is resumed ends with the same bits as one that never was, and, where schedules are
    constant and `a` is the end of an update, learn(a) and learn(b) with the same as learn(a + b).

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
        self._envs = Groups(self.config)

    def _open(self, progress: WaitingProgress) -> Run:
        return self._new_run(
            progress, 1, "lockfree"
        )  # one worker that holds all envs: nobody to wait for or to race with

    def _train(self, run: Run, total_timesteps: int) -> None:
        config, policy = self.config, self.policy
        session = _core.Session(run.region, 0)
        recorder = Recorder(session, 0)
        policy.warm_up()
        run.start()
        with signals_deferred():  # an update begun is finished, so that the envs and the record fit together
            try:
                while True:
                    let_signals_in()
                    version, env_steps = session.read(policy.params)
                    if env_steps >= total_timesteps:
                        break
                    learning_rate = schedule(config.lr_schedule, config.learning_rate, env_steps / total_timesteps)
                    ent_coef = schedule(config.ent_schedule, config.ent_coef, env_steps / total_timesteps)

                    rollout = self._envs.collect(policy, session.beat)
                    stats = compute_gradient(policy, rollout, config, ent_coef)
                    submitted = session.submit(
                        policy.grad, version_read=version, env_steps=rollout.env_steps, learning_rate=learning_rate
                    )
                    recorder.record(rollout, stats, version, learning_rate, ent_coef, submitted)
                    run.tick()
            finally:
                recorder.flush(lambda: run.tick(now=True))

    def _envs_state(self) -> Arrays:
        return self._envs.get_state()

    def _set_envs_state(self, saved: Arrays) -> None:
        self._envs.set_state(saved)
