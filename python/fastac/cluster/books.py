"""What a node has done, in numbers that can be added and sent: where every gradient went, worker by worker."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fastac import _core
from fastac.shared import Toll
from fastac.staleness import p95

Counts = npt.NDArray[np.uint64]

_SUMMED = ("env_steps", "applied", "merged", "rejected_nonfinite", "rejected_stale", "staleness_sum")
_TOLD = ("begun", "published", "aborted", "retries")  # by the rings' words; the others are of one record


@dataclass(frozen=True)
class Books:
    """Since a node joined, all its workers together: the counts of a ledger, and a tally of each worker."""

    counts: dict[str, int] = field(default_factory=dict)
    tallies: tuple[dict[str, Any], ...] = ()
    deaths: int = 0
    restarts: int = 0
    cpu_s: float = 0.0

    @property
    def applied(self) -> int:
        return self.counts.get("applied", 0)

    @property
    def env_steps(self) -> int:
        return self.counts.get("env_steps", 0)

    @property
    def pending(self) -> int:
        """Published, and not in the record that was sent."""
        its = self.counts
        return its.get("published", 0) - sum(its.get(n, 0) for n in ("applied", "rejected_nonfinite", "rejected_stale"))


def books_of(session: _core.Session, workers: int, record: dict[str, Any], began_at: int, toll: Toll) -> Books:
    """Of a node's region, whose seats from `workers` on are its agent's. `record`: what copy_record said of the
    parameters that go with these books: it has the counts, and the rings' words may be ahead of it. `began_at`: the
    record's env steps when the region was made."""
    words = session.ledger()
    tallies = session.tallies()[:workers]
    agent = session.tallies()[workers]
    counts = {name: int(record[name]) for name in _SUMMED}
    counts["env_steps"] -= began_at + int(agent["env_steps"])
    counts |= {"staleness_max": int(record["staleness_max"])}
    counts |= {name: int(words[name]) for name in _TOLD}
    amended = session.published(workers)
    counts["begun"] -= amended
    counts["published"] -= amended
    return Books(counts, tuple(tallies), toll.deaths, toll.restarts, toll.cpu_s)


def total(all_books: Iterable[Books]) -> Books:
    """Of several nodes; tallies one after the other."""
    counts: dict[str, int] = {}
    tallies: list[dict[str, Any]] = []
    deaths = restarts = 0
    cpu_s = 0.0
    for its in all_books:
        for name, n in its.counts.items():
            counts[name] = max(counts.get(name, 0), n) if name == "staleness_max" else counts.get(name, 0) + n
        tallies += its.tallies
        deaths, restarts, cpu_s = deaths + its.deaths, restarts + its.restarts, cpu_s + its.cpu_s
    return Books(counts, tuple(tallies), deaths, restarts, cpu_s)


def add_tallies(one: dict[str, Any] | None, other: dict[str, Any] | None) -> dict[str, Any]:
    """Of two that held one place, one after the other."""
    if one is None or other is None:
        return one or other or empty_tally()
    both = {name: one[name] + other[name] for name in one if name != "staleness_max"}
    return {**both, "staleness_max": max(one["staleness_max"], other["staleness_max"])}


def empty_tally() -> dict[str, Any]:
    """Of one that has done nothing."""
    zero: dict[str, Any] = dict.fromkeys((*_SUMMED, "staleness_max", "amended"), 0)
    return {**zero, "staleness": np.zeros(len(_core.STALENESS_BUCKETS), np.uint64)}


class Spread:
    """A histogram of staleness between nodes: updates of others that came in between, for each gradient."""

    def __init__(self) -> None:
        self.sum = self.n = self.max = 0
        self._counts = np.zeros(len(_core.STALENESS_BUCKETS), np.uint64)

    def add(self, staleness: int, n: int) -> None:
        """n gradients of this staleness."""
        self.sum += staleness * n
        self.n += n
        self.max = max(self.max, staleness if n else 0)
        self._counts[np.searchsorted(_core.STALENESS_BUCKETS, staleness, side="right") - 1] += np.uint64(n)

    @property
    def mean(self) -> float:
        return self.sum / self.n if self.n else 0.0

    @property
    def p95(self) -> int:
        return p95(self._counts, self.max)
