"""A process that ends with another one, whatever either of them is doing at that moment.

It reads a pipe that only the other one writes to. A fork of the writer inherits its end; so it is closed there.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import select
import signal
import threading
from collections.abc import Iterator

# In the environment of a forkserver that is being started: by whom, and the module to import.
STARTER_PID, PRELOAD = "FASTAC_STARTER_PID", "FASTAC_PRELOAD"
_PR_SET_PDEATHSIG = 1
_FORK_DEADLINE_S = 1.0
_writers: set[int] = set()  # the ends of such pipes that this process holds
_forks = threading.RLock()  # so that a signal handler may fork as well


def end_with_starter(pid: int) -> None:
    """From now on the kernel kills this process as soon as the thread of process `pid` that started it ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != pid:  # it ended before the kernel was told
        os.kill(os.getpid(), signal.SIGKILL)


def outlive_starter() -> None:
    """Takes end_with_starter back."""
    _prctl(_PR_SET_PDEATHSIG, 0)


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def end_with_writer(pipe: int) -> None:
    """From now on the kernel kills this process as soon as the last writer of `pipe`, a read end, is gone.

    Nothing must be written to that pipe any more. The kernel does it, so it needs no thread that would wait for the GIL
    behind a long native call, and it reaches a process that is stopped. (PR_SET_PDEATHSIG is no such thing: it tells of
    the end of the *thread* that forked, and here that is the forkserver's.)
    """
    fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(pipe, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)
    # In this order: a writer that went before the kernel was told is seen here.
    poller = select.poll()
    poller.register(pipe, select.POLLIN)
    if any(events & select.POLLHUP for _, events in poller.poll(0)):
        os.kill(os.getpid(), signal.SIGKILL)


@contextlib.contextmanager
def forks_held_up(deadline_s: float) -> Iterator[None]:
    """Inside, other threads wait with their os.fork: for who makes a writer, until it is known to `hold`.

    Raises TimeoutError where another thread has been inside for `deadline_s`.
    """
    lock = _forks
    if not lock.acquire(timeout=deadline_s):
        raise TimeoutError(f"another thread has been starting a process for {deadline_s:g} s")
    try:
        yield
    finally:
        lock.release()


def hold(writer: int) -> None:
    """A fork of this process will not keep this file descriptor."""
    _writers.add(writer)


def let_go(*descriptors: int) -> None:
    """Closes them; they need not be writers."""
    for fd in descriptors:
        _writers.discard(fd)
        os.close(fd)


def _before_fork() -> None:
    _forks.acquire(timeout=_FORK_DEADLINE_S)


def _after_fork() -> None:
    with contextlib.suppress(RuntimeError):  # it was not waited for any longer
        _forks.release()


def _after_fork_in_child() -> None:
    global _forks
    _forks = threading.RLock()
    for fd in _writers:
        with contextlib.suppress(OSError):
            os.close(fd)
    _writers.clear()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
