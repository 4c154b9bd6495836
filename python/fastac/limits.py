"""What the operating system grants this process, and what it uses: cgroup limits (v1 and v2) and memory.

Every function takes the `root` under which /proc and /sys lie. No limit is None.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")
_EXEMPTING = 1 << 21 | 1 << 24  # CAP_SYS_ADMIN, CAP_SYS_RESOURCE


def cpu_quota(root: Path = ROOT) -> float | None:
    """Processor time per second that the cgroup allows, in cores: 1.5 is one core and a half."""
    quotas = []
    for folder in _folders("cpu", root):
        words = _words(folder / "cpu.max")
        words = words or _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us")
        if words and words[0].isdecimal():  # no limit is "max" in v2, -1 in v1
            quotas.append(int(words[0]) / int(words[1]))
    return min(quotas, default=None)


def memory_left(root: Path = ROOT) -> int | None:
    """Bytes that can still be allocated: what the machine has available, or less where a cgroup says so."""
    left = []
    for line in _lines(root / "proc/meminfo"):
        if line.startswith("MemAvailable:"):
            left.append(int(line.split()[1]) * 1024)
    for folder in _folders("memory", root):
        v1 = (folder / "memory.limit_in_bytes").exists()
        limit = _number(folder / ("memory.limit_in_bytes" if v1 else "memory.max"))
        used = _number(folder / ("memory.usage_in_bytes" if v1 else "memory.current"))
        if limit is not None and used is not None:
            # Pages of files that were not used lately count as used, and are given back when memory runs short.
            given_back = _field(folder / "memory.stat", "total_inactive_file" if v1 else "inactive_file")
            left.append(max(0, limit - max(0, used - given_back)))
    return min(left, default=None)


def tasks_left(root: Path = ROOT) -> int | None:
    """Processes and threads that the cgroup still allows."""
    left = []
    for folder in _folders("pids", root):
        most, now = _number(folder / "pids.max"), _number(folder / "pids.current")
        if most is not None and now is not None:
            left.append(max(0, most - now))
    return min(left, default=None)


def user_tasks_left(root: Path = ROOT) -> int | None:
    """Processes and threads that RLIMIT_NPROC still allows this user; root and who has its powers are exempt."""
    most, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    own = root / "proc/self/status"
    user = _field(own, "Uid:")  # the real one
    powers = int(next((line.split()[1] for line in _lines(own) if line.startswith("CapEff:")), "0"), 16)
    if most == resource.RLIM_INFINITY or user == 0 or powers & _EXEMPTING:
        return None
    processes = (path for path in (root / "proc").glob("[0-9]*/status") if _field(path, "Uid:") == user)
    return max(0, most - sum(_field(path, "Threads:") for path in processes))


def private_bytes(root: Path = ROOT) -> int:
    """Memory of this process that it shares with no other one; 0 where the system does not say."""
    words = [line.split() for line in _lines(root / "proc/self/smaps_rollup") if line.startswith("Private_")]
    return 1024 * sum(int(kib) for _, kib, _ in words)


def _folders(controller: str, root: Path) -> Iterator[Path]:
    """The folder of this process's cgroup under a controller, and those above it: the tightest limit holds."""
    own = {}  # controllers of v1 by name, v2 as ""
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        own.update(dict.fromkeys(controllers.split(","), path))
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        subtree, mount = before.split()[3:5]
        kind, _, options = after.split()[:3]
        if kind == "cgroup2" or (kind == "cgroup" and controller in options.split(",")):
            here = Path(own.get(controller if kind == "cgroup" else "", "/"))
            # A container may see its own subtree as the mount, and its path as the host does.
            below = here.relative_to(subtree) if here.is_relative_to(subtree) else Path()
            top = root / mount.lstrip("/")
            yield from (top / part for part in (below, *below.parents))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _words(path: Path) -> list[str]:
    return " ".join(_lines(path)).split()


def _number(path: Path) -> int | None:
    words = _words(path)
    return int(words[0]) if words and words[0].isdecimal() else None


def _field(path: Path, name: str) -> int:
    return next((int(line.split()[1]) for line in _lines(path) if line.split()[:1] == [name]), 0)
