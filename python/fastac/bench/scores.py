"""`fastac bench scores`: what the presets for other envs reach, beside what is published for A2C there."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from fastac.a2c import A2C
from fastac.bench.rounds import Tick
from fastac.evaluation import evaluate_policy
from fastac.presets import preset

FIRST_SEED = 100  # and on: seeds that were used for no tuning
EPISODES = 100


@dataclass(frozen=True)
class Published:
    """A2C's row of the benchmark of rl-baselines3-zoo (benchmark.md): one trained model, its most probable actions."""

    mean: float
    std: float  # over the episodes
    env_steps: int


PUBLISHED = {
    "Acrobot-v1": Published(-83.353, 17.213, 500_000),
    "MountainCarContinuous-v0": Published(91.166, 0.255, 100_000),
    "Pendulum-v1": Published(-162.965, 103.210, 1_000_000),
    "LunarLander-v3": Published(155.751, 80.419, 200_000),  # of LunarLander-v2 there
}
ENV_STEPS = {env: its.env_steps for env, its in PUBLISHED.items()} | {"LunarLander-v3": 1_000_000}


def measure(envs: Sequence[str], seeds: int, fraction: float, tick: Tick) -> dict[str, Any]:
    """For each env the mean return of EPISODES episodes, with the most probable actions, of every seed.

    Each trains for the env steps of what is published, LunarLander for more, or for a `fraction` of them.
    """
    figures: dict[str, Any] = {}
    for env in envs:
        total = max(1, round(ENV_STEPS[env] * fraction))
        returns, seconds = [], []
        for seed in range(FIRST_SEED, FIRST_SEED + seeds):
            started = time.perf_counter()
            model = A2C(**preset(f"a2c-{env}"), seed=seed).learn(total)
            seconds.append(time.perf_counter() - started)
            returns.append(evaluate_policy(model, n_eval_episodes=EPISODES, seed=seed)[0])
            tick()
        figures[env] = {"env_steps": total, "returns": returns, "seconds": seconds}
    return figures


def table(figures: dict[str, Any]) -> Table:
    """As people read it."""
    out = Table(title=f"A2C by preset: mean return of {EPISODES} episodes after training, over the seeds")
    for heading in (
        "env",
        "env steps",
        "mean",
        "smallest",
        "largest",
        "published",
        "its env steps",
        "at least that",
        "seconds",
    ):
        out.add_column(heading, justify="left" if heading == "env" else "right")
    for env, its in figures.items():
        returns, known = its["returns"], PUBLISHED[env]
        out.add_row(
            env,
            f"{its['env_steps']:,}",
            f"{statistics.mean(returns):.1f}",
            f"{min(returns):.1f}",
            f"{max(returns):.1f}",
            f"{known.mean:.1f}",
            f"{known.env_steps:,}",
            f"{sum(one >= known.mean for one in returns)} of {len(returns)}",
            f"{statistics.median(its['seconds']):.0f}",
        )
    return out
