"""`fastac bench env`: the native CartPole against Gymnasium's three vector forms of it, in one run."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rich.table import Table

from fastac import _core
from fastac.bench.rounds import Spread, Tick, interleave, ratio
from fastac.env import make_vec

_MOST_ENVS = {"sync": 64, "async": 8}  # beyond these Gymnasium's take minutes, or a process for each env
_OPTIONS = {"async": {"context": "forkserver"}}  # a bare fork copies locks that other threads hold
RAW, NATIVE = "fastac, buffers reused", "fastac/CartPole-v1"
_GYMNASIUM = {"sync": "gymnasium sync", "async": "gymnasium async", "vector_entry_point": "gymnasium vector"}


def measure(sizes: tuple[int, ...], rounds: int, round_s: float, tick: Tick) -> dict[int, dict[str, dict[str, Spread]]]:
    """For each number of envs and each form: ns per env step, and how many times the VectorEnv of fastac is faster."""
    results: dict[int, dict[str, dict[str, Spread]]] = {}
    for n in sizes:
        closers: list[Callable[[], Any]] = []
        cases: dict[str, Callable[[], float]] = {RAW: _raw_case(n, round_s)}
        envs: dict[str, Any] = {NATIVE: make_vec(NATIVE, num_envs=n)}
        envs |= {
            name: make_vec("CartPole-v1", num_envs=n, vectorization_mode=mode, vector_kwargs=_OPTIONS.get(mode))
            for mode, name in _GYMNASIUM.items()
            if n <= _MOST_ENVS.get(mode, n)
        }
        for name, env in envs.items():
            cases[name] = _vector_case(env, n, round_s)
            closers.append(env.close)
        try:
            figures = interleave(cases, rounds, tick)
        finally:
            for close in closers:
                close()
        results[n] = {
            name: {
                "ns_per_env_step": Spread.of(values),
                "times_slower_than_fastac": ratio(values, figures[NATIVE]),
            }
            for name, values in figures.items()
        }
    return results


def table(results: dict[int, dict[str, dict[str, Spread]]]) -> Table:
    shown = Table(title="CartPole-v1: medians over the rounds, minimum and maximum below them")
    for column in ("envs", "form", "ns per env step", "times fastac/CartPole-v1"):
        shown.add_column(column, justify="left" if column == "form" else "right")
    for n, forms in results.items():
        for i, (name, figures) in enumerate(forms.items()):
            shown.add_row(
                str(n) if i == 0 else "",
                name,
                figures["ns_per_env_step"].text(0),
                figures["times_slower_than_fastac"].text(2),
            )
        shown.add_section()
    return shown


def as_json(results: dict[int, dict[str, dict[str, Spread]]]) -> dict[str, Any]:
    return {
        str(n): {
            name: {key: dataclasses.asdict(spread) for key, spread in figures.items()}
            for name, figures in forms.items()
        }
        for n, forms in results.items()
    }


def _time_steps(step: Callable[[Any], Any], n: int, round_s: float) -> float:
    """ns per env step over about `round_s` seconds of random actions."""
    actions = list(np.random.default_rng(0).integers(0, 2, (64, n)))
    done, started = 0, time.perf_counter()
    while (spent := time.perf_counter() - started) < round_s:
        for action in actions:
            step(action)
        done += len(actions) * n
    return spent / done * 1e9


def _raw_case(n: int, round_s: float) -> Callable[[], float]:
    envs = _core.CartPole(n, 500, "same_step")
    envs.seed(np.arange(n), np.stack([np.random.SeedSequence(i).generate_state(4, np.uint64) for i in range(n)]))
    envs.reset()
    return lambda: _time_steps(envs.step, n, round_s)


def _vector_case(env: Any, n: int, round_s: float) -> Callable[[], float]:
    env.reset(seed=0)
    return lambda: _time_steps(env.step, n, round_s)
