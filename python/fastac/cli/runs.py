"""One training in its folder: the checkpoint, the tables and run.json are right at every stage, whatever ends it."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from fastac import rundir
from fastac.checkpoint import MODEL_FILE
from fastac.cli.endings import stopped
from fastac.errors import FastacError
from fastac.metrics import History, Table
from fastac.signals import signals_deferred

if TYPE_CHECKING:
    from fastac.algorithm import Algorithm

TABLES = ("episodes", "updates", "moments")
_OF_A_PART = ("status", "num_timesteps", "version", "machine", "ledger", "startup_s", "train_s", "cpu_s")


class RunFolder:
    """The tables and run.json of a model that trains here, over all parts of a run that was interrupted.

    Tables go on where the earlier parts left them: env_steps, updates and wall_s count through, and the column `part`
    says which part a row is from. Rows later than the checkpoint that training goes on from are dropped: what they
    tell of is not in the model.
    """

    def __init__(self, folder: Path, model: Algorithm) -> None:
        self.folder = folder
        self._model = model
        self._begin = model.num_timesteps
        self._earlier = {name: self._rows_before_the_checkpoint(name) for name in TABLES}
        before = rundir.read_json(folder / "run.json")
        self._earlier_parts: list[dict[str, Any]] = before.pop("earlier_parts", [])
        if before:
            if before.get("status") == "running":  # and nobody holds the folder
                before["status"] = "killed"
            kept = {"num_timesteps": self._begin, "version": model.version, "tables_until_env_steps": self._last_row}
            self._earlier_parts.append({name: before.get(name) for name in _OF_A_PART} | kept)

    @property
    def part(self) -> int:
        """1 for a run that was never interrupted."""
        return len(self._earlier_parts) + 1

    def _rows_before_the_checkpoint(self, name: str) -> Table | None:
        table = rundir.read_table(self.folder / f"{name}.csv")
        if table is None:
            return None
        kept = table["env_steps"] <= self._begin
        return {column: values[kept] for column, values in table.items()}

    @property
    def _last_row(self) -> int:
        """Env steps up to which the tables of the earlier parts tell."""
        updates = self._earlier["updates"]
        return 0 if updates is None or len(updates["env_steps"]) == 0 else int(updates["env_steps"][-1])

    def missing(self) -> str:
        """Which rows the latest of the earlier parts did not live to write, in words; empty if none."""
        if self._last_row >= self._begin:
            return ""
        return f"the tables have no rows between {self._last_row:,} and {self._begin:,} env steps"

    def mark_as_done(self) -> None:
        """For a run that was killed between its last checkpoint and its last record."""
        record = rundir.read_json(self.folder / "run.json")
        kept = {"num_timesteps": self._model.num_timesteps, "version": self._model.version}
        rundir.write_json(self.folder / "run.json", {**record, **kept, "status": "done"})

    def write_tables(self, history: History) -> None:
        """Those of all parts, `history` being that of the latest."""
        for name, table in self._joined(history).items():
            rundir.write_table(self.folder / f"{name}.csv", table)

    def whole_history(self) -> History:
        """The tables of all parts, once the latest has ended."""
        assert self._model.history is not None
        tables = self._joined(self._model.history)
        return dataclasses.replace(
            self._model.history, episodes=tables["episodes"], updates=tables["updates"], moments=tables["moments"]
        )

    def _joined(self, history: History) -> dict[str, Table]:
        joined = {}
        for name in TABLES:
            table: Table = getattr(history, name)
            table = {**table, "part": np.full(len(table["wall_s"]), float(self.part))}
            earlier = self._earlier[name]
            joined[name] = table if earlier is None else {c: np.concatenate([earlier[c], table[c]]) for c in table}
        return joined

    def write_record(self, status: str, total_timesteps: int) -> None:
        """run.json. `status` is running, done, stopped or failed: and why."""
        from fastac import machine

        model, history = self._model, self._model.history
        whole = History() if history is None else self.whole_history()
        record = {
            "status": status,
            "algorithm": type(model).__name__,
            "config": model.config.to_dict(),
            "machine": machine.describe(),
            "total_timesteps": total_timesteps,
            "num_timesteps": model.num_timesteps,
            "version": model.version,
            "ledger": None if model.ledger is None else dataclasses.asdict(model.ledger),
            "startup_s": None if history is None else history.startup_s,
            "train_s": None if history is None else history.train_s,
            "cpu_s": None if history is None else history.cpu_s,
            "solved_195": whole.time_to(195.0),
            "solved_475": whole.time_to(475.0),
            "earlier_parts": self._earlier_parts,
        }
        rundir.write_json(self.folder / "run.json", record)


def train_in(
    folder: RunFolder, model: Algorithm, learn: Callable[..., Any], total_timesteps: int, checkpoint_every_s: float
) -> None:
    """Calls `learn`, model.learn or model.resume, and says how it ended."""
    path = folder.folder / MODEL_FILE

    @signals_deferred()
    def keep(status: str) -> None:
        if model.history is not None:  # else it was stopped before the run was open
            folder.write_tables(model.history)
        folder.write_record(status, total_timesteps)

    try:
        folder.write_record("running", total_timesteps)
        learn(
            checkpoint=path,
            checkpoint_every_s=checkpoint_every_s,
            on_checkpoint=folder.write_tables,
            progress_bar=True,
        )
    except KeyboardInterrupt as stop:
        if model.num_timesteps == 0 and folder.part == 1:
            shutil.rmtree(folder.folder)
            stopped("nothing was trained yet", stop)
        keep("stopped" if model.unfinished else "done")
        rest = f"; `fastac resume {folder.folder}` does the rest" if model.unfinished else ""
        stopped(f"{model.num_timesteps:,} of {total_timesteps:,} env steps done{rest}; saved in {path}", stop)
    except FastacError as error:
        keep(f"failed: {type(error).__name__}")
        click.echo(f"saved: {path}, after {model.num_timesteps:,} env steps", err=True)
        raise
    except OSError as error:
        with contextlib.suppress(OSError):
            keep(f"failed: {type(error).__name__}")
        raise
    keep("done")
    _report(model, folder.whole_history(), path)


def _report(model: Algorithm, history: History, path: Path) -> None:
    assert model.ledger is not None
    wall_s = history.updates["wall_s"][-1]
    solved = history.time_to(475.0)
    click.echo(
        f"{type(model).__name__}: {model.num_timesteps:,} env steps and {model.version:,} updates "
        f"in {wall_s:.1f} s ({model.num_timesteps / wall_s:,.0f} env steps per s), "
        f"return of the last 100 episodes {history.final_return():.1f}"
    )
    click.echo(
        "solved (475): not in this run"
        if solved is None
        else f"solved (475): after {solved['env_steps']:,.0f} env steps and {solved['wall_s']:.1f} s"
    )
    click.echo(f"ledger: {model.ledger.text()}")
    click.echo(f"saved: {path}")
