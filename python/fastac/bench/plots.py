"""`fastac bench scaling` in a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter

from fastac.bench.scaling import A2C_OPTIONS, A2C_THREADS, A3C_OPTIONS, APART, PROCESSES, THREADS, Results
from fastac.compare.plots import STYLE, save
from fastac.words import counted

_COLORS = {THREADS: "#D55E00", PROCESSES: "#E69F00", A2C_THREADS: "#0072B2", APART: "0.35"}
_BESIDE = {THREADS: 0.99, PROCESSES: 1.01, A2C_THREADS: 0.97, APART: 1.03}
_MARKERS = {THREADS: "o", PROCESSES: "s", A2C_THREADS: "^", APART: "x"}


def draw_scaling(path: Path, results: Results, machine_cores: int) -> None:
    """Env steps per second over workers, medians and whole range; dotted: so many times one worker, up to the cores."""
    with plt.rc_context(STYLE):
        figure, ax = plt.subplots(figsize=(8, 5.2), layout="constrained")
        for form, by_workers in results.items():
            counts, paces = list(by_workers), [figures["env_steps_per_s"] for figures in by_workers.values()]
            middle = [pace.median for pace in paces]
            below = [pace.median - pace.minimum for pace in paces]
            above = [pace.maximum - pace.median for pace in paces]
            style: Any = {"color": _COLORS[form], "marker": _MARKERS[form], "ls": "--" if form == APART else "-"}
            beside = [count * _BESIDE[form] for count in counts]  # so that none covers another
            ax.errorbar(beside, middle, [below, above], label=form, capsize=3, lw=1.6, **style)
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
        ax.set_title("; ".join(titles) + ". Median, minimum and maximum of the rounds")
        save(figure, path)
