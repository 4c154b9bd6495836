"""The page of a comparison. In: a ComparisonSource. Out: its title, its sections and the arms that can be hidden."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastac.compare.plots import where_all_are_known
from fastac.compare.statistics import FEWEST_FOR_INTERVAL, Interval, median_interval, unsolved_share
from fastac.compare.verdicts import Times, compare_arms
from fastac.config import Config
from fastac.metrics import Floats, Table, thresholds_of
from fastac.report import books
from fastac.report.commands import CONFIGS, compare_command, configuration
from fastac.report.drawing import AXES, SLOTS, Chart, Series, figures
from fastac.report.page import Page
from fastac.report.parts import Html, element, joined, section, shown, table
from fastac.report.reading import ComparisonSource, number, part, parts
from fastac.report.run_page import throughput
from fastac.words import counted

_POINTS = 150
_CHARTS = (  # column of compare.csv, title, unit, zero
    ("return_var", "Variance of the last 100 returns", "variance", True),
    ("grad_norm", "Gradient norm, before clipping", "norm", True),
    ("entropy", "Entropy of the policy", "nats", True),
    ("value_loss", "Value loss", "loss", True),
    ("policy_loss", "Policy loss", "loss", False),
    ("explained_variance", "Explained variance of the values", "share", False),
    ("staleness_mean", "Staleness of the applied gradients", "updates", True),
    ("throughput", "Throughput", "env steps per second", True),
)
_FIGURES = {
    "final_return": "return, last 100 episodes",
    "final_return_iqm": "interquartile mean of it",
    "return_var": "variance of these returns",
    "grad_norm": "gradient norm",
    "staleness_mean": "staleness, mean",
    "env_steps_per_s": "env steps per second",
    "updates": "updates",
    "startup_s": "start-up [s]",
}


def comparison_page(source: ComparisonSource) -> Page:
    record = source.record
    runs = parts(record, "runs")
    arms = list(dict.fromkeys([*(str(run.get("algorithm")) for run in runs), *(arm for arm, _ in source.curves)]))
    keys = {arm: f"s{slot}" for slot, arm in enumerate(arms)}
    thresholds = _thresholds(record)
    said = [element("li", line) for line in sentences(record, runs)]
    body = [
        books.notices([*source.notices, *interruption(record, runs)]),
        section("verdict", "What the data say", element("ul", *said)),
        _summary(record, runs, arms),
        *([_time_to_solve(runs, arms, keys, thresholds)] if thresholds else []),
        _curves(source.curves, arms, keys, thresholds),
        _runs(runs, thresholds),
        _configurations(record),
        books.where(record),
        books.commands([compare_command(record)], "Written from the plan: the same seeds and the same configuration."),
    ]
    hideable = {key: arm for arm, key in keys.items()} | {"band": "bands"}
    return Page(f"Comparison: {source.folder.resolve().name}", body, hideable)


def interruption(record: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> list[str]:
    plan = part(record, "plan")
    if not isinstance(plan.get("seeds"), list) or not isinstance(plan.get("arms"), list):
        return []
    planned = len(plan["seeds"]) * len(plan["arms"])
    if len(runs) >= planned:
        return []
    return [f"This comparison was interrupted: {len(runs)} of {counted(planned, 'runs')} are in it."]


def _env(record: Mapping[str, Any]) -> str:
    return str(part(part(record, "plan"), "options").get("env", Config.env))


def _thresholds(record: Mapping[str, Any]) -> tuple[float, ...]:
    """Those that are told of the env."""
    return thresholds_of(_env(record))


def _of(runs: Sequence[dict[str, Any]], arm: str) -> list[dict[str, Any]]:
    return [run for run in runs if str(run.get("algorithm")) == arm]


def _times(runs: Sequence[dict[str, Any]], threshold: float, axis: str) -> list[float]:
    """When each run was solved; infinity where it never was."""
    solved = [part(run, f"solved_{threshold:.0f}") for run in runs]
    return [number(when, axis) if when else math.inf for when in solved]


def _known(runs: Sequence[dict[str, Any]], threshold: float, axis: str) -> Times | None:
    """None where one is not recorded: to leave an unsolved run out would be to call it solved."""
    times = Times(_times(runs, threshold, axis), [number(part(run, "watched"), axis) for run in runs])
    return None if any(map(math.isnan, [*times.solved, *times.unsolved()])) else times


def sentences(record: Mapping[str, Any], runs: Sequence[dict[str, Any]]) -> list[str]:
    """What the command said of each pair of arms, for each threshold; nothing of seconds that other work disturbed."""
    arms = list(dict.fromkeys(str(run.get("algorithm")) for run in runs))
    if len(arms) < 2:
        return ["No verdict: there are no runs of two arms."]
    thresholds = _thresholds(record)
    if not thresholds:
        return [f"No verdict: no mean return is known that solves {_env(record)}."]
    lines: list[str] = []
    for threshold, axis in itertools.product(thresholds, ("env_steps", "wall_s")):
        of_arm = {arm: _known(_of(runs, arm), threshold, axis) for arm in arms}
        known = {arm: times for arm, times in of_arm.items() if times is not None}
        what = f"{AXES[axis].capitalize()} to {threshold:.0f}"
        if axis == "wall_s" and books.machine_was_busy(record):
            lines.append(f"{what}: no verdict, other work was going on while they were measured.")
        elif len(known) < len(arms):
            lines.append(f"{what}: no verdict, they are not recorded of every run.")
        else:
            lines += [verdict.sentence() for verdict in compare_arms(known, threshold, axis)]
    return lines


def _summary(record: Mapping[str, Any], runs: Sequence[dict[str, Any]], arms: Sequence[str]) -> Html:
    """Medians over the seeds: times anew, where an unsolved seed is known from an unknown one; the rest as recorded."""
    rows: list[list[object]] = []
    for threshold in _thresholds(record):
        solved = [[math.isfinite(x) for x in _times(_of(runs, arm), threshold, "env_steps")] for arm in arms]
        rows.append([f"solved ({threshold:.0f})", *(f"{sum(its)} of {len(its)}" for its in solved)])
        for axis, unit in AXES.items():
            its = [median_interval(_times(_of(runs, arm), threshold, axis)) for arm in arms]
            rows.append([f"{unit} to {threshold:.0f}", *map(_interval, its)])
    summary = part(record, "summary")
    for name, words in _FIGURES.items():
        recorded = [part(part(summary, arm), name) for arm in arms]
        centre = "value" if name == "final_return_iqm" else "median"
        its = [Interval(*(number(one, end) for end in (centre, "low", "high"))) for one in recorded]
        rows.append([words, *map(_interval, its)])
    seeds = max((len(_of(runs, arm)) for arm in arms), default=0)
    ends = "95 % bootstrap intervals" if seeds >= FEWEST_FOR_INTERVAL else "smallest and largest"
    matched = [element("p", f"{words}: {record[name]}.") for name, words in _MATCHED.items() if name in record]
    return section(
        "summary", "Summary", table(f"Medians over the seeds; {ends} below them", ["", *arms], rows), *matched
    )


_MATCHED = {"matched": "The same for all", "not_matched": "Not the same"}


def _interval(its: Interval) -> Html:
    if its.low == its.high or math.isnan(its.median) or math.isnan(its.low):
        return joined([shown(its.median)])
    ends = element("small", f"{shown(its.low)} to {shown(its.high)}")
    return joined([shown(its.median), Html("<br>"), ends])


def _time_to_solve(
    runs: Sequence[dict[str, Any]], arms: Sequence[str], keys: Mapping[str, str], thresholds: Sequence[float]
) -> Html:
    charts = []
    for threshold in thresholds:
        series = [_survival(_of(runs, arm), threshold, arm, keys[arm], slot) for slot, arm in enumerate(arms)]
        title = f"Seeds not solved yet ({threshold:.0f})"
        charts.append(Chart(f"survival-{threshold:.0f}", title, "share of the seeds", series, top=1.02))
    note = (
        "Solved: the mean return of 100 episodes reached the number. Kaplan-Meier estimate; an upright bar is where "
        "a run ended that was not solved: it is censored, neither dropped nor counted as solved."
    )
    return section("solved", "Time to solve", element("p", note), figures(charts))


def _survival(runs: Sequence[dict[str, Any]], threshold: float, arm: str, key: str, slot: int) -> Series:
    x, y, censored = {}, {}, {}
    for axis in AXES:
        known = _known(runs, threshold, axis)
        if not runs or known is None:
            x[axis], y[axis], censored[axis] = np.zeros(1), np.full(1, np.nan), np.zeros(0)
            continue
        times, shares = unsolved_share(known.solved, known.ends)
        x[axis], y[axis] = np.concatenate([[0.0], times]), np.concatenate([[1.0], shares])
        censored[axis] = np.array(known.unsolved())
    return Series(key, arm, slot % SLOTS, x, y, steps=True, censored=censored)


def _curves(
    curves: Mapping[tuple[str, int], Table], arms: Sequence[str], keys: Mapping[str, str], thresholds: Sequence[float]
) -> Html:
    if not curves:
        return section("curves", "Learning curves", element("p", "compare.csv holds nothing to draw."))
    paced = {run: {**columns, "throughput": throughput(columns)} for run, columns in curves.items()}
    of_arm = {arm: [columns for (its, _), columns in paced.items() if its == arm] for arm in arms}

    def chart(column: str, title: str, unit: str, zero: bool, levels: Sequence[float] = ()) -> Chart:
        series = [
            _over_seeds(of_arm[arm], column, arm, keys[arm], slot) for slot, arm in enumerate(arms) if of_arm[arm]
        ]
        return Chart(column.replace("_", "-"), title, unit, series, levels=levels, zero=zero)

    from_zero = bool(thresholds)  # other returns may be negative
    charts = [chart("return_mean", "Mean return of the last 100 episodes", "return", from_zero, thresholds)]
    charts += [chart(*of_chart) for of_chart in _CHARTS]
    note = (
        "Line: median over the seeds, from where all that have any value have one. Band: their middle half. A seed "
        "that has ended keeps its last value."
    )
    return section("curves", "Learning curves", element("p", note), figures(charts))


def _over_seeds(runs: Sequence[Table], column: str, arm: str, key: str, slot: int) -> Series:
    x, y, low, high = {}, {}, {}, {}
    for axis in AXES:
        grid = np.linspace(0.0, max(float(columns[axis][-1]) for columns in runs), _POINTS)
        values = np.array([_at(grid, columns[axis], columns[column]) for columns in runs])
        values, known = where_all_are_known(values)
        x[axis] = grid[known]
        if not known.any():  # as the staleness of an arm that has none
            low[axis] = y[axis] = high[axis] = np.zeros(0)
            continue
        low[axis], y[axis], high[axis] = np.nanquantile(values[:, known], [0.25, 0.5, 0.75], axis=0)
    bands = (key, "band")
    return Series(key, arm, slot % SLOTS, x, y, low, high, bands)


def _at(grid: Floats, x: Floats, y: Floats) -> Floats:
    """Between the known points; NaN before the first."""
    known = np.isfinite(x) & np.isfinite(y)
    if not known.any():
        return np.full(len(grid), np.nan)
    return np.interp(grid, x[known], y[known], left=np.nan)


def _runs(runs: Sequence[dict[str, Any]], thresholds: Sequence[float]) -> Html:
    """The ledger of each run, and whether all balance."""
    if not runs:
        return section("ledger", "Ledgers", element("p", "Not recorded."))
    names = ("published", "applied", "rejected_nonfinite", "rejected_stale", "aborted", "pending", "staleness_max")
    rows = []
    for run in runs:
        its = part(run, "ledger")
        balanced = "balances" if books.balance(its)[0] else "DOES NOT BALANCE"
        solved = [_times([run], threshold, "env_steps")[0] for threshold in thresholds[-1:]]
        label = f"{run.get('algorithm')}, seed {run.get('seed')}"
        rows.append([label, number(run, "final_return"), *solved, balanced, *(number(its, name) for name in names)])
    every = all("balances" in row for row in rows)
    said = "The books of every run balance." if every else "The books of at least one run DO NOT BALANCE."
    to_last = [f"env steps to {threshold:.0f}" for threshold in thresholds[-1:]]
    heads = ["", "final return", *to_last, "ledger", *(n.replace("_", " ") for n in names)]
    return section("ledger", "Runs and ledgers", element("p", said), table("Each run", heads, rows))


def _configurations(record: Mapping[str, Any]) -> Html:
    configs = part(record, "configs")
    its = []
    for arm in configs:
        values = {name: value for name, value in part(configs, arm).items() if name != "seed"}  # one of many
        its.append(configuration(CONFIGS["A3C" if arm == "A3C" else "A2C"], values, arm))
    return section("configuration", "Configuration", *(its or [element("p", "Not recorded.")]))
