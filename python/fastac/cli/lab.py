"""`fastac staleness` and `fastac stragglers`: asynchrony in virtual time, and beside real workers."""

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
from click.core import ParameterSource
from rich.console import Console

from fastac import machine, rundir
from fastac._core import BLOCK_ENVS
from fastac.cli.endings import ends_in_order, signals_raised, stopped
from fastac.cli.options import comma_separated, config_options, new_folder, run_options
from fastac.config import A3CConfig
from fastac.progress import WaitingProgress
from fastac.signals import signals_deferred

_PAGE_COLUMNS = 110  # of a table that goes into a file
_CHOSEN_HERE = ("seed", "learning_rate", "workers", "update", "backend", "on_worker_death", "engine")


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
class _Scope:
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


def _experiment(
    seeds: int, timesteps: int, quick: str, instead: Mapping[tuple[str, ...], Mapping[str, Any]]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The options of every experiment, which reach the command as one _Scope.

    `instead`: flags, and the values that stand in the place of defaults where all of them are set; later ones win.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(command).parameters)[1:]

        @functools.wraps(command)
        def scoped(**values: Any) -> None:
            for flags, others in instead.items():
                if all(values[flag] for flag in flags):
                    values |= {name: value for name, value in others.items() if not _given(name)}
            mine = {name: values.pop(name) for name in own}
            first, n = values.pop("first_seed"), values.pop("seeds")
            jobs = values.pop("jobs") or len(os.sched_getaffinity(0))
            places = {name: values.pop(name) for name in ("quick", "timesteps", "name", "runs")}
            command(_Scope(seeds=tuple(range(first, first + n)), jobs=jobs, options=values, **places), **mine)

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
        return config_options(A3CConfig, leave_out=_CHOSEN_HERE)(run_options(made))

    return decorate


