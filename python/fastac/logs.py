"""What a run tells while it trains, by the formats of Stable-Baselines3's loggers.

In: Training.scalars(). Out: progress.csv, progress.json and event files in a folder, tables on stdout.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from rich.console import Console
from rich.table import Table

from fastac import rundir
from fastac.errors import ConfigError
from fastac.training import BaseCallback, Training
from fastac.updates import rest_after

FORMATS = ("csv", "json", "stdout", "tensorboard")
_STEP = "time/total_timesteps"
_EVENTS = "events.out.tfevents."


class Logger(BaseCallback):
    """Writes Training.scalars() every `every_s` seconds and at the end: a row of progress.csv, a line of progress.json.

    A training that goes on in a folder goes on in its files. Rows later than where the model is are dropped: what they
    tell of is played again. So a new model begins anew. NaN, where nothing was told, is "nan" in CSV, null in JSON, and
    left out elsewhere. Writing takes a twentieth of the time at most: where it is slow, it is done less often.

    Args:
        folder: for the files; made if it is not there. None where there are none.
        formats: of "csv", "json" (JSON lines), "stdout" (a table) and "tensorboard" (event files, as TensorBoard reads
            them; needs `pip install 'fastac[tensorboard]'`).
        every_s: seconds between two rows.

    Raises:
        ConfigError: another format, no folder for a file, no tensorboard, or every_s is no number >= 0.
        OSError: in learn(): a file could not be written. That ends the training, with the model as it is then.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        formats: Sequence[str] = ("csv", "json"),
        every_s: float = 1.0,
    ) -> None:
        if isinstance(every_s, bool) or not isinstance(every_s, (int, float)) or not 0 <= every_s < math.inf:
            raise ConfigError(f"every_s: expected a number of seconds >= 0, got {every_s!r}")
        if isinstance(formats, str) or not formats or not set(formats) <= set(FORMATS):
            raise ConfigError(f"formats: expected some of {', '.join(FORMATS)}, got {formats!r}")
        if folder is None and set(formats) != {"stdout"}:
            raise ConfigError(f"folder: expected one for {', '.join(set(formats) - {'stdout'})}, got None")
        self.every_s = self._every_s = float(every_s)
        self._folder = None if folder is None else Path(folder)
        self._outputs = [_output(name, self._folder) for name in dict.fromkeys(formats)]
        self._begin = 0
        self._last = 0.0  # env steps of the latest row

    def on_training_start(self, training: Training) -> None:
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
        self._last = self._begin = training.num_timesteps
        names = list(training.scalars(self))
        for output in self._outputs:
            output.begin(names, training.num_timesteps)

    def on_step(self, training: Training) -> None:
        if training.num_timesteps == self._begin:  # workers are starting
            return
        started = time.monotonic()
        row = training.scalars(self)
        self._last = math.inf  # one that failed is not tried again while the run is taken down for it
        for output in self._outputs:
            output.write(row)
        self._last = training.num_timesteps
        self.every_s = max(self._every_s, rest_after(time.monotonic() - started))

    def on_training_end(self, training: Training) -> None:
        if self._last < training.num_timesteps:
            self.on_step(training)


def files_in(folder: Path) -> list[Path]:
    """Those that a Logger has written there."""
    names = ("progress.csv", "progress.json")
    return [path for path in map(folder.joinpath, names) if path.exists()] + event_files_in(folder)


def event_files_in(folder: Path) -> list[Path]:
    """TensorBoard's, from the first on."""
    return sorted(folder.glob(f"{_EVENTS}*"))


def import_tensorboard() -> Any:
    """(event_pb2, summary_pb2, RecordWriter), which import neither TensorFlow nor torch. Raises ConfigError."""
    try:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter
    except ImportError as error:
        raise ConfigError(
            f"tensorboard: expected the tensorboard package ({error}): pip install 'fastac[tensorboard]'"
        ) from error
    return event_pb2, summary_pb2, RecordWriter


class _Output(Protocol):
    def begin(self, names: list[str], until: int) -> None:
        """Keeps the rows of the model's first `until` env steps."""

    def write(self, row: Mapping[str, float]) -> None: ...


def _output(name: str, folder: Path | None) -> _Output:
    if name == "stdout" or folder is None:
        return _Stdout()
    kinds: dict[str, Callable[[Path], _Output]] = {"csv": _Csv, "json": _JsonLines, "tensorboard": _EventFile}
    return kinds[name](folder)


