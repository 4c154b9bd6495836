"""A process that ends with another one, whatever either of them is doing at that moment."""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import signal

STARTER_PID = "FASTAC_STARTER_PID"  # in the environment of a forkserver that is being started
_PR_SET_PDEATHSIG = 1


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
