"""The classroom exercise as runs: A3C and A2C for so many updates, then far enough to reach a mean return of 195.

In: an Exercise. Out: one Result for each arm and seed, twice; and the log of a run, a row for every 100 updates.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastac.compare import experiment
from fastac.compare.experiment import ARMS, Plan, Result
from fastac.errors import FastacError
from fastac.metrics import History

LOG_EVERY = 100  # updates
WINDOW = 100  # episodes, whoever played them
TARGET = 195.0
MOST_UPDATES = 10_000  # up to here every update is logged, also by the native engine
SCHEMES = {"lock": "A3C lock", "queue": "A3C queue", "hogwild": "A3C hogwild", "lockfree": "A3C"}  # and their arms
LATER_ARMS = (*ARMS, *(arm for arm in SCHEMES.values() if arm not in ARMS))
QUICK_SEEDS = 3


@dataclass(frozen=True)
class Exercise:
    """What is asked. The hyper-parameters that it does not name are those of Config."""

    workers: int = 4  # of A3C, with one env each; A2C has as many envs
    updates: int = 2_000
    n_steps: int = 5
    seeds: tuple[int, ...] = tuple(range(20))
    limit: int = 100_000  # env steps within which a run may reach TARGET
    backend: str = "process"

    def env_steps(self, arm: str) -> int:
        """Those of all updates. One of A2C holds the rollouts of all envs, one of A3C or A2C split that of one env."""
        return self.updates * self.n_steps * (self.workers if arm == "A2C" else 1)

    def run(self, arm: str, seed: int, total_timesteps: int) -> Result:
        update, of_plan = "lockfree", arm
        for scheme, its_arm in SCHEMES.items():
            if arm == its_arm:
                update, of_plan = scheme, "A3C"
        options = {"n_steps": self.n_steps}
        plan = Plan(total_timesteps, (seed,), self.workers, update, self.backend, (of_plan,), options)
        (result,) = experiment.run(plan)
        return dataclasses.replace(result, arm=arm)


@dataclass
class Runs:
    """What has ended so far. `first` ran for `updates` updates; `later` from the same start to the limit."""

    first: list[Result] = field(default_factory=list)
    later: list[Result] = field(default_factory=list)


def jobs(exercise: Exercise) -> int:
    """How many runs it takes."""
    return len(exercise.seeds) * (len(ARMS) + len(LATER_ARMS))


def first_runs(exercise: Exercise) -> Iterator[Result]:
    """Every arm under one seed before the next seed, so that a machine whose speed drifts drifts for all.

    Raises FastacError for a run that has no complete log, before it is among the results.
    """
    for seed in exercise.seeds:
        for arm in ARMS:
            result = exercise.run(arm, seed, exercise.env_steps(arm))
            log(result.history, exercise.updates)
            yield result


def later_runs(exercise: Exercise) -> Iterator[Result]:
    """The same arms, and A3C under the other update schemes, up to the limit of env steps."""
    for seed in exercise.seeds:
        for arm in LATER_ARMS:
            yield exercise.run(arm, seed, exercise.limit)


def log(history: History, updates: int) -> list[dict[str, Any]]:
    """Row 0, and one for every LOG_EVERY updates up to exactly `updates`: what A3C had in flight then is cut off.

    A row: updates, env_steps, wall_s, return_mean (of the latest WINDOW episodes of all workers; None as long as none
    has ended) and episodes (ended so far), as they stood when that many updates had been applied.

    Raises FastacError where the history lacks one of these updates: a worker that died took its last rows along.
    """
    made, ended = history.updates, history.episodes
    rows: list[dict[str, Any]] = [{"updates": 0, "env_steps": 0, "wall_s": 0.0, "return_mean": None, "episodes": 0}]
    for count in range(LOG_EVERY, updates + 1, LOG_EVERY):
        at = int(np.searchsorted(made["updates"], count))
        if at == len(made["updates"]) or made["updates"][at] != count:
            raise FastacError(f"update {count} is missing in the log: a worker that had not written it has died")
        episodes = int(np.searchsorted(ended["updates"], count, side="right"))
        latest = ended["episode_return"][max(0, episodes - WINDOW) : episodes]
        rows.append(
            {
                "updates": count,
                "env_steps": int(made["env_steps"][at]),
                "wall_s": round(float(made["wall_s"][at]), 6),
                "return_mean": round(float(latest.mean()), 2) if episodes else None,
                "episodes": episodes,
            }
        )
    return rows
