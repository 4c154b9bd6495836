"""A diagnosis in numbers: by staleness and by progress, tables, sentences, CSV and JSON. In: diagnose.py's table."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.table import Table as RichTable

from fastac import rundir
from fastac.compare.verdicts import Estimate
from fastac.lab.statistics import in_blocks
from fastac.lab.tables import table_of
from fastac.metrics import Table
from fastac.words import counted

_PARTS = 5
FEWEST = 10  # measurements that make a mark in a picture
_FRESH, _LATE = "0", "1 or more"


@dataclasses.dataclass(frozen=True)
class Cell:
    """The measurements of one row. Medians, but for `cost` and the mean staleness; their intervals: lab.statistics.

    Attributes:
        label: the stalenesses, or the env steps.
        n: measured updates; stale: those of them whose gradient was; staleness: its mean.
        cosine, kl: as lab.diagnose.Diagnostics says; but in the row of staleness 0 of the stale ones alone.
        cost: mean of cosine_other - cosine_fresh, of these.
        fresh, spread, pairwise: of all; `fresh` is cosine_fresh.
    """

    label: str
    n: int
    stale: int
    staleness: float
    cosine: Estimate
    fresh: Estimate
    cost: Estimate
    kl: Estimate
    spread: Estimate
    pairwise: Estimate


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """A recorded run, diagnosed as far as it was replayed.

    Attributes:
        run: its name; updates: replayed; every: one of so many was measured.
        workers: that took part; rollout_env_steps: of each gradient.
        measured: updates; stale, parts: their rows by staleness and by progress; late: all stale ones, maybe none.
        table: all measurements.
    """

    run: str
    updates: int
    every: int
    measured: int
    workers: int
    rollout_env_steps: int
    stale: Sequence[Cell]
    parts: Sequence[Cell]
    late: Cell
    table: Table


def diagnosis(run: str, updates: int, every: int, rollout_env_steps: int, table: Table) -> Diagnosis:
    """What a table of measurements, at least one, says together."""
    staleness, n = table["staleness"], len(table["staleness"])
    stale = [
        _cell(f"{low:g}" if low == high else f"{low:,}-{high:,}", table, chosen)
        for low, high in _bins(int(staleness.max()))
        if (chosen := (staleness >= low) & (staleness <= high)).any()
    ]
    parts = []
    for k, rows in enumerate(np.array_split(np.arange(n), min(_PARTS, n))):
        chosen = np.isin(np.arange(n), rows)
        begin = 0 if k == 0 else int(table["env_steps"][rows[0]])
        parts.append(_cell(f"{begin:,} to {int(table['env_steps'][rows[-1]]):,}", table, chosen))
    late = _cell(_LATE, table, staleness > 0)
    workers = len(np.unique(table["worker"]))
    return Diagnosis(run, updates, every, n, workers, rollout_env_steps, stale, parts, late, table)


def stale_table(of: Diagnosis) -> RichTable:
    title = f"{of.run}: {of.measured:,} of {of.updates:,} updates measured, by staleness; 95 % intervals below"
    headings = ["staleness", "updates", "cosine to twin", "two fresh ones", "cost", "KL(acted || now)"]
    rows = [
        (
            cell.label,
            f"{cell.n:,}",
            _text(cell.cosine, ".3f"),
            _text(cell.fresh, ".3f"),
            _text(cell.cost, "+.3f"),
            _text(cell.kl, ".2g"),
        )
        for cell in (*of.stale, of.late)
        if cell.n
    ]
    return table_of(title, headings, rows, grouped=False)


def parts_table(of: Diagnosis) -> RichTable:
    headings = ["env steps", "stale", "cosine to twin", "two fresh ones", "KL", "spread", "pairwise"]
    rows = [
        (
            cell.label,
            f"{cell.stale:,} of {cell.n:,}",
            _text(cell.cosine, ".3f"),
            _text(cell.fresh, ".3f"),
            _text(cell.kl, ".2g"),
            _text(cell.spread, ".1f"),
            _text(cell.pairwise, ".3f"),
        )
        for cell in of.parts
    ]
    title = "In the course of the run; cosine to twin and KL of the stale gradients"
    return table_of(title, headings, rows, grouped=False)


LEGEND = (
    "cosine to twin: of the applied gradient and the one that its worker would have taken with the parameters it was "
    "applied to, from the same states with the same random numbers; 1 for staleness 0. two fresh ones: of that twin "
    "and another worker's fresh gradient, which share no luck: without staleness gradients agree no better. cost: mean "
    "by which the applied gradient agrees with the other worker's better (+) or worse (-) than its twin does. KL: of "
    "the policy that acted to the one that was updated, nats. spread: mean squared deviation of the workers' latest "
    "gradients from their mean, by its squared length (W - 1 if they had nothing in common); pairwise: the mean cosine "
    "of two of them. Medians, where nothing else is said."
)


def sentences(of: Diagnosis) -> list[str]:
    """What the measurements carry, and where they carry nothing."""
    if of.late.n == 0:
        return ["No measured gradient was stale: each was its own twin."]
    told = []
    late = [cell for cell in (*of.stale, of.late) if cell.stale]
    for cell in late:
        twin, fresh = cell.cosine, cell.fresh
        if twin.low > fresh.high:
            told.append(
                f"Staleness {cell.label}: the applied gradient is closer to its fresh twin (median cosine "
                f"{_interval(twin, '.3f')}) than two fresh ones of different workers are to each other "
                f"({_interval(fresh, '.3f')}): luck tells gradients apart more than staleness does."
            )
        elif twin.high < fresh.low:
            told.append(
                f"Staleness {cell.label}: the applied gradient is further from its fresh twin (median cosine "
                f"{_interval(twin, '.3f')}) than two fresh ones of different workers are from each other "
                f"({_interval(fresh, '.3f')})."
            )
    apart = [cell for cell in late if cell.cost.excludes(0.0)]
    for cell in apart:
        better = "better" if cell.cost.value > 0 else "worse"
        told.append(
            f"Staleness {cell.label}: it agrees {better} with another worker's fresh gradient than its twin does: "
            f"mean cosine {_interval(cell.cost, '+.3f')}."
        )
    known = [cell for cell in late if np.isfinite(cell.cost.low)]
    if known and not apart:
        told.append(
            "At no staleness does the applied gradient agree measurably better or worse with another worker's fresh "
            "gradient than its twin does."
        )
    if not known:
        told.append(
            f"{counted(of.late.n, 'stale gradients')} measured: too few to say what staleness costs. "
            + ("--every 1 measures all; a" if of.every > 1 else "A")
            + " larger network and more workers make more of them."
        )
    return told


def write(folder: Path, of: Diagnosis) -> None:
    """diagnose.csv, a row for each measurement, and diagnose.json."""
    rundir.write_table(folder / "diagnose.csv", of.table)
    record = dataclasses.asdict(dataclasses.replace(of, table={}))
    del record["table"]
    rundir.write_json(folder / "diagnose.json", record | {"sentences": sentences(of), "legend": LEGEND})


def _bins(most: int) -> list[tuple[int, int]]:
    """0, 1, 2, 3-4, 5-8, 9-16 and so on, up to one that holds `most`."""
    bins = [(0, 0), (1, 1), (2, 2)]
    while bins[-1][1] < most:
        bins.append((bins[-1][1] + 1, 2 * bins[-1][1]))
    return bins


def _cell(label: str, table: Table, chosen: npt.NDArray[np.bool_]) -> Cell:
    stale = chosen & (table["staleness"] > 0)
    late = chosen if label == _FRESH else stale
    return Cell(
        label,
        int(chosen.sum()),
        int(stale.sum()),
        float(table["staleness"][chosen].mean()) if chosen.any() else math.nan,
        in_blocks(table["cosine"][late], np.median),
        in_blocks(table["cosine_fresh"][chosen], np.median),
        in_blocks((table["cosine_other"] - table["cosine_fresh"])[late], np.mean),
        in_blocks(table["kl"][late], np.median),
        in_blocks(table["spread"][chosen], np.median),
        in_blocks(table["pairwise"][chosen], np.median),
    )


def _text(estimate: Estimate, form: str) -> str:
    if np.isnan(estimate.value):
        return "-"
    value = f"{estimate.value:{form}}"
    if np.isnan(estimate.low) or estimate.low == estimate.high:
        return value
    return f"{value}\n[dim]{estimate.low:{form}} to {estimate.high:{form}}[/dim]"


def _interval(estimate: Estimate, form: str) -> str:
    return f"{estimate.value:{form}}, 95 % interval {estimate.low:{form}} to {estimate.high:{form}}"
