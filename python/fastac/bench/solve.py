"""`fastac bench solve`: how long training takes until CartPole-v1 is solved, ours and its peers'."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from fastac.bench import peers
from fastac.bench.pace import THRESHOLD, WINDOW, Solved
from fastac.bench.racer import DEADLINE_S, Racer, closing, cores
from fastac.bench.rounds import Tick
from fastac.compare.statistics import Interval, median_interval
from fastac.compare.tables import interval_text
from fastac.compare.verdicts import ratio_of_medians
from fastac.words import counted

A2C, A3C, IMPORT = "fastac A2C, native", "fastac A3C, native", "import torch"
_TRAIN = ("train", "a3c", "--solve", f"{THRESHOLD:.0f}")
COMMAND = f"fastac {' '.join(_TRAIN)}"
WHOLE_PROCESSES = (COMMAND, IMPORT)  # which are timed from their start to their end
_SB3_TIMESTEPS = 1_000_000
_TIMES = 5  # that whole processes are run

Runs = dict[str, list[Solved]]
Results = dict[str, dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Plan:
    """Seeds 0 and on of each; the slow peer, Stable-Baselines3, gets fewer, and a limit for each run."""

    seeds: int
    total_timesteps: int  # of our runs and of A2C in JAX; PPO in JAX has its own
    peer_seeds: int
    peer_budget_s: float
    with_peers: bool


def measure(plan: Plan, tick: Tick) -> Results:
    """For each that races: medians over the seeds of the training it took, their ratios to ours, and every run.

    Seed by seed through all that race. A run that never solved is censored: later than all that did.
    """
    racers: dict[str, Racer] = {}
    runs: Runs = {}
    with closing(racers):
        for name, algorithm, on in ((A2C, "A2C", cores(1)), (A3C, "A3C", cores())):
            racers[name] = Racer("fastac.bench.ours:solver", algorithm, {}, plan.total_timesteps, on=on)
        if plan.with_peers:
            peers.enter(racers, peers.SOLVE_JAX_A2C, plan.total_timesteps, on=cores(1))
            peers.enter(racers, peers.SOLVE_JAX_PPO, on=cores(1))
            peers.enter(racers, peers.SOLVE_SB3_A2C, _SB3_TIMESTEPS, plan.peer_budget_s, on=cores(1))
        for seed in range(plan.seeds):
            for name, racer in racers.items():
                if name != peers.SOLVE_SB3_A2C.name:
                    runs.setdefault(name, []).append(racer(seed))
                elif seed < plan.peer_seeds:  # twice the budget: it looks at the clock between two env steps only
                    runs.setdefault(name, []).append(racer(seed, within_s=60.0 + 2 * plan.peer_budget_s))
            tick()
        ready_s = {name: racer.ready_s for name, racer in racers.items()}
    figures = {name: _figures(its, runs[A2C]) | {"ready_s": ready_s[name]} for name, its in runs.items()}
    commands, imports = zip(*[(_train_command(seed), _import_torch()) for seed in range(_TIMES)], strict=True)
    peak = {"peak_mb": max(mb for _, mb in commands)}
    figures[COMMAND] = _figures([run for run, _ in commands], runs[A2C]) | peak
    figures[IMPORT] = _figures(list(imports), runs[A2C])
    return figures


# Small and alone: a process begins with the peak memory of the one that starts it. It takes in the orphans of the
# command, as its forkserver, so that the system's sums are over all its processes.
_TIMED = """
import ctypes, os, resource, sys, time
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
started = time.perf_counter()
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
wall_s = time.perf_counter() - started
try:
    while True:
        os.wait()
except ChildProcessError:
    its = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(status, wall_s, its.ru_utime + its.ru_stime, its.ru_maxrss / 1024)
