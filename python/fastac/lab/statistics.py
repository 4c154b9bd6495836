"""What seeds tell: fractions, times of which some are censored, and ratios, each with its 95 % interval."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from fastac.compare.statistics import FEWEST_FOR_INTERVAL, survival
from fastac.compare.verdicts import Estimate

_RESAMPLES = 5_000
_BLOCKS, _FEWEST_IN_BLOCK = 20, 5
_NEVER = 1e18  # in a bootstrap, in the place of infinity: whatever it touches is read as infinity again


def fraction(successes: int, n: int) -> Estimate:
    """A fraction with its Wilson interval: Wilson 1927."""
    interval = stats.binomtest(successes, n).proportion_ci(method="wilson")
    return Estimate(successes / n, float(interval.low), float(interval.high))


def median_time(times: Sequence[float], censored_at: float) -> Estimate:
    """The median by Kaplan and Meier: where the estimated survival passes 1/2, or the middle of where it is 1/2. So it
    is the plain median, and a ratio of two is that of `paired_ratio`. Infinity where half had not happened.

    The interval is where the log-log band of the survival function passes 1/2 (Brookmeyer and Crowley 1982).

    Args:
        times: infinity for those that had not happened at `censored_at`, where everything ended.
    """
    if not np.isfinite(times).any():
        return Estimate(math.inf, math.inf if len(times) >= FEWEST_FOR_INTERVAL else math.nan, math.inf)
    left = survival(times, [censored_at] * len(times))
    band = _band(left)
    quantiles = left.quantiles
    value = float(np.median(times))
    if len(times) < FEWEST_FOR_INTERVAL:
        return Estimate(value, math.nan, math.nan)
    return Estimate(value, _first(quantiles, band[0] <= 0.5), _first(quantiles, band[1] <= 0.5))


def mean_interval(values: Sequence[float]) -> Estimate:
    """A mean with its bootstrap interval: the bias-corrected and accelerated one (Efron 1987); in whatever order."""
    data = np.sort(np.asarray(values, np.float64))  # runs come as they end, and what is resampled depends on the order
    if len(data) == 0:
        return Estimate(*(math.nan,) * 3)
    if len(data) < FEWEST_FOR_INTERVAL or np.ptp(data) == 0:
        known = len(data) >= FEWEST_FOR_INTERVAL
        return Estimate(float(data.mean()), *(float(data.mean()) if known else math.nan,) * 2)
    interval = stats.bootstrap((data,), np.mean, n_resamples=_RESAMPLES, rng=np.random.default_rng(0))
    low, high = interval.confidence_interval
    return Estimate(float(data.mean()), float(low), float(high))


def paired_ratio(above: Sequence[float], below: Sequence[float]) -> Estimate:
    """median(above) / median(below) of paired runs (the same seeds), with its percentile bootstrap interval.

    Pairs are resampled: what a seed does to both cancels. Of independent runs: compare.verdicts.ratio_of_medians.
    Infinity in `above` is a censored time; what lies among these is infinity. NaN where the data do not carry it: too
    few seeds, or a censored time in `below`.
    """
    a, b = np.asarray(above, np.float64), np.asarray(below, np.float64)
    if len(a) < FEWEST_FOR_INTERVAL or not np.isfinite(b).all():
        return Estimate(*(math.nan,) * 3)
    a = np.where(np.isfinite(a), a, _NEVER)
    value = float(np.median(a) / np.median(b))
    if np.ptp(a) == 0 and np.ptp(b) == 0:
        return Estimate(*(_readable(value),) * 3)

    def statistic(x: Any, y: Any, axis: int) -> Any:
        return np.median(x, axis=axis) / np.median(y, axis=axis)

    low, high = stats.bootstrap(
        (a, b), statistic, paired=True, method="percentile", n_resamples=_RESAMPLES, rng=np.random.default_rng(0)
    ).confidence_interval
    return Estimate(_readable(value), _readable(float(low)), _readable(float(high)))


def in_blocks(values: npt.NDArray[np.float64], statistic: Callable[[Any], Any]) -> Estimate:
    """A statistic of a series in which neighbours may resemble each other: with the percentile interval of a bootstrap
    that draws whole blocks, 20 of equal length side by side (Carlstein 1986).

    What is not finite is left out. No interval (NaN) for less than 100 values, no value for none.
    """
    known = values[np.isfinite(values)]
    if len(known) == 0:
        return Estimate(*(math.nan,) * 3)
    size = len(known) // _BLOCKS
    if size < _FEWEST_IN_BLOCK:
        return Estimate(float(statistic(known)), math.nan, math.nan)
    blocks = known[: size * _BLOCKS].reshape(_BLOCKS, size)
    low, high = stats.bootstrap(
        (np.arange(_BLOCKS),),
        lambda drawn: statistic(blocks[drawn].ravel()),
        vectorized=False,
        method="percentile",
        n_resamples=1_000,
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Estimate(float(statistic(known)), float(low), float(high))


def mean_kl(p: npt.NDArray[np.float32], q: npt.NDArray[np.float32]) -> float:
    """KL(p || q) in nats, mean over the rows of probabilities [N, A]; exactly 0 for equal ones.

    In double, of rows that add up to 1 there: the rounding of float32 is larger than a small KL.
    """
    wide = [each.astype(np.float64) for each in (p, q)]
    exact = [each / each.sum(axis=1, keepdims=True) for each in wide]
    return float(special.rel_entr(*exact).sum(axis=1).mean())


def _readable(ratio: float) -> float:
    return math.inf if ratio > 1e6 else ratio


def _band(left: Any) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    with warnings.catch_warnings():
        # The formula divides by zero where all or none are left: the band is a point there.
        warnings.simplefilter("ignore")
        interval = left.confidence_interval(method="log-log")
    low, high = (np.asarray(end.probabilities) for end in (interval.low, interval.high))
    at_end = np.isnan(low)
    return np.where(at_end, left.probabilities, low), np.where(at_end, left.probabilities, high)


def _first(quantiles: npt.NDArray[np.float64], where: npt.NDArray[np.bool_]) -> float:
    at = np.flatnonzero(where)
    return float(quantiles[at[0]]) if len(at) else math.inf
