"""What the runs of the exercise come to: for each arm one figure a seed, to be summed up by compare/statistics.py."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import numpy as np

from fastac.compare.experiment import Result
from fastac.compare.statistics import time_to
from fastac.compare.tables import of_arm
from fastac.exercise.runs import TARGET, WINDOW, Exercise, Runs
from fastac.metrics import Floats

Figures = dict[str, list[float]]


def of_first(runs: Runs, exercise: Exercise, arm: str) -> Figures:
    """Over the updates of the exercise, and where all arms have the same env steps behind them: `matched`."""
    results = of_arm(runs.first, arm)
    matched = exercise.env_steps("A3C")
    return {
        "return_matched": [_mean(returns_by(result, matched)) for result in results],
        "return_var_matched": [_variance(returns_by(result, matched)) for result in results],
        "grad_norm_matched": [_grad_norm(result, matched) for result in results],
        "return": [_mean(returns_by(result, exercise.env_steps(arm))) for result in results],
        "env_steps_to_target": _within(time_to(results, TARGET, "env_steps"), exercise.env_steps(arm)),
    }


def of_later(runs: Runs, arm: str) -> Figures:
    """Over the longer runs."""
    results = of_arm(runs.later, arm)

    def each(figure: Callable[[Result], float]) -> list[float]:
        return [figure(result) for result in results]

    return {
        **{f"{axis}_to_target": time_to(results, TARGET, axis) for axis in ("env_steps", "updates", "wall_s")},
        "return": each(lambda its: its.history.final_return()),
        "env_steps_per_s": each(lambda its: float(its.history.updates["env_steps"][-1]) / its.history.train_s),
        "updates_per_s": each(lambda its: float(its.history.updates["updates"][-1]) / its.history.train_s),
        "startup_s": each(lambda its: its.history.startup_s),
        "retries": each(lambda its: its.ledger.retries / max(1, its.ledger.applied)),
        "staleness_mean": each(lambda its: its.ledger.staleness_mean),
        "staleness_p95": each(lambda its: float(its.ledger.staleness_p95)),
        "staleness_max": each(lambda its: float(its.ledger.staleness_max)),
        "lost": each(lambda its: its.ledger.lost_fraction or 0.0),
    }


def counts(results: Sequence[Result]) -> dict[str, int]:
    """Where the gradients of all seeds went."""
    ledgers = [result.ledger for result in results]
    return {
        "pushed": sum(ledger.published for ledger in ledgers),
        "applied": sum(ledger.applied for ledger in ledgers),
        "merged": sum(ledger.merged for ledger in ledgers),
        "rejected": sum(ledger.rejected_nonfinite + ledger.rejected_stale for ledger in ledgers),
    }


def returns_by(result: Result, env_steps: int) -> Floats:
    """The returns of the latest WINDOW episodes that had ended by then."""
    episodes = result.history.episodes
    returns: Floats = episodes["episode_return"][episodes["env_steps"] <= env_steps][-WINDOW:]
    return returns


def reached(times: Sequence[float]) -> int:
    return sum(np.isfinite(times))


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def _grad_norm(result: Result, env_steps: int) -> float:
    updates = result.history.updates
    return _mean(updates["grad_norm"][(updates["applied"] == 1) & (updates["env_steps"] <= env_steps)])


def _within(times: Sequence[float], limit: float) -> list[float]:
    """A3C may have a few updates more than were asked for: what was reached only then was not."""
    return [time if time <= limit else float("inf") for time in times]


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _variance(values: Floats) -> float:
    return float(values.var()) if len(values) else float("nan")
