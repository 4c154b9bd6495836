"""A comparison in pictures. matplotlib comes in here, for whoever draws: without a display."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
import numpy.typing as npt

from fastac.compare.experiment import Plan, Result
from fastac.compare.statistics import FEWEST_FOR_INTERVAL, curve, median_interval, time_to
from fastac.compare.tables import of_arm
from fastac.metrics import Floats
from fastac.signals import signals_deferred
from fastac.words import counted

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette: told apart by colour-blind readers and in grey.
COLORS = {"A3C": "#D55E00", "A2C": "#0072B2", "A2C split": "#009E73"}
_MARKERS = {"A3C": "o", "A2C": "s", "A2C split": "^"}
STYLE: Any = {
    "figure.dpi": 120,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.titlesize": 11,
    "legend.frameon": False,
}
AXES = {"env_steps": "env steps", "updates": "updates", "wall_s": "seconds of training"}
_POINTS = 200


@contextlib.contextmanager
def drawing(path: Path, rows: int, columns: int, size: tuple[float, float]) -> Iterator[tuple[Figure, Any]]:
    """The figure and its axes [rows, columns], written at the end: whole or not at all, a signal can come meanwhile."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
        try:
            yield figure, axes
        except BaseException:
            plt.close(figure)
            raise
        save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Whole or not at all: a signal can come while it is drawn."""
    image = io.BytesIO()
    figure.savefig(image, format="png")
    plt.close(figure)
    with signals_deferred():
        path.write_bytes(image.getvalue())


def draw_curves(path: Path, results: Sequence[Result], plan: Plan) -> None:
    """Return over the three x-axes; gradient norm, variance of the returns and staleness over env steps."""
    with drawing(path, 2, 3, (14, 7.6)) as (figure, axes):
        for ax, axis in zip(axes[0], AXES, strict=True):
            _draw(ax, results, plan, axis, "return_mean")
            for threshold in plan.thresholds:
                ax.axhline(threshold, color="0.4", lw=0.8, ls=":")
            if plan.thresholds:
                ax.set_yticks([0, 100, 300, 400, *plan.thresholds])
            ax.set_title(f"return over {AXES[axis]}")
            ax.set_ylabel("mean return, last 100 episodes")
        for ax, (column, title, label) in zip(
            axes[1],
            [
                ("grad_norm", "gradient norm, before clipping", "norm"),
                ("return_var", "variance of the last 100 returns", "variance"),
                ("staleness_mean", "staleness of the applied gradients", "updates"),
            ],
            strict=True,
        ):
            _draw(ax, results, plan, "env_steps", column)
            ax.set_title(title)
            ax.set_ylabel(label)
        if axes[0, 0].get_legend_handles_labels()[0]:
            axes[0, 0].legend(loc="lower right")
        figure.suptitle(
            f"{plan.env}, {counted(plan.n_envs, 'envs')}, {seeds_text(results)} (A3C: {plan.update}, {plan.backend}): "
            "median, and the middle half of the seeds shaded",
            fontsize=12,
        )


def draw_time_to_solve(path: Path, results: Sequence[Result], plan: Plan) -> None:
    """Each seed a mark, the median with its interval below; unsolved seeds stand right of the line, as crosses.

    Expects plan.thresholds: at least one.
    """
    arms = [arm for arm in plan.arms if of_arm(results, arm)]
    with drawing(path, len(plan.thresholds), 2, (12, 1.4 + 2.1 * len(plan.thresholds))) as (figure, axes):
        for row, threshold in zip(axes, plan.thresholds, strict=True):
            for ax, axis in zip(row, ("env_steps", "wall_s"), strict=True):
                _draw_times(ax, results, arms, threshold, axis, plan)
                ax.set_xlabel(f"{AXES[axis]} until the mean return of 100 episodes reached {threshold:.0f}")
        figure.suptitle(
            f"Time to solve {plan.env}, {seeds_text(results)}: a mark for each; line: median and {_spread(results)}",
            fontsize=12,
        )


def as_svg(draw: Callable[[Axes], None], name: str, size_in: tuple[float, float], ink: str) -> str:
    """What `draw` puts on one pair of axes, as an SVG document whose text stays text.

    `name`: the picture's, unlike that of every other on the same page, so that their identifiers differ too.
    `ink`: colour of text, axes and grid.
    """
    parts = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color")
    style = {
        **STYLE,
        "font.size": 9.5,
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "grid.alpha": 0.15,
        **dict.fromkeys(parts, ink),
    }
    with plt.rc_context(style):
        figure = plt.figure(figsize=size_in)
        draw(figure.add_axes((0.17, 0.17, 0.8, 0.78)))
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
        plt.close(figure)
    return text.getvalue()


def seeds_text(results: Sequence[Result]) -> str:
    return counted(len({result.seed for result in results}), "seeds")


def _spread(results: Sequence[Result]) -> str:
    few = len({result.seed for result in results}) < FEWEST_FOR_INTERVAL
    return "smallest to largest" if few else "its 95 % interval"


def _draw(ax: Axes, results: Sequence[Result], plan: Plan, axis: str, column: str) -> None:
    for arm in plan.arms:
        draw_arm(ax, [curve(its.history, plan.total_timesteps) for its in of_arm(results, arm)], arm, axis, column)
    scale(ax, axis, from_zero=column != "return_mean" or bool(plan.thresholds))  # other returns may be negative


def draw_arm(ax: Axes, curves: Sequence[Mapping[str, Floats]], arm: str, axis: str, column: str) -> None:
    """The median over the seeds, and their middle half shaded. Nothing where nothing is known."""
    if not curves:
        return
    end = max(float(one[axis][-1]) for one in curves)  # a seed that has ended keeps its last value
    grid = np.linspace(0.0, end, _POINTS)
    values = np.array([np.interp(grid, one[axis], one[column], left=np.nan) for one in curves])
    values, known = where_all_are_known(values)
    if not known.any():
        return
    low, median, high = np.nanquantile(values[:, known], [0.25, 0.5, 0.75], axis=0)
    ax.plot(grid[known], median, color=COLORS[arm], label=arm, lw=1.8)
    ax.fill_between(grid[known], low, high, color=COLORS[arm], alpha=0.18, lw=0)


def where_all_are_known(values: Floats) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Of values float64[seeds, n] the seeds that have any, and where all of these have one: the median over a set that
    changes on the way would go up and down with it."""
    seeds = values[np.isfinite(values).any(axis=1)]
    return seeds, np.logical_and.reduce(np.isfinite(seeds), axis=0, initial=len(seeds) > 0)