"""


def _train_command(seed: int, within_s: float = DEADLINE_S) -> tuple[Solved, float]:
    """What someone at a prompt waits for, from the start of the process to its end; the CPU-seconds of all its
    processes, and the peak memory of the largest, in MB. Raises RuntimeError where it fails or does not end `within_s`.
    """
    with tempfile.TemporaryDirectory() as folder:
        train = [sys.executable, "-m", "fastac", *_TRAIN, "--seed", str(seed), "--runs", folder, "--name", "one"]
        timed = [sys.executable, "-I", "-S", "-c", _TIMED, *train]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        with subprocess.Popen(timed, **pipes, start_new_session=True) as process:
            try:
                said = process.communicate(timeout=within_s)[0].splitlines()
            except BaseException as error:
                os.killpg(process.pid, signal.SIGKILL)
                if isinstance(error, subprocess.TimeoutExpired):
                    raise RuntimeError(f"{COMMAND} --seed {seed} did not end within {within_s:g} s") from None
                raise
        solved = json.loads((Path(folder) / "one" / "run.json").read_text())["solved_475"]
    status, wall_s, cpu_s, mb = map(float, said[-1].split())
    if status or not solved:
        raise RuntimeError(f"{COMMAND} --seed {seed}: exit status {status:.0f}, solved: {bool(solved)}")
    return Solved(math.nan, wall_s, cpu_s, wall_s), mb


def _import_torch() -> Solved:
    """What whoever trains with torch waits for before anything is trained, each time in a fresh process."""
    racer = Racer("fastac.bench.ours:importer", on=cores(1))
    with closing({IMPORT: racer}):
        wall_s, cpu_s = racer("torch")
    return Solved(math.nan, wall_s, cpu_s, wall_s)


def _figures(runs: list[Solved], ours: list[Solved]) -> dict[str, Any]:
    def of(name: str, its: list[Solved]) -> list[float]:
        return [getattr(run, name) for run in its]

    def times_ours(name: str) -> dict[str, float]:
        return dataclasses.asdict(ratio_of_medians(np.array(of(name, runs)), np.array(of(name, ours))))

    return {
        "seeds": len(runs),
        "solved": sum(math.isfinite(run.wall_s) for run in runs),
        **{name: dataclasses.asdict(median_interval(of(name, runs))) for name in ("env_steps", "wall_s", "cpu_s")},
        **{f"times_{name}": times_ours(name) for name in ("wall_s", "cpu_s")},
        "runs": [dataclasses.asdict(run) for run in runs],
    }


def table(results: Results) -> Table:
    shown = Table(
        title=f"Training until the mean return of the last {WINDOW} episodes reached {THRESHOLD:.0f}, start-up apart: "
        "medians over the seeds and 95 % bootstrap intervals (of fewer than 6 seeds: smallest to largest)"
    )
    shown.add_column("")
    headings = ("solved", "env steps", "seconds", "times fastac A2C", "CPU-seconds", "times fastac A2C", "start-up s")
    for column in headings:
        shown.add_column(column, justify="right")
    columns = {"env_steps": 0, "wall_s": 3, "times_wall_s": 1, "cpu_s": 3, "times_cpu_s": 1}
    for name, figures in results.items():
        cells = [interval_text(Interval(*figures[key].values()), digits) for key, digits in columns.items()]
        raced = name not in WHOLE_PROCESSES
        shown.add_row(
            name,
            f"{figures['solved']} of {figures['seeds']}" if raced else "",
            *cells,
            f"{figures['ready_s']:.1f}" if raced else "",
        )
    return shown


def censored(results: Results) -> list[str]:
    """A line for each that was not always solved: how long its unsolved runs were trained."""
    lines = []
    for name, figures in results.items():
        cut = [run["trained_s"] for run in figures["runs"] if not math.isfinite(run["wall_s"])]
        if cut:
            lines.append(
                f"{name}: {len(cut)} of {counted(figures['seeds'], 'runs')} unsolved after {min(cut):,.3g} s: censored."
            )
    return lines


def peak_memory(results: Results) -> str:
    return f"{COMMAND}: {results[COMMAND]['peak_mb']:.0f} MB at most in its largest process."
