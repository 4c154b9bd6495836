"""What a comparison says in sentences: figures by hand, against scipy, and silence where the runs do not carry it."""

import math

import numpy as np
import pytest
from scipy import stats

from fastac.compare import verdicts
from fastac.compare.verdicts import (
    Estimate,
    Verdict,
    interquartile_mean,
    log_rank,
    mann_whitney,
    probability_of_less,
    ratio_of_medians,
)

INF = math.inf


def of(*values):
    return np.array(values, float)


def test_ratio_of_medians_by_hand():
    estimate = ratio_of_medians(of(2, 4, 6), of(1, 2, 3))
    assert estimate.value == 2.0
    assert estimate.low == 2 / 3 and estimate.high == 6.0  # of few values: the smallest and the largest
    assert ratio_of_medians(of(3, 3), of(2, 2)) == Estimate(1.5, 1.5, 1.5)


def test_a_ratio_of_few_values_has_the_extremes_as_ends():
    assert ratio_of_medians(of(4, 6, 8), of(2, 3, 1)) == Estimate(3.0, 4 / 3, 8.0)
    many = np.arange(20.0) + 10
    assert ratio_of_medians(of(58.5), many) == Estimate(3.0, 58.5 / 29, 5.85)
    assert ratio_of_medians(of(1, 2, 3, 4, 5), of(*[1] * 5)) == Estimate(3.0, 1.0, 5.0)  # a resample would be narrower
    assert ratio_of_medians(of(*[6] * 6), of(*[2] * 6)) == Estimate(3.0, 3.0, 3.0)
    for x, y in ((of(), of(1)), (of(1), of()), (of(1, math.nan), of(1)), (of(*[1] * 9), of(*[1] * 8, math.nan))):
        assert all(math.isnan(end) for end in vars(ratio_of_medians(x, y)).values())


def test_a_ratio_with_unsolved_runs():
    assert ratio_of_medians(of(INF), of(2, 3)) == Estimate(INF, INF, INF)
    assert ratio_of_medians(of(INF, INF), of(2, 2)) == Estimate(INF, INF, INF)
    assert ratio_of_medians(of(2, 2), of(INF, INF)) == Estimate(0.0, 0.0, 0.0)
    nothing = ratio_of_medians(of(INF, INF), of(INF, INF))
    assert math.isnan(nothing.value) and (nothing.low, nothing.high) == (0.0, INF)
    assert not nothing.excludes(1.0)
    assert ratio_of_medians(of(1, 2, INF), of(1, 2, 3)).value == 1.0


def test_the_interval_of_a_ratio_covers_it_about_as_often_as_it_says():
    random = np.random.default_rng(0)
    samples = [ratio_of_medians(random.lognormal(size=20), 2 * random.lognormal(size=20)) for _ in range(200)]
    covered = np.mean([one.low <= 0.5 <= one.high for one in samples])
    assert 0.88 <= covered < 1.0
    assert np.mean([one.low <= 1.5 <= one.high for one in samples]) < 0.3


def test_probability_by_hand_and_by_scipy():
    assert probability_of_less(of(1, 2), of(3, 4)) == Estimate(1.0, 1.0, 1.0)
    assert probability_of_less(of(1, INF), of(1, INF)).value == 0.5  # (0.5 + 1 + 0 + 0.5) / 4
    random = np.random.default_rng(1)
    x, y = random.normal(size=15), random.normal(0.5, size=12)
    estimate = probability_of_less(x, y)
    assert estimate.value == pytest.approx(stats.mannwhitneyu(y, x).statistic / (15 * 12))
    assert 0.0 <= estimate.low < estimate.value < estimate.high <= 1.0


def test_mann_whitney_by_hand():
    assert mann_whitney([1, 2, 3], [4, 5, 6]) == pytest.approx(2 / 20)  # 2 of the 20 ways to choose 3 of 6
    assert mann_whitney([1, 2, 3, 4, 5], [6, 7, 8, 9, 10]) == pytest.approx(2 / 252)
    assert mann_whitney([1, 2, 3, 4, 5], [6, 7, 8, 9, math.inf]) == pytest.approx(2 / 252)
    assert mann_whitney([math.inf] * 5, [math.inf] * 5) == 1.0
    assert math.isnan(mann_whitney([1.0, math.nan], [2.0])) and math.isnan(mann_whitney([1.0], [1.0]))


