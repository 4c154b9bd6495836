"""Workers as threads or as processes: start them, hear from them, notice their death, and see them off.

In: a function work(task, session, report) and one task for each worker. Out: each has run to its end, or the reason
why not, as an exception in the parent.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver, reduction, resource_tracker
from multiprocessing.connection import Connection
from typing import Any, Protocol

from fastac import _core
from fastac.errors import FastacError, WorkerDiedError, WorkerError

READY = "ready"
START_DEADLINE_S = 120.0  # a cold start imports torch, which takes seconds on a loaded machine
STOP_DEADLINE_S = 2.0
_POLL_S = 0.02
_MAIN_LOCK = threading.Lock()

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
    def end(self) -> bool: ...


class Crew:
    """All workers of a run. A context manager: on the way out, in whatever way, no worker is left."""

    def __init__(self, workers: Sequence[Worker], observer: _core.Session, tick: Callable[[], None]) -> None:
        self._workers = workers
        self._observer = observer
        self._tick = tick
        self._ready: set[int] = set()
        self._ended: dict[int, Done | Failed | None] = {}  # None: died without a word

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._observer.request_stop()
        deadline = time.monotonic() + STOP_DEADLINE_S
        while any(worker.alive() for worker in self._workers) and time.monotonic() < deadline:
            self._tick()
            time.sleep(_POLL_S)
        stuck = [worker.name for worker in self._workers if not worker.end()]
        for index in range(len(self._workers)):
            self._hear(index)
            if self._ended.get(index) is None and not self._workers[index].alive():
                self._observer.reap(index)
        if stuck and error is None:
            raise WorkerError(f"{', '.join(stuck)} did not leave within {STOP_DEADLINE_S:g} s")

    def wait_ready(self) -> None:
        """Until every worker has said so. Raises what ended a worker, or TimeoutError."""
        deadline = time.monotonic() + START_DEADLINE_S
        while len(self._ready) < len(self._workers):
            if time.monotonic() > deadline:
                late = len(self._workers) - len(self._ready)
                raise TimeoutError(f"{late} workers were not ready within {START_DEADLINE_S:g} s")
            self._wait()

    def wait_done(self) -> None:
        """Until every worker has come to its end. Raises WorkerError or WorkerDiedError as soon as it sees one."""
        while len(self._ended) < len(self._workers):
            self._wait()

    def _wait(self) -> None:
        time.sleep(_POLL_S)
        self._tick()
        self.check()

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
    last: Done | Failed
    try:
        last = Done(work(task, session, report))
    except BaseException as error:
        # An exception of ours is its own message; another travels as the text of its traceback, which always pickles.
        trace = f"{name} failed:\n{''.join(traceback.format_exception(error)).rstrip()}"
        last = Failed(error if isinstance(error, FastacError) else WorkerError(trace))
    session.close()
    report(last)


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

    def end(self) -> bool:
        """Whether it has left. A thread cannot be killed; one in a long rollout leaves at its next update."""
        return not self._thread.is_alive()


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
            return f"was killed by {_signal_name(-code)}"
        return f"ended without a word, with exit code {code}"

    def end(self) -> bool:
        """Kills it if it still lives; whether it is gone."""
        if self._process.is_alive():
            self._process.kill()
        self._process.join(STOP_DEADLINE_S)
        return not self._process.is_alive()


def launch(
    backend: str,
    region: _core.Region,
    observer: _core.Session,
    work: Work,
    tasks: Sequence[Any],
    tick: Callable[[], None],
) -> Crew:
    """Starts one worker for each task. `work` must be a function at the top level of a module, tasks must pickle.

    `tick` is called some fifty times a second as long as the parent waits for its workers.
    """
    kind: Callable[[_core.Region, int, Work, Any], Worker] = ProcessWorker if backend == "process" else ThreadWorker
    workers: list[Worker] = []
    crew = Crew(workers, observer, tick)
    try:
        for index, task in enumerate(tasks):
            workers.append(kind(region, index, work, task))
    except BaseException as error:
        crew.__exit__(type(error), error, None)
        raise
    return crew


# ---- processes ------------------------------------------------------------------------------------------------


def _context() -> Any:
    """A forkserver with torch already imported: a worker starts in 15 ms instead of 2 s. Never a bare fork, which
    copies locks that other threads hold; a child forked after OpenMP was warm hung."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fastac.a3c"])
    resource_tracker.ensure_running()  # by itself it would unblock SIGINT in the midst of the following
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
    with _MAIN_LOCK:
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

    _run(work, task, _core.Session(region, index), f"worker {index} (process {os.getpid()})", outbox.send)


def _leave_with_parent() -> None:
    """Waits for the end of the parent, however it came. A worker holds nothing that others would miss (updates.hpp)."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
