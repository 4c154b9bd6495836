"""`fastac check`: tries on the user's own machine whether a gradient is ever lost or applied twice, whatever dies.

In: a time budget and a number of workers. Out: for each update scheme, on threads, on processes, and on processes that
are killed at random moments, the ledger and whether every parameter is the sum of exactly the published gradients.

The gradients are small whole numbers under plain sgd with learning rate 1, so every sum is exact in float32. They
differ from worker to worker and from one to the next: a lost one and a doubled one do not cancel.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastac import _core
from fastac._core import UPDATE_SCHEMES
from fastac.config import Config
from fastac.errors import FastacError, LedgerError, WorkerDiedError, WorkerError
from fastac.forking import START_DEADLINE_S
from fastac.shared import Ledger, create_region, observer_of, serve_until_stopped
from fastac.words import counted
from fastac.worker import READY, Failed, ProcessWorker, Report, ThreadWorker, Worker

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

N_PARAMS = 4675  # as many as the default policy has
N_ROWS = 61  # gradients of a worker before they repeat
LARGEST = 3  # magnitude of an entry
EXACT = 2**24  # up to here every whole number is a float32
BACKENDS = {"threads": 1, "processes": 1, "killed": 2}  # processes that get killed; and the shares of the time
_KILL_EVERY_S = (0.01, 0.05)
_SHORTEST_S = 0.3
_FIRST_DEADLINE_S = 10.0  # for the first gradient and the first kill, beyond the time of the case
_STOP_DEADLINE_S = 10.0
_POLL_S = 0.005


@dataclass(frozen=True)
class Result:
    """What one scheme did on one backend.

    Attributes:
        kills: workers and learners killed, each replaced by another one in its seat.
        moved: parameters that are not the sum of the published gradients.
        faults: what is wrong, in words; empty where all is as promised. hogwild promises its counts alone.
    """

    scheme: str
    backend: str
    kills: int
    ledger: Ledger
    moved: int
    faults: tuple[str, ...]


Tick = Callable[[int, str], None]  # told of the number of finished cases, and of the one under way


def cases() -> list[tuple[str, str]]:
    """(scheme, backend), in the order in which they are run."""
    return [(scheme, backend) for backend in BACKENDS for scheme in UPDATE_SCHEMES]


def run_all(seconds: float, workers: int, tick: Tick) -> Iterator[Result]:
    """Every scheme on every backend, in about `seconds` s altogether: the results as they come."""
    deadline = time.monotonic() + seconds
    shares = [BACKENDS[backend] for _, backend in cases()]
    for done, (scheme, backend) in enumerate(cases()):
        now = time.monotonic()
        until = now + (deadline - now) * shares[done] / sum(shares[done:])
        yield run_case(scheme, backend, workers, until, functools.partial(tick, done, f"{scheme}, {backend}"))


def run_case(scheme: str, backend: str, workers: int, until: float, tick: Callable[[], None]) -> Result:
    """Lets `workers` submit until `until` (of time.monotonic), and shortly at least; then compares.

    What goes wrong with the workers is a fault of the result, not an exception.
    """
    crew = Crew(scheme, backend, workers)
    faults = []
    try:
        crew.start(tick)
        crew.work(max(until, time.monotonic() + _SHORTEST_S), tick)
    except (FastacError, TimeoutError) as error:
        faults.append(f"{type(error).__name__}: {error}")
    finally:
        faults += crew.stop()
    ledger, params, expected = crew.books()
    faults += find_faults(scheme, crew.kills, ledger, params, expected)
    if backend == "killed" and crew.kills == 0:
        faults.append("nobody was killed: nothing was proved")
    return Result(scheme, backend, crew.kills, ledger, int(np.sum(params != expected)), tuple(faults))


def find_faults(scheme: str, kills: int, ledger: Ledger, params: Float32, expected: Int64) -> list[str]:
    """What is wrong with the books of an ended run, and with its parameters float32[P] against int64[P]."""
    faults = [] if ledger.published else ["no gradient was published: nothing was proved"]
    try:
        ledger.check()
    except LedgerError as error:
        faults.append(str(error))
    if ledger.aborted > kills:  # who is killed leaves one unfinished push at most
        faults.append(
            f"{counted(ledger.aborted, 'pushes were', 'push was')} aborted, expected at most one for each of "
            f"{counted(kills, 'kills')}"
        )
    wrong = np.flatnonzero(params != expected)
    if len(wrong) and scheme != "hogwild":
        at = wrong[0]
        faults.append(
            f"{len(wrong):,} of {len(params):,} parameters are not the sum of the published gradients: "
            f"params[{at}] is {params[at]:g}, expected {expected[at]}"
        )
    return faults


def gradients(worker: int) -> Float32:
    """float32[N_ROWS, N_PARAMS]: what a worker submits, in turn; its gradient number s is row (s - 1) % N_ROWS."""
    stream = np.random.default_rng([worker, N_ROWS])
    return stream.integers(-LARGEST, LARGEST, (N_ROWS, N_PARAMS), endpoint=True).astype(np.float32)


def sum_of_first(rows: Float32, n: int) -> Int64:
    """int64[P]: the sum of the first n gradients of a worker whose gradients are these rows, over and over."""
    whole: Int64 = rows.astype(np.int64)
    total: Int64 = n // len(rows) * whole.sum(axis=0) + whole[: n % len(rows)].sum(axis=0)
    return total


# ---- the workers ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """What a worker needs to know: its number, and how many gradients keep the sums exact."""

    worker: int
    n_at_most: int


def submit_until_stopped(task: Task, session: _core.Session, report: Report) -> float:
    """A worker: a native loop over its gradients."""
    grads = gradients(task.worker)
    report(READY)
    session.submit_many(grads, task.n_at_most, 1.0)
    return 0.0


def serve(_: Any, session: _core.Session, report: Report) -> float:
    """The learner of `queue`, as a worker of its own."""
    report(READY)
    serve_until_stopped(session)
    return 0.0


class Crew:
    """The workers of one case, and under `queue` the learner: one for each seat, killed and replaced if need be."""

    def __init__(self, scheme: str, backend: str, workers: int) -> None:
        self.kills = 0
        self._scheme = scheme
        self._killing = backend == "killed"
        self._kind: Callable[..., Worker] = ThreadWorker if backend == "threads" else ProcessWorker
        self._region = create_region(Config(optimizer="sgd"), workers=workers, update=scheme, n_params=N_PARAMS)
        self._observer = observer_of(self._region)
        self._observer.initialize(np.zeros(N_PARAMS, np.float32))
        self._random = np.random.default_rng(workers)
        self._at: dict[int, Worker] = {}  # by seat
        self._ready: set[int] = set()
        self._ended: set[int] = set()

    def start(self, tick: Callable[[], None]) -> None:
        """Until all are ready. Raises what ended one of them, or TimeoutError."""
        workers = self._region.workers
        for seat in [*range(workers), *([workers + 1] if self._scheme == "queue" else [])]:
            self._start(seat)
        deadline = time.monotonic() + START_DEADLINE_S
        while len(self._ready) < len(self._at):
            if time.monotonic() > deadline:
                late = len(self._at) - len(self._ready)
                raise TimeoutError(
                    f"{counted(late, 'workers were', 'worker was')} not ready within {START_DEADLINE_S:g} s"
                )
            self._pause(tick)

    def _start(self, seat: int) -> None:
        if seat < self._region.workers:
            n_at_most = EXACT // LARGEST // self._region.workers - self._observer.published(seat)
            self._at[seat] = self._kind(self._region, seat, submit_until_stopped, Task(seat, n_at_most))
        else:
            self._at[seat] = self._kind(self._region, seat, serve, None)

    def work(self, until: float, tick: Callable[[], None]) -> None:
        """Until then; meanwhile one after the other is killed, where that is the case. Raises what ended a worker.

        Between two kills somebody publishes, as long as somebody may. Where nothing happened by then, a while longer.
        """
        next_kill, before = time.monotonic(), 0
        while time.monotonic() < until or (self._idle() and time.monotonic() < until + _FIRST_DEADLINE_S):
            moved_on = self._published() > before or self._ended.issuperset(range(self._region.workers))
            if self._killing and moved_on and time.monotonic() >= next_kill:
                before = self._published()
                self._replace(int(self._random.choice(list(self._at))))
                next_kill = time.monotonic() + self._random.uniform(*_KILL_EVERY_S)
            self._pause(tick)

    def _published(self) -> int:
        return sum(self._observer.published(worker) for worker in range(self._region.workers))

    def _idle(self) -> bool:
        """Nothing was published yet, or nobody killed who should be."""
        return self._published() == 0 or (self._killing and self.kills == 0)

    def _replace(self, seat: int) -> None:
        if not self._at[seat].end():
            raise WorkerError(f"{self._at[seat].name} did not die of SIGKILL")
        self._observer.reap(seat)
        self._ended.discard(seat)
        self.kills += 1
        self._start(seat)

    def _hear(self, seat: int) -> None:
        worker = self._at[seat]
        dead = not worker.alive()  # asked first: what it said before its end is heard before it is declared dead
        for message in worker.messages():
            (self._ready if message == READY else self._ended).add(seat)
            if isinstance(message, Failed):
                raise message.error
        if dead and seat not in self._ended:
            self._ended.add(seat)
            raise WorkerDiedError(f"{worker.name} {worker.last_words()}")

    def _pause(self, tick: Callable[[], None]) -> None:
        tick()
        time.sleep(_POLL_S)
        for seat in self._at:
            self._hear(seat)

    def stop(self) -> list[str]:
        """Sees all off, and says what was wrong with it: whoever does not leave is killed and reaped."""
        self._observer.request_stop()
        deadline = time.monotonic() + _STOP_DEADLINE_S
        while any(worker.alive() for worker in self._at.values()) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        faults = []
        for seat, worker in self._at.items():
            late = worker.alive()
            if late:
                faults.append(f"{worker.name} did not leave within {_STOP_DEADLINE_S:g} s")
            if worker.end() and late:
                self._observer.reap(seat)
                continue
            try:
                self._hear(seat)
            except FastacError as error:
                faults.append(f"{type(error).__name__}: {error}")
        self._observer.drain()
        return faults

    def books(self) -> tuple[Ledger, Float32, Int64]:
        """The ledger of the ended run, its parameters float32[P], and what they must be: int64[P]."""
        params = np.empty(N_PARAMS, np.float32)
        self._observer.read(params)
        expected = np.zeros(N_PARAMS, np.int64)
        for worker in range(self._region.workers):
            expected -= sum_of_first(gradients(worker), self._observer.published(worker))
        return Ledger.of(self._observer, self._scheme), params, expected
