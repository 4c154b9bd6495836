"""`fastac search`: hyper-parameters for A2C and A3C, found with equal budgets."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from fastac import machine, rundir
from fastac.cli.endings import ends_in_order, signals_raised, stopped
from fastac.cli.options import comma_separated, new_folder, run_options
from fastac.metrics import SOLVED
from fastac.progress import WaitingProgress
from fastac.signals import signals_deferred
from fastac.words import counted

if TYPE_CHECKING:
    from fastac.compare.search import Search


@click.command()
@click.option(
    "--envs",
    "sizes",
    default="4,8",
    show_default=True,
    callback=comma_separated,
    metavar="N,N,...",
    help="numbers of envs of A2C, and of workers of A3C with one env each",
)
@click.option("--candidates", type=click.IntRange(min=1), default=64, show_default=True, help="drawn for each case")
@click.option(
    "--total-timesteps",
    type=click.IntRange(min=1),
    default=100_000,
    show_default=True,
    help="env steps of a training at most; twice as many on fresh seeds",
)
@click.option(
    "--fresh",
    type=click.IntRange(min=1),
    default=40,
    show_default=True,
    help="seeds on which what was found is compared with the defaults",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="of the candidates")
@run_options
def search(
    sizes: tuple[int, ...],
    candidates: int,
    total_timesteps: int,
    fresh: int,
    seed: int,
    name: str | None,
    runs: Path,
) -> None:
    """Random search with equal budgets for A2C and A3C.

    The same candidates, seeds and env steps for both. All candidates are tried on 3 seeds, the best fourth on 5,
    one in 16 on 10 and one in 32 on 30; who solves more of them is better, then who needs fewer env steps. The
    winner of each case is then compared with the defaults on seeds that the search has not seen. All is kept in
    runs/<name>/search.json; what was found before has names: `fastac presets`.

    \b
    fastac search
    fastac search --candidates 256 --envs 16
    """
    with ends_in_order():
        # All imports now, while Ctrl-C may still end everything at once.
        from fastac.compare import statistics, tables  # noqa: F401
        from fastac.compare.search import Case, Search

        cases = [Case(algorithm, size) for algorithm in ("a2c", "a3c") for size in sizes]
        for case in cases:
            case.model({}, 0)  # a size that is out of range is an error now
        searches = [Search(case, candidates, total_timesteps, fresh, seed) for case in cases]
        where = machine.describe()
        with signals_raised():
            _search(searches, new_folder(runs, name, "search") / "search.json", where)


def _search(searches: Sequence[Search], path: Path, where: dict[str, Any]) -> None:
    """Runs and shows them. Where they are stopped or fail, what was tried is kept."""
    total, done = sum(search.n_runs for search in searches), 0
    try:
        try:
            with WaitingProgress(total, "searching", "trainings") as progress:
                for search in searches:
                    for _ in search.run():
                        done += 1
                        progress.update(done, search.case.name)
        finally:
            _write(path, searches, where)
    except KeyboardInterrupt as stop:
        stopped(f"{done:,} of {counted(total, 'trainings')} done" + (f"; they are in {path}" if done else ""), stop)
    console = Console()
    for search in searches:
        console.print(f"{search.case.name}: {_found(search)}", highlight=False, soft_wrap=True)
    console.print(_table(searches))
    console.print(f"Written: {path}", highlight=False, soft_wrap=True)


def _found(search: Search) -> str:
    winner = search.winner()
    if winner is None:
        tried = counted(search.n_candidates, "candidates")
        return f"none of {tried} solved ({SOLVED:g}) on any seed within {search.total_timesteps:,} env steps: no winner"
    return ", ".join(f"{key}={value!r}" for key, value in winner.options.items())


def _table(searches: Sequence[Search]) -> Table:
    from fastac.compare.statistics import median_interval
    from fastac.compare.tables import interval_text, intervals_of

    first = searches[0]
    table = Table(
        title=f"Env steps to a mean return of {SOLVED:g}, {counted(first.n_fresh, 'fresh seeds')}, "
        f"at most {2 * first.total_timesteps:,}, {counted(first.n_candidates, 'candidates')}; "
        f"{intervals_of(first.n_fresh)}"
    )
    for heading in ("", "found: solved", "env steps", "defaults: solved", "env steps"):
        table.add_column(heading, justify="right")
    for search in searches:
        cells = [search.case.name]
        for candidate in (search.fresh.get("found"), search.fresh["defaults"]):
            if candidate is None:
                cells += ["-", "-"]
                continue
            cells.append(f"{candidate.solved} of {len(candidate.env_steps)}")
            cells.append(interval_text(median_interval(list(candidate.env_steps.values())), 0))
        table.add_row(*cells)
    return table


@signals_deferred()
def _write(path: Path, searches: Sequence[Search], where: dict[str, Any]) -> None:
    """What was tried, best first; nothing, and no folder, where nothing was."""
    report = [
        {
            "case": search.case.name,
            "candidates": [dataclasses.asdict(one) for one in search.best() if one.env_steps],
            "fresh": {name: dataclasses.asdict(one) for name, one in search.fresh.items()},
        }
        for search in searches
    ]
    try:
        if any(case["candidates"] for case in report):
            first = searches[0]
            budget = {"candidates": first.n_candidates, "total_timesteps": first.total_timesteps, "seed": first.seed}
            rundir.write_json(path, {"budget": budget, "machine": where, "cases": report})
    finally:
        rundir.remove_if_empty(path.parent)
