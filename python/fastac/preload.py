"""What the forkserver imports before it forks: the slow part of a worker's start.

Imported there and nowhere else. The pipe by which the server learns that its clients are gone is the only one it has
inherited; it is armed first, so that a client that dies during the slow imports does not leave a server behind.
"""

from __future__ import annotations

import os
import stat

from fastac.lifeline import end_with_writer

for name in os.listdir("/proc/self/fd"):
    if (fd := int(name)) > 2 and os.path.exists(f"/proc/self/fd/{fd}") and stat.S_ISFIFO(os.fstat(fd).st_mode):
        end_with_writer(fd)

import fastac.a3c  # noqa: E402, F401
