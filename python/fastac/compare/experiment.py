"""Runs the arms of a comparison: the same env, policy, initial weights, optimizer, seeds and number of envs for each.

In: a Plan. Out: one Result for each arm and seed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from fastac.a2c import A2C
from fastac.a3c import A3C
from fastac.algorithm import Algorithm
from fastac.config import Config
from fastac.metrics import History, thresholds_of
from fastac.shared import Ledger

ARMS = ("A3C", "A2C", "A2C split")
QUICK_SEEDS, QUICK_TIMESTEPS, QUICK_ARMS = 3, 100_000, ARMS[:2]  # under two minutes on two cores


@dataclass(frozen=True)
class Plan:
    """What is compared."""

    total_timesteps: int = 200_000
    seeds: tuple[int, ...] = tuple(range(10))
    n_envs: int = 4  # A2C: in one batch. A2C split: in as many groups. A3C: one for each of as many workers.
    update: str = "lockfree"
    backend: str = "process"
    arms: tuple[str, ...] = ARMS
    options: dict[str, Any] = field(default_factory=dict)  # fields of Config, the same for every arm

    @property
    def env(self) -> str:
        return str(self.options.get("env", Config.env))

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Mean returns whose time is told, in rising order; none where the env has none that are known."""
        return thresholds_of(self.env)


@dataclass(frozen=True)
class Result:
    """One arm under one seed."""

    arm: str
    seed: int
    history: History
    ledger: Ledger
    config: dict[str, Any]
    wall_s: float  # of the whole learn() call, start-up included

    def solved(self, threshold: float) -> dict[str, float] | None:
        return self.history.time_to(threshold)


def make_model(plan: Plan, arm: str, seed: int) -> Algorithm:
    """The untrained model of an arm."""
    options = {**plan.options, "seed": seed}
    if arm == "A3C":
        return A3C(workers=plan.n_envs, n_envs=1, update=plan.update, backend=plan.backend, **options)
    return A2C(n_envs=plan.n_envs, split=plan.n_envs if arm == "A2C split" else 1, **options)


def run(plan: Plan, *, progress_bar: bool = False) -> Iterator[Result]:
    """Trains arm after arm under one seed before the next seed, so that a machine whose speed drifts drifts for all."""
    jobs = [(arm, seed) for seed in plan.seeds for arm in plan.arms]
    for number, (arm, seed) in enumerate(jobs, 1):
        started = time.monotonic()
        model = make_model(plan, arm, seed)
        label: bool | str = f"{arm}, seed {seed} ({number} of {len(jobs)})" if progress_bar else False
        model.learn(plan.total_timesteps, progress_bar=label)
        assert model.history is not None and model.ledger is not None
        yield Result(arm, seed, model.history, model.ledger, model.config.to_dict(), time.monotonic() - started)
