"""The folder of a run: its configuration, its machine, its tables and its model, as CSV, JSON and safetensors."""

from __future__ import annotations

import contextlib
import csv
import errno
import fcntl
import io
import itertools
import json
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from fastac.errors import ConfigError
from fastac.metrics import Floats, Table


def make_folder(root: Path, name: str | None, kind: str) -> Path:
    """runs/<name>/, or runs/<kind>-<date>-<time>[-<nth>]/. Raises FileExistsError rather than mix two runs.

    Raises ConfigError for a name that leads elsewhere.
    """
    if name is not None and (Path(name).name != name or name in ("", "..")):
        raise ConfigError(f"name: expected the name of a folder in {root}, got {name!r}")
    if name is not None:
        (root / name).mkdir(parents=True)
        return root / name
    of_now = f"{kind}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder, nth = root / of_now, 1
    while True:
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:  # another run of the same second
            nth += 1
            folder = root / f"{of_now}-{nth}"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """The folder is ours until this ends or the process does. Raises BlockingIOError where another process has it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(errno.EAGAIN, "another process is training in this folder", str(folder)) from None
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def replacing(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """A file to write that takes the name `path` once it is complete on the disk. Where that fails, nothing stays."""
    temporary = path.with_name(path.name + ".writing")
    try:
        with temporary.open(mode, newline="" if mode == "w" else None) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # of write() and fsync()
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def set_aside(path: Path) -> Path:
    """Keeps a damaged file under another name, which is returned: updates.csv.damaged, or .damaged-2 and so on."""
    aside = path.with_name(f"{path.name}.damaged")
    for number in itertools.count(2):
        if not aside.exists():
            break
        aside = path.with_name(f"{path.name}.damaged-{number}")
    return path.rename(aside)


def remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def write_text(path: Path, text: str) -> None:
    """Whole or not at all."""
    with replacing(path) as file:
        file.write(text)


def write_json(path: Path, value: Any) -> None:
    """NaN and infinity become null: they are no JSON."""
    with replacing(path) as file:
        file.write(json.dumps(_plain(value), indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """The record in a file; empty where there is none. Raises ValueError where it holds something else."""
    if not path.exists():
        return {}
    record = json.loads(path.read_text())
    if not isinstance(record, dict):
        raise ValueError(f"expected an object, got {type(record).__name__}")
    return record


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """One line for each row, under the keys of the first."""
    rows = list(rows)
    with replacing(path) as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)


def write_table(path: Path, table: Table) -> None:
    """A table of equally long columns, with a header even where it is empty."""
    with replacing(path) as file:
        writer = csv.writer(file)
        writer.writerow(table)
        writer.writerows(zip(*(_numbers(column) for column in table.values()), strict=True))


def read_table(path: Path) -> Table | None:
    """What `write_table` wrote; None where there is no file. Raises ValueError where it holds something else."""
    if not path.exists():
        return None
    text = path.read_bytes().decode()
    if not text.endswith("\n"):
        raise ValueError("empty, or cut in the midst of a row")
    try:
        names, *rows = csv.reader(io.StringIO(text, newline=""))
    except csv.Error as error:
        raise ValueError(str(error)) from None
    if any(len(row) != len(names) for row in rows):
        raise ValueError(f"expected {len(names)} numbers in every row")
    numbers = np.array(rows, np.float64).reshape(-1, len(names))
    return dict(zip(names, numbers.T, strict=True))


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
