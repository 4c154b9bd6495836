"""One training in its folder: the checkpoint, the tables and run.json are right at every stage, whatever ends it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import numpy as np

from fastac import rundir
from fastac.checkpoint import MODEL_FILE, file_of, load_checkpoint, previous_of
from fastac.cli import cluster
from fastac.cli.configuration import read_config, write_config
from fastac.cli.endings import stopped
from fastac.cli.options import CHECKPOINT_EVERY_S
from fastac.errors import FastacError
from fastac.metrics import History, Position, Table, thresholds_of
from fastac.recording import recording_of
from fastac.signals import signals_deferred
from fastac.words import counted

if TYPE_CHECKING:
    from fastac.algorithm import Algorithm
    from fastac.cli.watching import Watching

Contents = TypeVar("Contents")
CONFIG_FILE = "config.toml"
TABLES = ("episodes", "updates", "moments")
_OF_A_PART = ("status", "num_timesteps", "version", "machine", "ledger", "startup_s", "train_s", "cpu_s")


class RunFolder:
    """The tables and run.json of a model that trains here, over all parts of a run that was interrupted.

    Tables go on where the earlier parts left them: env_steps, updates and wall_s count through, and the column `part`
    says which part a row is from. Rows later than the checkpoint that training goes on from are dropped: what they
    tell of is not in the model. A file that is damaged is set aside, and begins anew.

    While a run trains, its tables are written before each checkpoint: a kill in between leaves rows too many, which are
    dropped so. At its end learn() saves the model first, because a callback must not cost the model: a kill in between
    leaves the rows since the checkpoint before unwritten, and a notice says which. No row is ever there twice.

    Attributes:
        made_here: by this command, which was told `options`, so that it may take the folder away again.
        notices: what is damaged or missing of the earlier parts, in words.
    """

    def __init__(self, folder: Path, model: Algorithm, options: Mapping[str, Any] | None = None) -> None:
        self.folder = folder
        self.made_here = options is not None
        self._options = options or {}
        self.notices: list[str] = []
        self._model = model
        self._begin = model.num_timesteps
        self._earlier = {name: self._whole(f"{name}.csv", self._rows_before_the_checkpoint) for name in TABLES}
        before = self._whole("run.json", _record_in)
        if before is None:
            before = {"status": "unknown"}
        self._earlier_parts: list[dict[str, Any]] = before.pop("earlier_parts", [])
        if before:
            if before.get("status") == "running":  # and nobody holds the folder
                before["status"] = "killed"
            kept = {"num_timesteps": self._begin, "version": model.version, "tables_until_env_steps": self._last_row}
            self._earlier_parts.append({name: before.get(name) for name in _OF_A_PART} | kept)
        if self._last_row < self._begin:  # the latest part did not live to write them
            rows = f"between {self._last_row:,} and {self._begin:,} env steps"
            self.notices.append(f"the tables have no rows {rows}")

    @property
    def part(self) -> int:
        """1 for a run that was never interrupted."""
        tables = (table for table in self._earlier.values() if table is not None and len(table["part"]))
        return 1 + max([len(self._earlier_parts), *(int(table["part"].max()) for table in tables)])

    def _whole(self, name: str, read: Callable[[Path], Contents]) -> Contents | None:
        """What `read` makes of a file; None where that is damaged."""
        path = self.folder / name
        try:
            return read(path)
        except ValueError as error:
            self.notices.append(f"{path} is damaged ({error}): kept as {rundir.set_aside(path).name}, begun anew")
            return None

    def _rows_before_the_checkpoint(self, path: Path) -> Table | None:
        table = rundir.read_table(path)
        if table is None:
            return None
        expected = {*getattr(History(), path.stem), "part"}
        if table.keys() != expected:
            raise ValueError(f"expected the columns {', '.join(sorted(expected))}")
        kept = table["env_steps"] <= self._begin
        return {column: values[kept] for column, values in table.items()}

    @property
    def _last_row(self) -> int:
        """Env steps up to which the tables of the earlier parts tell."""
        updates = self._earlier["updates"]
        return 0 if updates is None or len(updates["env_steps"]) == 0 else int(updates["env_steps"][-1])

    def take_away(self) -> None:
        """What a run has written here, and the folder if that was all."""
        from fastac.logs import files_in

        model = self.folder / MODEL_FILE
        kept = (model, recording_of(model))
        ours = (self._record.name, CONFIG_FILE, *(f"{name}.csv" for name in TABLES))
        for path in (*kept, *map(previous_of, kept), *map(self.folder.joinpath, ours), *files_in(self.folder)):
            path.unlink(missing_ok=True)
        rundir.remove_if_empty(self.folder)

    def mark_as_done(self) -> None:
        """For a run that was killed between its last checkpoint and its last record."""
        record = rundir.read_json(self._record)
        if record.get("status", "running") == "running":
            kept = {"num_timesteps": self._model.num_timesteps, "version": self._model.version}
            rundir.write_json(self._record, {**record, **kept, "status": "done"})

    def write_tables(self, history: History) -> None:
        """Those of all parts, `history` being that of the latest."""
        for name, table in self._joined(history).items():
            rundir.write_table(self.folder / f"{name}.csv", table)

    def whole_history(self) -> History:
        """The tables of all parts, once the latest has ended."""
        assert self._model.history is not None
        tables = self._joined(self._model.history)
        return dataclasses.replace(
            self._model.history,
            episodes=tables["episodes"],
            updates=tables["updates"],
            moments=tables["moments"],
            returns_before=(),
        )

    def time_to(self, threshold: float) -> dict[str, float] | None:
        """When the model solved it (metrics.py). What tables lack of a part that was killed, the checkpoint knows."""
        if self._model.history is None:
            return None
        return self.whole_history().time_to(threshold) or self._model.history.time_to(threshold)

    def _joined(self, history: History) -> dict[str, Table]:
        joined = {}
        for name in TABLES:
            table: Table = getattr(history, name)
            table = {**table, "part": np.full(len(table["wall_s"]), float(self.part))}
            earlier = self._earlier[name]
            joined[name] = table if earlier is None else {c: np.concatenate([earlier[c], table[c]]) for c in table}
        return joined

    def write_config(self, aim: Position, checkpoint_every_s: float) -> None:
        """config.toml, with which `fastac train` makes the run again: what it was told, and the seed in any case."""
        of_run = {
            **{name: self._options.get(name) for name in self._model.config.to_dict()},
            "seed": self._model.config.seed,
            "total_timesteps": aim.total_timesteps,
            "solve": aim.solve,
            "checkpoint_every_s": checkpoint_every_s,
        }
        of_run |= self._of_cluster()
        command = f"fastac train {type(self._model).__name__.lower()}"
        write_config(self.folder / CONFIG_FILE, command, of_run)

    def _of_cluster(self) -> dict[str, Any]:
        """The options of the cluster that the run is on; nothing on one machine."""
        told = self._options or self.told()
        return {} if told.get("cluster") is None else {n: told[n] for n in cluster.NAMES if told.get(n) is not None}

    def told(self) -> dict[str, Any]:
        """What config.toml says, if there is one."""
        path = self.folder / CONFIG_FILE
        return (self._whole(CONFIG_FILE, read_config) if path.exists() else None) or {}

    def checkpoint_every_s(self) -> float:
        """As config.toml says."""
        every_s: float = self.told().get("checkpoint_every_s", CHECKPOINT_EVERY_S)
        return every_s

    def write_record(self, status: str, aim: Position) -> None:
        """run.json. `status` is running, done, stopped or failed: and why."""
        from fastac import machine

        model, history = self._model, self._model.history
        record = {
            "status": status,
            "algorithm": type(model).__name__,
            "config": model.config.to_dict(),
            "machine": machine.describe(),
            "total_timesteps": aim.total_timesteps,
            "solve": aim.solve,
            "cluster": self._of_cluster(),
            "num_timesteps": model.num_timesteps,
            "version": model.version,
            "ledger": None if model.ledger is None else dataclasses.asdict(model.ledger),
            "startup_s": None if history is None else history.startup_s,
            "train_s": None if history is None else history.train_s,
            "cpu_s": None if history is None else history.cpu_s,
            **{
                f"solved_{threshold:g}": self.time_to(threshold)
                for threshold in thresholds_of(model.config.env, aim.solve)
            },
            "earlier_parts": self._earlier_parts,
        }
        rundir.write_json(self._record, record)

    @property
    def _record(self) -> Path:
        return self.folder / "run.json"


def expect_run(folder: Path) -> None:
    """A checkpoint is enough: that is what `learn(checkpoint=...)` leaves, and a run whose run.json was lost."""
    path = file_of(folder)
    if path.exists() or previous_of(path).exists():
        return
    if (folder / "run.json").exists():
        raise click.UsageError(f"{folder}: this run ended before anything was saved; start it again by `fastac train`")
    raise click.UsageError(
        f"{folder}: expected the folder of a run (runs/<name>), got one without run.json and {path.name}"
    )


def load_model(path: Path) -> Algorithm:
    """Of whichever algorithm it is. Raises what the `load` of that raises."""
    import fastac

    kind = load_checkpoint(path).algorithm
    model: Algorithm = {"A2C": fastac.A2C, "A3C": fastac.A3C}[kind].load(path)
    return model


def _record_in(path: Path) -> dict[str, Any]:
    record = rundir.read_json(path)
    if not isinstance(record.get("earlier_parts", []), list):
        raise ValueError("expected a list of earlier_parts")
    return record


def train_in(
    folder: RunFolder,
    model: Algorithm,
    learn: Callable[..., Any],
    aim: Position,
    checkpoint_every_s: float,
    watching: Watching,
) -> None:
    """Calls `learn`, model.learn or model.resume, and says how it ended. `aim`: when it is to end."""
    path = folder.folder / MODEL_FILE

    @signals_deferred()
    def keep(status: str) -> None:
        try:
            if model.history is not None:  # else it was stopped before the run was open
                folder.write_tables(model.history)
        finally:
            folder.write_record(status, aim)

    try:
        try:
            folder.write_record("running", aim)
            if folder.made_here:
                folder.write_config(aim, checkpoint_every_s)
            learn(
                checkpoint=path,
                checkpoint_every_s=checkpoint_every_s,
                on_checkpoint=folder.write_tables,
                callback=watching.callbacks(folder.folder),
                progress_bar=watching.progress_bar,
            )
            keep(_status(model))
        except Exception as error:
            with contextlib.suppress(KeyboardInterrupt, OSError):  # what went wrong first is told
                keep(f"failed: {type(error).__name__}")
            if model.num_timesteps == 0 and folder.made_here:
                folder.take_away()
            elif path.exists() and model.unfinished is not None:
                click.echo(f"notice: {_saved(model, error, path)}; `fastac resume {folder.folder}` goes on", err=True)
            raise
        _report(model, folder, aim.solve, path)
    except KeyboardInterrupt as stop:
        if model.num_timesteps == 0 and folder.made_here:
            folder.take_away()
            stopped("nothing was trained yet", stop)
        with contextlib.suppress(KeyboardInterrupt):  # told again: it is kept by now
            keep(_status(model))
        rest = f"; `fastac resume {folder.folder}` does the rest" if model.unfinished is not None else ""
        stopped(
            f"{model.num_timesteps:,} of {counted(aim.total_timesteps, 'env steps')} done{rest}; saved in {path}", stop
        )


def _saved(model: Algorithm, error: Exception, path: Path) -> str:
    if isinstance(error, FastacError):
        return f"saved in {path} after {counted(model.num_timesteps, 'env steps')}"
    return f"{path} is the last checkpoint that could be saved"


def _status(model: Algorithm) -> str:
    return "done" if model.unfinished is None else "stopped"


def _report(model: Algorithm, folder: RunFolder, solve: float | None, path: Path) -> None:
    assert model.ledger is not None
    history = folder.whole_history()
    wall_s = history.updates["wall_s"][-1:]  # empty where no row of the log survived
    pace = "".join(f" in {s:.3g} s ({model.num_timesteps / s:,.0f} env steps per s)" for s in wall_s)
    click.echo(
        f"{type(model).__name__}: {counted(model.num_timesteps, 'env steps')} and "
        f"{counted(model.version, 'updates')}{pace}, return of the last 100 episodes {history.final_return():.1f}"
    )
    for threshold in thresholds_of(model.config.env, solve)[-1:] if solve is None else (solve,):
        solved = folder.time_to(threshold)
        click.echo(
            f"solved ({threshold:g}): not in this run"
            if solved is None
            else f"solved ({threshold:g}): after {solved['env_steps']:,.0f} env steps and {solved['wall_s']:.3g} s"
        )
    resumed = len(np.unique(history.updates["part"])) > 1
    click.echo(f"ledger{' since it was resumed' if resumed else ''}: {model.ledger.text()}")
    if len(model.ledger.workers) > 1:
        click.echo(model.ledger.workers_text())
    click.echo(f"saved: {path}")
