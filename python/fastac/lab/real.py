"""Stragglers in real time: workers that really take the time that stragglers.py deals, beside what it predicts.

In: a Plan. Out: for each algorithm, number of workers, spread and seed a Run under the virtual clock and one under
the real one, of the same costs. The workers are threads of the native engine that sleep after each rollout until its
time is over (cpp/include/fastac/worker.hpp), so that there may be more of them than cores.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastac._core import BLOCK_ENVS, MAX_WORKERS
from fastac.a2c import A2C
from fastac.a3c import A3C
from fastac.config import A2CConfig
from fastac.errors import ConfigError, NonFiniteGradientError
from fastac.lab import stragglers
from fastac.lab.crew import run_all
from fastac.lab.staleness import SOLVED
from fastac.lab.stragglers import Costs, Run, Task
from fastac.metrics import Table, expect_reachable

CLOCKS = ("real", "virtual")
MOST_UPDATES = 10_000  # of which a worker's reports have a row each: they say who rolled out how often
_CHOSEN_HERE = ("workers", "backend", "n_envs")
_LONGEST_S = 86_400.0  # a native worker pauses no longer, and no run is as long

Seconds = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Plan(stragglers.Plan):
    """That of the virtual experiment, for numbers of workers that a machine can have."""

    def __post_init__(self) -> None:
        """Raises ConfigError for what no run could be made of."""
        super().__post_init__()
        for workers in self.workers:
            if workers > MAX_WORKERS:
                raise ConfigError(f"workers: expected 1 to {MAX_WORKERS} real ones, got {workers}")
        config = self.config(self.learning_rates[0], 0)
        expect_reachable(SOLVED, config.native_episode_steps)
        if config.n_envs != BLOCK_ENVS:
            raise ConfigError(
                f"n_envs: expected {BLOCK_ENVS} with real workers, a thread of A2C each, got {config.n_envs}"
            )
        most = MOST_UPDATES * config.n_steps * config.n_envs
        if self.total_timesteps > most:
            raise ConfigError(
                f"timesteps: expected at most {most:,} with real workers, {MOST_UPDATES:,} updates of A3C, "
                f"got {self.total_timesteps:,}"
            )


def run(
    plan: stragglers.Plan, rates: dict[tuple[str, int], float], jobs: int, tick: Callable[[], None] = lambda: None
) -> Iterator[Run]:
    """All predictions, on all cores; then, when nothing else is computed, all real runs, `jobs` at a time.

    Always on other processes: A2C's pauses know of no signal, and a process can be killed in the midst of one.
    """
    yield from stragglers.run(plan, rates, len(os.sched_getaffinity(0)), tick)
    alone: list[tuple[float, ...]] = [(spread,) for spread in plan.spreads]
    tasks = stragglers.tasks_of(plan, rates, dict.fromkeys(stragglers.ALGORITHMS, alone))
    yield from run_all(run_one, tasks, jobs, tick, apart=True)


def run_one(task: Task) -> Run:
    """One real run, until it has reached 475, has used up its env steps, or makes no numbers any more."""
    model, costs = model_of(task)
    try:
        model.learn(task.plan.total_timesteps, solve=SOLVED)
    except NonFiniteGradientError:
        solved = None
    else:
        assert model.history is not None
        solved = model.history.time_to(SOLVED)
    history, ledger = model.history, model.ledger
    assert history is not None and ledger is not None
    return Run(
        task.algorithm,
        task.workers,
        task.spreads[0],
        task.learning_rate,
        task.seed,
        "real",
        solved["wall_s"] if solved else None,
        solved["env_steps"] if solved else None,
        solved["updates"] if solved else None,
        ledger.staleness_mean,
        ledger.staleness_max,
        _waiting(history.updates, costs, task.algorithm),
        history.cpu_s / history.train_s if history.train_s else math.nan,
    )


def model_of(task: Task) -> tuple[A2C | A3C, Seconds]:
    """A model whose rollouts take the task's costs, and these, float64[n, W]."""
    plan, workers = task.plan, task.workers
    config = plan.config(task.learning_rate, task.seed)
    env_steps = config.n_steps * config.n_envs * (workers if task.algorithm == "A2C" else 1)
    costs = Costs(plan, task.spreads[0], workers, task.seed).first(-(-plan.total_timesteps // env_steps))
    costs = np.minimum(costs, _LONGEST_S)
    known = {field.name for field in dataclasses.fields(A2CConfig if task.algorithm == "A2C" else config)}
    options = {name: value for name, value in config.to_dict().items() if name in known - set(_CHOSEN_HERE)}
    if task.algorithm == "A2C":
        return SlowA2C(costs, workers=workers, n_envs=workers * config.n_envs, **options), costs
    return SlowA3C(costs, workers=workers, n_envs=config.n_envs, backend="thread", **options), costs


class SlowA2C(A2C):
    """One whose worker threads each take costs[update, thread] seconds for a rollout, float64[n, W]."""

    def __init__(self, costs: Seconds, **options: Any) -> None:
        self._costs = costs
        super().__init__(**options)

    def _pauses(self, worker: int) -> Seconds:
        return self._costs


class SlowA3C(A3C):
    """One whose workers each take costs[update, worker] seconds for a rollout, float64[n, W]."""

    def __init__(self, costs: Seconds, **options: Any) -> None:
        self._costs = costs
        super().__init__(**options)

    def _pauses(self, worker: int) -> Seconds:
        return np.ascontiguousarray(self._costs[:, worker : worker + 1])


def _waiting(updates: Table, costs: Seconds, algorithm: str) -> float:
    """The part of the workers' time, each until its last update, in which no rollout was under way.

    A rollout takes no longer than from its worker's update before to its own: the end of the run cuts the last ones.
    """
    rolled_s = worked_s = 0.0
    for worker in np.unique(updates["worker"]).astype(int):
        ends = updates["wall_s"][updates["worker"] == worker]
        own = costs if algorithm == "A2C" else costs[:, worker : worker + 1]  # A2C's one worker is all its threads
        dealt = own[np.arange(len(ends)) % len(own)]
        rolled_s += float(np.minimum(dealt, np.diff(ends, prepend=0.0)[:, None]).sum())
        worked_s += float(ends[-1]) * own.shape[1]
    return 1.0 - rolled_s / worked_s if worked_s else math.nan
