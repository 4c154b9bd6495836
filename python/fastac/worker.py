"""A worker as a thread or as a process on a region: started, heard, and seen off.

In: a function work(task, session, report) and its task. Out: what it reports, and a last message, Done or Failed. Who
ends without one has died.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from typing import Any, Protocol

from fastac import _core, forking
from fastac.errors import FastacError, WorkerError
from fastac.forking import STOP_DEADLINE_S
from fastac.lifeline import end_with_writer

READY = "ready"
_MESSAGE_BYTES = 16_000  # written in one piece, so that nobody who has read its beginning waits for the rest
_TRACE_CHARS = 3_900  # of at most four bytes each

Report = Callable[[Any], None]
Work = Callable[[Any, _core.Session, Report], float]  # returns the processor time, in seconds, that it worked


@dataclass(frozen=True)
class Done:
    """A worker's last message: it came to its end, having used this much processor time."""

    cpu_s: float


@dataclass(frozen=True)
class Failed:
    """A worker's last message: an exception ended it."""

    error: BaseException


class Worker(Protocol):
    """A thread or a process."""

    name: str
    task: str  # below /proc

    def messages(self) -> list[Any]: ...
    def waitables(self) -> list[Any]: ...
    def alive(self) -> bool: ...
    def last_words(self) -> str: ...
    def kill(self) -> bool: ...
    def end(self, deadline: float | None = None) -> bool: ...


class ThreadWorker:
    """A worker in this process. It cannot be killed: it leaves at its next update once the run is stopped."""

    def __init__(self, region: _core.Region, seat: int, work: Work, task: Any) -> None:
        name = _name(region, seat)
        self._inbox: deque[Any] = deque()
        args = (work, task, lambda: _core.Session(region, seat), name, self._put, _cpus())
        self._thread = threading.Thread(target=_run, args=args, name=f"fastac-{seat}", daemon=True)
        self._thread.start()
        self.name = f"{name} (thread {self._thread.native_id})"
        self.task = f"self/task/{self._thread.native_id}"

    def _put(self, message: Any) -> None:
        # The parent's own clock already counts a thread's processor time.
        self._inbox.append(Done(0.0) if isinstance(message, Done) else message)

    def messages(self) -> list[Any]:
        return [self._inbox.popleft() for _ in range(len(self._inbox))]

    def waitables(self) -> list[Any]:
        """None: a thread is asked from time to time."""
        return []

    def alive(self) -> bool:
        return self._thread.is_alive()

    def last_words(self) -> str:
        return "ended without a word"

    def kill(self) -> bool:
        """Whether that was possible."""
        return False

    def end(self, deadline: float | None = None) -> bool:
        """Whether it has left. A thread cannot be killed; one in a long rollout leaves at its next update."""
        return not self._thread.is_alive()


