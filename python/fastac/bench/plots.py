"""`fastac bench env`, `scaling` and `solve` in pictures."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter

from fastac.bench import solve
from fastac.bench.pace import THRESHOLD
from fastac.bench.rounds import Spread
from fastac.bench.scaling import A2C_OPTIONS, A2C_THREADS, A3C_OPTIONS, APART, PROCESSES, THREADS, Results
from fastac.compare.plots import STYLE, save
from fastac.words import counted

_COLORS = {THREADS: "#D55E00", PROCESSES: "#E69F00", A2C_THREADS: "#0072B2", APART: "0.35"}
_BESIDE = {THREADS: 0.99, PROCESSES: 1.01, A2C_THREADS: 0.97, APART: 1.03}
_MARKERS = {THREADS: "o", PROCESSES: "s", A2C_THREADS: "^", APART: "x"}
_ENV_COLORS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")


def draw_env(path: Path, results: dict[int, dict[str, dict[str, Spread]]]) -> None:
    """Env steps per second over the number of envs, medians and whole range, both axes logarithmic."""
    forms: dict[str, dict[int, Spread]] = {}
    for n, figures in results.items():
        for name, its in figures.items():
            ns = its["ns_per_env_step"]
            # EnvPool's name says how it was set for that n
            pace = Spread(1e9 / ns.maximum, 1e9 / ns.median, 1e9 / ns.minimum)
            forms.setdefault(name.split(", ")[0] if name.startswith("EnvPool") else name, {})[n] = pace
    with plt.rc_context(STYLE):
        figure, ax = plt.subplots(figsize=(8, 5.2), layout="constrained")
        for (form, by_n), color in zip(forms.items(), itertools.cycle(_ENV_COLORS)):
            paces = list(by_n.values())
            ax.errorbar(
                list(by_n),
                [pace.median for pace in paces],
                _around(paces),
                label=form,
                capsize=3,
                marker="o",
                color=color,
            )
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        ax.set_xticks(list(results), [f"{n:,}" for n in results])
        ax.minorticks_off()
        ax.set_xlabel("envs N")
        ax.set_ylabel("env steps per second")
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        ax.set_title("CartPole-v1: median, minimum and maximum of the rounds")
        save(figure, path)


def draw_solve(path: Path, results: solve.Results) -> None:
    """Seconds of training until solved, medians with their intervals, and start-up apart; the axis is logarithmic."""
    names = list(results)
    with plt.rc_context(STYLE):
        figure, ax = plt.subplots(figsize=(8, 1.4 + 0.55 * len(names)), layout="constrained")
        for y, name in enumerate(names):
            figures = results[name]
            wall = figures["wall_s"]
            color = (
                "#D55E00" if name in (solve.A2C, solve.A3C) else "0.35" if name in solve.WHOLE_PROCESSES else "#0072B2"
            )
            if math.isfinite(wall["median"]):
                high = min(wall["high"], max(run["trained_s"] for run in figures["runs"]))  # open where some never did
                ax.plot([wall["low"], high], [y, y], color=color, lw=3, alpha=0.4, solid_capstyle="butt")
                ax.plot(wall["median"], y, "o", color=color)
                ax.annotate(
                    f"{wall['median']:.3g} s", (wall["median"], y), (0, 7), textcoords="offset points", ha="center"
                )
            else:
                cut = min(run["trained_s"] for run in figures["runs"])
                ax.plot(cut, y, ">", color=color)
                ax.annotate(f"not within {cut:.3g} s", (cut, y), (0, 7), textcoords="offset points", ha="center")
            if name not in solve.WHOLE_PROCESSES:
                ax.plot(figures["ready_s"], y, "|", color=color, ms=12)
        ax.set_xscale("log")
        ax.margins(x=0.1)  # the numbers above the dots need room
        ax.set_yticks(range(len(names)), names)
        ax.set_ylim(len(names) - 0.4, -0.8)
        ax.grid(axis="y", visible=False)
        ax.set_xlabel("seconds; bar: start-up, which is not part of the dot")
        ax.set_title(f"CartPole-v1, training to a mean return of {THRESHOLD:.0f}: median and 95 % interval")
        save(figure, path)


def draw_scaling(path: Path, results: Results, machine_cores: int) -> None:
    """Env steps per second over workers, medians and whole range; dotted: so many times one worker, up to the cores."""
    with plt.rc_context(STYLE):
        figure, ax = plt.subplots(figsize=(8, 5.2), layout="constrained")
        for form, by_workers in results.items():
            counts, paces = list(by_workers), [figures["env_steps_per_s"] for figures in by_workers.values()]
            middle = [pace.median for pace in paces]
            style: Any = {"color": _COLORS[form], "marker": _MARKERS[form], "ls": "--" if form == APART else "-"}
            beside = [count * _BESIDE[form] for count in counts]  # so that none covers another
            ax.errorbar(beside, middle, _around(paces), label=form, capsize=3, lw=1.6, **style)
            if form in (THREADS, A2C_THREADS):
                ideal = [middle[0] * min(count, machine_cores) for count in counts]
                name = "one worker times W, up to the cores" if form == THREADS else None
                ax.plot(counts, ideal, ls=":", lw=1.2, color=_COLORS[form], label=name)
        ticks = sorted({count for by_workers in results.values() for count in by_workers})
        ax.set_xscale("log", base=2)
        ax.set_xticks(ticks, [str(count) for count in ticks])
        ax.minorticks_off()
        ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y / 1e6:g} M"))
        ax.set_ylim(bottom=0)
        ax.set_xlabel(f"workers W ({counted(machine_cores, 'cores')})")
        ax.set_ylabel("env steps per second")
        ax.legend(loc="best")
        titles = [f"A3C: {A3C_OPTIONS['n_envs']} envs a worker, T = {A3C_OPTIONS['n_steps']}"]
        if A2C_THREADS in results:
            titles.append(f"A2C: {A2C_OPTIONS['n_envs']} envs in all, T = {A2C_OPTIONS['n_steps']}")
        ax.set_title("; ".join(titles) + ".\nMedian, minimum and maximum of the rounds")
        save(figure, path)


def _around(paces: Sequence[Spread]) -> tuple[list[float], list[float]]:
    """How far below and above their medians they reach."""
    return [pace.median - pace.minimum for pace in paces], [pace.maximum - pace.median for pace in paces]
