"""Stages 4 to 6 as Python sees them: the shared region of a run, its sessions, and the ledger.

Before it: objective.py fills a gradient float32[P]; a session publishes it and sees it applied. After it: the next
rollout reads the new parameters. The work is done in C++ (cpp/include/fastac/updates.hpp says how).
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fastac import _core
from fastac.config import A3CConfig, Config
from fastac.errors import LedgerError
from fastac.staleness import WorkerShare, histogram, p95
from fastac.words import counted

Float32 = npt.NDArray[np.float32]


def create_region(
    config: Config,
    *,
    workers: int,
    update: str,
    n_params: int,
    trace_entries: int = 0,
    log_rows: int = 1024,
    statistics: int = 0,
    optimizer: str | None = None,
) -> _core.Region:
    """The region of one run: `workers` rings, records of `n_params` floats, and the config's optimizer.

    `trace_entries`: gradients whose order is recorded; 0 for none. `log_rows`: a power of two, for each worker.
    `statistics`: doubles that each worker shares with the others. `optimizer`: instead of the config's; "sum" makes no
    steps, but adds the gradients up.
    """
    return _core.Region.create(
        workers=workers,
        parameters=n_params,
        scheme=update,
        optimizer=optimizer or config.optimizer,
        alpha=config.alpha,
        beta1=config.beta1,
        beta2=config.beta2,
        eps=config.eps,
        eps_inside_root=config.eps_inside_root,
        max_grad_norm=config.max_grad_norm if config.clip_at == "apply" else 0.0,
        max_staleness=config.max_staleness if isinstance(config, A3CConfig) else None,
        staleness_lr=config.staleness_lr if isinstance(config, A3CConfig) else "constant",
        trace_entries=trace_entries,
        log_rows=log_rows,
        statistics=statistics,
        nonce=secrets.randbits(64),
    )


def observer_of(region: _core.Region) -> _core.Session:
    """The parent's seat: it starts and stops the run, reads, and checks the books."""
    return _core.Session(region, region.workers)


def learner_of(region: _core.Region) -> _core.Session:
    """The seat of the one who applies under `queue`."""
    return _core.Session(region, region.workers + 1)


def serve_until_stopped(session: _core.Session) -> None:
    """The learner of `queue`, in a thread of the parent: applies what the workers publish until the run is stopped."""
    while not session.stop_requested:
        session.serve(100)  # comes back to Python ten times a second


@dataclass
class Toll:
    """What the workers cost a run: counted while it goes on (launch.py)."""

    deaths: int = 0
    restarts: int = 0
    cpu_s: float = 0.0  # processor time of worker processes, as they report it when they leave


class Bookkeeper(Protocol):
    """Who knows the books of a run: its observer (updates.py)."""

    def ledger(self) -> dict[str, Any]: ...
    def tallies(self) -> list[dict[str, Any]]: ...


@dataclass(frozen=True)
class NodeShare:
    """What one node of a cluster, with those before it in its place, has brought to a run.

    Attributes:
        name: "node 0".
        updates: gradients of its workers that are in the server's parameters.
        env_steps: behind all of its gradients.
        deliveries: exchanges with the server.
        lost: gradients that it had published, and that died with it or with the server.
        staleness_mean: updates of other nodes between what it was given and its delivery, over its gradients. Inside
            the node there is staleness besides: that of its workers (WorkerShare).
        staleness_p95: what 95 % of them do not exceed.
        staleness_max: of the stalest.
    """

    name: str
    updates: int
    env_steps: int
    deliveries: int
    lost: int
    staleness_mean: float
    staleness_p95: int
    staleness_max: int


