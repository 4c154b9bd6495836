"""The laboratory's results in numbers: what the seeds of each cell say together, tables, sentences, CSV and JSON."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from fastac import rundir
from fastac.compare.verdicts import Estimate
from fastac.lab import mitigations, staleness, stragglers
from fastac.lab.statistics import fraction, mean_interval, median_time, paired_ratio
from fastac.words import counted


@dataclasses.dataclass(frozen=True)
class Cell:
    """The seeds of one row of a table.

    Attributes:
        key: what they have in common.
        solved: how many; fraction: the part, Wilson.
        time: median until solved, Kaplan and Meier; in env steps or seconds (stragglers).
        against: ratio of the medians to those of the reference: of staleness 0 (staleness), of no mitigation
            (mitigations), A2C to A3C (stragglers).
        mean: of the final return, the mean staleness (stragglers).
    """

    key: dict[str, Any]
    seeds: int
    solved: int
    fraction: Estimate
    time: Estimate
    against: Estimate
    mean: Estimate


def staleness_cells(runs: Sequence[staleness.Run], plan: staleness.Plan) -> list[Cell]:
    """One for each learning rate and staleness, in the plan's order."""
    cells = []
    for rate in plan.learning_rates:
        reference = {r.seed: or_never(r.env_steps_to_475) for r in runs if (r.learning_rate, r.tau) == (rate, 0)}
        for tau in plan.cells():
            its = [r for r in runs if (r.learning_rate, r.tau) == (rate, tau)]
            times = {r.seed: or_never(r.env_steps_to_475) for r in its}
            against = paired(times, reference) if tau else Estimate(*(math.nan,) * 3)
            returns = [r.final_return for r in its if math.isfinite(r.final_return)]
            key = {"learning_rate": rate, "tau": tau}
            if its:
                cells.append(_cell(key, times, plan.total_timesteps, against, mean_interval(returns)))
    return cells


def mitigation_cells(runs: Sequence[mitigations.Run], plan: mitigations.Plan) -> list[Cell]:
    """One for each staleness and mitigation, in the plan's order."""
    cells = []
    for tau, mitigation in plan.cells():
        its = [r for r in runs if (r.tau, r.mitigation) == (tau, mitigation)]
        times = {r.seed: or_never(r.env_steps_to_475) for r in its}
        none = {r.seed: or_never(r.env_steps_to_475) for r in runs if (r.tau, r.mitigation) == (tau, mitigations.NONE)}
        against = paired(times, none) if mitigation != mitigations.NONE else Estimate(*(math.nan,) * 3)
        returns = [r.final_return for r in its if math.isfinite(r.final_return)]
        if its:
            key = {"tau": tau, "mitigation": mitigation}
            key |= {"learning_rate": its[0].learning_rate, "strength": its[0].strength}
            cells.append(_cell(key, times, plan.total_timesteps, against, mean_interval(returns)))
    return cells


def straggler_cells(runs: Sequence[stragglers.Run], plan: stragglers.Plan) -> list[Cell]:
    """One for each number of workers, spread and algorithm, in the plan's order; `against` at A3C's. Of one clock."""
    cells = []
    for workers in plan.workers:
        for spread in plan.spreads:
            arms = {
                name: [r for r in runs if (r.workers, r.spread, r.algorithm) == (workers, spread, name)]
                for name in stragglers.ALGORITHMS
            }
            times = {name: {r.seed: or_never(r.time_s) for r in its} for name, its in arms.items()}
            for name, its in arms.items():
                if not its:
                    continue
                against = paired(times["A2C"], times["A3C"]) if name == "A3C" else Estimate(*(math.nan,) * 3)
                key = {"clock": its[0].clock, "workers": workers, "spread": spread, "algorithm": name}
                key |= {"learning_rate": its[0].learning_rate, "waiting": sum(r.waiting for r in its) / len(its)}
                # Later than every time: when a censored run would have ended differs from run to run.
                end = max((t for t in times[name].values() if math.isfinite(t)), default=0.0) + 1.0
                stale = mean_interval([r.staleness_mean for r in its])
                cells.append(_cell(key, times[name], end, against, stale))
    return cells


def staleness_table(cells: Sequence[Cell], plan: staleness.Plan) -> Table:
    title = (
        f"CartPole-v1, {counted(plan.workers, 'virtual workers')}, {plan.distribution} staleness, "
        f"{counted(len(plan.seeds), 'seeds')}, {plan.total_timesteps:,} env steps; 95 % intervals below"
    )
    headings = ["rate", "tau", *_reached_than("tau 0")]
    rows = [
        (
            f"{cell.key['learning_rate']:g}",
            f"{cell.key['tau']:g}",
            *_reached(cell),
        )
        for cell in cells
    ]
    return table_of(title, headings, rows)


