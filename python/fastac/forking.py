"""Processes from a forkserver that has imported what they need: a start takes 15 ms, not 0.3 s, or 2 s with torch.

Never a bare fork, which copies locks that other threads hold; a child forked after OpenMP was warm hung. Who waits for
the forkserver waits with a deadline. One that does not answer is killed: those it has forked live on without it, and
the next start makes another.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing import forkserver, popen_forkserver, reduction, resource_tracker, spawn, util
from multiprocessing.context import ForkServerProcess, set_spawning_popen
from typing import Any

from fastac.errors import WorkerError
from fastac.lifeline import PRELOAD, STARTER_PID, forks_held_up, hold, let_go
from fastac.signals import let_signals_in
from fastac.watch import is_stopped

START_DEADLINE_S = 120.0  # a cold start imports torch, which takes seconds on a loaded machine
STOP_DEADLINE_S = 1.0  # a person who stops a run is back at the prompt within 2 s
KILL_DEADLINE_S = 0.5  # after it, for all together: until those that were killed are gone, with a word on how
_POLL_S = 0.02


class Forkserver(forkserver.ForkServer):
    """One of our own. That of the program may run already, without what our workers need, and others would miss it
    where it has to be killed."""

    def __init__(self, preload: str) -> None:
        super().__init__()
        self.set_forkserver_preload(["fastac.preload"])
        self._preload = preload

    @property
    def pid(self) -> int | None:
        # A name that multiprocessing does not promise: without it a silent forkserver is not killed.
        pid: int | None = getattr(self, "_forkserver_pid", None)
        return pid

    def make_ready(self) -> None:
        resource_tracker.ensure_running()  # by itself it would unblock SIGINT in the midst of the following
        if self.pid is not None and is_stopped(str(self.pid)):
            self.kill()
        for_preload = {STARTER_PID: str(os.getpid()), PRELOAD: self._preload}
        # The server and all that it forks inherit the mask: Ctrl-C in a terminal is for the parent, which tells them.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with forks_held_up(START_DEADLINE_S):
                os.environ.update(for_preload)
                try:
                    self.ensure_running()
                finally:
                    for name in for_preload:
                        del os.environ[name]
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def kill(self) -> None:
        """And sees it dead, so that the next start makes another."""
        if self.pid is None:
            return
        deadline = time.monotonic() + STOP_DEADLINE_S
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self.pid, signal.SIGKILL)
            # WNOWAIT: multiprocessing will ask for its end itself.
            while (
                os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None
                and time.monotonic() < deadline
            ):
                time.sleep(0.01)

    def leave_to_parent(self) -> None:
        """In a fork of this process: it could not use the server, which is not its child, and would keep it alive."""
        alive: int | None = getattr(self, "_forkserver_alive_fd", None)
        if alive is not None:
            with contextlib.suppress(OSError):
                os.close(alive)


_servers: dict[str, Forkserver] = {}  # by what they have imported


def forkserver_with(preload: str) -> Forkserver:
    """The forkserver that has imported a module, or will have."""
    return _servers.setdefault(preload, Forkserver(preload))


def _leave_forkservers_to_parent() -> None:
    for server in _servers.values():
        server.leave_to_parent()
    _servers.clear()


os.register_at_fork(after_in_child=_leave_forkservers_to_parent)


def start(name: str, target: Callable[..., None], args: tuple[Any, ...], preload: str = "") -> Any:
    """A started multiprocessing.Process, from a forkserver that has imported the module `preload`.

    Raises WorkerError if two forkservers in turn did not start it.
    """
    for _ in range(2):
        forkserver_with(preload).make_ready()
        process = _Process(preload, target=target, args=args, name=name, daemon=True)
        failure = _start_within(START_DEADLINE_S, process)
        if failure is None:
            return process
    raise WorkerError(f"the forkserver did not start {name}: {failure}")


def _start_within(deadline_s: float, process: _Process) -> str | None:
    """What went wrong, if anything. In a thread, since multiprocessing waits for the forkserver without end."""
    failure: list[BaseException] = []

    def run() -> None:
        try:
            process.start()
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run, name="fastac-start", daemon=True)
    thread.start()
    deadline = time.monotonic() + deadline_s
    try:
        while thread.is_alive() and time.monotonic() < deadline:
            thread.join(_POLL_S)
            let_signals_in()
    except BaseException:  # Ctrl-C
        _give_up(thread, process.forkserver)
        if process.pid is not None:
            process.kill()
            process.join(STOP_DEADLINE_S)
        raise
    if thread.is_alive():
        _give_up(thread, process.forkserver)
        return f"no answer within {deadline_s:g} s"
    if not failure:
        return None
    if isinstance(failure[0], (OSError, EOFError)):  # it died
        return repr(failure[0])
    raise failure[0]


def _give_up(thread: threading.Thread, server: Forkserver) -> None:
    """So that no process is started later, unknown to anybody."""
    if thread.is_alive():
        server.kill()
        thread.join(STOP_DEADLINE_S)


class _Process(ForkServerProcess):
    """One that does not import the user's script, which would start the training again where the script has no
    `if __name__ == "__main__"`. What a worker gets of it is pickled by value (problem.py), so it need not."""

    def __init__(self, preload: str, **options: Any) -> None:
        super().__init__(**options)
        self._preload = preload

    @property
    def forkserver(self) -> Forkserver:
        """Whose child it is."""
        return forkserver_with(self._preload)

    @staticmethod
    def _Popen(process: Any) -> Any:
        return _Popen(process)


class _Popen(popen_forkserver.Popen):
    """Multiprocessing's own, but for what it says of the script, and for the pipe: its writer is known to lifeline."""

    _fds: list[int]  # to hand over

    def _launch(self, process: Any) -> None:
        about_parent = spawn.get_preparation_data(process.name)
        request = io.BytesIO()
        set_spawning_popen(self)
        try:
            reduction.dump(
                {key: what for key, what in about_parent.items() if not key.startswith("init_main_from_")}, request
            )
            reduction.dump(process, request)
        finally:
            set_spawning_popen(None)
        with forks_held_up(START_DEADLINE_S):
            self.sentinel, writer = process.forkserver.connect_to_new_process(self._fds)
            hold(writer)
        self.finalizer = util.Finalize(self, let_go, (writer, self.sentinel))
        with open(writer, "wb", closefd=False) as pipe:
            pipe.write(request.getbuffer())
        self.pid = forkserver.read_signed(self.sentinel)


class Descriptor:
    """A file descriptor that is handed over when a process starts; there it is a number."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __reduce__(self) -> tuple[Any, ...]:
        return _take_descriptor, (reduction.DupFd(self.fd),)


def _take_descriptor(handle: Any) -> int:
    fd: int = handle.detach()
    return fd
