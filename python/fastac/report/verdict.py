"""What a comparison carries, in sentences: only where the 95 % intervals of two medians are apart."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fastac.compare.statistics import FEWEST_FOR_INTERVAL, Interval, median_interval
from fastac.report.parts import shown


@dataclass(frozen=True)
class Times:
    """When the seeds of each arm were solved on one axis; infinity where they never were."""

    threshold: float
    axis: str
    of_arm: Mapping[str, Sequence[float]]


def verdict(times: Sequence[Times], axes: Mapping[str, str], *, same_seeds: bool, busy: bool) -> list[str]:
    """One sentence for each pair of arms, threshold and axis; or why there is none."""
    fewest = min((len(its) for one in times for its in one.of_arm.values()), default=0)
    if fewest < FEWEST_FOR_INTERVAL:
        return [
            f"No verdict: with {fewest} seeds there is no interval of a median; from {FEWEST_FOR_INTERVAL} on there is."
        ]
    if not same_seeds:
        return ["No verdict: the arms were not run on the same seeds."]
    lines = []
    for one in times:
        unit = axes[one.axis]
        if one.axis == "wall_s" and busy:
            line = f"{unit} to {one.threshold:.0f}: no verdict, other work was going on while they were measured."
            lines.append(line[0].upper() + line[1:])
            continue
        intervals = {arm: median_interval(its) for arm, its in one.of_arm.items()}
        lines += [_pair(a, b, intervals, one.threshold, unit) for a, b in itertools.combinations(intervals, 2)]
    return lines


def _pair(a: str, b: str, intervals: Mapping[str, Interval], threshold: float, unit: str) -> str:
    if intervals[b].high < intervals[a].low:
        a, b = b, a
    first, second = intervals[a], intervals[b]
    told = f"median {_told(first)} against {_told(second)}"
    if first.high < second.low:
        return f"{a} needed fewer {unit} to {threshold:.0f} than {b}: {told}; the 95 % intervals are apart."
    if math.isinf(first.median) and math.isinf(second.median):
        return f"Neither {a} nor {b} reached {threshold:.0f} with more than half of its seeds: no verdict in {unit}."
    return f"{a} and {b}, {unit} to {threshold:.0f}: no difference shown, {told}; the 95 % intervals overlap."


def _told(its: Interval) -> str:
    return f"{shown(its.median)} [{shown(its.low)} to {shown(its.high)}]"
