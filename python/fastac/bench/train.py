"""`fastac bench train`: env steps per second of training, of both engines and of what else is installed, in one run."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rich.table import Table

import fastac
from fastac.bench import peers
from fastac.bench.rounds import Spread, Tick, ratio
from fastac.config import ENGINES, A2CConfig

NATIVE = "fastac, native"
_TUNING_S = 0.05  # the shortest run from which the length of a round is reckoned


@dataclass(frozen=True)
class Setup:
    """What is trained: the same for all that race."""

    algorithm: str
    n_envs: int
    n_steps: int
    hidden_sizes: tuple[int, ...]

    @property
    def name(self) -> str:
        envs = f"{self.n_envs} env{'s' if self.n_envs > 1 else ''}"
        return f"{self.algorithm}, {envs}, T = {self.n_steps}, {'-'.join(map(str, self.hidden_sizes))}"

    def options(self) -> dict[str, Any]:
        return {"n_envs": self.n_envs, "n_steps": self.n_steps, "hidden_sizes": self.hidden_sizes, "seed": 0}


SETUPS = (
    Setup("A3C", 1, 5, (64, 64)),
    Setup("A3C", 1, 20, (64, 64)),
    Setup("A2C", 8, 5, (64, 64)),
    Setup("A2C", 64, 16, (64, 64)),
    Setup("A2C", 8, 5, (128,)),
)


@dataclass(frozen=True)
class Pace:
    """Of one round."""

    per_wall_s: float
    per_cpu_s: float  # of all threads of the process together


Case = Callable[[int], Pace]  # trains so many env steps

Results = dict[str, dict[str, dict[str, Spread]]]


def cases_of(setup: Setup, with_peers: bool) -> dict[str, Case]:
    """Those that can be run here, ours first."""
    cases = {f"fastac, {engine}": _ours(setup, engine) for engine in ENGINES}
    if with_peers and setup.algorithm == "A2C":
        config = A2CConfig(**setup.options())
        for name, make in (("JAX A2C, compiled", peers.jax_a2c), ("Stable-Baselines3 A2C", peers.stable_baselines3)):
            if (train := make(config)) is not None:
                cases[name] = _timed(train)
    return cases


def measure(setups: tuple[Setup, ...], rounds: int, round_s: float, with_peers: bool, tick: Tick) -> Results:
    """For each setup and each case: env steps per second of processor and of wall-clock, and how many times as many
    the native engine makes per second of processor, in the same round."""
    results: Results = {}
    for setup in setups:
        cases = cases_of(setup, with_peers)
        env_steps = {name: _env_steps_in(case, round_s) for name, case in cases.items()}
        paces: dict[str, list[Pace]] = {name: [] for name in cases}
        for _ in range(rounds):
            for name, case in cases.items():
                paces[name].append(case(env_steps[name]))
            tick()
        cpu = {name: [pace.per_cpu_s for pace in its] for name, its in paces.items()}
        results[setup.name] = {
            name: {
                "env_steps_per_cpu_s": Spread.of(cpu[name]),
                "env_steps_per_s": Spread.of([pace.per_wall_s for pace in its]),
                "times_slower_than_native": ratio(cpu[NATIVE], cpu[name]),
            }
            for name, its in paces.items()
        }
    return results


def table(results: Results) -> Table:
    shown = Table(title="Training on CartPole-v1: medians over the rounds, minimum and maximum below them")
    shown.add_column("")
    for column in ("env steps per CPU-second", "per second", "native is faster, times"):
        shown.add_column(column, justify="right")
    for setup, cases in results.items():
        shown.add_row(f"[bold]{setup}[/bold]")
        for name, figures in cases.items():
            shown.add_row(
                name,
                figures["env_steps_per_cpu_s"].text(0),
                figures["env_steps_per_s"].text(0),
                figures["times_slower_than_native"].text(1),
            )
        shown.add_section()
    return shown


def as_json(results: Results) -> dict[str, Any]:
    return {
        setup: {
            name: {key: dataclasses.asdict(spread) for key, spread in figures.items()}
            for name, figures in cases.items()
        }
        for setup, cases in results.items()
    }


def _ours(setup: Setup, engine: str) -> Case:
    options = {**setup.options(), "engine": engine}
    a3c = setup.algorithm == "A3C"
    model = fastac.A3C(workers=1, backend="thread", **options) if a3c else fastac.A2C(**options)

    def case(env_steps: int) -> Pace:
        before = model.num_timesteps
        history = model.learn(env_steps).history
        assert history is not None
        done = model.num_timesteps - before
        return Pace(done / history.train_s, done / history.cpu_s)

    return case


def _timed(train: peers.Train) -> Case:
    def case(env_steps: int) -> Pace:
        wall, cpu = time.perf_counter(), time.process_time()
        done = train(env_steps)
        return Pace(done / (time.perf_counter() - wall), done / (time.process_time() - cpu))

    return case


def _env_steps_in(case: Case, seconds: float) -> int:
    """About as many as it trains in so long. Warms up: what is compiled for a length is compiled for this one, too."""
    env_steps, spent = 500, 0.0
    while spent < min(_TUNING_S, seconds):
        env_steps *= 2
        spent = env_steps / case(env_steps).per_wall_s
    env_steps = max(1, round(env_steps * seconds / spent))
    case(env_steps)
    return env_steps
