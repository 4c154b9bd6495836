"""What a comparison says in sentences, and only where its runs carry it.

Two arms' times until solved are compared by the ratio of their medians, by the probability that a run of one is faster
than a run of the other, and by the log-rank test. Unsolved runs are censored at the last env step they made: never
dropped, never called solved. Whatever compares two groups of runs takes its figures from here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from fastac.compare.experiment import Plan, Result
from fastac.compare.statistics import FEWEST_FOR_INTERVAL, Floats, time_to, watched
from fastac.words import counted

_RESAMPLES = 5_000
_LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval. Infinity: it lies among the unsolved runs. NaN: the data do not tell."""

    value: float
    low: float
    high: float

    def excludes(self, neutral: float) -> bool:
        """Whether the interval lies on one side of the value that means no difference."""
        return self.low > neutral or self.high < neutral


@dataclass(frozen=True)
class Times:
    """Of one arm: when each run was solved, infinity where it never was, and for how long each was watched."""

    solved: Sequence[float]
    ends: Sequence[float]

    def unsolved(self) -> list[float]:
        """The ends of the runs that never solved: where they are censored."""
        return [end for solved, end in zip(self.solved, self.ends, strict=True) if math.isinf(solved)]


@dataclass(frozen=True)
class Verdict:
    """One arm's times until solved against another's.

    Attributes:
        ratio: median time of `arm` / median time of `other`.
        probability: that a run of `arm` takes less than one of `other`, ties counted half (Mann and Whitney 1947;
            called probability of improvement by Agarwal et al. 2021, arXiv:2108.13264).
        p_value: of the log-rank test (Mantel 1966) that both arms have the same times; NaN where the runs cannot tell.
    """

    arm: str
    other: str
    axis: str
    threshold: float
    seeds: int
    ratio: Estimate
    probability: Estimate
    p_value: float

    def sentence(self) -> str:
        what, r, p = _WORDS[self.axis], self.ratio, self.probability
        against = f"{self.arm} against {self.other}, {what} to {self.threshold:.0f}"
        if self.seeds < FEWEST_FOR_INTERVAL:
            seeds = counted(self.seeds, "seeds carry", "seed carries")
            return f"{against}: {seeds} no interval; {FEWEST_FOR_INTERVAL} or more would."
        faster = f"a run of {self.arm} needs fewer than one of {self.other} with probability {_with_interval(p)}"
        test = "" if math.isnan(self.p_value) else f", log-rank p = {self.p_value:.2g}"
        if not r.excludes(1.0):
            return (
                f"{against}: {self.seeds} seeds do not tell which needs fewer: ratio of medians {_with_interval(r)}; "
                f"{faster}{test}."
            )
        if r.value in (0.0, math.inf):
            more, late = ("more", self.arm) if r.value else ("fewer", self.other)
            needs = f"{self.arm} needs {more} {what} than {self.other} to {self.threshold:.0f}"
            needs += f": half the runs of {late}, or more, never got there"
        else:
            needs = f"{self.arm} needs {_with_interval(r, 'x')} the {what} of {self.other} to {self.threshold:.0f}"
        return f"{needs}; {faster}{test}."


_WORDS = {"env_steps": "env steps", "wall_s": "seconds", "updates": "updates"}


def verdicts(results: Sequence[Result], plan: Plan, threshold: float, axes: Sequence[str]) -> list[Verdict]:
    """Each pair of arms that has runs, on each axis."""
    by_arm = {arm: [result for result in results if result.arm == arm] for arm in plan.arms}

    def times(arm: str, axis: str) -> Times:
        return Times(time_to(by_arm[arm], threshold, axis), watched(by_arm[arm], axis))

    arms = [arm for arm in plan.arms if by_arm[arm]]
    of_axis = [compare_arms({arm: times(arm, axis) for arm in arms}, threshold, axis) for axis in axes]
    return [verdict for of_pair in zip(*of_axis, strict=True) for verdict in of_pair]


def compare_arms(of_arm: Mapping[str, Times], threshold: float, axis: str) -> list[Verdict]:
    """Each arm against each before it."""
    its = {arm: (np.asarray(times.solved), np.asarray(times.ends)) for arm, times in of_arm.items()}
    return [
        Verdict(
            arm,
            other,
            axis,
            threshold,
            min(len(mine), len(theirs)),
            ratio_of_medians(mine, theirs),
            probability_of_less(mine, theirs),
            log_rank(mine, ends, theirs, their_ends),
        )
        for (other, (theirs, their_ends)), (arm, (mine, ends)) in itertools.combinations(its.items(), 2)
    ]