@dataclass(frozen=True)
class Ledger:
    """Where every gradient of a run went.

    Attributes:
        begun: pushes that started.
        published: pushes that completed: each of these is applied exactly once, or rejected and counted.
        aborted: pushes that their worker did not live to complete.
        applied: optimizer steps made, one for each gradient.
        merged: gradients summed into another one before it was pushed; no scheme does that by itself.
        rejected_nonfinite: gradients with NaN or infinity, not applied.
        rejected_stale: gradients staler than max_staleness, not applied.
        pending: published and neither applied nor rejected; 0 at the end of a run.
        retries: builds thrown away because another worker committed first (`lockfree`).
        staleness_mean: version when applied - version its worker read, over all applied gradients.
        staleness_max: of the stalest of them.
        staleness_p95: what 95 % of them do not exceed; exact up to 47, within half a doubling above.
        staleness: how many of them from each staleness on, to the next; those up to 47 are told one by one.
        lost_fraction: `hogwild`: the part of the watched additions that another worker overwrote; None elsewhere.
        deaths: worker processes that died.
        restarts: those of them that were replaced.
        workers: what each has brought.
        lost: gradients that a node of a cluster had published before it died, or had applied and the server that died
            did not know of any more.
        nodes: what each node of a cluster has brought; empty on one machine.
    """

    begun: int
    published: int
    aborted: int
    applied: int
    merged: int
    rejected_nonfinite: int
    rejected_stale: int
    pending: int
    retries: int
    staleness_mean: float
    staleness_max: int
    lost_fraction: float | None
    deaths: int = 0
    restarts: int = 0
    staleness_p95: int = 0
    staleness: dict[int, int] = field(default_factory=dict)
    workers: tuple[WorkerShare, ...] = ()
    lost: int = 0
    nodes: tuple[NodeShare, ...] = ()

    @classmethod
    def of(cls, session: Bookkeeper, update: str, toll: Toll | None = None, seconds: float = float("nan")) -> Ledger:
        """The books as they stand after `seconds` of training."""
        toll = toll or Toll()
        counts = session.ledger()
        watched = counts["canaries"]
        return cls(
            **{
                name: counts[name]
                for name in (
                    "begun",
                    "published",
                    "aborted",
                    "applied",
                    "merged",
                    "rejected_nonfinite",
                    "rejected_stale",
                    "pending",
                    "retries",
                    "staleness_max",
                )
            },
            staleness_mean=counts["staleness_sum"] / counts["applied"] if counts["applied"] else 0.0,
            lost_fraction=(counts["canaries_lost"] / watched if watched else 0.0) if update == "hogwild" else None,
            deaths=toll.deaths,
            restarts=toll.restarts,
            staleness_p95=p95(counts["staleness"], counts["staleness_max"]),
            staleness=histogram(counts["staleness"]),
            workers=tuple(WorkerShare.of(w, tally, seconds) for w, tally in enumerate(session.tallies())),
            lost=counts.get("lost", 0),
            nodes=counts.get("nodes", ()),
        )

    def check(self) -> None:
        """Raises LedgerError unless the books of an ended run balance, by equality."""
        accounted = self.applied + self.rejected_nonfinite + self.rejected_stale + self.pending + self.lost
        if self.begun != self.published + self.aborted:
            raise LedgerError(f"begun {self.begun} != published {self.published} + aborted {self.aborted}: {self}")
        if self.published != accounted:
            raise LedgerError(
                f"published {self.published} != applied + rejected + pending + lost = {accounted}: {self}"
            )
        if self.pending != 0:
            raise LedgerError(f"{self.pending} gradients were published and never applied: {self}")

    def text(self) -> str:
        """One line for people."""
        parts = [
            f"{self.published} pushed = {self.applied} applied + {self.rejected_nonfinite} non-finite"
            f" + {self.rejected_stale} stale + {self.pending} pending",
            f"{self.aborted} aborted",
            f"{self.merged} merged",
            f"staleness mean {self.staleness_mean:.2f}, p95 {self.staleness_p95}, max {self.staleness_max}",
        ]
        if self.lost_fraction is not None:
            parts.append(f"hogwild lost {self.lost_fraction:.3%} of its additions")
        if self.nodes:
            between = max(self.nodes, key=lambda node: node.staleness_mean)
            parts.append(
                f"{counted(len(self.nodes), 'nodes')}, {self.lost} lost, between them staleness mean up to "
                f"{between.staleness_mean:.1f} ({between.name})"
            )
        if self.deaths:
            parts.append(f"{counted(self.deaths, 'deaths')}, {counted(self.restarts, 'restarts')}")
        return "; ".join(parts)

    def workers_text(self) -> str:
        """One line for people: how far the workers are apart."""

        def from_to(values: list[float], digits: int = 0) -> str:
            return " to ".join(dict.fromkeys(f"{end(values):,.{digits}f}" for end in (min, max)))

        its = self.workers
        return (
            f"{counted(len(its), 'workers')}, each {from_to([one.updates for one in its])} updates; "
            f"staleness mean {from_to([one.staleness_mean for one in its], 2)}, "
            f"p95 {from_to([one.staleness_p95 for one in its])}, max {from_to([one.staleness_max for one in its])} "
            f"(equally fast: mean {len(its) // max(1, len(self.nodes)) - 1})"
        )
