"""`fastac presets`: the named sets of hyper-parameters."""

from __future__ import annotations

import dataclasses

import click
from rich.console import Console
from rich.table import Table

from fastac.config import Config
from fastac.presets import PRESETS


@click.command()
def presets() -> None:
    """Show the named sets of hyper-parameters.

    For --preset of `fastac train`; what they leave out is as by default. They were found by `fastac search`. In
    Python: fastac.A3C(**fastac.preset("a3c-8")).

    \b
    fastac presets
    fastac train a3c --preset a3c-8
    """
    defaults = {field.name: field.default for field in dataclasses.fields(Config)}  # without numbers of envs
    table = Table(title="Presets, and the defaults for what they leave out")
    table.add_column("")
    for heading in (*PRESETS, "defaults"):
        table.add_column(heading, justify="right")
    for name in dict.fromkeys(name for values in PRESETS.values() for name in values):
        table.add_row(name, *(_cell((defaults | values).get(name)) for values in (*PRESETS.values(), {})))
    Console().print(table)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return ",".join(map(str, value)) if isinstance(value, tuple) else f"{value}"
