"""What a racer measures and sends: how fast it trains, when it solved, what a step of its envs costs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastac.metrics import History

THRESHOLD, WINDOW = 475.0, 100  # solved: the mean return of so many episodes
_TUNING_S = 0.05  # the shortest run from which the length of a round is reckoned


@dataclass(frozen=True)
class Pace:
    """Of one round of training."""

    env_steps: int
    wall_s: float
    cpu_s: float  # of all threads and worker processes together

    @property
    def per_wall_s(self) -> float:
        return self.env_steps / self.wall_s

    @property
    def per_cpu_s(self) -> float:
        return self.env_steps / self.cpu_s


Case = Callable[[int], Pace]  # trains so many env steps, or a few more


def timed(train: Callable[[int], int]) -> Case:
    """`train` returns how many env steps it took."""

    def case(env_steps: int) -> Pace:
        wall, cpu = time.perf_counter(), time.process_time()
        done = train(env_steps)
        return Pace(done, time.perf_counter() - wall, time.process_time() - cpu)

    return case


def env_steps_in(case: Case, seconds: float) -> int:
    """About as many as it trains in so long, found by ever longer runs, which also warm it up."""
    env_steps, spent = 500, 0.0
    while spent < min(_TUNING_S, seconds):
        env_steps *= 2
        spent = env_steps / case(env_steps).per_wall_s
    return max(1, round(env_steps * seconds / spent))


@dataclass(frozen=True)
class Solved:
    """One run, up to the moment when it was solved; infinity where it never was: censored."""

    env_steps: float
    wall_s: float
    cpu_s: float
    trained_s: float  # how long it was trained, solved or not: where a run is censored


def solved(history: History, wall_s: float, cpu_s: float) -> Solved:
    """Read off the episodes of a run that took `wall_s` and `cpu_s` in all; the processor worked evenly throughout."""
    when = history.time_to(THRESHOLD, WINDOW)
    if when is None:
        return Solved(math.inf, math.inf, math.inf, wall_s)
    return Solved(when["env_steps"], when["wall_s"], cpu_s * when["wall_s"] / wall_s, wall_s)


def solved_in_program(lengths: np.ndarray[Any, Any], wall_s: float, cpu_s: float) -> Solved:
    """Of a compiled program, every update of which takes the same time.

    lengths: int[updates, T, N], of the episode that ended there, else 0; every env step is rewarded with 1.
    """
    flat = lengths.reshape(-1, lengths.shape[-1])
    rows, _ = ended = np.nonzero(flat)
    returns = flat[ended].astype(np.float64)
    env_steps = (rows + 1.0) * flat.shape[1]
    times = wall_s * env_steps / flat.size
    columns = {"wall_s": times, "env_steps": env_steps, "updates": rows // lengths.shape[1] + 1.0}
    return solved(History(episodes=columns | {"episode_return": returns}), wall_s, cpu_s)


def ns_per_env_step(step: Callable[[Any], Any], actions: np.ndarray[Any, Any], round_s: float) -> float:
    """Over about `round_s` seconds of stepping with the actions [K, N], one after the other."""
    each, done, started = list(actions), 0, time.perf_counter()
    while (spent := time.perf_counter() - started) < round_s:
        for action in each:
            step(action)
        done += actions.size
    return spent / done * 1e9
