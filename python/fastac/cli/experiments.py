"""What the laboratory's commands have in common: their options, and the runs of an experiment as they come."""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from fastac import machine, rundir
from fastac.cli.endings import stopped
from fastac.cli.options import config_options, given, new_folder, run_options
from fastac.config import A3CConfig
from fastac.progress import WaitingProgress
from fastac.signals import signals_deferred
from fastac.words import counted

_PAGE_COLUMNS = 110  # of a table that goes into a file
_CHOSEN_HERE = ("seed", "learning_rate", "workers", "update", "backend", "on_worker_death", "engine")
_NOT_NATIVE = (  # fields that mean something beyond the native engine only, by which the laboratory plays
    "env",
    "env_kwargs",
    "policy",
    "log_std_init",
    "noise_steps",
    "normalize_observation",
    "normalize_reward",
    "normalize_advantage",
)


def numbers(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[float, ...] | None:
    """ "0,1.5" -> (0.0, 1.5)."""
    if text is None:
        return None
    try:
        given = tuple(float(number) for number in text.split(",") if number.strip())
    except ValueError:
        raise click.BadParameter(f"expected numbers between commas, got {text!r}") from None
    if not given or len(set(given)) < len(given):
        raise click.BadParameter(f"expected at least one number, each once, got {text!r}")
    return given


@dataclass(frozen=True)
class Scope:
    """What every experiment is told: how much, where, and the fields of A3CConfig that it does not vary."""

    quick: bool
    seeds: tuple[int, ...]
    timesteps: int
    jobs: int
    name: str | None
    runs: Path
    options: dict[str, Any]

    def folder(self, kind: str) -> Path:
        return new_folder(self.runs, self.name, kind)


def experiment(
    seeds: int,
    timesteps: int,
    quick: str,
    instead: Mapping[tuple[str, ...], Mapping[str, Any]],
    leave_out: tuple[str, ...] = (),
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The options of every experiment, which reach the command as one Scope.

    `instead`: flags, and the values that stand in the place of defaults where all of them are set; later ones win.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(command).parameters)[1:]

        @functools.wraps(command)
        def scoped(**values: Any) -> None:
            for flags, others in instead.items():
                if all(values[flag] for flag in flags):
                    values |= {name: value for name, value in others.items() if not given(name)}
            mine = {name: values.pop(name) for name in own}
            first, n = values.pop("first_seed"), values.pop("seeds")
            jobs = values.pop("jobs") or len(os.sched_getaffinity(0))
            places = {name: values.pop(name) for name in ("quick", "timesteps", "name", "runs")}
            command(Scope(seeds=tuple(range(first, first + n)), jobs=jobs, options=values, **places), **mine)

        made: Callable[..., None] = scoped
        for option in (
            click.option("--quick", is_flag=True, help=f"few seeds and cells: {quick}"),
            _count("--seeds", seeds, "number of seeds"),
            click.option(
                "--first-seed", type=click.IntRange(min=0), default=0, show_default=True, help="the first seed"
            ),
            _count("--timesteps", timesteps, "most env steps of a run, over all workers"),
            click.option("--jobs", type=click.IntRange(1, 64), help="runs at a time  [default: the number of cores]"),
        ):
            made = option(made)
        return config_options(A3CConfig, leave_out=_CHOSEN_HERE + _NOT_NATIVE + leave_out)(run_options(made))

    return decorate


def _count(flag: str, default: int, help: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(flag, type=click.IntRange(min=1), default=default, show_default=True, help=help)


class Work:
    """The runs of an experiment as they come, kept however it ends."""

    def __init__(
        self, name: str, plan: Any, folder: Path, total: int, cells_of: Callable[[Sequence[Any], Any], Sequence[Any]]
    ) -> None:
        self.folder = folder
        self.runs: list[Any] = []
        self._tuned = False
        self._name, self._plan, self._total, self._cells_of = name, plan, total, cells_of
        self._where = machine.describe()

    def collect(self, results: Callable[[Callable[[], None]], Iterator[Any]]) -> None:
        self._tuned = True
        with WaitingProgress(self._total, self._name, "runs") as progress:
            for run in results(lambda: progress.update(len(self.runs))):
                self.runs.append(run)
        self._write()

    def show(self, table: Any, sentences: Sequence[str], *, timed: bool = False) -> None:
        """`timed`: by a clock, so that the machine and its load tell something."""
        console = Console()
        if not console.is_terminal:
            console.width = _PAGE_COLUMNS
        console.print(table)
        written = f"Written: {self.folder}/{self._name}.csv, {self._name}.json, {self._name}.png"
        measured = [f"Measured on {machine.summary(self._where)}."] if timed else []
        for line in itertools.chain(sentences, measured, [written]):
            console.print(line, highlight=False, soft_wrap=True, markup=False)

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        try:
            yield
        except KeyboardInterrupt as stop:
            with contextlib.suppress(KeyboardInterrupt):  # told again: they are written by now
                self._write()
            stopped(self._done(), stop)
        except Exception:
            with contextlib.suppress(KeyboardInterrupt, OSError):  # what went wrong first is told
                self._write()
                click.echo(self._done(), err=True)
            raise

    def _done(self) -> str:
        if not self._tuned:
            return f"in tuning, before the first of {counted(self._total, 'runs')}"
        tables_in = f", tables in {self.folder}" if self.runs else ""
        return f"{len(self.runs)} of {counted(self._total, 'runs')} done{tables_in}"

    @signals_deferred()
    def _write(self) -> None:
        """Keeps what there is; nothing, and no folder, where no run has ended."""
        from fastac.lab import tables

        try:
            if self.runs:
                cells = self._cells_of(self.runs, self._plan)
                tables.write(self.folder, self._name, self.runs, cells, self._plan, self._where)
        finally:
            rundir.remove_if_empty(self.folder)