def mitigation_table(cells: Sequence[Cell], plan: mitigations.Plan) -> Table:
    title = (
        f"CartPole-v1, {plan.workers} virtual workers, {plan.distribution} staleness, {len(plan.seeds)} seeds, "
        f"{plan.total_timesteps:,} env steps; {len(plan.learning_rates)} trials each on "
        f"{len(mitigations.TUNING_SEEDS)} other seeds; second readings at most {plan.lag} updates old; "
        "95 % intervals below"
    )
    headings = ["tau", "mitigation", "rate", "strength", *_reached_than("none")]
    rows = [
        (
            f"{cell.key['tau']:g}",
            cell.key["mitigation"],
            f"{cell.key['learning_rate']:g}",
            "-" if cell.key["strength"] is None else f"{cell.key['strength']:g}",
            *_reached(cell),
        )
        for cell in cells
    ]
    return table_of(title, headings, rows)


def _reached_than(reference: str) -> tuple[str, ...]:
    """The headings of `_reached`."""
    return "solved (475)", "env steps to 475", f"/ {reference}", "final return"


def _reached(cell: Cell) -> tuple[str, ...]:
    return fraction_text(cell), text(cell.time, 0), text(cell.against, 2), text(cell.mean, 0)


def straggler_table(cells: Sequence[Cell], plan: stragglers.Plan) -> Table:
    title = (
        f"CartPole-v1, {plan.costs} costs, {counted(len(plan.seeds), 'seeds')}, at most "
        f"{plan.total_timesteps:,} env steps of {plan.step_s:g} s; 95 % intervals below"
    )
    headings = ["W", "spread", "", "rate", "solved", "virtual s to 475", "A2C / A3C"]
    headings += ["waiting", "stale"]
    rows = [
        (
            f"{cell.key['workers']:,}",
            f"{cell.key['spread']:g}",
            cell.key["algorithm"],
            f"{cell.key['learning_rate']:g}",
            fraction_text(cell),
            text(cell.time, 2),
            text(cell.against, 2),
            f"{cell.key['waiting']:.0%}",
            f"{cell.mean.value:.1f}",
        )
        for cell in cells
    ]
    return table_of(title, headings, rows)


def staleness_sentences(cells: Sequence[Cell]) -> list[str]:
    """What the data carry: one for each learning rate and staleness whose ratio has an interval apart from 1."""
    if all(cell.key["tau"] for cell in cells):
        return ["No runs of staleness 0 to compare with: --tau 0,... has them."]
    told = []
    for cell in cells:
        rate, tau, ratio = cell.key["learning_rate"], cell.key["tau"], cell.against
        if tau and apart(ratio):
            told.append(
                f"At learning rate {rate:g}, staleness {tau:g} takes {times_as_long(ratio)} the env steps of "
                "staleness 0."
            )
    return told or ["No ratio to staleness 0 has a 95 % interval apart from 1: nothing is claimed."]


