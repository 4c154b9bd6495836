"""A run on a cluster, as the program sees it that started it: by the verbs of a region's observer (updates.Observer).

In: reports of the server. Out: what Run makes tables, progress, callbacks and checkpoints of.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from fastac import _core
from fastac.cluster.books import empty_tally
from fastac.cluster.messages import Float32, Floats
from fastac.cluster.server import Report, State
from fastac.shared import NodeShare

_COUNTS = (
    "begun",
    "published",
    "aborted",
    "applied",
    "merged",
    "rejected_nonfinite",
    "rejected_stale",
    "retries",
    "staleness_sum",
    "staleness_max",
)


class ClusterObserver:
    """What was reported last. `fetch` is asked for the server's vectors, and leaves the `latest` that it can get.

    Attributes:
        stop_requested: whether the run is to end; the driver tells the server.
        latest: what was fetched last.
    """

    def __init__(self, state: State, places: int, workers: int, fetch: Callable[[], None]) -> None:
        self.stop_requested = False
        self.lost: dict[str, int] = {}
        self.latest = state
        self._fetch = fetch
        self._began_at = state.version
        self._places, self._workers = places, workers
        self._report: Report | None = None
        self._rows: list[Floats] = [np.zeros((0, _core.LOG_COLUMNS)) for _ in range(places * workers)]

    def hear(self, report: Report, offset_s: float) -> None:
        """A report; `offset_s`: our monotonic clock minus the server's."""
        self._report = report
        self.lost = report.lost
        rows = report.rows
        if len(rows):
            rows = rows.copy()
            rows[:, 1] += offset_s
            for worker in np.unique(rows[:, 2]).astype(int):
                self._rows[worker] = np.concatenate([self._rows[worker], rows[rows[:, 2] == worker]])

    # ---- the verbs of an observer -----------------------------------------------------------------------------

    def request_stop(self) -> None:
        self.stop_requested = True

    def snapshot(self) -> dict[str, Any]:
        its = self._report
        if its is None:
            return {"env_steps": self.latest.env_steps, "version": self.latest.version, **self.ledger()}
        return {**self.ledger(), "env_steps": its.env_steps, "version": its.version}

    def ledger(self) -> dict[str, Any]:
        counts = {} if self._report is None else self._report.books.counts
        its: dict[str, Any] = {name: counts.get(name, 0) for name in _COUNTS}
        its["lost"] = sum(self.lost.values())
        its["pending"] = (
            its["published"] - its["applied"] - its["rejected_nonfinite"] - its["rejected_stale"] - its["lost"]
        )
        its["env_steps"] = self.latest.env_steps if self._report is None else self._report.env_steps
        its["staleness"] = sum(
            (tally["staleness"] for tally in self.tallies()), start=np.zeros(len(_core.STALENESS_BUCKETS), np.uint64)
        )
        return {**its, "canaries": 0, "canaries_lost": 0, "nodes": self._shares()}

    def _shares(self) -> tuple[NodeShare, ...]:
        return () if self._report is None else self._report.nodes

    def tallies(self) -> list[dict[str, Any]]:
        if self._report is None:
            return [empty_tally() for _ in range(self._places * self._workers)]
        return list(self._report.tallies)

    def read_log(self, worker: int) -> Floats:
        rows, self._rows[worker] = self._rows[worker], np.zeros((0, _core.LOG_COLUMNS))
        return rows

    def copy_record(self, params: Float32, state: Float32) -> dict[str, Any]:
        """Of the server now; where it is dead, of its checkpoint."""
        self._fetch()
        its = self.latest
        params[:], state[...] = its.params, its.state
        updates = its.version - self._began_at
        return {**self.ledger(), "env_steps": its.env_steps, "version": its.version, "applied": updates}

    def statistics(self, worker: int) -> Floats:
        """All nodes' together stand for worker 0's."""
        packed = self.latest.statistics
        return packed.copy() if worker == 0 else np.zeros_like(packed)

    def trace(self) -> npt.NDArray[np.uint64]:
        return np.zeros((0, 2), np.uint64)

    def drain(self) -> int:
        """Each node has done that."""
        return 0

    def close(self) -> None:
        """Holds nothing."""
