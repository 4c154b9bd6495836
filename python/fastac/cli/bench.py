"""`fastac bench`: measurements."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from fastac import machine, rundir
from fastac._core import MAX_WORKERS
from fastac.cli.endings import ends_in_order, signals_raised, stopped
from fastac.cli.options import Command, FiniteRange, comma_separated, new_folder, run_options
from fastac.presets import ENV_PRESETS
from fastac.progress import WaitingProgress
from fastac.words import counted


def _rounds_option(default: int) -> Callable[[Command], Command]:
    return click.option(
        "--rounds", type=click.IntRange(min=1), default=default, show_default=True, help="interleaved rounds"
    )


def _round_s_option(default: float) -> Callable[[Command], Command]:
    return click.option(
        "--round-s",
        type=FiniteRange(min=0, min_open=True),
        default=default,
        show_default=True,
        help="length of a round of one case; all take about rounds x rows of the table x that [s]",
    )


_peers_option = click.option(
    "--peers/--no-peers", default=True, show_default=True, help="race what is installed of fastac[peers]"
)


_PAGE_COLUMNS = 124  # of a table that goes into a file


@click.group()
def bench() -> None:
    """Measure speed, memory and time to solve.

    Tables say minimum, median and maximum over interleaved rounds; that of solve, median and interval over the seeds.

    \b
    fastac bench env --rounds 3
    """


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
@_rounds_option(7)
@_round_s_option(0.3)
@_peers_option
@run_options
def bench_env(sizes: tuple[int, ...], rounds: int, round_s: float, peers: bool, name: str | None, runs: Path) -> None:
    """The native CartPole against Gymnasium's and EnvPool's.

    Gymnasium's sync, async and vector-entry-point CartPole, all in one run.

    \b
    fastac bench env
    fastac bench env --envs 8,4096 --no-peers
    """
    with ends_in_order():
        from fastac.bench import env, plots

        where = _where()
        with _measuring(new_folder(runs, name, "bench-env"), rounds * len(sizes)) as (folder, tick):
            results = env.measure(sizes, rounds, round_s, peers, tick)
        _show(env.table(results), results, rounds, where, folder / "bench-env.json")
        _draw(folder / "bench-env.png", plots.draw_env, results)


@bench.command("train")
@_rounds_option(5)
@_round_s_option(1.0)
@_peers_option
@run_options
def bench_train(rounds: int, round_s: float, peers: bool, name: str | None, runs: Path) -> None:
    """Env steps per second of training.

    Both engines, a plain torch worker, Stable-Baselines3 and JAX, in one run.

    \b
    fastac bench train
    fastac bench train --rounds 3 --no-peers
    """
    with ends_in_order():
        from fastac.bench import train

        where = _where()
        with _measuring(new_folder(runs, name, "bench-train"), rounds * len(train.SETUPS)) as (folder, tick):
            results = train.measure(train.SETUPS, rounds, round_s, peers, tick)
        _show(train.table(results), results, rounds, where, folder / "bench-train.json")


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
@_rounds_option(7)
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
    """What read, push and apply cost under every update scheme.

    And how many additions get lost; and what a push costs against a plain copy plus an addition.

    \b
    fastac bench updates
    fastac bench updates --workers 2,16 --n-params 100000
    """
    with ends_in_order():
        from fastac.bench import updates

        if max(workers) > MAX_WORKERS:
            raise click.UsageError(f"--workers: expected 1 to {MAX_WORKERS}, got {max(workers)}")
        if max(workers) * n_updates > updates.MOST_ADDITIONS:
            raise click.UsageError(
                f"workers * n_updates: expected <= {updates.MOST_ADDITIONS:,}, so that sums stay exact"
            )
        where = _where()
        with _measuring(new_folder(runs, name, "bench-updates"), rounds * len(workers)) as (folder, tick):
            push = updates.measure_push(n_params, rounds, n_updates)
            results = updates.measure(workers, n_params, rounds, n_updates, tick)
        figures: dict[Any, Any] = {**results, "uncontended_push": push}
        _show(updates.table(results, n_params), figures, rounds, where, folder / "bench-updates.json")
        click.echo(updates.push_line(push, n_params))


@bench.command("scaling")
@click.option(
    "--workers",
    type=click.IntRange(1, MAX_WORKERS),
    default=lambda: min(len(os.sched_getaffinity(0)), MAX_WORKERS),
    show_default="the cores",
    help="the most workers; 1, 2, 4 and so on are measured, too",
)
@_rounds_option(7)
@_round_s_option(0.5)
@run_options
def bench_scaling(workers: int, rounds: int, round_s: float, name: str | None, runs: Path) -> None:
    """Env steps per second of ever more native workers.

    Of 1, 2, 4 and so on, and of as many runs that share nothing, with a picture; and what one more worker thread keeps
    in memory.

    \b
    fastac bench scaling
    fastac bench scaling --workers 4 --round-s 1
    """
    with ends_in_order():
        from fastac.bench import memory, plots, scaling

        where = _where()
        with _measuring(new_folder(runs, name, "bench-scaling"), rounds) as (folder, tick):
            results = scaling.measure(scaling.counts_up_to(workers), rounds, round_s, tick)
            one_more = memory.measure(scaling.A3C_OPTIONS, rounds)
        figures: dict[str, Any] = {**results, "bytes_of_one_more_worker_thread": one_more}
        _show(scaling.table(results), figures, rounds, where, folder / "bench-scaling.json")
        click.echo(memory.line(one_more, scaling.A3C_OPTIONS))
        _draw(folder / "bench-scaling.png", plots.draw_scaling, results, where["cores"])


@bench.command("solve")
@click.option("--seeds", type=click.IntRange(min=1), default=10, show_default=True, help="seeds of each, from 0 on")
@click.option(
    "--total-timesteps",
    type=click.IntRange(min=1),
    default=200_000,
    show_default=True,
    help="env steps of each run of ours and of A2C in JAX",
)
@click.option(
    "--peer-seeds",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="seeds of Stable-Baselines3, which takes half a minute for each",
)
@click.option(
    "--peer-budget-s",
    type=FiniteRange(min=0, min_open=True),
    default=120.0,
    show_default=True,
    help="a run of Stable-Baselines3 ends then, and is censored [s]",
)
@_peers_option
@run_options
def bench_solve(
    seeds: int,
    total_timesteps: int,
    peer_seeds: int,
    peer_budget_s: float,
    peers: bool,
    name: str | None,
    runs: Path,
) -> None:
    """Time to a mean return of 475 over 100 episodes.

    A2C and A3C, default presets, against JAX and Stable-Baselines3. Seconds are of training. Start-up, of the
    process, its imports and its compilation, stands apart, and so do two whole processes: `fastac train a3c --solve
    475`, and one that does nothing but import torch.

    \b
    fastac bench solve
    fastac bench solve --seeds 40 --no-peers
    """
    with ends_in_order():
        from fastac.bench import plots, solve

        plan = solve.Plan(seeds, total_timesteps, peer_seeds, peer_budget_s, peers)
        where = _where()
        with _measuring(new_folder(runs, name, "bench-solve"), seeds, "seeds") as (folder, tick):
            results = solve.measure(plan, tick)
        _show(solve.table(results), results, seeds, where, folder / "bench-solve.json", "seeds")
        for line in (*solve.censored(results), solve.peak_memory(results)):
            click.echo(line)
        _draw(folder / "bench-solve.png", plots.draw_solve, results)


@bench.command("scores")
@click.option("--seeds", type=click.IntRange(min=1), default=10, show_default=True, help="seeds of each, from 100 on")
@click.option(
    "--env",
    "envs",
    type=click.Choice([name.partition("-")[2] for name in ENV_PRESETS]),
    multiple=True,
    help="one of the envs; may be given several times  [default: all]",
)
@click.option(
    "--fraction",
    type=FiniteRange(min=0, min_open=True, max=1),
    default=1.0,
    show_default=True,
    help="of the env steps of each",
)
@run_options
def bench_scores(seeds: int, envs: tuple[str, ...], fraction: float, name: str | None, runs: Path) -> None:
    """What the presets for other envs reach.

    A2C, with as many env steps as the published scores of rl-baselines3-zoo took (LunarLander-v3, which needs
    gymnasium[box2d]: a million), and the most probable actions.

    \b
    fastac bench scores
    fastac bench scores --env Pendulum-v1 --seeds 3
    """
    with ends_in_order():
        from fastac.bench import scores

        envs = envs or tuple(env.partition("-")[2] for env in ENV_PRESETS)
        where = _where()
        with _measuring(new_folder(runs, name, "bench-scores"), len(envs) * seeds, "trainings") as (folder, tick):
            results = scores.measure(envs, seeds, fraction, tick)
        _show(scores.table(results), results, seeds, where, folder / "bench-scores.json", "seeds", scores.FIRST_SEED)


@bench.command("cluster")
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="of each case, from 0 on")
@click.option("--nodes", type=click.IntRange(1, 16), default=2, show_default=True, help="of the largest cluster")
@click.option(
    "--delays",
    default="0,10,50",
    show_default=True,
    help="by which each call of a node, and each answer, comes later, between commas [ms]",
)
@click.option(
    "--total-timesteps",
    type=click.IntRange(min=1),
    default=1_500_000,
    show_default=True,
    help="env steps of a run that does not reach 475",
)
@run_options
def bench_cluster(seeds: int, nodes: int, delays: str, total_timesteps: int, name: str | None, runs: Path) -> None:
    """Nodes over Ray, on this machine.

    Throughput, staleness inside the nodes and between them, and what it takes to solve CartPole, by what nodes send,
    how often, and how late it arrives. Needs fastac[ray].

    
    fastac bench cluster
    fastac bench cluster --nodes 2 --delays 0 --seeds 1
    """
    with ends_in_order():
        try:
            late = [float(delay) for delay in delays.split(",")]
        except ValueError:
            raise click.BadParameter(
                f"expected numbers between commas, got {delays!r}", param_hint="--delays"
            ) from None
        try:
            from fastac.bench import cluster
        except ImportError as error:
            raise click.UsageError(f"expected Ray: pip install 'fastac[ray]' ({error})") from None

        rows = cluster.cases([2**k for k in range(nodes.bit_length()) if 2**k < nodes] + [nodes], late)
        where = _where()
        with _measuring(new_folder(runs, name, "bench-cluster"), len(rows) * seeds, "trainings") as (folder, tick):
            results = cluster.measure(rows, seeds, total_timesteps, tick)
        _show(cluster.table(results), results, seeds, where, folder / "bench-cluster.json", "seeds")


def _where() -> dict[str, Any]:
    """To be asked before anything is measured: afterwards the load is our own."""
    from fastac.bench.peers import PACKAGES

    return machine.describe(*PACKAGES)


def _show(
    table: Any,
    results: Any,
    repeated: int,
    where: dict[str, Any],
    path: Path,
    unit: str = "rounds",
    first: int = 0,
) -> None:
    from fastac.bench.rounds import as_json

    console = Console()
    if not console.is_terminal:
        console.width = _PAGE_COLUMNS
    record = {"command": sys.argv[1:], "machine": where, unit: repeated, "figures": as_json(results)}
    try:
        rundir.write_json(path, record)
    finally:
        rundir.remove_if_empty(path.parent)
        console.print(table)
    seeded = f"from {first} on" if unit == "seeds" else "of seed 0"
    for line in (f"{counted(repeated, unit)} {seeded}, measured on {machine.summary(where)}.", f"Written: {path}"):
        console.print(line, highlight=False, soft_wrap=True)


def _draw(path: Path, draw: Callable[..., None], *what: Any) -> None:
    draw(path, *what)
    click.echo(f"Written: {path}")


@contextlib.contextmanager
def _measuring(folder: Path, total: int, unit: str = "rounds") -> Iterator[tuple[Path, Callable[[], None]]]:
    """The folder, and a progress display that is told of each round that ends. Unfinished, it leaves no folder."""
    done = itertools.count(1)
    try:
        with signals_raised(), WaitingProgress(total, "measuring", unit) as progress:
            yield folder, lambda: progress.update(next(done))
    except KeyboardInterrupt as stop:
        rundir.remove_if_empty(folder)
        stopped("nothing was measured to the end", stop)
    except Exception:
        rundir.remove_if_empty(folder)
        raise