def rejection_sentences(runs: Sequence[staleness.Run], plan: staleness.Plan) -> list[str]:
    """Where gradients were thrown away as too stale, how many of them."""
    told = []
    for rate, tau in itertools.product(plan.learning_rates, plan.cells()):
        its = [r for r in runs if (r.learning_rate, r.tau) == (rate, tau) and not r.diverged]
        config = plan.config(rate, 0)
        gradients = len(its) * -(-plan.total_timesteps // (config.n_steps * config.n_envs))
        rejected = sum(r.rejected_stale for r in its)
        if rejected:
            share = f"{100 * rejected / gradients:.2g} %"
            told.append(
                f"At learning rate {rate:g}, staleness {tau:g}, {share} of the gradients were rejected as too stale."
            )
    return told


def mitigation_sentences(cells: Sequence[Cell]) -> list[str]:
    """What the data carry: mitigations whose ratio to none has an interval apart from 1, and those that solve more or
    fewer seeds or end at another return, where the two intervals do not meet."""
    none = {cell.key["tau"]: cell for cell in cells if cell.key["mitigation"] == mitigations.NONE}
    told = []
    for cell in cells:
        tau, name, plain = cell.key["tau"], cell.key["mitigation"], none[cell.key["tau"]]
        if apart(cell.against):
            told.append(
                f"At staleness {tau:g}, {name} takes {times_as_long(cell.against)} the env steps of no mitigation."
            )
        if _meet_not(cell.fraction, plain.fraction):
            told.append(
                f"At staleness {tau:g}, {name} solves {cell.solved} of {cell.seeds} seeds, no mitigation "
                f"{plain.solved} of {plain.seeds}."
            )
        if _meet_not(cell.mean, plain.mean):
            told.append(
                f"At staleness {tau:g}, {name} ends at a return of {cell.mean.value:.0f} (95 % interval "
                f"{cell.mean.low:.0f} to {cell.mean.high:.0f}), no mitigation at {plain.mean.value:.0f} "
                f"({plain.mean.low:.0f} to {plain.mean.high:.0f})."
            )
    return told or ["No mitigation has a 95 % interval apart from no mitigation's: nothing is claimed."]


def straggler_sentences(cells: Sequence[Cell]) -> list[str]:
    """For each number of workers, where A2C is faster and where A3C, and by how much at the ends."""
    told = []
    for workers in dict.fromkeys(cell.key["workers"] for cell in cells):
        told.append(f"{counted(workers, 'workers')}: {who_is_faster(cells, workers)}.")
        a2c, a3c = _clear_ends(cells, workers)
        for cell in a2c[:1] + a3c[-1:]:
            clock = f"A3C's {cell.key['clock']} time"
            told[-1] += f" At spread {cell.key['spread']:g} A2C takes {times_as_long(cell.against)} {clock}."
    return told


def who_is_faster(cells: Sequence[Cell], workers: int) -> str:
    """ "A2C is faster at spread 0, A3C from spread 2 on; the lines cross in between"."""
    a2c, a3c = _clear_ends(cells, workers)
    if not a2c and not a3c:
        return "no ratio at either end of the spreads is apart from 1"
    parts = []
    if a2c:
        parts.append("A2C is faster " + _at(a2c[-1], len(a2c), "up to spread {:g}"))
    if a3c:
        parts.append(("A3C " if a2c else "A3C is faster ") + _at(a3c[0], len(a3c), "from spread {:g} on"))
    return ", ".join(parts) + ("; the lines cross in between" if a2c and a3c else "")


def _clear_ends(cells: Sequence[Cell], workers: int) -> tuple[list[Cell], list[Cell]]:
    """From the smallest spread on those at which A2C is faster, and up to the largest those at which A3C is."""
    its = [cell for cell in cells if cell.key["workers"] == workers and cell.key["algorithm"] == "A3C"]
    its.sort(key=lambda cell: float(cell.key["spread"]))
    a2c = list(itertools.takewhile(lambda cell: apart(cell.against) and cell.against.value < 1, its))
    a3c = list(itertools.takewhile(lambda cell: apart(cell.against) and cell.against.value > 1, reversed(its)))
    return a2c, a3c[::-1]


def _at(last: Cell, how_many: int, several: str) -> str:
    return (several if how_many > 1 else "at spread {:g}").format(last.key["spread"])


def write(folder: Path, name: str, runs: Iterable[Any], cells: Sequence[Any], plan: Any, where: dict[str, Any]) -> None:
    """<name>.csv, a row for each run, and <name>.json."""
    rows = [dataclasses.asdict(run) for run in sorted(runs, key=dataclasses.astuple)]
    rundir.write_rows(folder / f"{name}.csv", rows)
    report = {
        "plan": dataclasses.asdict(plan),
        "machine": where,
        "summary": [dataclasses.asdict(cell) for cell in cells],
        "runs": rows,
    }
    rundir.write_json(folder / f"{name}.json", report)


def text(estimate: Estimate, digits: int) -> str:
    """The value, its interval below it; "unsolved" for what nobody reached, "-" for what the data do not carry."""
    value, low, high = (_number(x, digits) for x in (estimate.value, estimate.low, estimate.high))
    if math.isnan(estimate.low) or estimate.low == math.inf:
        return value
    return f"{value}\n[dim]{low} to {high}[/dim]"


def _number(x: float, digits: int) -> str:
    return "-" if math.isnan(x) else "unsolved" if math.isinf(x) else f"{x:,.{digits}f}"


def _cell(key: dict[str, Any], times: dict[int, float], end: float, against: Estimate, mean: Estimate) -> Cell:
    solved = sum(math.isfinite(time) for time in times.values())
    median = median_time(list(times.values()), end)
    return Cell(key, len(times), solved, fraction(solved, len(times)), median, against, mean)


def fraction_text(cell: Cell) -> str:
    return f"{cell.solved} of {cell.seeds}\n[dim]{cell.fraction.low:.2f} to {cell.fraction.high:.2f}[/dim]"


def or_never(time: float | None) -> float:
    return math.inf if time is None else time


def paired(above: dict[int, float], below: dict[int, float]) -> Estimate:
    seeds = sorted(above.keys() & below.keys())
    return paired_ratio([above[seed] for seed in seeds], [below[seed] for seed in seeds])


def apart(ratio: Estimate) -> bool:
    """Whether the interval says on which side of 1 the ratio lies. Not where all of it is beyond the runs' end."""
    return 1 < ratio.low < math.inf or ratio.high < 1


def _meet_not(one: Estimate, other: Estimate) -> bool:
    """Whether two intervals have nothing in common."""
    return one.low > other.high or one.high < other.low


def times_as_long(ratio: Estimate) -> str:
    if math.isinf(ratio.high):
        value = "more than" if math.isinf(ratio.value) else f"{ratio.value:.2f} times, and more than"
        return f"{value} {ratio.low:.2f} times (95 % interval; its upper end is beyond the runs' end)"
    return f"{ratio.value:.2f} times (95 % interval {ratio.low:.2f} to {ratio.high:.2f})"


def table_of(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]], *, grouped: bool = True) -> Table:
    """`grouped`: rows that begin alike stand together."""
    table = Table(title=title, box=None, padding=(0, 1, 0, 0))
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    before = ""
    for row in rows:
        if grouped and before not in ("", row[0]):
            table.add_section()
        before = row[0]
        table.add_row(*row)
    return table
