"""The folder of a run: its configuration, its machine, its tables and its model, as CSV, JSON and safetensors."""

from __future__ import annotations

import csv
import json
import math
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastac.metrics import Floats, Table


def make_folder(root: Path, name: str | None, kind: str) -> Path:
    """runs/<name>/, or runs/<kind>-<date>-<time>/. Raises FileExistsError rather than mix two runs."""
    folder = root / (name or f"{kind}-{time.strftime('%Y%m%d-%H%M%S')}")
    folder.mkdir(parents=True)
    return folder


def write_json(path: Path, value: Any) -> None:
    """NaN and infinity become null: they are no JSON."""
    path.write_text(json.dumps(_plain(value), indent=2, allow_nan=False) + "\n")


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """One line for each row, under the keys of the first."""
    rows = list(rows)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)


def write_table(path: Path, table: Table) -> None:
    """A table of equally long columns, with a header even where it is empty."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(table)
        writer.writerows(zip(*(_numbers(column) for column in table.values()), strict=True))


def _numbers(column: Floats) -> list[float]:
    """Whole numbers are written as such."""
    whole = bool((np.abs(column) < 2.0**53).all()) and bool((column == np.round(column)).all())
    numbers: list[float] = (column.astype(np.int64) if whole else column).tolist()
    return numbers


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(element) for key, element in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(element) for element in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
