"""`fastac bench scaling`: env steps per second of ever more native workers, and of as many runs that share nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from rich.table import Table

from fastac.bench import racer
from fastac.bench.pace import Case, Pace, env_steps_in
from fastac.bench.racer import Racer, closing, cores
from fastac.bench.rounds import Spread, Tick, ratio
from fastac.config import A2CConfig

A3C_OPTIONS = {"n_envs": 8, "n_steps": 5, "seed": 0}  # n_envs: of each worker
A2C_OPTIONS = {"n_envs": 64, "n_steps": 16, "seed": 0}  # n_envs: of all workers together
THREADS, PROCESSES = "A3C, threads", "A3C, processes"
A2C_THREADS = "A2C, threads"
APART = "W runs apart"
_OURS = "fastac.bench.ours:trainer"

Results = dict[str, dict[int, dict[str, Spread]]]  # by form, then by number of workers


def counts_up_to(workers: int) -> tuple[int, ...]:
    """1, 2, 4 and so on, and `workers` itself."""
    doubled = [2**k for k in range(workers.bit_length()) if 2**k < workers]
    return (*doubled, workers)


def measure(worker_counts: tuple[int, ...], rounds: int, round_s: float, tick: Tick) -> Results:
    """Spreads over the rounds of env steps per second, per CPU-second, and times as many as with one worker.

    "W runs apart" are as many runs of one worker at once, in processes that share nothing: what the machine allows.
    """
    racers: dict[Any, Racer] = {}
    with closing(racers):
        cases = _cases(racers, worker_counts)
        env_steps = {key: env_steps_in(case, round_s) for key, case in cases.items()}
        paces: dict[tuple[str, int], list[Pace]] = {key: [] for key in cases}
        for _ in range(rounds):
            for key, case in cases.items():
                paces[key].append(case(env_steps[key]))
            tick()
    wall = {key: [pace.per_wall_s for pace in its] for key, its in paces.items()}
    results: Results = {}
    for (form, workers), its in paces.items():
        results.setdefault(form, {})[workers] = {
            "env_steps_per_s": Spread.of(wall[form, workers]),
            "env_steps_per_cpu_s": Spread.of([pace.per_cpu_s for pace in its]),
            "times_one_worker": ratio(wall[form, workers], wall[form, worker_counts[0]]),
        }
    return results


def _cases(racers: dict[Any, Racer], worker_counts: tuple[int, ...]) -> dict[tuple[str, int], Case]:
    apart = [("apart", number) for number in range(max(worker_counts))]
    for key in apart:
        racers[key] = Racer(_OURS, "A3C", {**A3C_OPTIONS, "workers": 1, "backend": "thread"}, on=cores())
    cases: dict[tuple[str, int], Case] = {}
    for workers in worker_counts:
        for form, backend in ((THREADS, "thread"), (PROCESSES, "process")):
            options = {**A3C_OPTIONS, "workers": workers, "backend": backend}
            cases[form, workers] = racers[form, workers] = Racer(_OURS, "A3C", options, on=cores())
        if any(field.name == "workers" for field in dataclasses.fields(A2CConfig)):
            key = (A2C_THREADS, workers)
            racer.enter(racers, key, _OURS, "A2C", {**A2C_OPTIONS, "workers": workers}, on=cores())
            if key in racers:
                cases[key] = racers[key]
        cases[APART, workers] = at_once([racers[key] for key in apart[:workers]])
    return dict(sorted(cases.items(), key=lambda case: (case[0][0] == APART, case[0][0].startswith("A2C"))))


def at_once(runs: Sequence[Racer]) -> Callable[[int], Pace]:
    """Their paces in sum, each over its own time: one that ends later does not count against them."""

    def case(env_steps: int) -> Pace:
        for run in runs:
            run.send(max(1, env_steps // len(runs)))
        paces: list[Pace] = [run.receive() for run in runs]
        done = sum(pace.env_steps for pace in paces)
        return Pace(done, done / sum(pace.per_wall_s for pace in paces), sum(pace.cpu_s for pace in paces))

    return case


def table(results: Results) -> Table:
    shown = Table(title="Native training on CartPole-v1: medians over the rounds, minimum and maximum below them")
    for column in ("", "W", "env steps per second", "times one worker", "per CPU-second"):
        shown.add_column(column, justify="right" if column else "left")
    for form, by_workers in results.items():
        for i, (workers, figures) in enumerate(by_workers.items()):
            shown.add_row(
                form if i == 0 else "",
                str(workers),
                figures["env_steps_per_s"].text(0),
                figures["times_one_worker"].text(2),
                figures["env_steps_per_cpu_s"].text(0),
            )
        shown.add_section()
    return shown
