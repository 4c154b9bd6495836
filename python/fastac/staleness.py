"""Staleness of the applied gradients, worker by worker: what a run's histograms tell, and the alarm.

In: tallies of the shared region (Session.tallies). Out: figures for the ledger, and a warning of a worker far behind.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fastac import _core
from fastac.errors import StalenessWarning

Counts = npt.NDArray[np.uint64]  # how many gradients in each bucket
Tally = Mapping[str, Any]

FROM = np.array(_core.STALENESS_BUCKETS, np.int64)  # the smallest staleness in each bucket: to 47 they are exact


def p95(counts: Counts, largest: int) -> int:
    """The smallest staleness that 95 % do not exceed; from 48 on the largest in its bucket. 0 where there are none."""
    return min(int([*(FROM[1:] - 1), largest][_bucket(counts, 0.95)]), largest) if counts.any() else 0


def histogram(counts: Counts) -> dict[int, int]:
    """How many gradients from each staleness on, to the next; without those where there are none."""
    return {int(FROM[k]): int(counts[k]) for k in np.flatnonzero(counts)}


def _bucket(counts: Counts, share: float) -> int:
    """The first with which that share of the gradients is complete."""
    upto = np.cumsum(counts, dtype=np.int64)
    return int(np.searchsorted(upto, share * upto[-1]))


@dataclass(frozen=True)
class WorkerShare:
    """What one worker, with those before it in its seat, has brought to a run.

    Attributes:
        worker: its number, from 0 on.
        updates: applied gradients.
        env_steps: behind all of its gradients.
        env_steps_per_s: over the time that the run trained; NaN where that is not known.
        rejected_nonfinite: gradients of it with NaN or infinity, not applied.
        rejected_stale: gradients of it that were staler than max_staleness, not applied.
        staleness_mean: version when applied - version it had read, over its applied gradients.
        staleness_p95: what 95 % of them do not exceed.
        staleness_max: of the stalest of them.
        staleness: histogram. A worker that is killed may not live to count its last gradient, and this then lacks it.
    """

    worker: int
    updates: int
    env_steps: int
    env_steps_per_s: float = field(compare=False)  # the books are the same at any pace
    rejected_nonfinite: int
    rejected_stale: int
    staleness_mean: float
    staleness_p95: int
    staleness_max: int
    staleness: dict[int, int]

    @classmethod
    def of(cls, worker: int, tally: Tally, seconds: float) -> WorkerShare:
        return cls(
            worker,
            tally["applied"],
            tally["env_steps"],
            tally["env_steps"] / seconds if seconds > 0 else float("nan"),
            tally["rejected_nonfinite"],
            tally["rejected_stale"],
            tally["staleness_sum"] / tally["applied"] if tally["applied"] else 0.0,
            p95(tally["staleness"], tally["staleness_max"]),
            tally["staleness_max"],
            histogram(tally["staleness"]),
        )


class StalenessAlarm:
    """Warns of a worker whose gradients are far staler than the number of workers explains.

    Not by the mean of the run: each update makes the gradients under way staler by one, and there are at most W - 1
    others. So that mean is at most W - 1 whatever happens, and over a shorter time it is above where one worker was
    stopped for a while, which is no reason to warn. Nor by the stalest ones: where workers share a core, the gradient
    that a worker is interrupted at is always very stale. But the median of a worker's own gradients is at most about
    W - 1 for workers that are equally fast, interrupted now and then or not; it is above 4 W only for one that is more
    than four times slower than the others, and stays so.
    """

    FAR = 4
    FEWEST = 100  # gradients of a worker by which it is judged

    def __init__(self, workers: int) -> None:
        self._limit = self.FAR * workers
        self._judged = [np.zeros(len(FROM), np.int64) for _ in range(workers)]
        self._warned = [False] * workers

    def look(self, tallies: Sequence[Tally]) -> None:
        """Judges each worker that has had enough gradients applied since it was judged last. Once warned of, it is not
        warned of again before its median is below half the limit."""
        for worker, tally in enumerate(tallies):
            now = tally["staleness"].astype(np.int64)
            new = np.maximum(now - self._judged[worker], 0)  # a look at one that is at work may have been one ahead
            if new.sum() < self.FEWEST:
                continue
            self._judged[worker] = now
            median = int(FROM[_bucket(new.astype(np.uint64), 0.5)])
            if median > self._limit and not self._warned[worker]:
                self._warned[worker] = True
                warnings.warn(StalenessWarning(self._words(worker, median, tally)), stacklevel=2)
            elif 2 * median < self._limit:
                self._warned[worker] = False

    def _words(self, worker: int, median: int, tally: Tally) -> str:
        workers = len(self._judged)
        return (
            f"worker {worker} is far behind: half of its latest gradients, up to no. {tally['applied']:,}, came "
            f"{median:,} or more updates after it had read the parameters; {workers} equally fast workers have "
            f"about {workers - 1}. Where learning suffers: max_staleness rejects such gradients, "
            'staleness_lr="inverse" weakens them; fewer workers, as many as there are cores, or a smaller '
            "learning_rate help, too"
        )