def test_log_rank_knows_who_was_censored():
    early, late, ends = of(1, 2, 3, 4, 5, 6, 7, 8), of(9, 10, 11, 12, 13, INF, INF, INF), of(*[20] * 8)
    assert log_rank(early, ends, late, ends) < 0.001
    assert log_rank(early, ends, early, ends) == pytest.approx(1.0)
    assert math.isnan(log_rank(of(INF), of(20), of(INF, INF), of(20, 20)))
    # Runs that were given up early say nothing against their arm.
    assert math.isnan(log_rank(early, ends, of(*[INF] * 8), of(*[0.5] * 8)))
    assert log_rank(early, ends, of(*[INF] * 8), of(*[1.5] * 8)) > 0.2
    assert log_rank(early, ends, of(*[INF] * 8), ends) < 0.001


def test_interquartile_mean_by_hand():
    assert interquartile_mean([1, 2, 3, 4, 5, 6, 7, 1000]).value == 4.5
    few = interquartile_mean([1, 2, 3, 100])
    assert few.value == 2.5 and math.isnan(few.low)
    whole = interquartile_mean(list(range(20)))
    assert whole.low < whole.value == 9.5 < whole.high
    assert math.isnan(interquartile_mean([]).value) and math.isnan(interquartile_mean([1.0, INF]).value)


def verdict(ratio, seeds=20):
    return Verdict("A2C", "A3C", "env_steps", 475.0, seeds, ratio, Estimate(0.2, 0.1, 0.4), 0.003)


def test_sentences():
    assert verdict(Estimate(1.3, 1.1, 1.6)).sentence() == (
        "A2C needs 1.30x (95 % interval 1.10 to 1.60) the env steps of A3C to 475; a run of A2C needs fewer than one "
        "of A3C with probability 0.20 (95 % interval 0.10 to 0.40), log-rank p = 0.003."
    )
    undecided = verdict(Estimate(1.1, 0.9, INF)).sentence()
    assert undecided.startswith("A2C against A3C, env steps to 475: 20 seeds do not tell which needs fewer")
    assert "1.10 (95 % interval 0.90 to infinity)" in undecided
    never = verdict(Estimate(INF, 2.0, INF)).sentence()
    assert never.startswith(
        "A2C needs more env steps than A3C to 475: half the runs of A2C, or more, never got there; "
    )
    always = verdict(Estimate(0.0, 0.0, 0.5)).sentence()
    assert always.startswith(
        "A2C needs fewer env steps than A3C to 475: half the runs of A3C, or more, never got there; "
    )
    assert verdict(Estimate(9, 8, 10), seeds=5).sentence() == (
        "A2C against A3C, env steps to 475: 5 seeds carry no interval; 6 or more would."
    )
    assert verdict(Estimate(9, 8, 10), seeds=1).sentence().endswith(": 1 seed carries no interval; 6 or more would.")


def test_every_pair_on_every_axis(monkeypatch):
    class Run:
        def __init__(self, arm, env_steps):
            self.arm, self.env_steps, self.history = arm, env_steps, self
            self.updates = {"env_steps": np.array([100.0]), "wall_s": np.array([1.0])}

        def solved(self, threshold):
            return None if self.env_steps is None else {"env_steps": self.env_steps, "wall_s": self.env_steps / 100}

    class Plan:
        arms = ("A3C", "A2C", "A2C split")

    runs = [Run("A3C", 10.0 + i) for i in range(8)] + [Run("A2C", None if i == 0 else 40.0 + i) for i in range(8)]
    first, second = verdicts.verdicts(runs, Plan, 475.0, ["env_steps", "wall_s"])
    assert (first.arm, first.other, first.axis, second.axis) == ("A2C", "A3C", "env_steps", "wall_s")
    assert first.ratio.value == pytest.approx(44.5 / 13.5) and first.ratio.low > 1.0
    assert first.probability == Estimate(0.0, 0.0, 0.0) and first.p_value < 0.01
    assert "A2C needs 3.30x" in first.sentence() and "the seconds of A3C" in second.sentence()