class ProcessWorker:
    """A worker in a process of its own, on the same region.

    Whether it lives says the kernel, by a pidfd. Multiprocessing would ask the forkserver, whose death looks to it like
    the death of all that it has forked. Where the kernel has no pidfd (before Linux 5.3), the worker's end of the pipe
    says so: it closes when the worker is dead, after its hold on the shared memory.
    """

    def __init__(self, region: _core.Region, seat: int, work: Work, task: Any, preload: str = "") -> None:
        name = _name(region, seat)
        self._inbox, outbox = multiprocessing.Pipe(duplex=False)
        self._heard: deque[Any] = deque()
        self._hung_up = False
        try:
            args = (work, task, forking.Descriptor(region.fd), region.nonce, seat, name, outbox, _cpus())
            self._process: Any = forking.start(name, _process_main, args, preload)
        finally:
            outbox.close()  # the worker's own end is now the only one
        self._code: int | None = None
        self._pid: int = self._process.pid
        self._pidfd: int | None = _pidfd_of(self._pid)
        self.name = f"{name} (process {self._pid})"
        self.task = str(self._pid)

    def messages(self) -> list[Any]:
        self._listen()
        return [self._heard.popleft() for _ in range(len(self._heard))]

    def _listen(self) -> None:
        try:
            while not self._hung_up and self._inbox.poll():
                self._heard.append(self._inbox.recv())
        except (EOFError, OSError):
            self._hung_up = True

    def waitables(self) -> list[Any]:
        """Ready as soon as it says something, or dies."""
        return [which for which in (self._pidfd, None if self._hung_up else self._inbox) if which is not None]

    def alive(self) -> bool:
        if self._pidfd is not None:
            return not wait([self._pidfd], 0)
        self._listen()
        return not self._hung_up

    def last_words(self) -> str:
        """How it died, as far as its forkserver tells."""
        code = self._exit_code(time.monotonic() + STOP_DEADLINE_S)
        if code is None or code == 255:  # what multiprocessing says where the forkserver is dead, too
            return "ended in a way that its forkserver did not tell"
        return f"was killed by {_signal_name(-code)}" if code < 0 else f"ended without a word, with exit code {code}"

    def _exit_code(self, deadline: float) -> int | None:
        if self._process is not None:
            self._process.join(max(0.0, deadline - time.monotonic()))
            self._code = self._process.exitcode
        return self._code

    def kill(self) -> bool:
        """Whether that was possible. One that is stopped dies at once, too."""
        with contextlib.suppress(ProcessLookupError):
            if self._pidfd is not None:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            elif self.alive():
                os.kill(self._pid, signal.SIGKILL)
        return True

    def end(self, deadline: float | None = None) -> bool:
        """Kills it if it still lives; whether it is gone by then (of time.monotonic(); if none is given, after 1 s)."""
        self.kill()
        if deadline is None:
            deadline = time.monotonic() + STOP_DEADLINE_S
        while self.alive() and time.monotonic() < deadline:
            wait(self.waitables(), deadline - time.monotonic())
            self._listen()
        if self.alive():
            return False
        self._listen()
        if self._exit_code(deadline) is None:  # multiprocessing would wait for it at the end of the program
            self._process.forkserver.kill()
            self._exit_code(deadline)
        self._close()
        return True

    def _close(self) -> None:
        """Gives back its descriptors. It is dead."""
        self._hung_up = True
        self._inbox.close()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None
        if self._process is not None and self._code is not None:
            self._process.close()
            self._process = None


def _run(
    work: Work, task: Any, open_session: Callable[[], _core.Session], name: str, report: Report, cpus: set[int]
) -> None:
    """What a worker does, thread or process: the work, then its last message, and then it leaves its seat.

    In this order: whoever is killed before the message is dead in its seat, which is reaped, and the next one there is
    of another incarnation, with random streams of its own. Whoever is killed after it has come to its end.
    """
    last: Done | Failed
    session: _core.Session | None = None
    with contextlib.suppress(OSError):  # they were taken away meanwhile
        os.sched_setaffinity(0, cpus)
    try:
        session = open_session()
        last = Done(work(task, session, report))
    except FastacError as error:
        last = Failed(error)
    except BaseException as error:  # travels as the text of its traceback, which always pickles
        trace = "".join(traceback.format_exception(error)).rstrip()[-_TRACE_CHARS:]
        last = Failed(WorkerError(f"{name} failed:\n{trace}"))
    try:
        report(last)
    finally:
        if session is not None:
            session.close()


def _process_main(
    work: Work, task: Any, fd: int, nonce: int, seat: int, name: str, outbox: Connection, cpus: set[int]
) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    end_with_writer(parent.sentinel)  # a worker holds nothing that others would miss (updates.hpp)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def open_session() -> _core.Session:
        region = _core.Region.attach(fd, nonce)
        os.close(fd)
        return _core.Session(region, seat)

    def report(message: Any) -> None:
        pickled = bytes(ForkingPickler.dumps(message))
        if len(pickled) > _MESSAGE_BYTES:
            raise ValueError(f"report: expected a message of at most {_MESSAGE_BYTES:,} bytes, got {len(pickled):,}")
        outbox.send_bytes(pickled)

    _run(work, task, open_session, f"{name} (process {os.getpid()})", report, cpus)


def _cpus() -> set[int]:
    """What this process may use. With OMP_PROC_BIND, OpenMP ties the thread that loads it to one of them, and so all
    that this thread starts, the forkserver too. OpenMP itself still knows them all: they are its places."""
    cpus = os.sched_getaffinity(0)
    torch = sys.modules.get("torch")
    if torch is None:
        return cpus
    with contextlib.suppress(AttributeError, OSError):  # a torch without OpenMP
        openmp = ctypes.CDLL(torch._C.__file__)
        for place in range(openmp.omp_get_num_places()):
            numbers = (ctypes.c_int * openmp.omp_get_place_num_procs(place))()
            openmp.omp_get_place_proc_ids(place, numbers)
            cpus |= set(numbers)
    return cpus


def _name(region: _core.Region, seat: int) -> str:
    return f"worker {seat}" if seat < region.workers else "the learner"


def _pidfd_of(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except OSError:  # the kernel has none, or the process is gone already
        return None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
