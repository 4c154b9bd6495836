"""fastac in a racer: its engines as they train for a user."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import fastac
from fastac.algorithm import Algorithm
from fastac.bench.pace import Case, Pace, Solved, solved


def trainer(algorithm: str, options: dict[str, Any]) -> Case:
    """One model that trains on, round after round."""
    model = _model(algorithm, options)

    def case(env_steps: int) -> Pace:
        before = model.num_timesteps
        history = model.learn(env_steps).history
        assert history is not None
        return Pace(model.num_timesteps - before, history.train_s, history.cpu_s)

    return case


def solver(algorithm: str, options: dict[str, Any], total_timesteps: int) -> Callable[[int], Solved]:
    """A new model for each seed."""
    _model(algorithm, options).learn(1)  # imports, and the forkserver

    def solve(seed: int) -> Solved:
        history = _model(algorithm, {**options, "seed": seed}).learn(total_timesteps).history
        assert history is not None
        return solved(history, history.train_s, history.cpu_s)

    return solve


def importer() -> Callable[[str], tuple[float, float]]:
    """Seconds of wall-clock and of processor that the import of a module takes here, where it is imported first."""

    def seconds(module: str) -> tuple[float, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        __import__(module)
        return time.perf_counter() - wall, time.process_time() - cpu

    return seconds


def _model(algorithm: str, options: dict[str, Any]) -> Algorithm:
    model: Algorithm = getattr(fastac, algorithm)(**options)
    return model
