"""The exercise in two pictures, drawn with what compare/plots.py has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fastac.compare.experiment import ARMS, Result
from fastac.compare.plots import AXES, COLORS, draw_arm, drawing, scale, seeds_text
from fastac.compare.statistics import curve
from fastac.compare.tables import of_arm
from fastac.exercise.runs import TARGET, Exercise, Runs, log
from fastac.metrics import Floats
from fastac.words import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_log(path: Path, runs: Runs, exercise: Exercise) -> None:
    """The logs: return over updates, env steps and seconds."""
    with drawing(path, 1, 3, (14, 4.4)) as (figure, axes):
        for ax, axis in zip(axes[0], ("updates", "env_steps", "wall_s"), strict=True):
            for arm in ARMS:
                _draw_logs(ax, of_arm(runs.first, arm), exercise, axis)
            scale(ax, axis)
            _mark_target(ax)
            ax.set_ylabel("mean return, latest 100 episodes")
            ax.set_title(f"over {AXES[axis]}")
        axes[0, 0].legend(loc="upper left")
        figure.suptitle(
            f"{exercise.updates:,} updates of {counted(exercise.n_steps, 'steps')}, "
            f"{counted(exercise.workers, 'workers or envs', 'worker or env')}: one mark for every 100 updates "
            f"under seed {exercise.seeds[0]}" + (", other seeds thin" if _many(runs) else ""),
            fontsize=12,
        )


def draw_challenge(path: Path, runs: Runs, exercise: Exercise) -> None:
    """Gradient norm and variance of the returns: left over the updates of the exercise, right over a whole training."""
    columns = {"grad_norm": "gradient norm, before clipping", "return_var": "variance of the latest 100 returns"}
    with drawing(path, 2, 2, (12, 7.6)) as (figure, axes):
        for row, (column, label) in zip(axes, columns.items(), strict=True):
            for ax, results, axis in ((row[0], runs.first, "updates"), (row[1], runs.later, "env_steps")):
                for arm in ARMS:
                    end = exercise.limit if axis == "env_steps" else exercise.env_steps(arm)
                    curves = [curve(its.history, end) for its in of_arm(results, arm)]
                    draw_arm(ax, curves, arm, axis, column)
                scale(ax, axis)
                ax.set_ylabel(label)
                if column == "grad_norm":
                    ax.autoscale(axis="y")
                    ax.set_yscale("log")
        axes[0, 0].set_title(f"the first {exercise.updates:,} updates")
        axes[0, 1].set_title(f"training on, to {exercise.limit:,} env steps")
        axes[0, 1].axvline(exercise.env_steps("A3C"), color="0.4", lw=0.8, ls=":")
        axes[1, 1].axvline(exercise.env_steps("A3C"), color="0.4", lw=0.8, ls=":")
        axes[0, 0].legend(loc="lower left")
        figure.suptitle(
            f"The challenge, {seeds_text(runs.first)}: median, and the middle half of the seeds shaded; "
            f"dotted: {exercise.updates:,} updates of A3C",
            fontsize=12,
        )


def _draw_logs(ax: Axes, results: Sequence[Result], exercise: Exercise, axis: str) -> None:
    """That of the first seed with its rows as marks, the others as thin lines."""
    for result in results:
        rows = log(result.history, exercise.updates)
        x, y = _column(rows, axis), _column(rows, "return_mean")
        color = COLORS[result.arm]
        if result.seed == exercise.seeds[0]:
            ax.plot(x, y, "o-", color=color, ms=3.5, lw=1.8, label=result.arm, zorder=3)
        else:
            ax.plot(x, y, color=color, lw=0.8, alpha=0.35)


def _column(rows: Sequence[dict[str, float | None]], name: str) -> Floats:
    return np.array([row[name] for row in rows], np.float64)  # None becomes NaN, which is not drawn


def _mark_target(ax: Axes) -> None:
    ax.axhline(TARGET, color="0.4", lw=0.8, ls=":")


def _many(runs: Runs) -> bool:
    return len({result.seed for result in runs.first}) > 1