def ratio_of_medians(x: Floats, y: Floats) -> Estimate:
    """median(x) / median(y) of independent runs; infinity stands for one that never solved. Where both medians are, the
    ratio may be anything: such a resample counts against either end of the interval.

    Runs of one seed are independent here: it fixes weights and envs, not the schedule of an asynchronous run, and arms
    may have other seeds. Where all is fixed, in virtual time, they are pairs: see lab.statistics.paired_ratio.

    Of fewer than FEWEST_FOR_INTERVAL values on either side the ends are the smallest and the largest ratio that there
    is, as of one median. NaN where a side is empty or holds a NaN.
    """

    def ratios(a: Floats, b: Floats, unknown: float) -> Floats:
        above, below = _medians(a), _medians(b)
        both = np.isinf(above) & np.isinf(below)
        with np.errstate(invalid="ignore"):
            return np.where(both, unknown, above / below)

    if min(len(x), len(y)) == 0 or np.isnan([*x, *y]).any():
        return Estimate(math.nan, math.nan, math.nan)
    value = float(ratios(x[None], y[None], math.nan)[0])
    if min(len(x), len(y)) < FEWEST_FOR_INTERVAL:
        a, b = np.array([[x.min()], [x.max()]]), np.array([[y.max()], [y.min()]])
    else:
        a, b = _resampled(x, y)
    low = _quantile(ratios(a, b, 0.0), (1 - _LEVEL) / 2)
    high = _quantile(ratios(a, b, math.inf), (1 + _LEVEL) / 2)
    return Estimate(value, low, high)


def probability_of_less(x: Floats, y: Floats) -> Estimate:
    """That a value of x is smaller than one of y; equal ones, two that never solved too, count half."""
    wins = (x[:, None] < y[None, :]) + 0.5 * (x[:, None] == y[None, :])  # [len(x), len(y)]
    rows, columns = (np.random.default_rng(seed).integers(n, size=(_RESAMPLES, n)) for seed, n in enumerate(wins.shape))
    means = np.array([wins[np.ix_(row, column)].mean() for row, column in zip(rows, columns, strict=True)])
    return Estimate(float(wins.mean()), _quantile(means, (1 - _LEVEL) / 2), _quantile(means, (1 + _LEVEL) / 2))


def mann_whitney(a: Sequence[float], b: Sequence[float]) -> float:
    """How often two groups of runs that differ in nothing would lie as far apart as these: the two-sided p-value.

    It compares ranks, so unsolved runs, which come as infinity, count as later than every solved one and as equal
    among themselves. NaN where a group holds fewer than two, or a NaN.
    """
    data = np.concatenate([a, b])
    if min(len(a), len(b)) < 2 or np.isnan(data).any():
        return float("nan")
    ranks = stats.rankdata(data)
    ties = len(np.unique(data)) < len(data)  # for which the exact distribution would be another
    method = stats.PermutationMethod(n_resamples=_RESAMPLES, rng=np.random.default_rng(0)) if ties else "auto"
    return float(stats.mannwhitneyu(ranks[: len(a)], ranks[len(a) :], method=method).pvalue)


def log_rank(x: Floats, x_ends: Floats, y: Floats, y_ends: Floats) -> float:
    """The p-value of the test that both have the same times; runs that never solved are censored at their end.

    NaN where no run of either solved, or none was still under way on both sides when one did.
    """
    if not (np.isfinite(x).any() or np.isfinite(y).any()):
        return math.nan
    samples: list[Any] = [
        stats.CensoredData(uncensored=times[np.isfinite(times)], right=ends[np.isinf(times)])
        for times, ends in ((x, x_ends), (y, y_ends))
    ]
    with np.errstate(invalid="ignore"):
        return float(stats.logrank(*samples).pvalue)


def interquartile_mean(values: Sequence[float]) -> Estimate:
    """The mean of the middle half (IQM; Agarwal et al. 2021): steadier than the median, and blind to outliers, too.

    With its bootstrap interval; NaN ends for fewer than FEWEST_FOR_INTERVAL values.
    """
    data = np.asarray(values, np.float64)
    if len(data) == 0 or not np.isfinite(data).all():
        return Estimate(math.nan, math.nan, math.nan)
    middle = float(stats.trim_mean(data, 0.25))
    if len(data) < FEWEST_FOR_INTERVAL:
        return Estimate(middle, math.nan, math.nan)
    samples = data[np.random.default_rng(0).integers(len(data), size=(_RESAMPLES, len(data)))]
    means = stats.trim_mean(samples, 0.25, axis=1)
    return Estimate(middle, _quantile(means, (1 - _LEVEL) / 2), _quantile(means, (1 + _LEVEL) / 2))


def _resampled(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Bootstrap samples [resamples, n] of each, from fixed streams: the same runs give the same interval."""
    drawn = (
        values[np.random.default_rng(seed).integers(len(values), size=(_RESAMPLES, len(values)))]
        for seed, values in enumerate((x, y))
    )
    a, b = drawn
    return a, b


def _medians(samples: Floats) -> Floats:
    """Of each row; infinity where one of the two in the middle is."""
    ordered = np.sort(samples, axis=1)
    n = samples.shape[1]
    middle: Floats = 0.5 * (ordered[:, (n - 1) // 2] + ordered[:, n // 2])
    return middle


def _quantile(values: Floats, q: float) -> float:
    """By nearest rank: nothing is interpolated with infinity."""
    return float(np.quantile(values, q, method="inverted_cdf"))


def _with_interval(estimate: Estimate, unit: str = "") -> str:
    def one(x: float) -> str:
        return "unknown" if math.isnan(x) else "infinity" if math.isinf(x) else f"{x:.2f}"

    return f"{one(estimate.value)}{unit} (95 % interval {one(estimate.low)} to {one(estimate.high)})"
