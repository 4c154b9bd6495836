"""`fastac exercise`: the classroom exercise, to the letter."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from fastac import machine, rundir
from fastac.cli.endings import ends_in_order, signals_raised, stopped
from fastac.cli.options import given, new_folder, run_options, workers_option
from fastac.config import Config
from fastac.progress import WaitingProgress
from fastac.signals import signals_deferred
from fastac.words import counted


@click.command()
@click.option("--quick", is_flag=True, help="3 seeds: under half a minute")
@workers_option("A3C's worker processes, with one env each, and A2C's envs")
@click.option("--updates", type=int, default=2_000, show_default=True, help="length of the logged runs [updates]")
@click.option("--n-steps", type=int, default=5, show_default=True, help="rollout length T [env steps per env]")
@click.option(
    "--seeds", type=click.IntRange(min=1), default=20, show_default=True, help="number of seeds, from --first-seed on"
)
@click.option("--first-seed", type=click.IntRange(min=0), default=0, show_default=True, help="the seed that is logged")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=100_000,
    show_default=True,
    help="how far the longer runs go, to reach 195 [env steps]",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=None,
    help="the run's folder as one path, instead of --runs and --name  [default: these]",
)
@run_options
def exercise(
    quick: bool,
    workers: int,
    updates: int,
    n_steps: int,
    seeds: int,
    first_seed: int,
    limit: int,
    out: Path | None,
    name: str | None,
    runs: Path,
) -> None:
    """The classroom exercise: logs, pictures, answers.

    A3C in processes, logged every 100 updates, and A2C beside it. Then the challenge: one batched update against as
    many small ones (A2C split), what batch size and what staleness do to the gradients, env steps and seconds to a
    mean return of 195; and A3C under a lock, one queue, without any lock (hogwild) and with the lock-free buffer.
    docs/exercise.md goes through it.

    \b
    fastac exercise
    fastac exercise --quick --name first-try
    """
    with ends_in_order():
        # All imports now, while Ctrl-C may still end everything at once.
        from fastac.exercise import answers, plots, tables  # noqa: F401
        from fastac.exercise.runs import LOG_EVERY, MOST_UPDATES, QUICK_SEEDS, Exercise

        Config(n_steps=n_steps)
        if updates % LOG_EVERY or not LOG_EVERY <= updates <= MOST_UPDATES:
            raise click.UsageError(
                f"--updates: expected a multiple of {LOG_EVERY} up to {MOST_UPDATES:,}, got {updates}"
            )
        if quick and not given("seeds"):
            seeds = QUICK_SEEDS
        asked = Exercise(workers, updates, n_steps, tuple(range(first_seed, first_seed + seeds)), limit)
        if out is not None:
            if name is not None or given("runs"):
                raise click.UsageError("--out: expected without --runs and --name, which say the same in two parts")
            runs, name = out.parent, out.name
        folder = new_folder(runs, name, "exercise")
        where = machine.describe()  # now: afterwards the load is our own
        with signals_raised():
            _do(asked, folder, where)


def _do(asked: Any, folder: Path, where: dict[str, Any]) -> None:
    """Runs, writes and shows it. Where it is stopped or fails, the runs that ended are in the files."""
    from fastac.exercise.runs import Runs, jobs

    runs, total = Runs(), jobs(asked)

    def done() -> str:
        ended = len(runs.first) + len(runs.later)
        return f"{ended} of {counted(total, 'runs')} done" + (f", files in {folder}" if ended else "")

    try:
        with WaitingProgress(total, "the exercise", "runs") as progress:
            _run(asked, runs, lambda: progress.update(len(runs.first) + len(runs.later)))
        _show(asked, runs, folder, where)
    except KeyboardInterrupt as stop:
        with contextlib.suppress(KeyboardInterrupt):  # told again: they are written by now
            _write(folder, runs, asked, where, {})
        stopped(done(), stop)
    except Exception:
        with contextlib.suppress(KeyboardInterrupt, OSError):  # what went wrong first is told
            _write(folder, runs, asked, where, {})
            click.echo(done(), err=True)
        raise


def _run(asked: Any, runs: Any, tick: Callable[[], None]) -> None:
    from fastac.exercise.runs import first_runs, later_runs

    for ended, those in ((runs.first, first_runs(asked)), (runs.later, later_runs(asked))):
        for result in those:
            ended.append(result)
            tick()


def _show(asked: Any, runs: Any, folder: Path, where: dict[str, Any]) -> None:
    from fastac.exercise import plots, tables
    from fastac.exercise.answers import answers

    answered = answers(runs, asked)
    written = _write(folder, runs, asked, where, answered)
    console = Console()
    for table in (tables.log_table, tables.challenge_table, tables.schemes_table):
        console.print(table(runs, asked))
    for question, answer in answered.items():
        console.print(f"[bold]{question}[/bold] {answer}", highlight=False)
    plots.draw_log(folder / "exercise.png", runs, asked)
    plots.draw_challenge(folder / "exercise_challenge.png", runs, asked)
    names = ", ".join([*written, "exercise.png", "exercise_challenge.png"])
    for line in (f"Measured on {machine.summary(where)}.", f"Written: {folder}/{names}"):
        console.print(line, highlight=False, soft_wrap=True)


@signals_deferred()
def _write(folder: Path, runs: Any, asked: Any, where: dict[str, Any], answered: dict[str, str]) -> list[str]:
    """Keeps what there is; nothing, and no folder, where no run has ended."""
    from fastac.exercise import tables

    try:
        return tables.write(folder, runs, asked, where, answered) if runs.first else []
    finally:
        rundir.remove_if_empty(folder)
