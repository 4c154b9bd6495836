"""CartPole-v1 of EnvPool in a racer, by itself: in the setting that is fastest here."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import Any

import envpool
import numpy as np

from fastac.bench.pace import ns_per_env_step
from fastac.words import counted

_TRIALS, _TRIAL_S = 3, 0.1


def stepper(n: int) -> Callable[[float], tuple[float, str]]:
    """Tries one thread and all cores, all envs at once and the half that is ready first; then measures the fastest.

    The callable takes seconds and returns ns per env step and the words for its setting.
    """
    warnings.simplefilter("ignore")  # of the bounds of its spaces, in a process of its own
    settings = [(threads, batch) for threads in {1, len(os.sched_getaffinity(0))} for batch in {n, max(1, n // 2)}]
    steps = {setting: _step_of(n, *setting) for setting in settings}
    trials = [
        (ns_per_env_step(steps[setting], _actions(setting[1]), _TRIAL_S), setting)
        for _ in range(_TRIALS)
        for setting in settings
    ]
    best = min(trials)[1]
    how = f"{counted(best[0], 'threads')}, {'sync' if best[1] == n else 'async'}"
    step, actions = steps[best], _actions(best[1])
    return lambda round_s: (ns_per_env_step(step, actions, round_s), how)


def _actions(batch: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 2, (64, batch), dtype=np.int32)


def _step_of(n: int, threads: int, batch: int) -> Callable[[Any], Any]:
    """Steps all n envs, or `batch` of them, those that are ready first."""
    options = {} if batch == n else {"batch_size": batch}
    envs = envpool.make("CartPole-v1", env_type="gymnasium", num_envs=n, num_threads=threads, **options)
    if batch == n:
        envs.reset()
        return lambda actions: envs.step(actions)
    envs.async_reset()

    def step(actions: Any) -> None:
        *_, info = envs.recv()
        envs.send(actions, info["env_id"])

    return step
