"""Real runs beside what was predicted for them: cells, a table, and sentences about how far they lie apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from fastac.compare.verdicts import Estimate
from fastac.lab import real, stragglers
from fastac.lab.stragglers import Run
from fastac.lab.tables import (
    Cell,
    fraction_text,
    or_never,
    paired,
    straggler_cells,
    straggler_sentences,
    table_of,
    text,
    times_as_long,
    who_is_faster,
)
from fastac.words import counted


@dataclass(frozen=True)
class Pair:
    """The seeds of one row, under both clocks.

    Attributes:
        ratio: real to virtual, of the medians of the seeds that have both.
        same: seeds whose run took the predicted number of env steps under both clocks, to the last one.
    """

    real: Cell
    virtual: Cell
    ratio: Estimate
    same: int


def pairs(runs: Sequence[Run], plan: stragglers.Plan) -> list[Pair]:
    """One for each number of workers, spread and algorithm that has real runs, in the plan's order."""
    of_clock = {clock: [run for run in runs if run.clock == clock] for clock in real.CLOCKS}
    virtual = {_place(cell): cell for cell in straggler_cells(of_clock["virtual"], plan)}
    found = []
    for cell in straggler_cells(of_clock["real"], plan):
        place = _place(cell)
        its = {clock: {r.seed: r for r in some if _place_of(r) == place} for clock, some in of_clock.items()}
        seconds = {clock: {seed: or_never(r.time_s) for seed, r in some.items()} for clock, some in its.items()}
        same = sum(r.env_steps == its["virtual"][seed].env_steps for seed, r in its["real"].items())
        found.append(Pair(cell, virtual[place], paired(seconds["real"], seconds["virtual"]), same))
    return found


def pair_table(found: Sequence[Pair], plan: stragglers.Plan) -> Table:
    title = (
        f"CartPole-v1, {plan.costs} costs, {counted(len(plan.seeds), 'seeds')}, at most {plan.total_timesteps:,} env "
        f"steps, a worker's step {plan.step_s:g} s; real | virtual; 95 % intervals below"
    )
    headings = ["W", "spread", "", "solved", "real s to 475", "virtual s", "real / virtual", "stale", "waiting"]
    rows = [
        (
            f"{pair.real.key['workers']}",
            f"{pair.real.key['spread']:g}",
            pair.real.key["algorithm"],
            fraction_text(pair.real).replace(" of", f" | {pair.virtual.solved} of", 1),
            text(pair.real.time, 2),
            text(pair.virtual.time, 2),
            text(pair.ratio, 2),
            f"{pair.real.mean.value:.1f} | {pair.virtual.mean.value:.1f}",
            f"{pair.real.key['waiting']:.0%} | {pair.virtual.key['waiting']:.0%}",
        )
        for pair in found
    ]
    return table_of(title, headings, rows)


def pair_sentences(found: Sequence[Pair], runs: Sequence[Run]) -> list[str]:
    """Where the lines cross under both clocks, and how far real runs lie from what was predicted for them."""
    told = straggler_sentences([pair.real for pair in found])
    virtual = [pair.virtual for pair in found]
    for i, workers in enumerate(dict.fromkeys(pair.real.key["workers"] for pair in found)):
        told[i] += f" In virtual time: {who_is_faster(virtual, workers)}."
    for algorithm in stragglers.ALGORITHMS:
        its = [pair for pair in found if pair.real.key["algorithm"] == algorithm]
        told += _agreement(algorithm, its)
    cores = [run.cores for run in runs if run.cores is not None and math.isfinite(run.cores)]
    if cores:
        told.append(
            f"A real run kept {sum(cores) / len(cores):.2f} cores busy, {max(cores):.2f} at most: sleepers need none. "
            "Its times are its own as long as that, times --jobs, is well below the machine's cores."
        )
    return told


def _agreement(algorithm: str, its: Sequence[Pair]) -> list[str]:
    told = []
    clear = [pair for pair in its if math.isfinite(pair.ratio.value)]
    if clear:
        low, high = (f(pair.ratio.value for pair in clear) for f in (min, max))
        far = max(clear, key=lambda pair: abs(math.log(pair.ratio.value)))
        place = f"{counted(far.real.key['workers'], 'workers')} at spread {far.real.key['spread']:g}"
        told.append(
            f"{algorithm}: real times are {low:.2f} to {high:.2f} of the predicted ones, farthest with "
            f"{place}, {times_as_long(far.ratio)}."
        )
    else:
        told.append(f"{algorithm}: no cell has enough seeds, all of them solved, for a ratio of real to virtual time.")
    if algorithm == "A2C":
        same, seeds = sum(pair.same for pair in its), sum(pair.real.seeds for pair in its)
        told.append(
            f"A2C: {same} of {counted(seeds, 'real runs')} took exactly the predicted env steps: only their time can "
            "differ."
        )
    else:
        apart = max((abs(pair.real.mean.value - pair.virtual.mean.value) for pair in its), default=math.nan)
        told.append(f"A3C: the mean staleness is at most {apart:.1f} updates from the predicted one.")
    return told


def _place(cell: Cell) -> tuple[int, float, str]:
    return cell.key["workers"], cell.key["spread"], cell.key["algorithm"]


def _place_of(run: Run) -> tuple[int, float, str]:
    return run.workers, run.spread, run.algorithm
