"""The crew of a run: all workers started, followed while they work, and seen off.

In: a function work(task, session, report) and one task for each worker. Out: each has run to its end, or the reason
why not, as an exception in the parent. Deaths are answered by the policy, standstills are told.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import wait
from typing import Any

from fastac import _core
from fastac.errors import WorkerDeathWarning, WorkerDiedError, WorkerError, WorkerStuckWarning
from fastac.forking import KILL_DEADLINE_S, START_DEADLINE_S, STOP_DEADLINE_S
from fastac.shared import Toll, serve_until_stopped
from fastac.signals import signals_deferred
from fastac.watch import Watch, is_stopped, kernel_state
from fastac.words import counted
from fastac.worker import READY, Done, Failed, ProcessWorker, Report, ThreadWorker, Work, Worker

MAX_DEATHS_IN_A_ROW = 3
POLL_S = 0.02  # between two ticks
_STATES = {
    "R": "it is running",
    "S": "it is sleeping",
    "D": "it waits for a device",
    "T": "it is stopped (SIGSTOP); `kill -CONT {task}` lets it go on",
    "t": "a debugger has stopped it",
}


@dataclass
class _Seat:
    """A seat of the region, who holds it now, and what is known of them."""

    number: int
    start: Callable[[], Worker]
    worker: Worker
    published: int  # by those who held the seat before
    started: float = field(default_factory=time.monotonic)
    ready: bool = False
    end: Done | Failed | None = None
    lost: bool = False  # its worker died and was not replaced, or is a thread that the finished run does not wait for
    deaths_in_a_row: int = 0  # of workers that published nothing

    @property
    def working(self) -> bool:
        return self.end is None and not self.lost


class Crew:
    """All workers of a run and, under `queue`, its learner. A context manager: on the way out none of them is left."""

    def __init__(
        self,
        observer: _core.Session,
        tick: Callable[[], None],
        on_death: str,
        finished: Callable[[], bool],
        toll: Toll,
        poll_s: float,
    ) -> None:
        self._observer = observer
        self._tick = tick
        self._on_death = on_death
        self._finished = finished
        self._toll = toll
        self._poll_s = poll_s
        self._watch = Watch(observer)
        self._workers: list[_Seat] = []
        self._learner: list[_Seat] = []  # one, or none

    # A signal between the start of a worker and its entry here would leave it unknown; a death would be half counted.
    @signals_deferred()
    def add_worker(self, number: int, start: Callable[[], Worker]) -> None:
        self._workers.append(_Seat(number, start, start(), self._observer.published(number)))
        self._watch.follow(number)

    @signals_deferred()
    def add_learner(self, number: int, start: Callable[[], Worker]) -> None:
        self._learner.append(_Seat(number, start, start(), 0, ready=True))
        self._watch.follow(number)

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        with signals_deferred():
            stuck = self._see_off()
        if stuck:
            words = f"{', '.join(stuck)} did not leave within {STOP_DEADLINE_S:g} s"
            if error is None and not self._finished():
                raise WorkerError(words)
            warnings.warn(WorkerStuckWarning(f"{words}; the run ends all the same"), stacklevel=2)
        if error is not None:
            return
        for seat in self._learner:
            if isinstance(seat.end, Failed):
                raise seat.end.error

    def wait_ready(self) -> None:
        """Until every worker has said so. Raises what ended a worker, or TimeoutError."""
        while any(seat.working and not seat.ready for seat in self._workers):
            self._wait()

    def wait_done(self) -> None:
        """Until every worker has come to its end.

        Raises WorkerError as soon as a worker has failed, WorkerDiedError where one died and the policy has no answer.
        """
        while any(seat.working for seat in self._workers):
            self._wait()
            self._end_the_stuck()

    @signals_deferred()
    def check(self) -> None:
        """One look at all of them: what they said, who died, who stands still."""
        for seat in self._workers + self._learner:
            if not seat.working:
                continue
            # Asked in this order: what a worker said before it ended is heard before it is declared dead.
            dead = not seat.worker.alive()
            self._hear(seat)
            if isinstance(seat.end, Failed):
                raise seat.end.error
            if seat.working and dead:
                self._answer_death(seat)
            elif not seat.ready and time.monotonic() > seat.started + START_DEADLINE_S and not self._finished():
                raise TimeoutError(f"{seat.worker.name} was not ready within {START_DEADLINE_S:g} s")
        self._tell_the_stuck()

    def _wait(self) -> None:
        """Until somebody says something or dies, or it is time for a tick."""
        wait([what for seat in self._workers if seat.working for what in seat.worker.waitables()], self._poll_s)
        self._tick()
        self.check()

    def _hear(self, seat: _Seat) -> None:
        for message in seat.worker.messages():
            if message == READY:
                seat.ready = True
                self._watch.follow(seat.number)
                continue
            seat.end = message
            self._watch.forget(seat.number)
            if isinstance(message, Done):
                self._toll.cpu_s += message.cpu_s

    # ---- death ------------------------------------------------------------------------------------------------

    def _answer_death(self, seat: _Seat) -> None:
        """Takes back the seat of one that is known to be dead, and does what the policy says."""
        words = f"{seat.worker.name} {seat.worker.last_words()}"
        self._bury(seat)
        in_vain = self._observer.published(seat.number) == seat.published
        seat.deaths_in_a_row = seat.deaths_in_a_row + 1 if in_vain else 0
        if self._finished():
            done = "the work is done all the same"
        elif self._on_death == "fail":
            raise WorkerDiedError(words)
        elif self._on_death == "continue":
            left = sum(not other.lost for other in self._workers)
            if left == 0:
                raise WorkerDiedError(f"{words}; it was the last worker")
            done = f"the run goes on with {left} of {counted(len(self._workers), 'workers')}"
        elif seat.deaths_in_a_row == MAX_DEATHS_IN_A_ROW:
            raise WorkerDiedError(f"{words}, like {MAX_DEATHS_IN_A_ROW - 1} before it, and none published a gradient")
        else:
            self._replace(seat)
            done = f"{seat.worker.name} takes its place"
        warnings.warn(WorkerDeathWarning(f"{words}; {done}"), stacklevel=2)

    def _bury(self, seat: _Seat) -> None:
        seat.worker.end()
        seat.lost = True
        self._watch.forget(seat.number)
        self._observer.reap(seat.number)
        self._toll.deaths += 1

    def _replace(self, seat: _Seat) -> None:
        seat.worker = seat.start()
        seat.published = self._observer.published(seat.number)
        seat.started = time.monotonic()
        seat.ready = seat.lost = False
        self._watch.follow(seat.number)
        self._toll.restarts += 1

    # ---- standstill -------------------------------------------------------------------------------------------

    def _tell_the_stuck(self) -> None:
        for number, still_s in self._watch.news().items():
            worker = next(seat.worker for seat in self._workers + self._learner if seat.number == number)
            # The time of day tells this standstill from the next: Python shows a warning of the same text only once.
            since = time.strftime("%H:%M:%S", time.localtime(time.time() - still_s))
            words = f"{worker.name} has given no sign of life for {still_s:.0f} s, since {since}"
            state = _STATES.get(kernel_state(worker.task), "").format(task=worker.task)
            warnings.warn(WorkerStuckWarning(f"{words}; {state}" if state else words), stacklevel=2)

    def _end_the_stuck(self) -> None:
        """Once all env steps are done nobody waits for a worker that stands still, ready or not: a process is killed.

        A thread cannot be. It may be in a rollout that takes longer than that, and what it is still to bring is more
        than was asked for: the run, which is complete, ends without it and names it on the way out, instead of failing.
        """
        left = [seat for seat in self._workers if seat.working]
        if left and all(self._watch.stuck(seat.number) for seat in left) and self._finished():
            for seat in left:
                if not seat.worker.kill():
                    seat.lost = True
                    self._watch.forget(seat.number)

    # ---- the end ----------------------------------------------------------------------------------------------

    def _see_off(self) -> list[str]:
        """Stops the run; the names of those that neither left nor could be killed.

        Who is stopped (SIGSTOP) cannot leave, and is not waited for.
        """
        self._observer.request_stop()
        seats = self._workers + self._learner
        stuck: list[str] = []
        try:
            deadline = time.monotonic() + STOP_DEADLINE_S
            pause = 0.001  # most have said their last word already
            while any(map(_can_leave, seats)) and time.monotonic() < deadline:
                self._tick()
                time.sleep(pause)
                pause = min(2 * pause, POLL_S)
        finally:  # also where a tick fails
            for seat in seats:
                seat.worker.kill()
            deadline = time.monotonic() + KILL_DEADLINE_S
            stuck += [seat.worker.name for seat in seats if not seat.worker.end(deadline)]
            for seat in seats:
                self._hear(seat)
                if not seat.worker.alive():  # nothing is taken back from one that lives
                    self._observer.reap(seat.number)
                    self._toll.deaths += seat.working
        return stuck


def launch(
    backend: str,
    region: _core.Region,
    observer: _core.Session,
    work: Work,
    tasks: Sequence[Any],
    tick: Callable[[], None],
    *,
    on_death: str = "fail",
    finished: Callable[[], bool] = lambda: False,
    toll: Toll | None = None,
    preload: str = "",
    poll_s: float = POLL_S,
) -> Crew:
    """Starts one worker for each task and, under `queue`, the learner. The caller holds the observer's seat.

    Args:
        work: a function at the top level of a module; tasks must pickle.
        tick: called every `poll_s` as long as the parent waits for its workers, and more often where they have news.
        on_death: what follows the death of a worker: config.ON_WORKER_DEATH.
        finished: whether the run's work is done: then a worker that dies is not missed, and one that stands still is
            killed or, if it is a thread, left to itself.
        toll: where deaths, restarts and processor time are counted.
        preload: a module that worker processes need and that is slow to import. The first of this program decides.
    """
    kind: Callable[[_core.Region, int, Work, Any], Worker] = ThreadWorker
    if backend == "process":
        kind = partial(ProcessWorker, preload=preload)
    crew = Crew(observer, tick, on_death, finished, toll or Toll(), poll_s)
    try:
        if region.scheme == "queue":
            learner = region.workers + 1
            crew.add_learner(learner, partial(ThreadWorker, region, learner, _serve, None))
        for number, task in enumerate(tasks):
            crew.add_worker(number, partial(kind, region, number, work, task))
    except BaseException as error:
        crew.__exit__(type(error), error, None)
        raise
    return crew


def _can_leave(seat: _Seat) -> bool:
    return seat.worker.alive() and not is_stopped(seat.worker.task)


def _serve(task: None, session: _core.Session, report: Report) -> float:
    serve_until_stopped(session)
    return 0.0
