"""`fastac staleness`, `fastac mitigations` and `fastac stragglers`: asynchrony in virtual time."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import click

from fastac._core import BLOCK_ENVS
from fastac.cli.endings import ends_in_order, signals_raised
from fastac.cli.experiments import Scope, Work, experiment, numbers
from fastac.cli.options import FiniteRange, comma_separated, given
from fastac.progress import WaitingProgress

Command = Callable[..., Any]
_MITIGATIONS = ("staleness_lr", "max_staleness", "delay_compensation", "v_trace")


def _numbers_option(flag: str, name: str, default: str, metavar: str, help: str) -> Callable[[Command], Command]:
    return click.option(
        flag, name, default=default, show_default=True, callback=numbers, metavar=f"{metavar},...", help=help
    )


_workers_option = click.option(
    "--workers", type=int, default=8, show_default=True, help="virtual workers, 1 to 1,024, in turn"
)
_lag_option = click.option(
    "--lag",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="DC-ASGD and V-trace: age of the second reading when the gradient is applied, at most tau [updates]",
)


@click.command("staleness")
@_numbers_option("--tau", "taus", "0,1,3,7,15,31", "TAU", "mean staleness [updates]")
@_numbers_option("--learning-rate", "learning_rates", "5e-4,1e-3,2.2e-3", "RATE", "step sizes of the optimizer")
@_workers_option
@click.option(
    "--distribution",
    default="constant",
    show_default=True,
    metavar="NAME",
    help="of the staleness: constant, uniform, geometric, or trace:FILE, a staleness a line or a run's updates.csv",
)
@_lag_option
@experiment(
    20,
    200_000,
    "under 30 s",
    {("quick",): {"taus": (0.0, 3.0, 7.0, 15.0), "seeds": 6, "timesteps": 150_000}},
)
def staleness_command(
    scope: Scope, taus: tuple[float, ...], learning_rates: tuple[float, ...], workers: int, distribution: str, lag: int
) -> None:
    """What staleness alone does to learning.

    Each gradient is applied exactly tau updates late. Virtual workers in turn on one core, with the native engine;
    no result depends on the machine's load. Table, CSV, JSON and picture in runs/<name>/.

    \b
    fastac staleness --quick
    fastac staleness --tau 0,7 --staleness-lr inverse
    fastac staleness --distribution trace:runs/x/updates.csv
    """
    with ends_in_order():
        from fastac.lab import plots, staleness, tables

        kind, trace = staleness.parse_distribution(distribution)
        if trace and given("taus"):
            raise click.UsageError("--tau: expected none with trace:FILE, whose mean it is")
        if lag and not (scope.options["v_trace"] or scope.options["delay_compensation"]):
            raise click.UsageError("--lag: expected 0 without --v-trace and --delay-compensation, which read again")
        plan = staleness.Plan(
            taus, learning_rates, workers, kind, trace, scope.seeds, scope.timesteps, scope.options, lag
        )
        staleness.expect_lag(lag, trace or taus)
        total = len(scope.seeds) * len(plan.cells()) * len(learning_rates)
        work = Work("staleness", plan, scope.folder("staleness"), total, tables.staleness_cells)
        with signals_raised(), work.kept():
            work.collect(lambda tick: staleness.run(plan, scope.jobs, tick))
            cells = tables.staleness_cells(work.runs, plan)
            plots.draw_staleness(work.folder / "staleness.png", cells, plan)
            sentences = tables.staleness_sentences(cells) + tables.rejection_sentences(work.runs, plan)
            work.show(tables.staleness_table(cells, plan), sentences)


@click.command("mitigations")
@_numbers_option("--tau", "taus", "7,15,31", "TAU", "mean staleness, each at least 1 [updates]")
@_numbers_option(
    "--learning-rate",
    "learning_rates",
    "3e-4,4e-4,5.5e-4,7.5e-4,1e-3,1.4e-3,1.9e-3,2.6e-3,3.5e-3,4.8e-3,6.6e-3,9e-3,1.25e-2,1.7e-2",
    "RATE",
    "step sizes to choose from, a trial each; strengths take turns from one to the next",
)
@_numbers_option(
    "--delay-compensation", "compensations", "10,100,1000,10000", "LAMBDA", "strengths of DC-ASGD to choose from"
)
@_numbers_option(
    "--max-staleness", "limits", "0.5,1,2,4", "LIMIT", "limits of the staleness to choose from [multiples of tau]"
)
@_workers_option
@click.option(
    "--distribution",
    type=click.Choice(("constant", "uniform", "geometric")),
    default="geometric",
    show_default=True,
    help="of the staleness",
)
@_lag_option
@experiment(
    20,
    200_000,
    "under 30 s",
    {
        ("quick",): {
            "taus": (15.0,),
            "learning_rates": (7.5e-4, 1e-3, 1.4e-3, 1.9e-3, 2.6e-3, 3.5e-3),
            "seeds": 6,
            "timesteps": 150_000,
        }
    },
    leave_out=(*_MITIGATIONS, "record"),
)
def mitigations_command(
    scope: Scope,
    taus: tuple[float, ...],
    learning_rates: tuple[float, ...],
    compensations: tuple[float, ...],
    limits: tuple[float, ...],
    workers: int,
    distribution: str,
    lag: int,
) -> None:
    """What helps against staleness, each remedy tuned alike.

    Smaller steps, DC-ASGD, a limit, V-trace, and nothing, under the virtual workers of `fastac staleness`. Each chooses
    rate and strength from as many trials, on seeds of their own (1000 to 1002). Table, CSV, JSON and picture in
    runs/<name>/.

    \b
    fastac mitigations --quick
    fastac mitigations --tau 15 --lag 5
    """
    with ends_in_order():
        from fastac.lab import mitigations, plots, tables

        plan = mitigations.Plan(
            taus,
            learning_rates,
            compensations,
            limits,
            workers,
            distribution,
            lag,
            scope.seeds,
            scope.timesteps,
            scope.options,
        )
        total = len(scope.seeds) * len(plan.cells())
        work = Work("mitigations", plan, scope.folder("mitigations"), total, tables.mitigation_cells)
        with signals_raised(), work.kept():
            with WaitingProgress(len(mitigations.tuning_tasks(plan)), "tuning", "runs") as progress:
                choices = mitigations.tune(plan, scope.jobs, progress.update)
            work.collect(lambda tick: mitigations.run(plan, choices, scope.jobs, tick))
            cells = tables.mitigation_cells(work.runs, plan)
            plots.draw_mitigations(work.folder / "mitigations.png", cells, plan)
            work.show(tables.mitigation_table(cells, plan), tables.mitigation_sentences(cells))


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
@_numbers_option(
    "--learning-rate",
    "learning_rates",
    "1e-4,3e-4,1e-3,3e-3,1e-2,3e-2",
    "RATE",
    "step sizes: of several, each algorithm's best on other seeds, for each number of workers",
)
@click.option(
    "--step-s",
    type=FiniteRange(min=0, min_open=True),
    default=1e-3,
    show_default=True,
    help="cost of an env step, which all envs of a worker make together [s]  [with --real: 0.0005]",
)
@experiment(
    20,
    1_000_000,
    "under 30 s, with --real under two minutes",
    {
        (): {"n_steps": 8},  # short rollouts: with long ones chance evens out within each of them
        ("quick",): {"workers": (8, 32), "seeds": 6, "learning_rates": (1e-3, 3e-3)},
        ("real",): {"workers": (2, 8, 16), "step_s": 5e-4, "n_envs": BLOCK_ENVS, "timesteps": 400_000},
        ("real", "quick"): {"seeds": 6, "workers": (4, 16)},
    },
)
def stragglers_command(
    scope: Scope,
    real: bool,
    costs: str,
    spreads: tuple[float, ...] | None,
    workers: tuple[int, ...],
    learning_rates: tuple[float, ...],
    step_s: float,
) -> None:
    """What waiting for the slowest worker costs A2C.

    Against A3C, which does not wait, in virtual time or by the clock. Env steps have costs. In virtual time nobody
    sleeps: the training is real, the clock is not, and no result depends on the machine's load. With --real, workers
    take that time, and the same costs in virtual time are the prediction. Table, CSV, JSON and picture in runs/<name>/.

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
        work = Work("stragglers", plan, scope.folder("stragglers"), total, cells_of)
        picture = work.folder / "stragglers.png"
        with signals_raised(), work.kept():
            rates = stragglers.tune(plan, len(os.sched_getaffinity(0)) if real else scope.jobs)
            run = real_time.run if real else stragglers.run
            work.collect(lambda tick: run(plan, rates, scope.jobs, tick))
            if real:
                pairs = real_tables.pairs(work.runs, plan)
                plots.draw_real(picture, pairs, plan)
                sentences = real_tables.pair_sentences(pairs, work.runs)
                work.show(real_tables.pair_table(pairs, plan), sentences, timed=True)
            else:
                cells = tables.straggler_cells(work.runs, plan)
                plots.draw_stragglers(picture, cells, plan)
                work.show(tables.straggler_table(cells, plan), tables.straggler_sentences(cells))
