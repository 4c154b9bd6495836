"""The exercise in numbers: tables on the terminal, a CSV for each arm, one JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.table import Table

from fastac import rundir
from fastac.compare.experiment import ARMS, Result
from fastac.compare.statistics import FEWEST_FOR_INTERVAL, median_interval
from fastac.compare.tables import interval_text, of_arm
from fastac.exercise.figures import Figures, counts, of_first, of_later, reached
from fastac.exercise.runs import SCHEMES, TARGET, Exercise, Runs, log
from fastac.words import counted

_LOGGED = ARMS[:2]  # on the terminal, side by side; A2C split has a CSV like the others


def log_table(runs: Runs, exercise: Exercise) -> Table:
    """The logs of A3C and A2C under the first seed."""
    title = f"Every 100 updates, seed {exercise.seeds[0]}: mean return of the latest 100 episodes"
    table = Table(title=title, box=SIMPLE, pad_edge=False)
    table.add_column("\nupdates", justify="right")
    logs = [log(of_arm(runs.first, arm)[0].history, exercise.updates) for arm in _LOGGED]
    for arm in _LOGGED:
        for column in (f"{arm} env\nsteps", "\ns", "epi-\nsodes", "\nreturn"):
            table.add_column(column, justify="right")
    for rows in zip(*logs, strict=True):
        cells = [cell for row in rows for cell in _log_cells(row)]
        table.add_row(f"{rows[0]['updates']:,}", *cells)
    return table


def challenge_table(runs: Runs, exercise: Exercise) -> Table:
    """One batched update against small ones, fresh or stale: first the exercise's updates, then on to TARGET."""
    first = {arm: of_first(runs, exercise, arm) for arm in ARMS}
    later = {arm: of_later(runs, arm) for arm in ARMS}
    envs, limit = counted(exercise.workers, "envs"), f"{exercise.limit:,} env steps"
    title = f"{envs} each; {exercise.updates:,} updates, and on to {limit}; {_intervals(exercise)}"
    table = _table(title, ARMS)
    matched = f"{exercise.env_steps('A3C'):,} env steps"
    seeds = len(exercise.seeds)
    table.add_row("env steps of the updates", *(f"{exercise.env_steps(arm):,}" for arm in ARMS))
    _line(table, "return after them", first, "return", 1)
    table.add_row(
        f"{TARGET:.0f} reached by then", *(f"{reached(first[arm]['env_steps_to_target'])} of {seeds}" for arm in ARMS)
    )
    table.add_section()
    _line(table, f"return after {matched}", first, "return_matched", 1)
    _line(table, "variance of returns", first, "return_var_matched", 0)
    _line(table, "gradient norm until then", first, "grad_norm_matched", 3)
    table.add_section()
    table.add_row(
        f"{TARGET:.0f} reached later on",
        *(f"{reached(later[arm]['env_steps_to_target'])} of {seeds}" for arm in ARMS),
    )
    _line(table, f"env steps to {TARGET:.0f}", later, "env_steps_to_target", 0)
    _line(table, f"updates to {TARGET:.0f}", later, "updates_to_target", 0)
    _line(table, f"seconds to {TARGET:.0f}", later, "wall_s_to_target", 3)
    _line(table, "start-up, not in it [s]", later, "startup_s", 3)
    _line(table, "1,000 env steps per s", later, "env_steps_per_s", 0, unit=1_000)
    _line(table, "staleness, mean", later, "staleness_mean", 2)
    return table


def schemes_table(runs: Runs, exercise: Exercise) -> Table:
    """A3C under the four update schemes, up to the limit."""
    figures = {scheme: of_later(runs, arm) for scheme, arm in SCHEMES.items()}
    of_gradients = {scheme: counts(of_arm(runs.later, arm)) for scheme, arm in SCHEMES.items()}
    table = _table(
        f"A3C, {counted(exercise.workers, 'workers')}, {exercise.limit:,} env steps; {_intervals(exercise)}",
        tuple(SCHEMES),
    )
    _line(table, "1,000 env steps per s", figures, "env_steps_per_s", 0, unit=1_000)
    _line(table, "1,000 updates per s", figures, "updates_per_s", 1, unit=1_000)
    table.add_section()
    for name, key in (("gradients, all seeds", "pushed"), ("applied", "applied"), ("merged", "merged")):
        table.add_row(name, *(f"{its[key]:,}" for its in of_gradients.values()))
    table.add_row("rejected", *(f"{its['rejected']:,}" for its in of_gradients.values()))
    _line(
        table,
        "additions lost [%]",
        {s: {"lost": [100 * x for x in its["lost"]]} for s, its in figures.items()},
        "lost",
        2,
    )
    _line(table, "retries per update", figures, "retries", 2)
    table.add_section()
    _line(table, "staleness, mean", figures, "staleness_mean", 2)
    _line(table, "staleness, p95", figures, "staleness_p95", 0)
    _line(table, "staleness, max", figures, "staleness_max", 0)
    table.add_section()
    _line(table, f"env steps to {TARGET:.0f}", figures, "env_steps_to_target", 0)
    _line(table, "return at the end", figures, "return", 1)
    return table


def write(
    folder: Path, runs: Runs, exercise: Exercise, where: Mapping[str, Any], answers: Mapping[str, str]
) -> list[str]:
    """a3c.csv, a2c.csv and a2c_split.csv (the logs under the first seed) and exercise.json; returns their names."""
    names = []
    for arm in ARMS:
        for result in of_arm(runs.first, arm)[:1]:
            names.append(arm.lower().replace(" ", "_") + ".csv")
            rundir.write_rows(folder / names[-1], log(result.history, exercise.updates))
    report = {
        "exercise": dataclasses.asdict(exercise),
        "machine": where,
        "answers": answers,
        "first": [
            _record(result)
            | {"env_steps": exercise.env_steps(result.arm), "log": log(result.history, exercise.updates)}
            for result in runs.first
        ],
        "later": [_record(result) for result in runs.later],
        "figures_of_first": {arm: of_first(runs, exercise, arm) for arm in _arms(runs.first)},
        "figures_of_later": {arm: of_later(runs, arm) for arm in _arms(runs.later)},
    }
    rundir.write_json(folder / "exercise.json", report)
    return [*names, "exercise.json"]


def _record(result: Result) -> dict[str, Any]:
    return {
        "algorithm": result.arm,
        "seed": result.seed,
        "solved_195": result.solved(TARGET),
        "final_return": result.history.final_return(),
        "startup_s": result.history.startup_s,
        "train_s": result.history.train_s,
        "ledger": dataclasses.asdict(result.ledger),
        "config": result.config,
    }


def _arms(results: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(result.arm for result in results))


def _log_cells(row: Mapping[str, Any]) -> list[str]:
    mean = row["return_mean"]
    return [
        f"{row['env_steps']:,}",
        f"{row['wall_s']:.3f}",
        f"{row['episodes']:,}",
        "" if mean is None else f"{mean:.1f}",
    ]


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title)
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _line(table: Table, name: str, figures: Mapping[str, Figures], key: str, digits: int, unit: float = 1) -> None:
    cells = [interval_text(median_interval([x / unit for x in its[key]]), digits) for its in figures.values()]
    table.add_row(name, *cells)


def _intervals(exercise: Exercise) -> str:
    seeds = len(exercise.seeds)
    if seeds == 1:
        return counted(seeds, "seeds")
    below = "smallest and largest" if seeds < FEWEST_FOR_INTERVAL else "95 % bootstrap interval"
    return f"{counted(seeds, 'seeds')}: median, {below} below it"
