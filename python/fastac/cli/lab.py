"""`fastac staleness`, `fastac mitigations` and `fastac stragglers`: asynchrony in virtual time."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from rich.console import Console

from fastac import machine, rundir
from fastac.cli.endings import ends_in_order, signals_raised, stopped
from fastac.cli.options import comma_separated, config_options, new_folder, run_options
from fastac.config import A3CConfig
from fastac.progress import WaitingProgress
from fastac.signals import signals_deferred
from fastac.words import counted

_PAGE_COLUMNS = 110  # of a table that goes into a file
_CHOSEN_HERE = ("seed", "learning_rate", "workers", "update", "backend", "on_worker_death", "engine")
_MITIGATIONS = ("staleness_lr", "max_staleness", "delay_compensation", "v_trace")


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


def _shared_options(
    seeds: int, timesteps: int, leave_out: tuple[str, ...] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        jobs = click.IntRange(1, 64)
        for option in (
            click.option("--quick", is_flag=True, help="few seeds and cells: under 30 s"),
            click.option(
                "--seeds", type=click.IntRange(min=1), default=seeds, show_default=True, help="number of seeds"
            ),
            click.option(
                "--first-seed", type=click.IntRange(min=0), default=0, show_default=True, help="the first seed"
            ),
            click.option(
                "--timesteps",
                type=click.IntRange(min=1),
                default=timesteps,
                show_default=True,
                help="most env steps of a run, over all workers",
            ),
            click.option("--jobs", type=jobs, default=None, help="runs at a time  [default: the number of cores]"),
        ):
            command = option(command)
        return config_options(A3CConfig, leave_out=_CHOSEN_HERE + leave_out)(run_options(command))

    return decorate


_lag_option = click.option(
    "--lag",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="DC-ASGD and V-trace: age of the second reading when the gradient is applied, at most tau [updates]",
)


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
@_lag_option
@_shared_options(20, 200_000)
def staleness_command(
    taus: tuple[float, ...],
    learning_rates: tuple[float, ...],
    workers: int,
    distribution: str,
    lag: int,
    quick: bool,
    seeds: int,
    first_seed: int,
    timesteps: int,
    jobs: int | None,
    name: str | None,
    runs: Path,
    **options: Any,
) -> None:
    """What staleness alone does to learning.

    Each gradient is applied exactly tau updates late. Virtual workers in turn on one core, with the native engine;
    no result depends on the machine's load. Table, CSV, JSON and picture in runs/<name>/.

    \b
    fastac staleness --quick
    fastac staleness --tau 0,7 --staleness-lr inverse
    fastac staleness --distribution trace:staleness.txt
    """
    with ends_in_order():
        from fastac.lab import plots, staleness, tables

        if quick:
            taus = taus if _given("taus") else tuple(map(float, staleness.QUICK_TAUS))
            seeds = seeds if _given("seeds") else staleness.QUICK_SEEDS
            timesteps = timesteps if _given("timesteps") else staleness.QUICK_TIMESTEPS
        kind, trace = staleness.parse_distribution(distribution)
        all_seeds = tuple(range(first_seed, first_seed + seeds))
        plan = staleness.Plan(taus, learning_rates, workers, kind, trace, all_seeds, timesteps, options, lag)
        total = seeds * len(plan.cells()) * len(learning_rates)
        work = _Work("staleness", plan, new_folder(runs, name, "staleness"), total)
        with signals_raised(), work.kept():
            work.collect(lambda tick: staleness.run(plan, jobs or _cores(), tick))
            cells = tables.staleness_cells(work.runs, plan)
            plots.draw_staleness(work.folder / "staleness.png", cells, plan)
            work.show(tables.staleness_table(cells, plan), tables.staleness_sentences(cells))


@click.command("mitigations")
@click.option(
    "--tau",
    "taus",
    default="7,15,31",
    show_default=True,
    callback=numbers,
    metavar="TAU,...",
    help="mean staleness, each at least 1 [updates]",
)
@click.option(
    "--learning-rate",
    "learning_rates",
    default="3e-4,4e-4,5.5e-4,7.5e-4,1e-3,1.4e-3,1.9e-3,2.6e-3,3.5e-3,4.8e-3,6.6e-3,9e-3",
    show_default=True,
    callback=numbers,
    metavar="RATE,...",
    help="step sizes to choose from, a trial each; strengths take turns from one to the next",
)
@click.option(
    "--delay-compensation",
    "compensations",
    default="100,1000,10000",
    show_default=True,
    callback=numbers,
    metavar="LAMBDA,...",
    help="strengths of DC-ASGD to choose from",
)
@click.option(
    "--max-staleness",
    "limits",
    default="0.5,1,2",
    show_default=True,
    callback=numbers,
    metavar="LIMIT,...",
    help="limits of the staleness to choose from [multiples of tau]",
)
@click.option("--workers", type=int, default=8, show_default=True, help="virtual workers, 1 to 1,024, in turn")
@click.option(
    "--distribution",
    type=click.Choice(("constant", "uniform", "geometric")),
    default="geometric",
    show_default=True,
    help="of the staleness",
)
@_lag_option
@_shared_options(20, 200_000, leave_out=(*_MITIGATIONS, "record"))
def mitigations_command(
    taus: tuple[float, ...],
    learning_rates: tuple[float, ...],
    compensations: tuple[float, ...],
    limits: tuple[float, ...],
    workers: int,
    distribution: str,
    lag: int,
    quick: bool,
    seeds: int,
    first_seed: int,
    timesteps: int,
    jobs: int | None,
    name: str | None,
    runs: Path,
    **options: Any,
) -> None:
    """What helps against staleness: smaller steps, DC-ASGD, a limit, V-trace, and nothing, each tuned alike.

    The virtual workers of `fastac staleness`. Each mitigation chooses rate and strength from as many trials, on seeds
    of their own (1000 to 1002). Table, CSV, JSON and picture in runs/<name>/.

    \b
    fastac mitigations --quick
    fastac mitigations --tau 15 --lag 5
    """
    with ends_in_order():
        from fastac.lab import mitigations, plots, tables

        if quick:
            taus = taus if _given("taus") else tuple(map(float, mitigations.QUICK_TAUS))
            learning_rates = learning_rates if _given("learning_rates") else mitigations.QUICK_LEARNING_RATES
            seeds = seeds if _given("seeds") else mitigations.QUICK_SEEDS
            timesteps = timesteps if _given("timesteps") else mitigations.QUICK_TIMESTEPS
        all_seeds = tuple(range(first_seed, first_seed + seeds))
        plan = mitigations.Plan(
            taus, learning_rates, compensations, limits, workers, distribution, lag, all_seeds, timesteps, options
        )
        work = _Work("mitigations", plan, new_folder(runs, name, "mitigations"), seeds * len(plan.cells()))
        with signals_raised(), work.kept():
            with WaitingProgress(len(mitigations.tuning_tasks(plan)), "tuning", "runs") as progress:
                choices = mitigations.tune(plan, jobs or _cores(), progress.update)
            work.collect(lambda tick: mitigations.run(plan, choices, jobs or _cores(), tick))
            cells = tables.mitigation_cells(work.runs, plan)
            plots.draw_mitigations(work.folder / "mitigations.png", cells, plan)
            work.show(tables.mitigation_table(cells, plan), tables.mitigation_sentences(cells))


@click.command("stragglers")
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
    help="virtual workers, with one env each, up to 1,024",
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
    help="cost of an env step [virtual s]",
)
@_shared_options(10, 1_000_000)
def stragglers_command(
    costs: str,
    spreads: tuple[float, ...] | None,
    workers: tuple[int, ...],
    learning_rates: tuple[float, ...],
    step_s: float,
    quick: bool,
    seeds: int,
    first_seed: int,
    timesteps: int,
    jobs: int | None,
    name: str | None,
    runs: Path,
    **options: Any,
) -> None:
    """What waiting for the slowest worker costs A2C.

    Against A3C, which does not wait, in virtual time. Env steps have costs, nobody sleeps: the training is real,
    the clock is not, and no result depends on the machine's load. Table, CSV, JSON and picture in runs/<name>/.

    \b
    fastac stragglers --quick
    fastac stragglers --costs slow --workers 8,1024
    """
    with ends_in_order():
        from fastac.lab import plots, stragglers, tables

        spreads = spreads if spreads is not None else stragglers.COSTS[costs][2]
        if not _given("n_steps"):
            options["n_steps"] = stragglers.N_STEPS
        if quick:
            spreads = spreads if _given("spreads") else spreads[stragglers.QUICK_SPREADS]
            workers = workers if _given("workers") else stragglers.QUICK_WORKERS
            seeds = seeds if _given("seeds") else stragglers.QUICK_SEEDS
            learning_rates = learning_rates if _given("learning_rates") else stragglers.QUICK_LEARNING_RATES
        all_seeds = tuple(range(first_seed, first_seed + seeds))
        plan = stragglers.Plan(costs, spreads, workers, learning_rates, all_seeds, timesteps, step_s, options)
        work = _Work("stragglers", plan, new_folder(runs, name, "stragglers"), 2 * seeds * len(workers) * len(spreads))
        with signals_raised(), work.kept():
            rates = stragglers.tune(plan, jobs or _cores())
            work.collect(lambda tick: stragglers.run(plan, rates, jobs or _cores(), tick))
            cells = tables.straggler_cells(work.runs, plan)
            plots.draw_stragglers(work.folder / "stragglers.png", cells, plan)
            work.show(tables.straggler_table(cells, plan), tables.straggler_sentences(cells))


class _Work:
    """The runs of an experiment as they come, kept however it ends."""

    def __init__(self, name: str, plan: Any, folder: Path, total: int) -> None:
        self.folder = folder
        self.runs: list[Any] = []
        self._name, self._plan, self._total = name, plan, total
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
        return f"{len(self.runs)} of {counted(self._total, 'runs')} done{tables_in}"

    @signals_deferred()
    def _write(self) -> None:
        """Keeps what there is; nothing, and no folder, where no run has ended."""
        from fastac.lab import tables

        try:
            if self.runs:
                of: dict[str, Callable[..., Any]] = {
                    "staleness": tables.staleness_cells,
                    "mitigations": tables.mitigation_cells,
                    "stragglers": tables.straggler_cells,
                }
                cells = of[self._name](self.runs, self._plan)
                tables.write(self.folder, self._name, self.runs, cells, self._plan, self._where)
        finally:
            rundir.remove_if_empty(self.folder)


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _given(option: str) -> bool:
    return click.get_current_context().get_parameter_source(option) is not ParameterSource.DEFAULT
