"""A3C: workers that read, roll out and update by themselves. a2c.py runs the same loop in one worker (engines.py)."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from fastac import _core
from fastac.algorithm import Algorithm, config_from
from fastac.config import A3CConfig
from fastac.engines import at_work, make_engine, preload
from fastac.forking import START_DEADLINE_S
from fastac.launch import POLL_S, launch
from fastac.progress import WaitingProgress
from fastac.updates import Run
from fastac.worker import READY, Report


class A3C(Algorithm):
    """Asynchronous advantage actor-critic: Mnih et al. 2016, arXiv:1602.01783.

    Each of `workers` workers, a thread or a process, has its own envs and random streams. `update` says who applies a
    gradient and who waits for whom; see docs/design.md.

    Args:
        env: "CartPole-v1", played by the native env.
        options: the fields of A3CConfig.

    Raises:
        ConfigError: a value outside its range, or a name that is no field.
    """

    config: A3CConfig
    config_type = A3CConfig

    def __init__(self, env: str = "CartPole-v1", **options: Any) -> None:
        super().__init__(config_from(A3CConfig, env, options))

    def _open(self, progress: WaitingProgress) -> Run:
        return self._new_run(progress, self.config.workers, self.config.update)

    def _train(self, run: Run, total_timesteps: int) -> None:
        tasks = [Task(self.config, worker, self.learn_calls, total_timesteps) for worker in range(self.config.workers)]
        with launch(
            self.config.backend,
            run.region,
            run.session,
            work,
            tasks,
            run.tick,
            on_death=self.config.on_worker_death,
            finished=run.finished,
            toll=run.toll,
            poll_s=0.002 if run.ends_when_solved else POLL_S,
            preload=preload(self.config),
        ) as crew:
            crew.wait_ready()
            run.start()
            run.session.give_go()
            crew.wait_done()


@dataclass(frozen=True)
class Task:
    """What a worker needs to know."""

    config: A3CConfig
    worker: int
    call: int  # the model's learn() calls before this one
    total_timesteps: int  # of all workers together


def work(task: Task, session: _core.Session, report: Report) -> float:
    """One worker, from its start to its end. Returns the processor time, in seconds, that it trained."""
    config = task.config
    incarnation = session.incarnation(task.worker)
    first = task.worker * config.n_envs
    with at_work(config):
        engine = make_engine(config, config.n_envs, first=first, call=task.call, incarnation=incarnation)
        loop = engine.begin(session)
        report(READY)
        _wait_for_go(session)
        started = time.thread_time()
        while loop.run(task.total_timesteps):
            pass
        loop.flush(lambda: time.sleep(0.001))
        return time.thread_time() - started


def _wait_for_go(session: _core.Session) -> None:
    """All workers start together, once the last of them is ready."""
    deadline = time.monotonic() + START_DEADLINE_S
    while not session.go and not session.stop_requested:
        if time.monotonic() > deadline:
            raise TimeoutError(f"the parent did not start the run within {START_DEADLINE_S:g} s")
        session.beat()
        time.sleep(0.001)
