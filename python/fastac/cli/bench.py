"""`fastac bench`: measurements."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from fastac import machine, rundir
from fastac._core import MAX_WORKERS
from fastac.cli.endings import ends_in_order, signals_raised, stopped
from fastac.cli.options import comma_separated, new_folder, run_options
from fastac.progress import WaitingProgress


@click.group()
def bench() -> None:
    """Measure; every table says minimum, median and maximum over interleaved rounds."""


@bench.command("env")
@click.option(
    "--envs",
    "sizes",
    default="1,8,64,1024",
    show_default=True,
    callback=comma_separated,
    metavar="N,N,...",
    help="numbers of envs",
)
@click.option("--rounds", type=click.IntRange(min=1), default=7, show_default=True, help="interleaved rounds")
@click.option(
    "--round-s",
    type=click.FloatRange(min=0, min_open=True),
    default=0.3,
    show_default=True,
    help="length of a round of one form [s]",
)
@run_options
def bench_env(sizes: tuple[int, ...], rounds: int, round_s: float, name: str | None, runs: Path) -> None:
    """The native CartPole against Gymnasium's sync, async and vector-entry-point CartPole, in one run."""
    with ends_in_order():
        from fastac.bench import env

        where = machine.describe()  # now: afterwards the load is our own
        with _measuring(new_folder(runs, name, "bench-env"), rounds * len(sizes)) as (folder, tick):
            results = env.measure(sizes, rounds, round_s, tick)
        _show(env.table(results), env.as_json(results), where, folder / "bench-env.json")


@bench.command("train")
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True, help="interleaved rounds")
@click.option(
    "--round-s",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="length of a round of one case [s]",
)
@click.option("--peers/--no-peers", default=True, show_default=True, help="race what is installed: see fastac[peers]")
@run_options
def bench_train(rounds: int, round_s: float, peers: bool, name: str | None, runs: Path) -> None:
    """Env steps per second of training: both engines, and Stable-Baselines3 and JAX where installed, in one run."""
    with ends_in_order():
        from fastac.bench import train

        where = machine.describe()
        with _measuring(new_folder(runs, name, "bench-train"), rounds * len(train.SETUPS)) as (folder, tick):
            results = train.measure(train.SETUPS, rounds, round_s, peers, tick)
        _show(train.table(results), train.as_json(results), where, folder / "bench-train.json")


@bench.command("updates")
@click.option(
    "--workers",
    default="1,2,4,8",
    show_default=True,
    callback=comma_separated,
    metavar="N,N,...",
    help="numbers of worker threads",
)
@click.option(
    "--n-params",
    type=click.IntRange(min=1),
    default=4675,
    show_default=True,
    help="floats in a gradient; 4,675 is the default policy",
)
@click.option("--rounds", type=click.IntRange(min=1), default=7, show_default=True, help="interleaved rounds")
@click.option(
    "--n-updates",
    type=click.IntRange(min=1),
    default=2000,
    show_default=True,
    help="updates of each worker in a round",
)
@run_options
def bench_updates(
    workers: tuple[int, ...], n_params: int, rounds: int, n_updates: int, name: str | None, runs: Path
) -> None:
    """What read, push and apply cost under every update scheme, and how many additions get lost."""
    with ends_in_order():
        from fastac.bench import updates

        if max(workers) > MAX_WORKERS:
            raise click.UsageError(f"--workers: expected 1 to {MAX_WORKERS}, got {max(workers)}")
        if max(workers) * n_updates > updates.MOST_ADDITIONS:
            raise click.UsageError(
                f"workers * n_updates: expected <= {updates.MOST_ADDITIONS:,}, so that sums stay exact"
            )
        where = machine.describe()
        with _measuring(new_folder(runs, name, "bench-updates"), rounds * len(workers)) as (folder, tick):
            results = updates.measure(workers, n_params, rounds, n_updates, tick)
        _show(updates.table(results, n_params), updates.as_json(results), where, folder / "bench-updates.json")


def _show(table: Any, figures: dict[str, Any], where: dict[str, Any], path: Path) -> None:
    console = Console()
    try:
        rundir.write_json(path, {"command": sys.argv[1:], "machine": where, "figures": figures})
    finally:
        rundir.remove_if_empty(path.parent)
        console.print(table)
    console.print(f"Measured on {machine.summary(where)}.", highlight=False, soft_wrap=True)
    console.print(f"Written: {path}", highlight=False, soft_wrap=True)


@contextlib.contextmanager
def _measuring(folder: Path, total: int) -> Iterator[tuple[Path, Callable[[], None]]]:
    """The folder, and a progress display that is told of each finished round. Unfinished, it leaves no folder."""
    done = itertools.count(1)
    try:
        with signals_raised(), WaitingProgress(total, "measuring", "rounds") as progress:
            yield folder, lambda: progress.update(next(done))
    except KeyboardInterrupt as stop:
        rundir.remove_if_empty(folder)
        stopped("nothing was measured to the end", stop)
    except Exception:
        rundir.remove_if_empty(folder)
        raise
