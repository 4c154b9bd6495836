"""`fastac compare`: A3C against A2C, with everything equal that can be."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from fastac import machine, rundir
from fastac._core import UPDATE_SCHEMES
from fastac.cli.configuration import config_option
from fastac.cli.endings import ends_in_order, signals_raised, stopped
from fastac.cli.options import config_options, given, new_folder, run_options, timesteps_option
from fastac.config import BACKENDS, Config
from fastac.signals import signals_deferred
from fastac.words import counted

_CHOSEN_HERE = ("seed",)  # fields of Config that the comparison sets itself


@click.command()
@click.option("--quick", is_flag=True, help="3 seeds of 100,000 env steps, without A2C split: under two minutes")
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="number of seeds, from --first-seed on",
)
@click.option("--first-seed", type=click.IntRange(min=0), default=0, show_default=True, help="the first seed")
@click.option(
    "--n-envs",
    type=click.IntRange(1, 64),
    default=4,
    show_default=True,
    help="envs of each algorithm; A3C: workers with one env each",
)
@click.option(
    "--update",
    type=click.Choice(UPDATE_SCHEMES),
    default="lockfree",
    show_default=True,
    help="A3C's update scheme",
)
@click.option(
    "--backend",
    type=click.Choice(BACKENDS),
    default="process",
    show_default=True,
    help="where A3C's workers run",
)
@timesteps_option
@config_option
@config_options(Config, leave_out=_CHOSEN_HERE)
@run_options
def compare(
    quick: bool,
    seeds: int,
    first_seed: int,
    n_envs: int,
    update: str,
    backend: str,
    total_timesteps: int,
    name: str | None,
    runs: Path,
    **options: Any,
) -> None:
    """A3C against A2C, with everything equal that can be.

    Table, CSV, JSON and pictures go to runs/<name>/. Both play the same envs with the same policy, initial weights,
    optimizer and seeds. A third arm, A2C split, updates in turn from one env each, as A3C does, but without
    staleness: it separates what small updates do from what asynchrony does.

    \b
    fastac compare --quick
    fastac compare --seeds 20 --n-envs 8 --update hogwild
    fastac compare --config comparison.toml
    """
    with ends_in_order():
        config = Config(**options)
        # All imports now, while Ctrl-C may still end everything at once.
        from fastac.compare import experiment, plots, tables  # noqa: F401
        from fastac.engines import import_engine

        import_engine(config)

        if quick:
            seeds = seeds if given("seeds") else experiment.QUICK_SEEDS
            total_timesteps = total_timesteps if given("total_timesteps") else experiment.QUICK_TIMESTEPS
        all_seeds = tuple(range(first_seed, first_seed + seeds))
        arms = experiment.QUICK_ARMS if quick else experiment.ARMS
        plan = experiment.Plan(total_timesteps, all_seeds, n_envs, update, backend, arms, options)
        where = machine.describe()  # now: afterwards the load is our own
        with signals_raised():
            _compare(plan, new_folder(runs, name, "compare"), where)


def _compare(plan: Any, folder: Path, where: dict[str, Any]) -> None:
    """Runs, writes and shows it. Where it is stopped or fails, the runs that ended are in the tables."""
    from fastac.compare import experiment, plots, tables

    results: list[Any] = []

    def done() -> str:
        tables_in = f", tables in {folder}" if results else ""
        return f"{len(results)} of {counted(len(plan.seeds) * len(plan.arms), 'runs')} done{tables_in}"

    try:
        for result in experiment.run(plan, progress_bar=True):
            results.append(result)
            click.echo(_result_line(result, plan.thresholds))
        _write_tables(folder, results, plan, where)
        console = Console()
        console.print(tables.terminal_table(results, plan))
        plots.draw_curves(folder / "compare.png", results, plan)
        written = "compare.csv, compare.json, compare.png"
        if plan.thresholds:
            plots.draw_time_to_solve(folder / "time_to_solve.png", results, plan)
            written += ", time_to_solve.png"
        for line in (*tables.sentences(results, plan), tables.footer(where), f"Written: {folder}/{written}"):
            console.print(line, highlight=False, soft_wrap=True)
    except KeyboardInterrupt as stop:
        with contextlib.suppress(KeyboardInterrupt):  # told again: they are written by now
            _write_tables(folder, results, plan, where)
        stopped(done(), stop)
    except Exception:
        with contextlib.suppress(KeyboardInterrupt, OSError):  # what went wrong first is told
            _write_tables(folder, results, plan, where)
            click.echo(done(), err=True)
        raise


def _result_line(result: Any, thresholds: Sequence[float]) -> str:
    """`thresholds`: in rising order; the last one solves the env."""
    line = f"{result.arm:<9}  seed {result.seed:<3}  return {result.history.final_return():6.1f}"
    if not thresholds:
        return line
    solved = result.solved(thresholds[-1])
    if solved is None:
        return f"{line}  not solved ({thresholds[-1]:g})"
    when = f"{solved['env_steps']:>9,.0f} env steps, {solved['wall_s']:8.3f} s"
    return f"{line}  solved ({thresholds[-1]:g}) after {when}"


@signals_deferred()
def _write_tables(folder: Path, results: list[Any], plan: Any, where: dict[str, Any]) -> None:
    """Keeps what there is; nothing, and no folder, where no run has ended."""
    from fastac.compare import tables

    try:
        if results:
            tables.write(folder, results, plan, where)
    finally:
        rundir.remove_if_empty(folder)