def scale(ax: Axes, axis: str, *, from_zero: bool = True) -> None:
    """The x-axis from zero, the y-axis too where that is wanted, with numbers for people."""
    ax.set_xlabel(AXES[axis])
    ax.set_xlim(left=0)
    if from_zero:
        ax.set_ylim(bottom=0)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.xaxis.set_major_formatter(readable_number)
    ax.yaxis.set_major_formatter(readable_number)


def _draw_times(
    ax: Axes, results: Sequence[Result], arms: Sequence[str], threshold: float, axis: str, plan: Plan
) -> None:
    times = {arm: time_to(of_arm(results, arm), threshold, axis) for arm in arms}
    ends = [plan.total_timesteps if axis == "env_steps" else float(r.history.updates[axis][-1]) for r in results]
    latest = max((x for its in times.values() for x in its if math.isfinite(x)), default=max(ends, default=1.0))
    for height, arm in enumerate(reversed(arms)):
        color = COLORS[arm]
        solved = [x for x in times[arm] if math.isfinite(x)]
        unsolved = len(times[arm]) - len(solved)
        ax.plot(solved, np.full(len(solved), height + 0.12), _MARKERS[arm], color=color, alpha=0.6, ms=6, mew=0)
        interval = median_interval(times[arm])
        if math.isfinite(interval.median):
            high = min(interval.high, 1.08 * latest)
            ax.plot([interval.low, high], [height - 0.2] * 2, color=color, lw=2.5, solid_capstyle="butt")
            ax.plot(interval.median, height - 0.2, "|", color=color, ms=12, mew=2.5)
        if unsolved:
            ax.plot(
                1.12 * latest + 0.02 * latest * np.arange(unsolved),
                np.full(unsolved, height + 0.12),
                "x",
                color=color,
                ms=6,
            )
    if any(not math.isfinite(x) for its in times.values() for x in its):
        ax.axvline(1.09 * latest, color="0.5", lw=0.8)
        ax.text(1.1 * latest, len(arms) - 0.42, "not solved", color="0.35", va="bottom", fontsize=9)
    ax.set_yticks(range(len(arms)), list(reversed(arms)))
    ax.set_ylim(-0.5, len(arms) - 0.4)
    room = 1.3 if any(not math.isfinite(x) for its in times.values() for x in its) else 1.0  # for the words
    ax.set_xlim(0, 1.03 * max(ax.dataLim.x1, room * latest))
    ax.xaxis.set_major_formatter(readable_number)


def readable_number(x: float, _: object) -> str:
    return f"{round(x, 6):,}".removesuffix(".0")
