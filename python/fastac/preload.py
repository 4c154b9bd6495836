"""What the forkserver imports first: from here on it ends with its clients, in the midst of slow imports, too."""

from __future__ import annotations

import os
import stat
import sys

from fastac.lifeline import end_with_writer


def _is_pipe(fd: int) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(fd).st_mode)
    except OSError:  # the one that listed them
        return False


# The pipe by which the server learns that its clients are gone is the only one that it has inherited. Whoever else
# imports this has pipes of other kinds.
if any("multiprocessing.forkserver" in word for word in sys.orig_argv):
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd > 2 and _is_pipe(fd):
            end_with_writer(fd)