class _Csv:
    def __init__(self, folder: Path) -> None:
        self._path = folder / "progress.csv"

    def begin(self, names: list[str], until: int) -> None:
        table = _whole(self._path, lambda path: _table_of(path, names)) or dict.fromkeys(names, np.zeros(0))
        kept = table[_STEP] <= until
        rundir.write_table(self._path, {name: column[kept] for name, column in table.items()})

    def write(self, row: Mapping[str, float]) -> None:
        text = io.StringIO()
        csv.writer(text).writerow(map(_number, row.values()))
        _append(self._path, text.getvalue().encode())


class _JsonLines:
    def __init__(self, folder: Path) -> None:
        self._path = folder / "progress.json"

    def begin(self, names: list[str], until: int) -> None:
        lines = _whole(self._path, _lines_of) or []
        rundir.write_text(self._path, "".join(line for line, step in lines if step <= until))

    def write(self, row: Mapping[str, float]) -> None:
        told = {name: _number(value) if math.isfinite(value) else None for name, value in row.items()}
        _append(self._path, json.dumps(told).encode() + b"\n")


class _Stdout:
    def begin(self, names: list[str], until: int) -> None:
        pass

    def write(self, row: Mapping[str, float]) -> None:
        table = Table(show_header=False)
        groups: dict[str, list[tuple[str, str]]] = {}
        for name, value in row.items():
            if not math.isnan(value):
                group, _, its = name.partition("/")
                groups.setdefault(group, []).append((f"  {its}", _for_people(value)))
        for group, rows in groups.items():
            table.add_section()
            for cells in ((f"{group}/", ""), *rows):
                table.add_row(*cells)
        console = Console()
        with console.capture() as text:
            console.print(table)
        print(text.get(), end="", flush=True)


class _EventFile:
    """A new file for each learn(). Of those before, TensorBoard leaves out what is later than where this one starts."""

    def __init__(self, folder: Path) -> None:
        self._events, self._summaries, self._record_writer = import_tensorboard()
        self._folder = folder
        self._path = folder

    def begin(self, names: list[str], until: int) -> None:
        nth = len(event_files_in(self._folder))
        self._path = self._folder / f"{_EVENTS}{int(time.time()):010d}.fastac.{nth:04d}"  # are read in this order
        start = self._events.SessionLog(status=self._events.SessionLog.START)
        self._append(file_version="brain.Event:2")
        self._append(step=until + 1, session_log=start)

    def write(self, row: Mapping[str, float]) -> None:
        value = self._summaries.Summary.Value
        values = [value(tag=name, simple_value=its) for name, its in row.items() if not math.isnan(its)]
        self._append(step=int(row[_STEP]), summary=self._summaries.Summary(value=values))

    def _append(self, **event: Any) -> None:
        record = io.BytesIO()
        self._record_writer(record).write(self._events.Event(wall_time=time.time(), **event).SerializeToString())
        _append(self._path, record.getvalue())


def _whole(path: Path, read: Callable[[Path], Any]) -> Any:
    """What `read` makes of a file; None where there is none, or a damaged one, which is set aside with a warning."""
    try:
        return read(path) if path.exists() else None
    except ValueError as error:
        aside = rundir.set_aside(path).name
        warnings.warn(f"{path} is damaged ({error}): kept as {aside}, begun anew", stacklevel=2)
        return None


def _table_of(path: Path, names: Iterable[str]) -> Any:
    table = rundir.read_table(path)
    if table is not None and list(table) != list(names):
        raise ValueError(f"expected the columns {', '.join(names)}")
    return table


def _lines_of(path: Path) -> list[tuple[str, float]]:
    """Each line, with its env steps. Raises ValueError for a file of anything else."""
    try:
        lines = path.read_bytes().decode().splitlines(keepends=True)
        if lines and not lines[-1].endswith("\n"):
            raise ValueError("cut in the midst of a line")
        return [(line, float(json.loads(line)[_STEP])) for line in lines]
    except (KeyError, TypeError) as error:
        raise ValueError(f"expected lines with {_STEP}") from error


def _append(path: Path, data: bytes) -> None:
    """All of it, or nothing of it. Raises OSError, which names the file."""
    try:
        with path.open("ab", buffering=0) as file:
            size = file.tell()
            try:
                while data:
                    data = data[file.write(data) :]
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(size)
                raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def _number(value: float) -> float | int:
    """Whole numbers are written as such."""
    return int(value) if value.is_integer() else value


def _for_people(value: float) -> str:
    return f"{value:,.0f}" if value.is_integer() or abs(value) >= 1000 else f"{value:.3g}"
