"""A process that ends with another one, whatever either of them is doing at that moment."""

from __future__ import annotations

import fcntl
import os
import select
import signal


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
