"""What staleness did to the gradients of a recorded run: measured while it is replayed, which it does not change.

In: the turns of a replay (replay.py). Out: a table of measurements; diagnosis.py says what they mean together.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fastac import _core
from fastac.config import A3CConfig
from fastac.lab.replay import Reading, Turn
from fastac.lab.statistics import mean_kl
from fastac.metrics import Floats, Table
from fastac.mlp import Float32, act

COLUMNS = (
    "update",
    "env_steps",
    "worker",
    "staleness",
    "cosine",
    "cosine_other",
    "cosine_fresh",
    "kl",
    "spread",
    "pairwise",
)
MOST = 5_000  # measurements, where nobody says how many: some seconds


class Diagnostics:
    """A Probe that measures one applied gradient of each `every`.

    Of a gradient g, taken with the parameters mu that its worker had read and applied to the parameters now:

    - cosine: of g and its *fresh twin*: the gradient of the same worker, from the same states of its envs and the same
      random numbers, but with the parameters now. 1 for staleness 0.
    - cosine_fresh, cosine_other: of the twin, and of g, and another worker's fresh gradient: from its own states and
      random numbers, with the parameters now. A twin shares all luck with g, another worker none: cosine_fresh says
      how little two gradients agree that are not stale at all, and cosine_other - cosine_fresh what staleness costs.
    - kl: KL(mu || now), mean over the observations of g's rollout, in nats.
    - spread, pairwise: see `spread_of`; of the latest applied gradient of each worker, g included.

    The loss is that of g: its advantages are estimated anew, its entropy bonus is the same.
    """

    def __init__(self, config: A3CConfig, every: int) -> None:
        """`every`: updates, at least 1. Which of them is drawn, from a fixed stream: else it could always be the same
        worker's."""
        self._config, self._every = config, every
        self._random = np.random.default_rng(0)
        self.updates = 0  # gradients applied by now
        self._chosen = 0
        self._latest: dict[int, tuple[Float32, float]] = {}
        self._fresh: tuple[Float32, Float32 | None] | None = None  # the twin and another one; None: not measured
        self._rows: list[tuple[float, ...]] = []

    def before(self, turn: Turn) -> None:
        self._fresh = None
        if turn.outcome != "applied":
            return
        if self.updates % self._every == 0:
            self._chosen = self.updates + int(self._random.integers(self._every))
        if self.updates == self._chosen:
            other = turn.others[int(self._random.integers(len(turn.others)))] if turn.others else None
            self._fresh = (
                _fresh_gradient(turn, turn.worker),
                None if other is None else _fresh_gradient(turn, other),
            )
        self.updates += 1

    def after(self, turn: Turn, grad: Float32, norm: float) -> None:
        if turn.outcome == "applied":
            self._latest[turn.seat] = grad, norm
        if self._fresh is None:
            return
        twin, other = self._fresh
        round_of_all = [unclipped(*one) for one in self._latest.values()]
        self._rows.append(
            (
                self.updates,
                turn.env_steps,
                turn.seat,
                turn.now.version - turn.read.version,
                cosine(grad, twin),
                cosine(grad, other) if other is not None else np.nan,
                cosine(twin, other) if other is not None else np.nan,
                self._kl(turn.worker.rollout()["obs"], turn.read, turn.now),
                *spread_of(round_of_all),
            )
        )

    @property
    def measured(self) -> int:
        """How many of them."""
        return len(self._rows)

    def table(self) -> Table:
        """COLUMNS, a row for each measurement, in the order of the updates."""
        rows = np.array(self._rows, np.float64).reshape(-1, len(COLUMNS))
        return dict(zip(COLUMNS, rows.T.copy(), strict=True))

    def _kl(self, obs: Float32, read: Reading, now: Reading) -> float:
        rows = obs.reshape(-1, obs.shape[-1])
        acted, updated = (act(self._config, reading.params, rows)[0] for reading in (read, now))
        return mean_kl(acted, updated)


def every_of(updates: int) -> int:
    """So that there are about MOST measurements."""
    return max(1, -(-updates // MOST))


def cosine(a: npt.NDArray[np.floating], b: npt.NDArray[np.floating]) -> float:
    """a b / (|a| |b|), in double; exactly 1 for equal ones, NaN where one is zero or not finite."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        product, squares = float(x @ y), float(x @ x) * float(y @ y)
        return product / float(np.sqrt(squares)) if 0 < squares < np.inf else float("nan")


def unclipped(grad: Float32, norm: float) -> Floats:
    """float64[P]: in the direction of the gradient, as long as it was before clipping."""
    vector = grad.astype(np.float64)
    length = float(np.sqrt(vector @ vector))
    return vector * (norm / length) if length > 0 else vector


def spread_of(gradients: Sequence[Floats]) -> tuple[float, float]:
    """How much the gradients g_1 .. g_W of several workers differ; NaN for less than two.

    Returns:
        mean |g_i - m|^2 / |m|^2, where m is their mean: W - 1 if they were all at right angles and of one length, 0 if
        they were equal. The ingredients of the gradient noise scale: McCandlish et al. 2018, arXiv:1812.06162.
        The mean cosine over all pairs.
    """
    if len(gradients) < 2:
        return float("nan"), float("nan")
    stacked = np.stack(gradients)
    mean = stacked.mean(axis=0)
    deviations = ((stacked - mean) ** 2).sum(axis=1)
    square = float(mean @ mean)
    with np.errstate(invalid="ignore"):  # one that is zero has no direction
        directions = stacked / np.linalg.norm(stacked, axis=1, keepdims=True)
    cosines = (directions @ directions.T)[np.triu_indices(len(stacked), 1)]
    return float(deviations.mean()) / square if square > 0 else float("nan"), float(cosines.mean())


def _fresh_gradient(turn: Turn, worker: _core.NativeWorker) -> Float32:
    """What that worker's next rollout would give with the parameters now; the worker is left as it was."""
    state = worker.get_state()
    grad, _ = turn.take(worker, turn.now.params)
    worker.set_state(state)
    return grad
