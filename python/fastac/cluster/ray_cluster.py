"""What a user says of a cluster: how many nodes, and how they work together. learn(cluster=RayCluster(...))."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastac._core import MAX_WORKERS
from fastac.algorithm import Algorithm
from fastac.cluster.courier import Patience
from fastac.cluster.messages import SENDS, SYNCHRONOUS
from fastac.config import A2CConfig, A3CConfig, Config
from fastac.errors import ConfigError
from fastac.progress import WaitingProgress
from fastac.updates import Run

if TYPE_CHECKING:
    pass

MAX_NODES = 1000


@dataclass(frozen=True, kw_only=True)
class RayCluster:
    """Machines that Ray has joined, for learn(cluster=...). Needs the extra: pip install 'fastac[ray]'.

    A3C: each node has workers of its own, on a lock-free buffer of its own; its agent exchanges with the server what
    they have done. A2C: each node has its share of the envs, and all make one update together.

    Args:
        address: of the cluster: "auto" for the one that this machine belongs to, "host:port" or "ray://host:port"; None
            starts one on this machine alone, and ends it afterwards.
        nodes: 1 to 1,000. Each is on a machine of its own, but for address=None.
        workers_per_node: A3C: 1 to 63; the model's `workers`, if not given. A2C: threads that share a node's envs.
        sync_ms: A3C: milliseconds between two exchanges of a node with the server.
        sync_updates: A3C: updates between two instead of sync_ms.
        send: A3C: what a node sends. "steps": its workers' optimizer steps, as the difference of its parameters; each
            gradient makes a step of its own, on its node at once. "gradients": their sum, of which the server makes
            one step; the node's parameters stand still meanwhile.
        most_shard_mb: parameters that take more megabytes are spread over several servers.
        checkpoint_every_s: seconds between two checkpoints of the server, from which another goes on if it dies.
        call_deadline_s: after which a call to the server is made again.
        call_retries: how often, before the server is taken for lost.
        outage_s: how long a node looks for another server, and the run for a first node, before they give up.

    Raises ConfigError for a value outside its range.
    """

    address: str | None = None
    nodes: int = 2
    workers_per_node: int | None = None
    sync_ms: float = 20.0
    sync_updates: int | None = None
    send: str = "steps"
    most_shard_mb: float = 64.0
    checkpoint_every_s: float = 5.0
    call_deadline_s: float = 5.0
    call_retries: int = 3
    outage_s: float = 60.0

    def __post_init__(self) -> None:
        _expect_whole("nodes", self.nodes, 1, MAX_NODES)
        if self.workers_per_node is not None:
            _expect_whole("workers_per_node", self.workers_per_node, 1, MAX_WORKERS - 1)
        if self.sync_updates is not None:
            _expect_whole("sync_updates", self.sync_updates, 1, 10**9)
        _expect_whole("call_retries", self.call_retries, 0, 1000)
        for name in ("sync_ms", "most_shard_mb", "checkpoint_every_s", "call_deadline_s", "outage_s"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
                raise ConfigError(f"{name}: expected a number > 0, got {value!r}")
        if self.send not in SENDS:
            raise ConfigError(f"send: expected one of {', '.join(SENDS)}, got {self.send!r}")
        if self.address is not None and not isinstance(self.address, str):
            raise ConfigError(f"address: expected a text or None, got {self.address!r}")

    @property
    def patience(self) -> Patience:
        return Patience(self.call_deadline_s, self.call_retries, self.outage_s)

    def node_config(self, config: Config) -> Config:
        """What one node has of a model's config. Raises ConfigError for one that cannot be spread."""
        if isinstance(config, A2CConfig):
            if config.n_envs % self.nodes:
                raise ConfigError(
                    f"nodes: expected a divisor of n_envs={config.n_envs}, as each node has as many, got {self.nodes}"
                )
            threads = config.workers if self.workers_per_node is None else self.workers_per_node
            return dataclasses.replace(config, n_envs=config.n_envs // self.nodes, workers=threads)
        assert isinstance(config, A3CConfig)
        if config.update == "hogwild":
            raise ConfigError(
                "update: expected lockfree, lock or queue on a cluster, got hogwild, whose workers would overwrite "
                "some of what other nodes have done"
            )
        if config.record:
            raise ConfigError("record: expected False on a cluster, whose order is not recorded, got True")
        workers = config.workers if self.workers_per_node is None else self.workers_per_node
        _expect_whole("workers_per_node", workers, 1, MAX_WORKERS - 1)
        return dataclasses.replace(config, workers=workers)

    def send_of(self, config: Config) -> str:
        return SYNCHRONOUS if isinstance(config, A2CConfig) else self.send

    # ---- what Algorithm asks for ------------------------------------------------------------------------------

    def expect_possible(self, model: Algorithm) -> None:
        self.node_config(model.config)
        try:
            import ray  # noqa: F401
        except ImportError as error:
            raise ConfigError(f"cluster: expected Ray: pip install 'fastac[ray]' ({error})") from error

    def open(self, model: Algorithm, progress: WaitingProgress) -> Run:
        from fastac.cluster.driver import open_run

        return open_run(self, model, progress)

    def train(self, model: Algorithm, run: Run) -> None:
        from fastac.cluster.driver import ClusterRun

        assert isinstance(run, ClusterRun)
        run.driver.train(run)


def _expect_whole(name: str, value: Any, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ConfigError(f"{name}: expected a whole number from {least:,} to {most:,}, got {value!r}")
