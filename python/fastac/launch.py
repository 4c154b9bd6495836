"""Workers as threads or as processes: start them, hear from them, notice their death, and see them off.

In: a function work(task, session, report) and one task for each worker. Out: each has run to its end, or the reason
why not, as an exception in the parent.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver, reduction
from multiprocessing.connection import Connection
from typing import Any, Protocol

from fastac import _core
from fastac.errors import FastacError, WorkerDiedError, WorkerError

READY = "ready"
START_DEADLINE_S = 120.0  # a cold start imports torch, which takes seconds on a loaded machine
STOP_DEADLINE_S = 2.0
_POLL_S = 0.02

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

    def messages(self) -> list[Any]: ...
    def alive(self) -> bool: ...
    def last_words(self) -> str: ...
    def join(self, timeout_s: float) -> None: ...
    def kill(self) -> None: ...


class Crew:
    """All workers of a run. A context manager: on the way out, in whatever way, no worker is left."""

    def __init__(self, workers: Sequence[Worker], observer: _core.Session) -> None:
        self._workers = workers
        self._observer = observer
        self._start_deadline = time.monotonic() + START_DEADLINE_S
        self._ready: set[int] = set()
        self._ended: dict[int, Done | Failed | None] = {}  # None: died without a word

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        self._observer.request_stop()
        deadline = time.monotonic() + STOP_DEADLINE_S
        for worker in self._workers:
            worker.join(max(0.0, deadline - time.monotonic()))
        for index, worker in enumerate(self._workers):
            if worker.alive():
                worker.kill()
                worker.join(STOP_DEADLINE_S)
            self._hear(index)
            if self._ended.get(index) is None:
                self._observer.reap(index)

    def starting(self) -> bool:
        """Whether anyone is not ready yet; waits 20 ms. Raises what ended a worker, or TimeoutError."""
        self.check()
        late = len(self._workers) - len(self._ready)
        if late and time.monotonic() > self._start_deadline:
            raise TimeoutError(f"{late} workers were not ready within {START_DEADLINE_S:g} s")
        if late:
            time.sleep(_POLL_S)
        return late > 0

    def working(self) -> bool:
        """Whether anyone is still at work; waits 20 ms. Raises WorkerError or WorkerDiedError when it sees one."""
        self.check()
        if len(self._ended) == len(self._workers):
            return False
        time.sleep(_POLL_S)
        return True

    def check(self) -> None:
        for index, worker in enumerate(self._workers):
            if index in self._ended:
                continue
            # Asked in this order: what a worker said before it ended is heard before it is declared dead.
            dead = not worker.alive()
            self._hear(index)
            if index not in self._ended and dead:
                self._ended[index] = None
                self._observer.reap(index)
                raise WorkerDiedError(f"{worker.name} {worker.last_words()}")
            end = self._ended.get(index)
            if isinstance(end, Failed):
                raise end.error

    def cpu_s(self) -> float:
        """Processor time of the workers that came to their end."""
        return sum(end.cpu_s for end in self._ended.values() if isinstance(end, Done))

    def _hear(self, index: int) -> None:
        for message in self._workers[index].messages():
            if message == READY:
                self._ready.add(index)
            else:
                self._ended[index] = message


def _run(work: Work, task: Any, session: _core.Session, name: str, report: Report) -> None:
    """What a worker does, thread or process: the work, then its last message."""
    try:
        cpu_s = work(task, session, report)
        session.close()
        report(Done(cpu_s))
    except BaseException as error:
        # An exception of ours is its own message; another travels as the text of its traceback, which always pickles.
        trace = f"{name} failed:\n{''.join(traceback.format_exception(error)).rstrip()}"
        session.close()
        report(Failed(error if isinstance(error, FastacError) else WorkerError(trace)))


class ThreadWorker:
    """A worker in this process. It cannot be killed: it leaves at its next update once the run is stopped."""

    def __init__(self, region: _core.Region, index: int, work: Work, task: Any) -> None:
        self.name = f"worker {index}"
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        session = _core.Session(region, index)
        self._thread = threading.Thread(
            target=_run, args=(work, task, session, self.name, self._put), name=f"fastac-{index}", daemon=True
        )
        self._thread.start()

    def _put(self, message: Any) -> None:
        # The parent's own clock already counts a thread's processor time.
        self._inbox.put(Done(0.0) if isinstance(message, Done) else message)

    def messages(self) -> list[Any]:
        return [self._inbox.get() for _ in range(self._inbox.qsize())]

    def alive(self) -> bool:
        return self._thread.is_alive()

    def last_words(self) -> str:
        return "ended without a word"

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    def kill(self) -> None:
        raise WorkerError(f"{self.name} did not leave within {STOP_DEADLINE_S:g} s, and a thread cannot be killed")


class ProcessWorker:
    """A worker in a process of its own, on the same region."""

    def __init__(self, region: _core.Region, index: int, work: Work, task: Any) -> None:
        self.name = f"worker {index}"
        self._inbox, outbox = multiprocessing.Pipe(duplex=False)
        args = (work, task, _Descriptor(region.fd), region.nonce, index, outbox)
        self._process = _context().Process(target=_process_main, args=args, name=f"fastac-{index}", daemon=True)
        with _nothing_to_import_from_main():
            self._process.start()
        outbox.close()  # the worker's own end is now the only one: it closes when the worker dies
        self.name = f"worker {index} (process {self._process.pid})"

    def messages(self) -> list[Any]:
        heard: list[Any] = []
        with contextlib.suppress(EOFError, OSError):
            while self._inbox.poll():
                heard.append(self._inbox.recv())
        return heard

    def alive(self) -> bool:
        return bool(self._process.is_alive())

    def last_words(self) -> str:
        code = self._process.exitcode
        if code is not None and code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        return f"ended without a word, with exit code {code}"

    def join(self, timeout_s: float) -> None:
        self._process.join(timeout_s)

    def kill(self) -> None:
        self._process.kill()


def launch(backend: str, region: _core.Region, observer: _core.Session, work: Work, tasks: Sequence[Any]) -> Crew:
    """Starts one worker for each task. `work` must be a function at the top level of a module, tasks must pickle."""
    kind: Callable[[_core.Region, int, Work, Any], Worker] = ProcessWorker if backend == "process" else ThreadWorker
    workers: list[Worker] = []
    crew = Crew(workers, observer)
    try:
        for index, task in enumerate(tasks):
            workers.append(kind(region, index, work, task))
    except BaseException:
        crew.__exit__()
        raise
    return crew


# ---- processes ------------------------------------------------------------------------------------------------


def _context() -> Any:
    """A forkserver with torch already imported: a worker starts in 15 ms instead of 2 s. Never a bare fork, which
    copies locks that other threads hold; a child forked after OpenMP was warm hung."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fastac.a3c"])
    # The server and all that it forks inherit the mask: Ctrl-C in a terminal is for the parent, which tells them.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with _nothing_to_import_from_main():
            forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


@contextlib.contextmanager
def _nothing_to_import_from_main() -> Iterator[None]:
    """A started process would import the user's script again, and with it start the training again where the script has
    no `if __name__ == "__main__"`. Nothing that a worker gets is defined there, so it need not."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


class _Descriptor:
    """A file descriptor that is handed over when a process starts."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __reduce__(self) -> tuple[Any, ...]:
        return _take_descriptor, (reduction.DupFd(self.fd),)


def _take_descriptor(handle: Any) -> int:
    fd: int = handle.detach()
    return fd


def _process_main(work: Work, task: Any, fd: int, nonce: int, index: int, outbox: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    import torch

    torch.set_num_threads(1)
    region = _core.Region.attach(fd, nonce)
    os.close(fd)

    def report(message: Any) -> None:
        try:
            outbox.send(message)
        except pickle.PicklingError:
            outbox.send(Failed(WorkerError(str(message))))

    _run(work, task, _core.Session(region, index), f"worker {index} (process {os.getpid()})", report)


def _leave_with_parent() -> None:
    """Waits for the end of the parent, however it came. A worker holds nothing that others would miss (updates.hpp)."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
