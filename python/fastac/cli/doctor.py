"""`fastac doctor`: whether this machine is ready, and what to do where it is not."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fastac.cli.endings import ends_in_order, signals_raised
from fastac.cli.options import workers_option
from fastac.words import counted

if TYPE_CHECKING:
    from fastac.doctor import Finding

_STYLES = {"ok": "green", "note": "yellow", "problem": "bold red"}


@click.command()
@workers_option("worker processes that the machine shall carry")
@click.option("--json", "as_json", is_flag=True, help="one JSON object instead of lines for people")
def doctor(workers: int, as_json: bool) -> None:
    """Is this machine ready for a run, and what to do where not?

    Tries what a run needs: a shared region, the update schemes, the env against Gymnasium's, a worker process.
    Exit code 0: no problem; notes do not count. 1: at least one problem.

    \b
    fastac doctor
    fastac doctor --workers 16 --json
    """
    with ends_in_order():
        from fastac.doctor import PROBLEM, examine

        findings: list[Finding] = []
        with signals_raised():
            for finding in examine(workers):
                findings.append(finding)
                if not as_json:
                    _show(finding)
        problems = sum(finding.status == PROBLEM for finding in findings)
        if as_json:
            record = {"workers": workers, "ready": problems == 0}
            click.echo(json.dumps(record | {"findings": [dataclasses.asdict(one) for one in findings]}, indent=2))
        else:
            click.echo(
                f"ready for {counted(workers, 'workers')}"
                if problems == 0
                else f"not ready: problems found: {problems}"
            )
    if problems:
        sys.exit(1)


def _show(finding: Finding) -> None:
    """Status and subject in columns of their own, so that what is long wraps beside them."""
    line = Table.grid(padding=(0, 2))
    line.add_column(width=len("problem"))
    line.add_column(width=len("update schemes"))
    line.add_column()
    text = Text(finding.found)
    if finding.remedy:
        text.append(f"\n-> {finding.remedy}", style="bold")
    line.add_row(Text(finding.status, style=_STYLES[finding.status]), finding.subject, text)
    Console().print(line)
