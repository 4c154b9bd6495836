"""`fastac plan`: how many nodes of a cluster are worth it."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from fastac._core import MAX_WORKERS
from fastac.cli.endings import ends_in_order, signals_raised
from fastac.cli.options import FiniteRange, comma_separated
from fastac.config import A3CConfig, Config

if TYPE_CHECKING:
    from fastac.cluster.plan import Figures, Outcome

_ABOVE_0 = FiniteRange(min=0, min_open=True)
_SENDS = ("steps", "gradients", "round")


@click.command()
@click.option(
    "--nodes",
    callback=comma_separated,
    metavar="N,N,...",
    default="1,2,4,8,16,32,64,128,256,512,1000",
    show_default=True,
    help="numbers of nodes that are compared",
)
@click.option(
    "--workers-per-node",
    type=click.IntRange(1, MAX_WORKERS - 1),
    default=A3CConfig.workers,
    show_default=True,
    help="A3C: workers, A2C: threads, each with a core of its own",
)
@click.option(
    "--parameters",
    type=click.IntRange(min=1),
    default=4675,
    show_default=True,
    help="of the policy; by default those of two hidden layers of 64 on CartPole",
)
@click.option(
    "--sync-ms",
    type=_ABOVE_0,
    default=20.0,
    show_default=True,
    help="A3C: time between two exchanges of a node with the server [ms]",
)
@click.option(
    "--send",
    type=click.Choice(_SENDS),
    default="steps",
    show_default=True,
    help="A3C: what nodes send; A2C: round, in which all make one update together",
)
@click.option(
    "--latency-ms",
    type=FiniteRange(min=0),
    default=0.25,
    show_default=True,
    help="from a node to the server, one way [ms]",
)
@click.option(
    "--bandwidth-mbit",
    type=_ABOVE_0,
    default=1000.0,
    show_default=True,
    help="of each machine's link, in each direction [Mbit/s]",
)
@click.option(
    "--update-ms",
    type=_ABOVE_0,
    default=None,
    help="of one worker; round: of a node [ms]; measured with the native CartPole, if not given",
)
@click.option(
    "--server-ms",
    type=_ABOVE_0,
    default=None,
    help="of the server's processor for one exchange [ms]; measured, and Ray's share added, if not given",
)
@click.option(
    "--env-steps-per-update",
    type=click.IntRange(min=1),
    default=Config.n_steps,
    show_default=True,
    help="of one worker's update; round: of a node's",
)
@click.option("--json", "as_json", is_flag=True, help="one JSON object instead of a table")
def plan(
    nodes: tuple[int, ...],
    workers_per_node: int,
    parameters: int,
    sync_ms: float,
    send: str,
    latency_ms: float,
    bandwidth_mbit: float,
    update_ms: float | None,
    server_ms: float | None,
    env_steps_per_update: int,
    as_json: bool,
) -> None:
    """How many nodes of a cluster are worth it?

    Measures on this machine, without Ray, what an update costs a worker and an exchange costs the server, and reckons
    from it what so many machines like this one would do, and where they are saturated. It tells of speed and of
    staleness, not of learning.

    \b
    fastac plan
    fastac plan --nodes 10,100,1000 --sync-ms 100
    fastac plan --send round --parameters 1000000 --update-ms 50 --json
    """
    with ends_in_order():
        from fastac.cluster.advice import advice
        from fastac.cluster.measure import measure
        from fastac.cluster.plan import plan as outcomes_of

        with signals_raised():
            figures = measure(
                parameters=parameters,
                workers=workers_per_node,
                env_steps_per_update=env_steps_per_update,
                sync_s=sync_ms / 1000,
                send=send,
                latency_s=latency_ms / 1000,
                bandwidth_bytes_per_s=bandwidth_mbit * 1e6 / 8,
                update_s=None if update_ms is None else update_ms / 1000,
                server_s=None if server_ms is None else server_ms / 1000,
            )
        outcomes = outcomes_of(figures, nodes)
        sentence = advice(figures, max(nodes))
        if as_json:
            click.echo(json.dumps(_record(figures, outcomes, sentence), indent=2))
            return
        console = Console()
        console.print(_table(outcomes))
        for line in (_figures_line(figures), sentence):
            console.print(line, highlight=False, soft_wrap=True)


def _record(figures: Figures, outcomes: list[Outcome], sentence: str) -> dict[str, Any]:
    derived = {"server_s": figures.server_s, "updates_per_s": figures.updates_per_s, "lag_s": figures.lag_s}
    return {
        "figures": dataclasses.asdict(figures) | derived,
        "outcomes": [dataclasses.asdict(outcome) for outcome in outcomes],
        "advice": sentence,
    }


def _table(outcomes: list[Outcome]) -> Table:
    table = Table(padding=(0, 1, 0, 0))
    heads = [
        "nodes",
        "env steps\nper s",
        "at\nwork",
        "exchanges\nper s",
        "period\nms",
        "server",
        "link",
        "staleness\nbetween",
    ]
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("bottle-\nneck", no_wrap=True)
    for its in outcomes:
        table.add_row(
            f"{its.nodes:,}",
            f"{its.env_steps_per_s:,.0f}",
            f"{its.at_work:.0%}",
            f"{its.exchanges_per_s:,.0f}",
            f"{1000 * its.period_s:,.{1 if its.period_s < 0.1 else 0}f}",
            f"{its.server_use:.0%}",
            f"{its.link_use:.0%}",
            _millions(its.staleness_between),
            its.bottleneck,
        )
    return table


def _millions(n: float) -> str:
    return f"{n:,.0f}" if n < 1e6 else f"{n / 1e6:,.1f} M"


def _figures_line(its: Figures) -> str:
    update = f"{1000 * its.update_s:,.3g} ms for an update of " + ("a node" if its.in_rounds else "a worker")
    server = f"{1000 * its.server_s:,.3g} ms of the server's processor"
    way = f"{1000 * 2 * (its.link_s() + its.latency_s):,.3g} ms on the way, for an exchange"
    inside = "" if its.in_rounds else f"; staleness inside a node: {its.workers - 1} on average"
    return f"Reckoned with {update}, {server} and {way}{inside}."
