"""Options of `fastac train` for many machines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from fastac.cli.options import Command, FiniteRange, given

if TYPE_CHECKING:
    from fastac.cluster.ray_cluster import RayCluster

_OF_CLUSTER = ("nodes", "workers_per_node", "sync_ms", "sync_updates", "send")
LOCAL = "local"
NAMES = ("cluster", *_OF_CLUSTER)  # in a config.toml


def cluster_options(command: Command) -> Command:
    """What `cluster_of` takes."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def cluster_of(options: dict[str, Any]) -> RayCluster | None:
    """Takes these options out of all that were given. Raises UsageError for one that has no meaning without --cluster,
    and ConfigError for a value outside its range."""
    address = options.pop("cluster")
    its = {name: options.pop(name) for name in _OF_CLUSTER}
    if address is None:
        for name in filter(given, its):
            raise click.UsageError(f"--{name.replace('_', '-')}: expected with --cluster alone")
        return None
    if given("sync_ms") and its["sync_updates"] is not None:
        raise click.UsageError("--sync-updates: expected without --sync-ms, as one of them decides")
    from fastac.cluster.ray_cluster import RayCluster

    return RayCluster(address=None if address == LOCAL else address, **its)


def cluster_told(told: Mapping[str, Any]) -> RayCluster | None:
    """That of a run's config.toml."""
    address = told.get("cluster")
    if address is None:
        return None
    from fastac.cluster.ray_cluster import RayCluster

    its = {name: told[name] for name in _OF_CLUSTER if name in told}
    return RayCluster(address=None if address == LOCAL else address, **its)


_OPTIONS = (
    click.option(
        "--cluster",
        metavar="ADDRESS",
        default=None,
        help=f"train on many machines by Ray: {LOCAL}, auto, or HOST:PORT  [default: this machine alone]",
    ),
    click.option(
        "--nodes",
        type=click.IntRange(1, 1000),
        default=2,
        show_default=True,
        help="with --cluster: how many, each on a machine of its own",
    ),
    click.option(
        "--workers-per-node",
        type=click.IntRange(1, 63),
        default=None,
        help="with --cluster: workers of each node; of A2C threads  [default: as --workers says]",
    ),
    click.option(
        "--sync-ms",
        type=FiniteRange(min=0, min_open=True),
        default=20.0,
        show_default=True,
        help="with --cluster, A3C: time between two exchanges of a node with the server [ms]",
    ),
    click.option(
        "--sync-updates",
        type=click.IntRange(1),
        default=None,
        help="with --cluster, A3C: updates between two exchanges, instead  [default: --sync-ms decides]",
    ),
    click.option(
        "--send",
        type=click.Choice(["steps", "gradients"]),
        default="steps",
        show_default=True,
        help="with --cluster, A3C: what a node sends, its optimizer's steps or the sum of its gradients",
    ),
)
