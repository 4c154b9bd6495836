"""What the forkserver imports before it forks: the slow part of a worker's start.

From the first it ends with its clients. The pipe by which the server learns that its clients are gone is the only one
that it has inherited. That is not enough as long as it imports: who asks for a process meanwhile sends a writer of that
pipe along, and it stays with the request. So until it has imported, the server ends with the thread that started it.
"""

from __future__ import annotations

import importlib
import os
import stat
import sys

from fastac.lifeline import PRELOAD, STARTER_PID, end_with_starter, end_with_writer, outlive_starter


def _is_pipe(fd: int) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(fd).st_mode)
    except OSError:  # the one that listed them
        return False


# Whoever else imports this has pipes of other kinds.
if any("multiprocessing.forkserver" in word for word in sys.orig_argv):
    if starter := os.environ.pop(STARTER_PID, ""):  # else it was not forking.py that started it
        end_with_starter(int(starter))
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd > 2 and _is_pipe(fd):
            end_with_writer(fd)

    importlib.import_module(os.environ.pop(PRELOAD, "") or "fastac.worker")

    outlive_starter()
