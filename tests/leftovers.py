"""What a test may leave behind: processes, threads, file descriptors, files in /dev/shm, mappings of regions."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import threading
import time
from multiprocessing import forkserver, resource_tracker
from pathlib import Path

from fastac import forking

EXEC_S = 0.1  # how long an exec may take, in the midst of which a process has no environment
PF_KTHREAD = 0x00200000  # one of the kernel's own
GRACE_S = 2.0  # how long what is on its way out may take
SHARED_FILES = Path("/dev/shm")
Thing = tuple[str, object]
# What libraries keep for life: matplotlib its open fonts, multiprocessing its heap, a file without a name by then.
_KEPT = re.compile(r"/mpl-data/fonts/.*\.ttf$|^/dev/shm/pym-.* \(deleted\)$")

# Whatever is started from here inherits this, also where its parent is gone and it has a session of its own.
MARK = f"fastac-tests-{os.getpid()};".encode()
os.environb[b"FASTAC_TESTS"] = os.environb.get(b"FASTAC_TESTS", b"") + MARK
# A fork keeps the environment that this process was started with, but inherits this descriptor.
_FORK_MARK = os.memfd_create(f"fastac-tests-{os.getpid()}")
_foreign: set[int] = set()  # processes that were looked at and are none of ours


def look() -> dict[Thing, str]:
    """All there is now, each with words for it."""
    return {**_processes(), **_threads(), **_descriptors(), **_shared_files(), **_mappings()}


def left_since(before: dict[Thing, str]) -> list[str]:
    """What is there now and was not before, once it had its time to go."""
    deadline = time.monotonic() + GRACE_S
    collected = False
    while new := {thing: words for thing, words in look().items() if thing not in before}:
        if not collected:
            gc.collect()  # only now: with torch imported it takes longer than most tests
            collected = True
            continue
        if time.monotonic() > deadline:
            return sorted(new.values())
        time.sleep(0.01)
    return []


def _processes() -> dict[Thing, str]:
    """Our children and theirs, zombies too, but for multiprocessing's servants."""
    servants = {server._forkserver_pid for server in _forkservers()} | {resource_tracker._resource_tracker._pid}
    ours: set[int] = {os.getpid()}
    found: dict[Thing, str] = {}
    pids = (int(name) for name in os.listdir("/proc") if name.isdecimal())
    for pid in sorted(pid for pid in pids if pid not in _foreign and pid != os.getpid()):
        try:
            state, parent, *_, flags = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[:7]
            environ = b"" if state == "Z" or int(flags) & PF_KTHREAD else _environ(pid)
            if int(parent) in ours or MARK in environ or _is_fork(pid):
                ours.add(pid)
                if pid not in servants:  # a dead one of these is asked for by multiprocessing at its next use
                    command = Path(f"/proc/{pid}/cmdline").read_bytes()
                    words = command.replace(b"\0", b" ").decode(errors="replace")[:200]
                    found["process", pid] = f"process {pid}, child of {parent}, state {state}: {words}"
            elif state != "Z":
                _foreign.add(pid)
        except OSError:  # gone meanwhile
            continue
    return found


def _forkservers() -> list[forkserver.ForkServer]:
    return [forkserver._forkserver, *forking._servers.values()]


def _environ(pid: int) -> bytes:
    """Empty for a moment in the midst of an exec, and for good where somebody wanted none."""
    deadline = time.monotonic() + EXEC_S
    with contextlib.suppress(PermissionError, ProcessLookupError):  # another user's; a zombie by now
        while not (environ := Path(f"/proc/{pid}/environ").read_bytes()) and time.monotonic() < deadline:
            time.sleep(0.001)
        return environ
    return b""


def _is_fork(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return os.path.samestat(os.stat(f"/proc/{pid}/fd/{_FORK_MARK}"), os.fstat(_FORK_MARK))
    return False


def _threads() -> dict[Thing, str]:
    return {
        ("thread", thread.ident): f"thread {thread.name}"
        for thread in threading.enumerate()
        if thread.name.startswith("fastac-")
    }


def _descriptors() -> dict[Thing, str]:
    allowed = {server._forkserver_alive_fd for server in _forkservers()} | {resource_tracker._resource_tracker._fd}
    found: dict[Thing, str] = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one that lists them
            target = os.readlink(f"/proc/self/fd/{name}")
            if int(name) not in allowed and not _KEPT.search(target):
                found["descriptor", (name, target)] = f"descriptor {name}: {target}"
    return found


def _shared_files() -> dict[Thing, str]:
    """But for those that a process maps which is none of ours: the folder is the machine's, and others use it, too."""
    names = os.listdir(SHARED_FILES)
    if not names:
        return {}
    _processes()  # which are ours
    theirs = b""
    for pid in _foreign:
        with contextlib.suppress(OSError):  # gone, or another user's
            theirs += Path(f"/proc/{pid}/maps").read_bytes()
    paths = {name: f"{SHARED_FILES}/{name}" for name in names}
    return {("file", name): path for name, path in paths.items() if f" {path}\n".encode() not in theirs}


def _mappings() -> dict[Thing, str]:
    maps = Path("/proc/self/maps").read_bytes()
    if b"memfd:fastac" not in maps:
        return {}
    lines = [line.decode() for line in maps.splitlines() if b"memfd:fastac" in line]
    return {("mapping", line.split()[0]): f"mapping {line}" for line in lines}
