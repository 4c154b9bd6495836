"""The laboratory's results in pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib import pyplot as plt

from fastac.compare.plots import STYLE, save
from fastac.compare.verdicts import Estimate
from fastac.lab import mitigations, staleness, stragglers
from fastac.lab.diagnosis import FEWEST, Diagnosis
from fastac.lab.real_tables import Pair
from fastac.lab.tables import Cell
from fastac.words import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = "os^Dv*"
_UNKNOWN = Estimate(*(math.nan,) * 3)


def draw_staleness(path: Path, cells: Sequence[Cell], plan: staleness.Plan) -> None:
    """Env steps to solve and solved fraction against staleness, a line for each learning rate."""
    lines = {
        f"learning rate {rate:g}": [cell for cell in cells if cell.key["learning_rate"] == rate]
        for rate in plan.learning_rates
    }
    _draw_against_tau(path, lines, plan.cells(), plan)


def draw_mitigations(path: Path, cells: Sequence[Cell], plan: mitigations.Plan) -> None:
    """The same, a line for each mitigation."""
    lines = {name: [cell for cell in cells if cell.key["mitigation"] == name] for name in mitigations.MITIGATIONS}
    _draw_against_tau(path, lines, plan.taus, plan)


def _draw_against_tau(
    path: Path, lines: dict[str, list[Cell]], taus: Sequence[float], plan: staleness.Plan | mitigations.Plan
) -> None:
    at = {tau: place for place, tau in enumerate(taus)}
    with plt.rc_context(STYLE):
        figure, (above, below) = plt.subplots(
            2, 1, figsize=(9, 7.4), height_ratios=(2, 1), sharex=True, layout="constrained"
        )
        for i, (label, its) in enumerate(lines.items()):
            x = [at[cell.key["tau"]] + _aside(i, len(lines)) for cell in its]
            _draw(above, x, [cell.time for cell in its], i, label, plan.total_timesteps)
            _draw(below, x, [cell.fraction for cell in its], i, "", 1.0)
        above.axhline(plan.total_timesteps, color="0.4", lw=0.8, ls=":")
        above.annotate(
            "end of the runs; open marks: the median lies beyond",
            (0, plan.total_timesteps),
            (0, 8),  # above the marks
            textcoords="offset points",
            fontsize=8,
            color="0.35",
        )
        above.set_ylabel("env steps to 475, median")
        above.set_ylim(0, 1.14 * plan.total_timesteps)
        above.yaxis.get_major_locator().set_params(integer=True)  # very short runs: no half env steps
        above.yaxis.set_major_formatter(lambda y, _: f"{y:,.0f}")
        below.set_ylabel("solved, fraction of seeds")
        below.set_ylim(-0.04, 1.04)
        below.set_xlabel(f"staleness tau, updates ({plan.distribution})")
        below.set_xticks(list(at.values()), [f"{tau:g}" for tau in at])
        below.set_xlim(-0.5, len(at) - 0.5)
        _legend(above)
        figure.suptitle(
            f"CartPole-v1, {counted(plan.workers, 'virtual workers')}, {counted(len(plan.seeds), 'seeds')}; "
            "bars: 95 % intervals"
        )
        save(figure, path)


def draw_stragglers(path: Path, cells: Sequence[Cell], plan: stragglers.Plan) -> None:
    """Virtual time to solve against the spread, a panel for each number of workers; the ratio below."""
    with plt.rc_context(STYLE):
        figure, panels, at = _by_workers(plan)
        for workers, (above, below) in panels.items():
            its = [cell for cell in cells if cell.key["workers"] == workers]
            top = 1.1 * _largest([cell.time for cell in its], 1.0)
            for i, name in enumerate(stragglers.ALGORITHMS):
                arm = [cell for cell in its if cell.key["algorithm"] == name]
                x = [at[cell.key["spread"]] + _aside(i, 2) for cell in arm]
                _draw(above, x, [cell.time for cell in arm], i, name, top)
            ratios = [cell for cell in its if math.isfinite(cell.against.value)]
            highest = 1.2 * max([c.against.high for c in ratios if math.isfinite(c.against.high)], default=2.0)
            _draw(below, [at[c.key["spread"]] for c in ratios], [c.against for c in ratios], 2, "", highest)
            above.set_ylim(bottom=0)
            below.set_ylim(bottom=0)
        _label_first(panels, "virtual seconds to 475, median", "A2C's time / A3C's")
        figure.suptitle(
            f"CartPole-v1, {counted(len(plan.seeds), 'seeds')}; "
            "bars: 95 % intervals, open marks: the median is never reached"
        )
        save(figure, path)


def draw_diagnosis(path: Path, of: Diagnosis) -> None:
    """Cosines and KL by staleness, cosines in the course of the run. Rows of few measurements are left to the table."""
    stale = [cell for cell in of.stale if cell.n >= FEWEST]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(2, 2, figsize=(10, 7.4), layout="constrained", sharex="col")
        for column, (cells, name) in enumerate(((stale, "applied one"), (of.parts, "stale one"))):
            above = axes[0, column]
            x = range(len(cells))
            # Of staleness 0 all are told, though none of them is stale: their cosine is 1.
            told = [cell.cosine if column == 0 or cell.stale >= FEWEST else _UNKNOWN for cell in cells]
            _draw(above, x, told, 0, f"{name} and its fresh twin", 1.0)
            _draw(above, x, [cell.fresh for cell in cells], 1, "two fresh ones, of two workers", 1.0)
            above.axhline(0.0, color="0.4", lw=0.8, ls=":")
            above.set_ylabel("cosine of two gradients, median")
            above.set_ylim(top=1.05)
            _legend(above)
        _draw(axes[1, 0], range(len(stale)), [cell.kl for cell in stale], 2, "", math.inf)
        axes[1, 0].set_ylim(bottom=0)
        axes[1, 0].set_ylabel("KL(acted || updated), median [nats]")
        axes[1, 0].set_xlabel("staleness [updates]")
        axes[1, 0].set_xticks(range(len(stale)), [cell.label for cell in stale], rotation=30, ha="right")
        _draw(axes[1, 1], range(len(of.parts)), [cell.pairwise for cell in of.parts], 3, "", 1.0)
        axes[1, 1].axhline(0.0, color="0.4", lw=0.8, ls=":")
        axes[1, 1].set_ylabel("mean cosine of the workers' latest ones")
        axes[1, 1].set_xlabel("env steps")
        axes[1, 1].set_xticks(range(len(of.parts)), [cell.label for cell in of.parts], rotation=30, ha="right")
        figure.suptitle(
            f"{of.run}: {of.measured:,} of {of.updates:,} updates measured; bars: 95 % intervals; "
            f"what was met {FEWEST} times and more"
        )
        save(figure, path)


def draw_real(path: Path, pairs: Sequence[Pair], plan: stragglers.Plan) -> None:
    """Real times as points over the predicted ones as lines, a panel for each number of workers; the ratio below."""
    with plt.rc_context(STYLE):
        figure, panels, at = _by_workers(plan)
        for workers, (above, below) in panels.items():
            its = [pair for pair in pairs if pair.real.key["workers"] == workers]
            top = 1.1 * _largest([cell.time for pair in its for cell in (pair.real, pair.virtual)], 1.0)
            highest = max(1.5, 1.1 * _largest([pair.ratio for pair in its], 1.0))
            for i, name in enumerate(stragglers.ALGORITHMS):
                arm = [pair for pair in its if pair.real.key["algorithm"] == name]
                x = [at[pair.real.key["spread"]] + _aside(i, 2) for pair in arm]
                predicted = [_finite(pair.virtual.time.value) for pair in arm]
                above.plot(x, predicted, color=_COLORS[i], lw=5, alpha=0.3, label=f"{name}, virtual")
                _draw(above, x, [pair.real.time for pair in arm], i, f"{name}, real", top, line="")
                clear = [(place, pair.ratio) for place, pair in zip(x, arm, strict=True) if _is_told(pair.ratio)]
                _draw(below, [place for place, _ in clear], [ratio for _, ratio in clear], i, "", highest, line="")
            above.set_ylim(0, 1.04 * top)
            below.set_ylim(0, highest)
            below.set_xlim(-0.4, len(at) - 0.6)
        _label_first(panels, "seconds to 475, median", "real / virtual")
        figure.suptitle(
            f"CartPole-v1, {counted(len(plan.seeds), 'seeds')}; bars: 95 % intervals of the real times, open marks: "
            "the median is never reached"
        )
        save(figure, path)


Panels = dict[int, tuple["Axes", "Axes"]]


def _by_workers(plan: stragglers.Plan) -> tuple[Figure, Panels, dict[float, int]]:
    """Times above and their ratios below, for each number of workers; where each spread stands."""
    n = len(plan.workers)
    figure, axes = plt.subplots(
        2, n, figsize=(4.2 * n + 1, 7.4), height_ratios=(2, 1), sharex=True, squeeze=False, layout="constrained"
    )
    at = {spread: place for place, spread in enumerate(plan.spreads)}
    panels = {workers: (axes[0, column], axes[1, column]) for column, workers in enumerate(plan.workers)}
    for workers, (above, below) in panels.items():
        above.set_title(counted(workers, "workers"))
        below.axhline(1.0, color="0.4", lw=0.8, ls=":")
        below.set_xticks(list(at.values()), [f"{spread:g}" for spread in at])
    figure.supxlabel(stragglers.COSTS[plan.costs][0], fontsize=10)
    return figure, panels, at


def _label_first(panels: Panels, times: str, ratios: str) -> None:
    above, below = next(iter(panels.values()))
    above.set_ylabel(times)
    below.set_ylabel(ratios)
    _legend(above)


def _largest(estimates: Sequence[Estimate], otherwise: float) -> float:
    return max((x for e in estimates for x in (e.value, e.low, e.high) if math.isfinite(x)), default=otherwise)


def _finite(x: float) -> float:
    return x if math.isfinite(x) else math.nan


def _is_told(estimate: Estimate) -> bool:
    return not math.isnan(estimate.value)


def _aside(i: int, n: int) -> float:
    """Lines stand beside each other, so that their intervals can be told apart."""
    return min(0.12, 0.4 / n) * (i - (n - 1) / 2)


def _draw(
    ax: Axes, x: Sequence[float], estimates: Sequence[Any], i: int, label: str, end: float, line: str = "-"
) -> None:
    """Values with their intervals; what is infinite stands at `end`, as an open mark, and no line goes there."""
    style: Any = {"color": _COLORS[i % len(_COLORS)]}
    marker = _MARKERS[i % len(_MARKERS)]
    values = [_finite(e.value) for e in estimates]
    ax.plot(x, values, marker=marker, ms=6, lw=1.6, ls=line, label=label, **style)
    for place, e in zip(x, estimates, strict=True):
        if math.isfinite(e.low):
            ax.plot([place, place], [e.low, min(e.high, end)], lw=1.4, alpha=0.7, **style)
        if math.isinf(e.value):
            ax.plot([place], [end], marker=marker, ms=7, mfc="white", ls="", **style)


def _legend(ax: Axes) -> None:
    if ax.get_legend_handles_labels()[1]:
        ax.legend(frameon=True, facecolor="white", edgecolor="none")
