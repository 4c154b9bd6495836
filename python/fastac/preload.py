"""What the forkserver imports before it forks: the slow part of a worker's start.

Imported there and nowhere else. The pipe by which the server learns that its clients are gone is the only one it has
inherited. That is not enough as long as it imports: who asks for a process meanwhile sends a writer of that pipe along,
and it stays with the request. So until it has imported, the server ends with the thread that started it, too.
"""

from __future__ import annotations

import os
import stat

from fastac.lifeline import STARTER_PID, end_with_starter, end_with_writer, outlive_starter

if starter := os.environ.pop(STARTER_PID, ""):  # else it was not forking.py that started it
    end_with_starter(int(starter))
for name in os.listdir("/proc/self/fd"):
    if (fd := int(name)) > 2 and os.path.exists(f"/proc/self/fd/{fd}") and stat.S_ISFIFO(os.fstat(fd).st_mode):
        end_with_writer(fd)

import fastac.a3c  # noqa: E402, F401

outlive_starter()
