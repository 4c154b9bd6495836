"""What the forkserver imports before it forks its first worker, so that workers need not.

That takes seconds, in which the server cannot look whether its parent still lives. So the kernel does: until the import
is done, the server dies with the thread that started it, which waits for nothing else.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import signal

from fastac.launch import PARENT_PID

_PR_SET_PDEATHSIG = 1


def _when_the_parent_dies(number: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")


if PARENT_PID in os.environ:  # imported by the server, and by nobody else
    _when_the_parent_dies(signal.SIGKILL)
    if os.getppid() != int(os.environ.pop(PARENT_PID)):  # it died before we asked
        os._exit(1)
    import fastac.a3c  # noqa: F401

    _when_the_parent_dies(0)
    atexit.register(
        os._exit, 0
    )  # called before any other: the server has nothing to put in order, and torch takes long
