"""`fastac presets`: the named sets of hyper-parameters."""

from __future__ import annotations

import dataclasses

import click
from rich.console import Console
from rich.table import Table

from fastac.config import Config
from fastac.presets import ENV_PRESETS, PRESETS


@click.command()
def presets() -> None:
    """Show the named sets of hyper-parameters.

    For --preset of `fastac train`; what they leave out is as by default. CartPole's were found by `fastac
    search`; what those of other envs reach says `fastac bench scores`. In Python: fastac.A3C(**fastac.preset("a3c-8")).

    \b
    fastac presets
    fastac train a3c --preset a3c-8
    fastac train a2c --preset a2c-Pendulum-v1 --total-timesteps 1000000
    """
    defaults = {field.name: field.default for field in dataclasses.fields(Config)}  # without numbers of envs
    console = Console()
    table = Table(title="Presets for CartPole-v1, and the defaults for what they leave out")
    table.add_column("")
    for heading in (*PRESETS, "defaults"):
        table.add_column(heading, justify="right")
    for name in dict.fromkeys(name for values in PRESETS.values() for name in values):
        table.add_row(name, *(_cell((defaults | values).get(name)) for values in (*PRESETS.values(), {})))
    console.print(table)
    others = Table("", "what differs from the defaults", title="Presets for other envs")
    for name, values in ENV_PRESETS.items():
        others.add_row(name, ", ".join(f"{field}={_cell(value)}" for field, value in values.items()))
    console.print(others)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return ",".join(map(str, value)) if isinstance(value, tuple) else f"{value}"