def _count(flag: str, default: int, help: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(flag, type=click.IntRange(min=1), default=default, show_default=True, help=help)


@click.command("staleness")
@click.option(
    "--tau",
    "taus",
    default="0,1,3,7,15,31",
    show_default=True,
    callback=numbers,
    metavar="TAU,...",
    help="mean staleness [updates]",
)
@click.option(
    "--learning-rate",
    "learning_rates",
    default="5e-4,1e-3,2.2e-3",
    show_default=True,
    callback=numbers,
    metavar="RATE,...",
    help="step sizes of the optimizer",
)
@click.option("--workers", type=int, default=8, show_default=True, help="virtual workers, 1 to 1,024, in turn")
@click.option(
    "--distribution",
    default="constant",
    show_default=True,
    metavar="NAME",
    help="of the staleness: constant, uniform, geometric, or trace:FILE, a staleness a line",
)
@_experiment(
    20,
    200_000,
    "under 30 s",
    {("quick",): {"taus": (0.0, 3.0, 7.0, 15.0), "seeds": 6, "timesteps": 150_000}},
)
def staleness_command(
    scope: _Scope, taus: tuple[float, ...], learning_rates: tuple[float, ...], workers: int, distribution: str
) -> None:
    """What staleness alone does to learning: each gradient is applied exactly tau updates late.

    Virtual workers in turn on one core, with the native engine; no result depends on the machine's load. Table, CSV,
    JSON and picture in runs/<name>/.

    \b
    fastac staleness --quick
    fastac staleness --tau 0,7 --staleness-lr inverse
    fastac staleness --distribution trace:staleness.txt
    """
    with ends_in_order():
        from fastac.lab import plots, staleness, tables

        kind, trace = staleness.parse_distribution(distribution)
        plan = staleness.Plan(taus, learning_rates, workers, kind, trace, scope.seeds, scope.timesteps, scope.options)
        total = len(scope.seeds) * len(plan.cells()) * len(learning_rates)
        work = _Work("staleness", plan, scope.folder("staleness"), total, tables.staleness_cells)
        with signals_raised(), work.kept():
            work.collect(lambda tick: staleness.run(plan, scope.jobs, tick))
            cells = tables.staleness_cells(work.runs, plan)
            plots.draw_staleness(work.folder / "staleness.png", cells, plan)
            work.show(tables.staleness_table(cells, plan), tables.staleness_sentences(cells))


@click.command("stragglers")
@click.option(
    "--real",
    is_flag=True,
    help="beside virtual time real workers, threads that sleep as long as their env steps cost; fewer of them, with "
    "eight envs each",
)
@click.option(
    "--costs",
    type=click.Choice(("gamma", "slow", "stalls")),
    default="gamma",
    show_default=True,
    help="what varies: each env step, one worker that is slower, or stalls of one env step in a hundred",
)
@click.option(
    "--spread",
    "spreads",
    default=None,
    callback=numbers,
    metavar="SPREAD,...",
    help="gamma: coefficient of variation of an env step's cost; slow: times that one worker is slower; stalls: their "
    "length [env steps]  [default: five that suit the costs]",
)
@click.option(
    "--workers",
    default="8,64,256",
    show_default=True,
    callback=comma_separated,
    metavar="W,...",
    help="virtual workers, with --n-envs envs each, up to 1,024; with --real up to 64  [with --real: 2,8,16]",
)
@click.option(
    "--learning-rate",
    "learning_rates",
    default="3e-4,1e-3,3e-3,1e-2",
    show_default=True,
    callback=numbers,
    metavar="RATE,...",
    help="step sizes: of several, each algorithm's best on other seeds, for each number of workers",
)
@click.option(
    "--step-s",
    type=click.FloatRange(min=0, min_open=True),
    default=1e-3,
    show_default=True,
    help="cost of an env step, which all envs of a worker make together [s]  [with --real: 0.0005]",
)
@_experiment(
    10,
    1_000_000,
    "under 30 s, with --real under two minutes",
    {
        (): {"n_steps": 8},  # short rollouts: with long ones chance evens out within each of them
        ("quick",): {"workers": (8, 32), "seeds": 6, "learning_rates": (1e-3, 3e-3)},
        ("real",): {"workers": (2, 8, 16), "step_s": 5e-4, "n_envs": BLOCK_ENVS, "timesteps": 400_000},
        ("real", "quick"): {"workers": (4, 16)},
    },
)
def stragglers_command(
    scope: _Scope,
    real: bool,
    costs: str,
    spreads: tuple[float, ...] | None,
    workers: tuple[int, ...],
    learning_rates: tuple[float, ...],
    step_s: float,
) -> None:
    """What waiting for the slowest worker costs A2C, against A3C, which does not wait: in virtual time, or in real.

    Env steps have costs. In virtual time nobody sleeps: the training is real, the clock is not, and no result depends
    on the machine's load. With --real, workers take that time, and the same costs in virtual time are the
    prediction. Table, CSV, JSON and picture in runs/<name>/.

    \b
    fastac stragglers --quick
    fastac stragglers --costs slow --workers 8,1024
    fastac stragglers --real --quick
    """
    with ends_in_order():
        from fastac.lab import plots, real_tables, stragglers, tables
        from fastac.lab import real as real_time

        if spreads is None:
            spreads = stragglers.COSTS[costs][2][:: 2 if scope.quick else 1]
        kind = real_time.Plan if real else stragglers.Plan
        plan = kind(costs, spreads, workers, learning_rates, scope.seeds, scope.timesteps, step_s, scope.options)
        total = (2 if real else 1) * 2 * len(scope.seeds) * len(workers) * len(spreads)
        cells_of = real_tables.pairs if real else tables.straggler_cells
        work = _Work("stragglers", plan, scope.folder("stragglers"), total, cells_of)
        picture = work.folder / "stragglers.png"
        with signals_raised(), work.kept():
            rates = stragglers.tune(plan, len(os.sched_getaffinity(0)) if real else scope.jobs)
            run = real_time.run if real else stragglers.run
            work.collect(lambda tick: run(plan, rates, scope.jobs, tick))
            if real:
                pairs = real_tables.pairs(work.runs, plan)
                plots.draw_real(picture, pairs, plan)
                work.show(real_tables.pair_table(pairs, plan), real_tables.pair_sentences(pairs, work.runs))
            else:
                cells = tables.straggler_cells(work.runs, plan)
                plots.draw_stragglers(picture, cells, plan)
                work.show(tables.straggler_table(cells, plan), tables.straggler_sentences(cells))


class _Work:
    """The runs of an experiment as they come, kept however it ends."""

    def __init__(
        self, name: str, plan: Any, folder: Path, total: int, cells_of: Callable[[Sequence[Any], Any], Sequence[Any]]
    ) -> None:
        self.folder = folder
        self.runs: list[Any] = []
        self._name, self._plan, self._total, self._cells_of = name, plan, total, cells_of
        self._where = machine.describe()

    def collect(self, results: Callable[[Callable[[], None]], Iterator[Any]]) -> None:
        with WaitingProgress(self._total, self._name, "runs") as progress:
            for run in results(lambda: progress.update(len(self.runs))):
                self.runs.append(run)
        self._write()

    def show(self, table: Any, sentences: Sequence[str]) -> None:
        console = Console()
        if not console.is_terminal:
            console.width = _PAGE_COLUMNS
        console.print(table)
        written = f"Written: {self.folder}/{self._name}.csv, {self._name}.json, {self._name}.png"
        for line in itertools.chain(sentences, [written]):
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
        tables_in = f", tables in {self.folder}" if self.runs else ""
        return f"{len(self.runs)} of {self._total} runs done{tables_in}"

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


def _given(option: str) -> bool:
    return click.get_current_context().get_parameter_source(option) is not ParameterSource.DEFAULT
