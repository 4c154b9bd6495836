"""What helps against staleness: nothing, smaller steps, delay compensation, a limit, V-trace, each at its best.

In: a Plan. Out: one Run for each staleness, mitigation and seed. Each mitigation chooses its learning rate, and its
strength if it has one, from as many trials on seeds of their own. No clock is in it: see staleness.py, whose runs these
are.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastac.errors import ConfigError
from fastac.lab import staleness
from fastac.lab.crew import run_all

NONE = "none"
MITIGATIONS = (NONE, "rate / staleness", "DC-ASGD", "max staleness", "V-trace")
TAUS = (7, 15, 31)
LEARNING_RATES = (
    3e-4,
    4e-4,
    5.5e-4,
    7.5e-4,
    1e-3,
    1.4e-3,
    1.9e-3,
    2.6e-3,
    3.5e-3,
    4.8e-3,
    6.6e-3,
    9e-3,
    1.25e-2,
    1.7e-2,
)
COMPENSATIONS = (1e1, 1e2, 1e3, 1e4)
LIMITS = (0.5, 1.0, 2.0, 4.0)
TUNING_SEEDS = tuple(range(1000, 1003))


@dataclass(frozen=True)
class Trial:
    """What a mitigation may choose: a learning rate, and a strength, if it has one: lambda, or the limit in updates."""

    learning_rate: float
    strength: float | None = None


@dataclass(frozen=True)
class Plan:
    """What is varied, and what is not.

    Attributes:
        taus: mean staleness, each at least 1.
        learning_rates: those that each mitigation tries. Where it has strengths, these take turns from one rate to the
            next: all have the same rates and as many trials, and close to each rate there is one with each strength.
        compensations, limits: strengths, lambda of DC-ASGD and the maximum staleness in multiples of tau.
        distribution: of player.DISTRIBUTIONS. A constant staleness is either within a limit or always beyond it.
        lag: of player.play: the second reading of delay compensation and V-trace.
        options: fields of A3CConfig, the same for every run.
    """

    taus: tuple[float, ...] = TAUS
    learning_rates: tuple[float, ...] = LEARNING_RATES
    compensations: tuple[float, ...] = COMPENSATIONS
    limits: tuple[float, ...] = LIMITS
    workers: int = 8
    distribution: str = "geometric"
    lag: int = 0
    seeds: tuple[int, ...] = tuple(range(20))
    total_timesteps: int = 200_000
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises ConfigError for what no run could be made of."""
        if set(self.seeds) & set(TUNING_SEEDS):
            raise ConfigError(
                f"seeds: expected none of {TUNING_SEEDS[0]} to {TUNING_SEEDS[-1]}, on which rates and strengths are "
                f"chosen, got {min(self.seeds)} to {max(self.seeds)}"
            )
        for limit in self.limits:
            if not 0 <= limit < math.inf:
                raise ConfigError(f"limits: expected numbers >= 0, got {limit!r}")
        for tau, mitigation in self.cells():
            if not 1 <= tau < math.inf:
                raise ConfigError(f"tau: expected a number >= 1, got {tau!r}")
            for trial in self.trials(tau, mitigation):
                self.staleness_plan(tau, mitigation, trial)
        staleness.expect_lag(self.lag, self.taus)

    def cells(self) -> list[tuple[float, str]]:
        """(tau, mitigation) of each row."""
        return list(itertools.product(self.taus, MITIGATIONS))

    def trials(self, tau: float, mitigation: str) -> list[Trial]:
        """What it may choose from."""
        strengths: tuple[float | None, ...] = (None,)
        if mitigation == "DC-ASGD":
            strengths = self.compensations
        elif mitigation == "max staleness":
            strengths = tuple(float(round(limit * tau)) for limit in self.limits)
        return [Trial(rate, strength) for rate, strength in zip(self.learning_rates, itertools.cycle(strengths))]

    def staleness_plan(self, tau: float, mitigation: str, trial: Trial) -> staleness.Plan:
        """The plan of staleness.py that its runs are of."""
        options: dict[str, dict[str, Any]] = {
            NONE: {},
            "rate / staleness": {"staleness_lr": "inverse"},
            "DC-ASGD": {"delay_compensation": trial.strength},
            "max staleness": {"max_staleness": None if trial.strength is None else int(trial.strength)},
            "V-trace": {"v_trace": True},
        }
        return staleness.Plan(
            taus=(tau,),
            learning_rates=(trial.learning_rate,),
            workers=self.workers,
            distribution=self.distribution,
            seeds=self.seeds,
            total_timesteps=self.total_timesteps,
            options=self.options | options[mitigation],
            lag=self.lag,
        )


@dataclass(frozen=True)
class Run:
    """One staleness and mitigation under one seed; the figures are those of staleness.Run."""

    tau: float
    mitigation: str
    learning_rate: float
    strength: float | None
    seed: int
    env_steps_to_475: float | None
    final_return: float
    staleness_mean: float
    rejected_stale: int
    diverged: bool


@dataclass(frozen=True)
class _Task:
    plan: Plan
    tau: float
    mitigation: str
    trial: Trial
    seed: int


Choices = dict[tuple[float, str], Trial]


def tuning_tasks(plan: Plan) -> list[_Task]:
    """The runs from which `tune` chooses."""
    return [
        _Task(plan, tau, mitigation, trial, seed)
        for seed in TUNING_SEEDS
        for tau, mitigation in plan.cells()
        for trial in plan.trials(tau, mitigation)
    ]


def tune(plan: Plan, jobs: int, tick: Callable[[int], None] = lambda done: None) -> Choices:
    """The best trial of each staleness and mitigation: most seeds solved, then the fewest env steps, then the highest
    return. `tick` is told how many of the `tuning_tasks` are done."""
    found: dict[tuple[float, str], dict[Trial, list[Run]]] = {}
    for done, run in enumerate(run_all(_run_one, tuning_tasks(plan), jobs), 1):
        trials = found.setdefault((run.tau, run.mitigation), {})
        trials.setdefault(Trial(run.learning_rate, run.strength), []).append(run)
        tick(done)
    return {
        (tau, mitigation): min(plan.trials(tau, mitigation), key=lambda trial: _cost(found[tau, mitigation][trial]))
        for tau, mitigation in plan.cells()
    }


def run(plan: Plan, choices: Choices, jobs: int, tick: Callable[[], None] = lambda: None) -> Iterator[Run]:
    """All runs with the choices of `tune`, seed by seed, on `jobs` processes; as they end."""
    tasks = [_Task(plan, *cell, choices[cell], seed) for seed in plan.seeds for cell in plan.cells()]
    yield from run_all(_run_one, tasks, jobs, tick)


def _run_one(task: _Task) -> Run:
    plan = task.plan.staleness_plan(task.tau, task.mitigation, task.trial)
    one = staleness.run_one(staleness.Task(plan, task.tau, task.trial.learning_rate, task.seed))
    return Run(
        task.tau,
        task.mitigation,
        task.trial.learning_rate,
        task.trial.strength,
        task.seed,
        one.env_steps_to_475,
        one.final_return,
        one.staleness_mean,
        one.rejected_stale,
        one.diverged,
    )


def _cost(runs: list[Run]) -> tuple[float, ...]:
    """Of one trial, its seeds in any order; the less, the better."""
    solved = [run.env_steps_to_475 for run in runs if run.env_steps_to_475 is not None]
    returns = [run.final_return for run in runs if not run.diverged]
    return (
        len(runs) - len(solved),
        float(np.median(solved)) if solved else math.inf,
        -float(np.mean(np.sort(returns))) if returns else math.inf,
    )
