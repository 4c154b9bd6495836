"""Sums up runs of one arm: medians with bootstrap intervals, unsolved seeds counted as what they are."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from fastac.compare.experiment import Result
from fastac.metrics import History

Floats = npt.NDArray[np.float64]

_RESAMPLES = 5_000
FEWEST_FOR_INTERVAL = 6  # of 5 values the widest interval, smallest to largest, holds the median in 94 % of cases
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
    """A median and its 95 % interval. Infinity: that number lies among the unsolved seeds. NaN: unknown."""

    median: float
    low: float
    high: float


def median_interval(values: Sequence[float]) -> Interval:
    """The median of `values` with its percentile bootstrap interval; unsolved seeds come as infinity.

    Of fewer than FEWEST_FOR_INTERVAL values the ends are the smallest and the largest: resampling three values
    cannot know more, and calling it a 95 % interval would be false (it holds the median in 75 % of cases).
    A censored run counts as later than every solved one: it is neither dropped nor set to the budget. Resampling
    uses a fixed stream, so that the same runs always give the same interval.
    """
    data = np.sort(np.asarray(values, np.float64))
    if len(data) == 0 or np.isnan(data).any():
        return Interval(*(float("nan"),) * 3)
    if data[0] == data[-1]:
        return Interval(*(float(data[0]),) * 3)
    # Infinity cannot be interpolated between two resampled medians; a number larger than any time can, and whatever
    # it touches is read as infinity again.
    unsolved = 1e18
    finite = np.where(np.isfinite(data), data, unsolved)
    if len(data) < FEWEST_FOR_INTERVAL:
        return _readable(unsolved, np.median(finite), finite[0], finite[-1])
    interval = stats.bootstrap(
        (finite,),
        np.median,
        method="percentile",
        n_resamples=_RESAMPLES,
        rng=np.random.default_rng(0),
        vectorized=True,
    ).confidence_interval
    return _readable(unsolved, np.median(finite), interval.low, interval.high)


def _readable(unsolved: float, *ends: float) -> Interval:
    return Interval(*(float("inf") if end >= 1e-6 * unsolved else float(end) for end in ends))


def time_to(results: Sequence[Result], threshold: float, axis: str) -> list[float]:
    """env_steps, wall_s or updates until solved, one for each result; infinity where it never was."""
    solved = [result.solved(threshold) for result in results]
    return [float("inf") if when is None else when[axis] for when in solved]


def watched(results: Sequence[Result], axis: str) -> list[float]:
    """How long each result was watched, in env_steps, wall_s or updates: where one that never solved is censored."""
    return [float(result.history.updates[axis][-1]) for result in results]


def survival(solved: Sequence[float], ends: Sequence[float]) -> Any:
    """Kaplan and Meier's (1958) estimate of which part was not solved yet, as scipy gives it, with its bands.

    solved[i]: when run i was solved, infinity where it never was; then ends[i] is how long it was watched.
    """
    times, last = np.asarray(solved, np.float64), np.asarray(ends, np.float64)
    known = np.isfinite(times)
    return stats.ecdf(stats.CensoredData(uncensored=times[known], right=last[~known])).sf


def unsolved_share(solved: Sequence[float], ends: Sequence[float]) -> tuple[Floats, Floats]:
    """Which part of the runs was not solved yet, after how long: `survival` as a curve.

    Returns (times float64[n], shares float64[n]): from times[j] on the share is shares[j]. Empty where no run is given.
    """
    if len(solved) == 0:
        return np.zeros(0), np.zeros(0)
    estimate = survival(solved, ends)
    return np.asarray(estimate.quantiles, np.float64), np.asarray(estimate.probabilities, np.float64)


def curve(history: History, total_timesteps: int, points: int = 100, window: int = 100) -> dict[str, Floats]:
    """A run at `points` equally spaced counts of env steps: one column of float64[points] for each of CURVE_COLUMNS.

    return_mean and return_var are over the last `window` episodes finished by then (fewer at the beginning);
    gradient norm, losses, entropy and staleness are means over the updates since the point before. NaN where there was
    nothing to average.
    """
    grid = np.linspace(total_timesteps / points, total_timesteps, points)
    episodes, updates = history.episodes, history.updates
    finished = np.searchsorted(episodes["env_steps"], grid, side="right")
    done = np.searchsorted(updates["env_steps"], grid, side="right")
    columns = {name: np.full(points, np.nan) for name in CURVE_COLUMNS}
    columns["env_steps"] = grid
    columns["updates"] = np.concatenate([[0.0], updates["updates"]])[done]
    columns["episodes"] = finished.astype(np.float64)
    if len(updates["wall_s"]):
        columns["wall_s"] = np.interp(grid, updates["env_steps"], updates["wall_s"])
    for i, n in enumerate(finished):
        last = episodes["episode_return"][max(0, n - window) : n]
        if n:
            columns["return_mean"][i], columns["return_var"][i] = last.mean(), last.var()
    for name in ("grad_norm", "entropy", "policy_loss", "value_loss", "explained_variance"):
        columns[name] = _bin_means(updates[name], done)
    columns["staleness_mean"] = _bin_means(updates["staleness"], done)
    return columns


def _bin_means(values: Floats, ends: npt.NDArray[np.int64]) -> Floats:
    """Mean of the finite values from one end to the next; an empty bin repeats the one before."""
    means = np.full(len(ends), np.nan)
    for i, (low, high) in enumerate(itertools.pairwise([0, *ends])):
        inside = values[low:high]
        inside = inside[np.isfinite(inside)]
        means[i] = inside.mean() if len(inside) else (means[i - 1] if i else np.nan)
    return means
