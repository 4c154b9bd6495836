"""The loop of a worker, by two engines: read parameters, roll out, take the gradient, submit it, record; the next one.

`native` does all of it in C++ without the GIL, for the MLP on the native CartPole (cpp/include/fastac/worker.hpp).
`torch` rolls out in C++, too, and takes the gradient by autograd, in Python (torch_engine.py). Both live on the one
flat vector, so that a model may go from one to the other at any time. A2C and A3C run the same loops: a2c.py on one
worker that holds all envs, a3c.py on many.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fastac import _core
from fastac.config import A3CConfig, Config, schedule_points
from fastac.errors import ConfigError
from fastac.groups import Arrays, Groups, native_worker
from fastac.normalization import Statistics
from fastac.problem import CARTPOLE_PROBLEM, Problem
from fastac.signals import signals_deferred
from fastac.updates import diverged, flush_log

_TURN_MS = 50  # the native engine comes back to Python as often: for signals, logs and checkpoints


class Loop(Protocol):
    """A worker in the midst of a run. Between two calls nothing is half done."""

    def run(self, total_timesteps: int, most_updates: int = 0) -> bool:
        """Some updates, `most_updates` at most if that is not 0.

        Returns whether the run goes on: not once it is stopped or its env steps are done.
        """

    def flush(self, wait: Callable[[], None]) -> None:
        """At the end of the work: calls `wait` until the parent has read what is left of the log."""


class Engine(Protocol):
    """The envs of one worker, and what trains on them."""

    groups: Groups[Any]  # the envs; their state decides the next rollouts

    def begin(self, session: _core.Session, workers: int, statistics: Statistics) -> Loop:
        """A run of `workers` begins, in which this one holds that seat. `statistics`: what was known before it."""

    def close(self) -> None:
        """Closes the envs that were made here; nothing may follow."""


def make_engine(
    config: Config,
    n_envs: int,
    *,
    first: int = 0,
    split: int = 1,
    call: int = 0,
    incarnation: int = 0,
    members: int = 1,
    pauses: npt.NDArray[np.float64] | None = None,
    problem: Problem = CARTPOLE_PROBLEM,
) -> Engine:
    """The engine of a config, for envs `first` and on, in `split` groups, each shared by `members` threads (native).
    `call`, `incarnation`: see seeding.py. `pauses` (native): see Algorithm._pauses; a copy of the engine has none."""
    size = n_envs // split
    begins = range(first, first + n_envs, size)
    if config.engine == "torch":
        if pauses is not None:
            raise ConfigError("engine: expected native, which alone can pause, got torch")
        import_engine(config)
        from fastac.rollout import Collector, NativeCollector
        from fastac.torch_engine import TorchEngine

        if config.can_be_native and problem == CARTPOLE_PROBLEM:
            native = [NativeCollector(config, begin, size, call, incarnation) for begin in begins]
            return TorchEngine(config, Groups(native), problem)
        collectors = [Collector(config, begin, size, call, incarnation, problem) for begin in begins]
        return TorchEngine(config, Groups(collectors), problem)
    return NativeEngine(
        config, [native_worker(config, begin, size, call, incarnation, members, pauses) for begin in begins], members
    )


def at_work(config: Config) -> contextlib.AbstractContextManager[None]:
    """Around the work of a config's engine, in whatever process: what it needs is imported, and has one thread."""
    import_engine(config)
    if config.engine == "native":
        return contextlib.nullcontext()
    from fastac.policy import one_torch_thread

    return one_torch_thread()


def import_engine(config: Config) -> None:
    """Imports torch, where the engine needs it.

    Signals that have a handler wait: an exception in the midst of that import would abort the process. Others, as in a
    command that has not begun its work (cli/endings.py), end it at once.
    """
    if config.engine == "native" or "fastac.torch_engine" in sys.modules:
        return
    cpus = os.sched_getaffinity(0)
    handled = any(callable(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM))
    with signals_deferred() if handled else contextlib.nullcontext():
        import fastac.torch_engine  # noqa: F401

    with contextlib.suppress(OSError):  # they were taken away meanwhile
        os.sched_setaffinity(0, cpus)  # with OMP_PROC_BIND, OpenMP ties the thread that loads it to one of them


def preload(config: Config) -> str:
    """The module to import before worker processes are forked."""
    return "fastac.torch_engine" if config.engine == "torch" else "fastac.a3c"


class NativeEngine:
    """The MLP on the native env, in C++."""

    def __init__(self, config: Config, workers: Sequence[_core.NativeWorker], members: int = 1) -> None:
        self.config = config
        self._members = members
        self.workers = workers
        self.groups = Groups(workers)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, a pickled one too, goes on where this one is."""
        return _native_at, (self.config, len(self.workers), self._members, self.groups.get_state())

    def begin(self, session: _core.Session, workers: int, statistics: Statistics) -> Loop:
        return _NativeLoop(self, session)

    def close(self) -> None:
        """Native envs have nothing to close."""


class _NativeLoop:
    def __init__(self, engine: NativeEngine, session: _core.Session) -> None:
        self._engine = engine
        self._session = session

    def run(self, total_timesteps: int, most_updates: int = 0) -> bool:
        """As many updates as fit into 50 ms; where groups take turns, one."""
        config, worker = self._engine.config, self._engine.groups.current
        updates = worker.updates
        ended = worker.run(
            self._session,
            total_timesteps=total_timesteps,
            learning_rate=config.learning_rate,
            lr_points=schedule_points(config.lr_schedule),
            ent_coef=config.ent_coef,
            ent_points=schedule_points(config.ent_schedule),
            vf_coef=config.vf_coef,
            max_grad_norm=config.max_grad_norm if config.clip_at == "worker" else 0.0,
            duration_ms=_TURN_MS,
            most_updates=1 if len(self._engine.workers) > 1 else most_updates,
            delay_compensation=config.delay_compensation if isinstance(config, A3CConfig) else 0.0,
            v_trace=isinstance(config, A3CConfig) and config.v_trace,
        )
        if worker.updates > updates:
            self._engine.groups.advance()
        if ended == "diverged":
            raise diverged(self._session.seat, worker.updates)
        return ended == "not yet"

    def flush(self, wait: Callable[[], None]) -> None:
        flush_log(self._session, lambda: sum(worker.flush(self._session) for worker in self._engine.workers), wait)


def _native_at(config: Config, split: int, members: int, state: Arrays) -> NativeEngine:
    size = len(state["env_elapsed"]) // split
    workers = [native_worker(config, k * size, size, members=members) for k in range(split)]
    engine = NativeEngine(config, workers, members)
    engine.groups.set_state(state)
    return engine
