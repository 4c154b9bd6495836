"""Independent runs on several processes: tasks in, their results out, in the order in which they end.

The processes are those of A3C (worker.py): from the forkserver, deaf to Ctrl-C, and gone when their parent is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any, TypeVar

from fastac import _core
from fastac.config import Config
from fastac.errors import WorkerDiedError
from fastac.shared import create_region
from fastac.worker import Done, Failed, ProcessWorker, Report

_POLL_S = 0.1

Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True)
class _Share:
    """What one process does."""

    function: Callable[[Any], Any]
    tasks: Sequence[Any]


def run_all(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    jobs: int,
    tick: Callable[[], None] = lambda: None,
    *,
    apart: bool = False,
) -> Iterator[Result]:
    """function(task) for each, on `jobs` processes (1: on this one, unless `apart`). `tick` is called now and then.

    function, tasks and results are pickled; a result's 16 kB are the most. Tasks are dealt out beforehand, in turn.
    Leaving the iterator kills the processes. Raises what `function` raised, and WorkerDiedError.
    """
    jobs = min(jobs, len(tasks), _core.MAX_WORKERS)
    if jobs <= 1 and not apart:
        for task in tasks:
            yield function(task)
            tick()
        return
    # Worker processes have a seat at a region; nothing of this one is used but the seats.
    region = create_region(Config(), workers=jobs, update="lockfree", n_params=1)
    workers: list[ProcessWorker] = []
    try:
        for seat in range(jobs):
            workers.append(ProcessWorker(region, seat, _work, _Share(function, tasks[seat::jobs])))
        yield from _results(workers, tick)
    finally:
        for worker in workers:
            worker.kill()
        for worker in workers:
            worker.end()


def _results(workers: Sequence[ProcessWorker], tick: Callable[[], None]) -> Iterator[Any]:
    at_work = list(workers)
    while at_work:
        wait([which for worker in at_work for which in worker.waitables()], _POLL_S)
        tick()
        for worker in list(at_work):
            dead = not worker.alive()  # asked first: what it said before its end is heard before it is declared dead
            messages = worker.messages()
            for message in messages:
                if isinstance(message, Failed):
                    raise message.error
                if isinstance(message, Done):
                    at_work.remove(worker)
                else:
                    yield message
            if dead and worker in at_work:
                raise WorkerDiedError(f"{worker.name} {worker.last_words()}")


def _work(share: _Share, session: _core.Session, report: Report) -> float:
    """A process."""
    started = time.thread_time()
    for task in share.tasks:
        report(share.function(task))
    return time.thread_time() - started
