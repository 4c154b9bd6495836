"""What a user says of a cluster: how many nodes, and how they work together."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from fastac._core import MAX_WORKERS
from fastac.cluster.courier import Patience
from fastac.cluster.messages import SENDS, SYNCHRONOUS
from fastac.config import A2CConfig, A3CConfig, Config
from fastac.errors import ConfigError

MAX_NODES = 1000
MOST_SYNC_MS = 5_000.0  # a node hears with an exchange that the run is over


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """What a user says of a cluster: RayCluster tells of each."""

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
    added_delay_ms: float = 0.0

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
        if self.sync_ms > MOST_SYNC_MS:
            raise ConfigError(f"sync_ms: expected at most {MOST_SYNC_MS:,.0f}, got {self.sync_ms!r}")
        if not 0 <= self.added_delay_ms < math.inf:
            raise ConfigError(f"added_delay_ms: expected a number >= 0, got {self.added_delay_ms!r}")
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


def _expect_whole(name: str, value: Any, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ConfigError(f"{name}: expected a whole number from {least:,} to {most:,}, got {value!r}")
