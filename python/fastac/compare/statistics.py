"""Sums up runs: medians with bootstrap intervals, unsolved seeds counted as what they are."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from fastac.compare.experiment import Result
from fastac.metrics import History

Floats = npt.NDArray[np.float64]

_RESAMPLES = 5_000
CURVE_COLUMNS = (
    "env_steps",
    "updates",
    "wall_s",
    "episodes",
    "return_mean",
    "return_var",
    "grad_norm",
    "entropy",
    "policy_loss",
    "value_loss",
    "explained_variance",
    "staleness_mean",
)


@dataclass(frozen=True)
class Interval:
    """A median and its 95 % bootstrap interval. Infinity: the median, or that end, lies among the unsolved seeds."""

    median: float
    low: float
    high: float


def median_interval(values: Sequence[float]) -> Interval:
    """The median of `values` with its percentile bootstrap interval; unsolved seeds come as infinity.

    A censored run counts as later than every solved one: it is neither dropped nor set to the budget. Resampling
    uses a fixed stream, so that the same runs always give the same interval.
    """
    data = np.asarray(values, np.float64)
    if len(data) < 2 or np.all(data == data[0]):
        return Interval(*(float(np.median(data)) if len(data) else float("nan"),) * 3)
    # Infinity cannot be interpolated between two resampled medians; a number larger than any time can, and whatever
    # it touches is read as infinity again.
    unsolved = 1e18
    finite = np.where(np.isfinite(data), data, unsolved)
    interval = stats.bootstrap(
        (finite,),
        np.median,
        method="percentile",
        n_resamples=_RESAMPLES,
        rng=np.random.default_rng(0),
        vectorized=True,
    ).confidence_interval
    return Interval(
        *(float("inf") if x >= 1e-6 * unsolved else float(x) for x in (np.median(finite), interval.low, interval.high))
    )


def time_to(results: Sequence[Result], threshold: float, axis: str) -> list[float]:
    """env_steps, wall_s or updates until solved, one for each result; infinity where it never was."""
    solved = [result.solved(threshold) for result in results]
    return [float("inf") if when is None else when[axis] for when in solved]


def curve(history: History, total_timesteps: int, points: int = 100, window: int = 100) -> dict[str, Floats]:
    """A run at `points` equally spaced counts of env steps: one column of float64[points] for each of CURVE_COLUMNS.

    return_mean and return_var are over the last `window` episodes finished by then (fewer at the beginning);
    gradient norm, losses, entropy and staleness are means over the updates since the point before. NaN where there was
    nothing to average.
    """
    grid = np.linspace(total_timesteps / points, total_timesteps, points)
    episodes, updates, moments = history.episodes, history.updates, history.moments
    finished = np.searchsorted(episodes["env_steps"], grid, side="right")
    done = np.searchsorted(updates["env_steps"], grid, side="right")
    columns = {name: np.full(points, np.nan) for name in CURVE_COLUMNS}
    columns["env_steps"], columns["updates"], columns["episodes"] = (
        grid,
        done.astype(np.float64),
        finished.astype(np.float64),
    )
    for i, n in enumerate(finished):
        last = episodes["episode_return"][max(0, n - window) : n]
        if n:
            columns["return_mean"][i], columns["return_var"][i] = last.mean(), last.var()
    edges = np.concatenate([[0], done])
    for name in ("grad_norm", "entropy", "policy_loss", "value_loss", "explained_variance"):
        columns[name] = _bin_means(updates[name], edges)
    columns["wall_s"] = (
        np.interp(grid, updates["env_steps"], updates["wall_s"]) if len(updates["env_steps"]) else columns["wall_s"]
    )
    columns["staleness_mean"] = _bin_means(
        moments["staleness_mean"],
        np.concatenate([[0], np.searchsorted(moments["env_steps"], grid, side="right")]),
    )
    return columns


def _bin_means(values: Floats, edges: npt.NDArray[np.int64]) -> Floats:
    """Mean of values[edges[i]:edges[i + 1]] without NaN; an empty bin repeats the one before."""
    means = np.full(len(edges) - 1, np.nan)
    for i, (low, high) in enumerate(itertools.pairwise(edges)):
        inside = values[low:high]
        inside = inside[np.isfinite(inside)]
        means[i] = inside.mean() if len(inside) else (means[i - 1] if i else np.nan)
    return means
