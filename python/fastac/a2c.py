"""A2C: all envs in one batch, one update for each rollout. a3c.py runs the same loop in many workers (engines.py)."""

from __future__ import annotations

import dataclasses
import weakref
from typing import Any

from fastac import _core
from fastac.algorithm import Algorithm
from fastac.checkpoint import Arrays
from fastac.config import A2CConfig
from fastac.engines import Engine, make_engine
from fastac.metrics import Position
from fastac.progress import WaitingProgress
from fastac.signals import let_signals_in, signals_deferred
from fastac.updates import LocalRun


class A2C(Algorithm):
    """Synchronous advantage actor-critic: the batched form of Mnih et al. 2016, arXiv:1602.01783.

    A run is reproducible to the last bit from its seed. With `split=k` the envs form k groups that
    update in turn, each from fresh parameters: the update size of A3C without its staleness. With `workers=W`
    W threads share the batch, and end with the same bits as one.

    The envs belong to the model: a next learn() or a resume() goes on in the midst of their episodes. So an interrupted
    learn() that is resumed ends with the same bits as one that never was, and, where schedules are constant and `a` is
    the end of an update, learn(a) and learn(b) with the same as learn(a + b). After load(), and in a copy, that holds
    for the native env; those of Gymnasium begin new episodes there, as their state cannot be saved.

    Envs that are made here are closed when the model goes; one that was given stays the giver's to close, and must not
    be stepped by anybody else meanwhile.

    Args:
        policy_and_env: (env), or (policy, env) as in Stable-Baselines3; by name, too.
            env: the id of an env, a function or class that makes one, an env, or a VectorEnv that resets in
            the step of an end (AutoresetMode.SAME_STEP).
            policy: a name, "MlpPolicy" if not given, a torch module, or a function that makes one of the env's Spaces.
        options: the fields of A2CConfig.

    Raises:
        ConfigError: a value outside its range, a name that is no field, or an env or policy that cannot be one.
    """

    config: A2CConfig
    config_type = A2CConfig

    def __init__(self, *policy_and_env: Any, **options: Any) -> None:
        super().__init__(*policy_and_env, **options)
        self._engine = self._new_engine() if self.config.has_native_env else None

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        if self.problem.native:
            return state
        # Envs of Gymnasium cannot be copied: others are made, but where they were the user's own.
        return {**state, "_engine": None, "problem": dataclasses.replace(self.problem, envs=None)}

    def _expect_possible(self, begin: Position) -> None:
        self.problem.expect_envs()

    def _new_engine(self) -> Engine:
        return make_engine(
            self.config,
            self.config.n_envs,
            split=self.config.split,
            call=self.learn_calls,  # after load(), or a learn() on a cluster: not the same episodes again
            members=self.config.workers,
            pauses=self._pauses(0),
            problem=self.problem,
        )

    def _open(self, progress: WaitingProgress) -> LocalRun:
        return self._new_run(
            progress, 1, "lockfree"
        )  # one worker that holds all envs: nobody to wait for or to race with

    def _train(self, run: LocalRun, total_timesteps: int) -> None:
        if self._engine is None:
            self._engine = self._new_engine()
            weakref.finalize(self, self._engine.close)
        loop = self._engine.begin(_core.Session(run.region, 0), 1, self.statistics)
        env_steps = self.config.n_steps * self.config.n_envs // self.config.split
        run.start()
        with signals_deferred():  # an update begun is finished, so that the envs and the record fit together
            try:
                # A callback, or a run that ends when it is solved, may want to be asked after so many updates.
                while loop.run(total_timesteps, most_updates := run.most_updates(env_steps)):
                    run.tick(now=most_updates > 0)
                    let_signals_in()
            finally:
                loop.flush(lambda: run.tick(now=True))

    def _leave_envs(self) -> None:
        if self.config.has_native_env:
            self._engine = self._new_engine()

    def _envs_state(self) -> Arrays:
        return {} if self._engine is None or not self.config.has_native_env else self._engine.groups.get_state()

    def _set_envs_state(self, saved: Arrays) -> None:
        if self._engine is not None:
            self._engine.groups.set_state(saved)
