"""A cluster as learn() takes it: learn(cluster=RayCluster(...)). Ray is imported when a run begins."""

from __future__ import annotations

from dataclasses import dataclass

from fastac.algorithm import Algorithm
from fastac.cluster.options import ClusterOptions
from fastac.errors import ConfigError
from fastac.progress import WaitingProgress
from fastac.updates import Run


@dataclass(frozen=True, kw_only=True)
class RayCluster(ClusterOptions):
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
        added_delay_ms: for measurements: milliseconds by which each call of a node, and each answer, comes later.

    Raises ConfigError for a value outside its range.
    """

    def expect_possible(self, model: Algorithm) -> None:
        self.node_config(model.config)
        if model.problem.envs is not None:
            raise ConfigError("env: expected an id or what makes one, as each node has its own, got an env")
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
