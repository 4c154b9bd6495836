"""`fastac check`: conservation, checked on the user's own machine."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from fastac import machine
from fastac.cli.endings import ends_in_order, signals_raised, stopped
from fastac.cli.options import FiniteRange, workers_option
from fastac.progress import WaitingProgress
from fastac.words import counted

if TYPE_CHECKING:
    from fastac.check import Result


@click.command()
@click.option(
    "--seconds",
    type=FiniteRange(min=1),
    default=40.0,
    show_default=True,
    help="for all cases together [s]; each gets 0.3 s at least",
)
@workers_option("workers in every case")
@click.option("--json", "as_json", is_flag=True, help="one JSON object instead of a table")
def check(seconds: float, workers: int, as_json: bool) -> None:
    """Is every gradient applied exactly once, whatever dies?

    On this machine, under every update scheme, workers submit gradients of whole numbers: threads, processes, and
    processes that are killed (SIGKILL) at random moments, the learner of `queue` among them, each replaced by
    another one. Then the ledger must balance, and every parameter be the sum of exactly the gradients that were
    published. hogwild is racy by design: its counts must be exact, and what it lost is shown.

    Exit code 0: all is as promised. 1: something was lost, doubled, or did not end.

    \b
    fastac check
    fastac check --workers 8 --seconds 120
    fastac check --json > check.json
    """
    with ends_in_order():
        from fastac.check import cases, run_all

        results: list[Result] = []
        try:
            with signals_raised(), WaitingProgress(len(cases()), "checking", "cases") as progress:
                for result in run_all(seconds, workers, progress.update):
                    results.append(result)
        except KeyboardInterrupt as stop:
            stopped(f"{len(results)} of {counted(len(cases()), 'cases')} done", stop)
        exact = not any(result.faults for result in results)
        if as_json:
            record = {"exact": exact, "workers": workers, "machine": machine.describe()}
            click.echo(json.dumps(record | {"cases": [dataclasses.asdict(one) for one in results]}, indent=2))
        else:
            _show(results, workers)
    if not exact:
        sys.exit(1)


def _show(results: Sequence[Result], workers: int) -> None:
    table = Table(title=f"Where every gradient went; workers: {workers}", box=None, padding=(0, 1, 0, 0))
    for heading in ("scheme", "kills", "pushed", "applied", "rejected", "aborted", "pending", "lost", "verdict"):
        table.add_column(heading, justify="left" if heading in ("scheme", "verdict") else "right", no_wrap=True)
    backend = ""
    for result in results:
        if result.backend != backend:
            backend = result.backend
            table.add_section()
            table.add_row(f"[bold]{backend}[/]")
        table.add_row(*_cells(result))
    console = Console()
    console.print(table)
    for result in results:
        for fault in result.faults:
            console.print(
                f"{result.scheme}, {result.backend}: {fault}", style="bold red", highlight=False, markup=False
            )
    exact = [result for result in results if result.scheme != "hogwild" and not result.faults]
    if exact and not any(result.faults for result in results):
        schemes = ", ".join(dict.fromkeys(result.scheme for result in exact))
        applied = sum(result.ledger.applied for result in exact)
        console.print(f"Under {schemes} each of {applied:,} gradients was applied exactly once.", highlight=False)
    console.print(_contrast(results), highlight=False)


def _cells(result: Result) -> list[str]:
    ledger = result.ledger
    promised = "racy" if result.scheme == "hogwild" else "exact"
    counts = (
        result.kills,
        ledger.published,
        ledger.applied,
        ledger.rejected_nonfinite + ledger.rejected_stale,
        ledger.aborted,
        ledger.pending,
    )
    return [
        f"  {result.scheme}",
        *(f"{count:,}" for count in counts),
        _lost(result),
        "[bold red]FAILED[/]" if result.faults else promised,
    ]


def _lost(result: Result) -> str:
    ledger = result.ledger
    if ledger.lost_fraction is not None:
        return f"{ledger.lost_fraction:.3%}"
    return f"{ledger.published - ledger.applied - ledger.rejected_nonfinite - ledger.rejected_stale - ledger.pending:,}"


def _contrast(results: Sequence[Result]) -> str:
    """What hogwild, which is not exact, made of the same gradients."""
    from fastac.check import N_PARAMS

    racy = [result for result in results if result.scheme == "hogwild"]
    lost = [result.ledger.lost_fraction or 0.0 for result in racy]
    if not any(result.moved for result in racy):
        return "By contrast, hogwild: it lost nothing this time. Its races need workers that run at the same moment."
    return (
        f"By contrast, under hogwild {min(lost):.3%} to {max(lost):.3%} of the additions were overwritten, and whoever "
        f"was killed left half a step: up to {max(result.moved for result in racy):,} of {N_PARAMS:,} parameters are "
        "not the sum of the gradients."
    )
