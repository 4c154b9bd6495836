"""What a folder holds, as far as it can be read. In: a folder. Out: a Source, with notices.

A file that is damaged or missing leaves its part empty and is told in words; only a folder of another kind is refused.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from fastac import rundir
from fastac.compare.statistics import CURVE_COLUMNS
from fastac.errors import ReportError
from fastac.metrics import History, Table

Contents = TypeVar("Contents")
TABLES = ("episodes", "updates", "moments")
_RUN = ("run.json", *(f"{name}.csv" for name in TABLES))
_COMPARISON = ("compare.json", "compare.csv")
_KINDS = {"a run": _RUN, "a comparison": _COMPARISON, "scaling": ("bench-scaling.json",)}


@dataclass
class RunSource:
    """Of `fastac train`: run.json and the tables."""

    folder: Path
    record: dict[str, Any]
    history: History
    notices: list[str] = field(default_factory=list)


@dataclass
class ComparisonSource:
    """Of `fastac compare`: compare.json, and the columns of compare.csv for each (arm, seed)."""

    folder: Path
    record: dict[str, Any]
    curves: dict[tuple[str, int], Table]
    notices: list[str] = field(default_factory=list)


@dataclass
class ScalingSource:
    """Of `fastac bench scaling`: bench-scaling.json."""

    folder: Path
    record: dict[str, Any]
    notices: list[str] = field(default_factory=list)


Source = RunSource | ComparisonSource | ScalingSource


def load(folder: Path) -> Source:
    """Raises ReportError where the folder is of none of the three, or nothing of it is whole."""
    if not folder.is_dir():
        raise ReportError(
            f"{folder}: expected the folder of a run, of a comparison or of `fastac bench scaling`, got no folder"
        )
    found = [name for name, files in _KINDS.items() if any((folder / file).exists() for file in files)]
    if len(found) != 1:
        got = f"files of {' and '.join(found)}" if found else f"a folder with {_listing(folder)}"
        raise ReportError(
            f"{folder}: expected the folder of a run (run.json, updates.csv; from `fastac train`), of a comparison "
            f"(compare.json, compare.csv; from `fastac compare`) or of `fastac bench scaling` (bench-scaling.json), "
            f"got {got}"
        )
    readers: dict[str, Callable[[Path], Source]]
    readers = {"a run": _load_run, "a comparison": _load_comparison, "scaling": _load_scaling}
    source = readers[found[0]](folder)
    if not source.record and not _rows(source):
        raise ReportError(f"{folder}: nothing can be read: {'; '.join(source.notices)}")
    return source


def part(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    """record[name] where that is an object; else an empty one."""
    value = record.get(name)
    return value if isinstance(value, dict) else {}


def parts(record: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """The objects in the list record[name]; none where that is no list."""
    value = record.get(name)
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def number(record: Mapping[str, Any], name: str) -> float:
    """record[name] where that is a number; else NaN."""
    value = record.get(name)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan


def _load_run(folder: Path) -> RunSource:
    notices: list[str] = []
    record = _whole(folder / "run.json", rundir.read_json, notices)
    tables = {name: _whole(folder / f"{name}.csv", _run_table, notices) for name in TABLES}
    history = History()
    for name, table in tables.items():
        if table is not None:
            setattr(history, name, table)
    return RunSource(folder, record or {}, history, notices)


def _load_comparison(folder: Path) -> ComparisonSource:
    notices: list[str] = []
    record = _whole(folder / "compare.json", rundir.read_json, notices)
    curves = _whole(folder / "compare.csv", _curves, notices)
    return ComparisonSource(folder, record or {}, curves or {}, notices)


def _load_scaling(folder: Path) -> ScalingSource:
    notices: list[str] = []
    return ScalingSource(folder, _whole(folder / "bench-scaling.json", rundir.read_json, notices) or {}, notices)


def _rows(source: Source) -> int:
    if isinstance(source, RunSource):
        return len(source.history.episodes["wall_s"])
    return len(source.curves) if isinstance(source, ComparisonSource) else 0


def _whole(path: Path, read: Callable[[Path], Contents | None], notices: list[str]) -> Contents | None:
    """What `read` makes of a file; None, and a notice, where it is missing or damaged."""
    if not path.exists():
        notices.append(f"{path.name} is missing")
        return None
    try:
        return read(path)
    except json.JSONDecodeError as error:
        notices.append(f"{path.name} is damaged: no JSON, from line {error.lineno} on")
    except (ValueError, RecursionError) as error:
        notices.append(f"{path.name} is damaged: {error}")
    return None


def _run_table(path: Path) -> Table | None:
    table = rundir.read_table(path)
    missing = {*getattr(History(), path.stem)} - {*(table or {})}
    if missing:
        raise ValueError(f"it lacks the columns {', '.join(sorted(missing))}")
    return table


def _curves(path: Path) -> dict[tuple[str, int], Table]:
    text = path.read_bytes().decode()
    if not text.endswith("\n"):
        raise ValueError("empty, or cut in the midst of a row")
    rows = csv.DictReader(text.splitlines())
    missing = {"algorithm", "seed", *CURVE_COLUMNS} - {*(rows.fieldnames or ())}
    if missing:
        raise ValueError(f"it lacks the columns {', '.join(sorted(missing))}")
    of_run: dict[tuple[str, int], list[list[float]]] = {}
    try:
        for row in rows:
            of_run.setdefault((row["algorithm"], int(row["seed"])), []).append([float(row[n]) for n in CURVE_COLUMNS])
    except TypeError:  # a cell that is not there is None
        raise ValueError(f"row {rows.line_num} is cut") from None
    return {run: dict(zip(CURVE_COLUMNS, np.array(its).T, strict=True)) for run, its in of_run.items()}


def _listing(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(names[:4]) + more or "nothing in it"
