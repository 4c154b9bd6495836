"""A comparison in numbers: the table on the terminal, one tidy CSV, one JSON."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from fastac import machine, rundir
from fastac.compare.experiment import Plan, Result
from fastac.compare.statistics import FEWEST_FOR_INTERVAL, Interval, curve, median_interval, time_to, watched
from fastac.compare.verdicts import interquartile_mean, verdicts
from fastac.metrics import Floats
from fastac.words import counted


def of_arm(results: Sequence[Result], arm: str) -> list[Result]:
    return [result for result in results if result.arm == arm]


def summarize(results: Sequence[Result], arm: str, thresholds: Sequence[float]) -> dict[str, Any]:
    """The figures of one arm over its seeds; intervals as {median, low, high}."""
    its = of_arm(results, arm)
    histories = [result.history for result in its]
    summary: dict[str, Any] = {"seeds": len(its)}
    for threshold in thresholds:
        summary[f"solved_{threshold:.0f}"] = sum(result.solved(threshold) is not None for result in its)
        for axis in ("env_steps", "wall_s", "updates"):
            summary[f"{axis}_to_{threshold:.0f}"] = dataclasses.asdict(median_interval(time_to(its, threshold, axis)))
    over_seeds = {
        "final_return": [history.final_return() for history in histories],
        "env_steps_per_s": [history.updates["env_steps"][-1] / history.train_s for history in histories],
        "updates": [float(history.updates["updates"][-1]) for history in histories],
        "grad_norm": [_mean(history.updates["grad_norm"][history.updates["applied"] == 1]) for history in histories],
        "return_var": [_variance(history.episodes["episode_return"][-100:]) for history in histories],
        "staleness_mean": [result.ledger.staleness_mean for result in its],
        "startup_s": [history.startup_s for history in histories],
    }
    summary["final_return_iqm"] = dataclasses.asdict(interquartile_mean(over_seeds["final_return"]))
    return summary | {name: dataclasses.asdict(median_interval(values)) for name, values in over_seeds.items()}


def terminal_table(results: Sequence[Result], plan: Plan) -> Table:
    """Medians over the seeds, their 95 % bootstrap intervals below them."""
    seeds = len({result.seed for result in results})
    what = f"{plan.env}, {counted(seeds, 'seeds')}, {counted(plan.n_envs, 'envs')}, {plan.total_timesteps:,} env steps"
    table = Table(title=f"{what} (A3C: {plan.update}, {plan.backend}); {intervals_of(seeds)}")
    table.add_column("")
    arms = [arm for arm in plan.arms if of_arm(results, arm)]
    summaries = {arm: summarize(results, arm, plan.thresholds) for arm in arms}
    for arm in arms:
        table.add_column(arm, justify="right")

    def line(name: str, key: str, digits: int) -> None:
        table.add_row(name, *(interval_text(Interval(**summaries[arm][key]), digits) for arm in arms))

    for threshold in plan.thresholds:
        key = f"{threshold:.0f}"
        table.add_row(
            f"solved ({key})",
            *(f"{summaries[arm]['solved_' + key]} of {summaries[arm]['seeds']}" for arm in arms),
        )
        line(f"env steps to {key}", f"env_steps_to_{key}", 0)
        line(f"seconds to {key}", f"wall_s_to_{key}", 3)
        line(f"updates to {key}", f"updates_to_{key}", 0)
        table.add_section()
    line("return, last 100 episodes", "final_return", 1)
    table.add_row("interquartile mean of it", *(interval_text(_iqm(summaries[arm]), 1) for arm in arms))
    line("variance of these returns", "return_var", 0)
    line("gradient norm", "grad_norm", 3)
    line("staleness, mean", "staleness_mean", 2)
    line("env steps per second", "env_steps_per_s", 0)
    return table


def intervals_of(seeds: int) -> str:
    """What the cells of a table over so many seeds hold."""
    if seeds < FEWEST_FOR_INTERVAL:
        return "medians, smallest and largest below them" if seeds > 1 else "no interval from one"
    return "medians, 95 % bootstrap intervals below them"


def sentences(results: Sequence[Result], plan: Plan) -> list[str]:
    """What the runs say of each pair of arms, where there are enough of them to say something."""
    if not plan.thresholds:
        return [f"No mean return is known that solves {plan.env}: no times until then are compared."]
    seeds = len({result.seed for result in results})
    if seeds < FEWEST_FOR_INTERVAL:
        carry = counted(seeds, "seeds carry", "seed carries")
        return [
            f"{carry} no interval; {FEWEST_FOR_INTERVAL} or more would say which arm needs fewer env steps and seconds."
        ]
    return [verdict.sentence() for verdict in verdicts(results, plan, plan.thresholds[-1], ("env_steps", "wall_s"))]


def curve_rows(results: Sequence[Result], plan: Plan) -> list[dict[str, Any]]:
    """The tidy table: one row for each arm, seed and moment."""
    rows = []
    for result in results:
        columns = curve(result.history, plan.total_timesteps)
        for i in range(len(columns["env_steps"])):
            row: dict[str, Any] = {"algorithm": result.arm, "seed": result.seed}
            rows.append(row | {name: round(float(column[i]), 6) for name, column in columns.items()})
    return rows


def write(folder: Path, results: Sequence[Result], plan: Plan, where: dict[str, Any]) -> None:
    """compare.csv and compare.json."""
    rundir.write_rows(folder / "compare.csv", curve_rows(results, plan))
    runs = [
        {
            "algorithm": result.arm,
            "seed": result.seed,
            **{f"solved_{threshold:.0f}": result.solved(threshold) for threshold in plan.thresholds},
            "watched": {axis: watched([result], axis)[0] for axis in ("env_steps", "wall_s", "updates")},
            "final_return": result.history.final_return(),
            "startup_s": result.history.startup_s,
            "train_s": result.history.train_s,
            "cpu_s": result.history.cpu_s,
            "wall_s": result.wall_s,
            "ledger": dataclasses.asdict(result.ledger),
        }
        for result in results
    ]
    arms = [arm for arm in plan.arms if of_arm(results, arm)]
    report = {
        "plan": dataclasses.asdict(plan),
        "matched": "env steps, number of envs, initial weights, optimizer, hyper-parameters, seeds",
        "torch_threads": "one in each process that trains",
        "not_matched": "updates, and samples per update: A2C uses all envs' rollouts, A3C and A2C split one's",
        "machine": where,
        "summary": {arm: summarize(results, arm, plan.thresholds) for arm in arms},
        "verdicts": [
            dataclasses.asdict(verdict)
            for threshold in plan.thresholds
            for verdict in verdicts(results, plan, threshold, ("env_steps", "wall_s", "updates"))
        ],
        "configs": {arm: of_arm(results, arm)[0].config for arm in arms},
        "runs": runs,
    }
    rundir.write_json(folder / "compare.json", report)


def footer(where: dict[str, Any]) -> str:
    return f"Measured on {machine.summary(where)}."


def _iqm(summary: dict[str, Any]) -> Interval:
    its = summary["final_return_iqm"]
    return Interval(its["value"], its["low"], its["high"])


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _variance(values: Floats) -> float:
    return float(values.var()) if len(values) else float("nan")


def interval_text(interval: Interval, digits: int) -> str:
    """A cell: the median, and its interval below it."""

    def one(x: float) -> str:
        if math.isnan(x):
            return "-"
        return "unsolved" if math.isinf(x) else f"{x:,.{digits}f}"

    if interval.low == interval.high or math.isnan(interval.median) or math.isnan(interval.low):
        return one(interval.median)
    return f"{one(interval.median)}\n[dim]{one(interval.low)} to {one(interval.high)}[/dim]"
