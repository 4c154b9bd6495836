"""`fastac bench train`: env steps per second of training, of both engines and of what else is installed, in one run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from fastac.bench import peers
from fastac.bench.pace import Case, Pace, env_steps_in
from fastac.bench.racer import Racer, closing, cores
from fastac.bench.rounds import Spread, Tick, ratio
from fastac.config import ENGINES, A2CConfig, A3CConfig
from fastac.words import counted

NATIVE = "fastac, native"


@dataclass(frozen=True)
class Setup:
    """What is trained: the same for all that race."""

    algorithm: str
    n_envs: int
    n_steps: int
    hidden_sizes: tuple[int, ...]
    workers: int = 1

    @property
    def name(self) -> str:
        workers = f", {counted(self.workers, 'workers')}" if self.workers > 1 else ""
        envs = f"{counted(self.n_envs, 'envs')}"
        return f"{self.algorithm}{workers}, {envs}, T = {self.n_steps}, {'-'.join(map(str, self.hidden_sizes))}"

    def options(self) -> dict[str, Any]:
        return {"n_envs": self.n_envs, "n_steps": self.n_steps, "hidden_sizes": self.hidden_sizes, "seed": 0}


SETUPS = (
    Setup("A3C", 1, 5, (64, 64)),
    Setup("A3C", 1, 20, (64, 64)),
    Setup("A2C", 8, 5, (64, 64)),
    Setup("A2C", 64, 16, (64, 64)),
    Setup("A2C", 8, 5, (128,)),
    Setup("A3C", 8, 5, (128,), workers=2),
)

Results = dict[str, dict[str, dict[str, Spread]]]


def enter(racers: dict[str, Racer], setup: Setup, with_peers: bool) -> None:
    """Starts all that race in a setup, ours first: each on one core, our workers on one each."""
    own: dict[str, Any] = {}
    if setup.algorithm == "A3C":
        own = {"workers": setup.workers, "backend": "thread" if setup.workers == 1 else "process"}
    for engine in ENGINES:
        options = {**setup.options(), **own, "engine": engine}
        target = "fastac.bench.ours:trainer"
        racers[f"fastac, {engine}"] = Racer(target, setup.algorithm, options, on=cores(setup.workers))
    if with_peers and setup.n_envs == 1:
        peers.enter(racers, peers.PLAIN_A3C, A3CConfig(**setup.options()), on=cores(1))
    elif with_peers:
        for peer in (peers.JAX_A2C, peers.SB3_A2C):
            peers.enter(racers, peer, A2CConfig(**setup.options()), on=cores(1))


def measure(setups: tuple[Setup, ...], rounds: int, round_s: float, with_peers: bool, tick: Tick) -> Results:
    """For each setup and each that races: env steps per second of processor and of wall-clock, and how many times as
    many the native engine makes of both, in the same round."""
    results: Results = {}
    for setup in setups:
        racers: dict[str, Racer] = {}
        with closing(racers):
            enter(racers, setup, with_peers)
            results[setup.name] = _figures(_race(racers, rounds, round_s, tick))
    return results


def _race(cases: Mapping[str, Case], rounds: int, round_s: float, tick: Tick) -> dict[str, list[Pace]]:
    env_steps = {name: env_steps_in(case, round_s) for name, case in cases.items()}
    paces: dict[str, list[Pace]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            paces[name].append(case(env_steps[name]))
        tick()
    return paces


def _figures(paces: dict[str, list[Pace]]) -> dict[str, dict[str, Spread]]:
    cpu = {name: [pace.per_cpu_s for pace in its] for name, its in paces.items()}
    wall = {name: [pace.per_wall_s for pace in its] for name, its in paces.items()}
    return {
        name: {
            "env_steps_per_cpu_s": Spread.of(cpu[name]),
            "env_steps_per_s": Spread.of(wall[name]),
            "times_slower_than_native": ratio(cpu[NATIVE], cpu[name]),
            "times_slower_than_native_wall": ratio(wall[NATIVE], wall[name]),
        }
        for name in paces
    }


def table(results: Results) -> Table:
    shown = Table(title="Training on CartPole-v1: medians over the rounds, minimum and maximum below them")
    shown.add_column("")
    for column in ("env steps per CPU-second", "native: times as many", "per second", "native: times as many"):
        shown.add_column(column, justify="right")
    for setup, cases in results.items():
        shown.add_row(f"[bold]{setup}[/bold]")
        for name, figures in cases.items():
            shown.add_row(
                name,
                figures["env_steps_per_cpu_s"].text(0),
                figures["times_slower_than_native"].text(1),
                figures["env_steps_per_s"].text(0),
                figures["times_slower_than_native_wall"].text(1),
            )
        shown.add_section()
    return shown
