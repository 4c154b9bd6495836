"""Where a figure was measured: stands beside every figure that fastac writes."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

from fastac.words import counted

_PACKAGES = ("fastac", "gymnasium", "numpy", "scipy", "torch")


def describe(*others: str) -> dict[str, Any]:
    """Processor, cores usable by this process, load average over the last minute, system and versions.

    Those of `others`, packages that need not be there, where they are installed.
    """
    found = {name: _version(name) for name in others}
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load_1min": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
        "others": {name: version for name, version in found.items() if version},
    }


def summary(machine: dict[str, Any]) -> str:
    """One line for people; warns where other work was going on."""
    line = (
        f"{machine['processor']}, {counted(machine['cores'], 'cores')}, load {machine['load_1min']}; "
        f"Python {machine['python']}, torch {machine['torch']}, gymnasium {machine['gymnasium']}, "
        f"fastac {machine['fastac']}"
    )
    line += "".join(f", {name} {version}" for name, version in machine.get("others", {}).items())
    return line + ("; the machine was busy: trust ratios, not times" if busy(machine) else "")


def busy(machine: dict[str, Any]) -> bool:
    """Other work was going on, so that times are not to be trusted."""
    return bool(machine["load_1min"] > 0.5 * machine["cores"])


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
