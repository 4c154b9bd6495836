"""`fastac bench env`: the native CartPole against Gymnasium's three vector forms of it and EnvPool's, in one run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from rich.table import Table

from fastac import _core
from fastac.bench import peers
from fastac.bench.pace import ns_per_env_step
from fastac.bench.racer import Racer, closing, cores
from fastac.bench.rounds import Spread, Tick, interleave, ratio
from fastac.env import make_vec

_MOST_ENVS = {"sync": 64, "async": 8}  # beyond these Gymnasium's take minutes, or a process for each env
_OPTIONS = {"async": {"context": "forkserver"}}  # a bare fork copies locks that other threads hold
RAW, NATIVE = "fastac, buffers reused", "fastac/CartPole-v1"
_GYMNASIUM = {"sync": "gymnasium sync", "async": "gymnasium async", "vector_entry_point": "gymnasium vector"}


def measure(
    sizes: tuple[int, ...], rounds: int, round_s: float, with_peers: bool, tick: Tick
) -> dict[int, dict[str, dict[str, Spread]]]:
    """For each number of envs and each form: ns per env step, and how many times the VectorEnv of fastac is faster, and
    the env below it, which writes to the same buffers again and again."""
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
        racers: dict[str, Racer] = {}
        try:
            with closing(racers):
                if with_peers:
                    peers.enter(racers, peers.ENVPOOL, n, on=cores())
                for racer in racers.values():
                    cases[f"EnvPool, {racer(round_s)[1]}"] = _remote_case(racer, round_s)
                figures = interleave(cases, rounds, tick)
        finally:
            for close in closers:
                close()
        results[n] = {
            name: {
                "ns_per_env_step": Spread.of(values),
                "times_slower_than_fastac": ratio(values, figures[NATIVE]),
                "times_slower_than_buffers_reused": ratio(values, figures[RAW]),
            }
            for name, values in figures.items()
        }
    return results


def table(results: dict[int, dict[str, dict[str, Spread]]]) -> Table:
    shown = Table(title="CartPole-v1: medians over the rounds, minimum and maximum below them")
    for column in ("envs", "form", "ns per env step", "times fastac/CartPole-v1", "times buffers reused"):
        shown.add_column(column, justify="left" if column == "form" else "right")
    for n, forms in results.items():
        for i, (name, figures) in enumerate(forms.items()):
            shown.add_row(
                str(n) if i == 0 else "",
                name,
                figures["ns_per_env_step"].text(1 if figures["ns_per_env_step"].median < 100 else 0),
                figures["times_slower_than_fastac"].text(2),
                figures["times_slower_than_buffers_reused"].text(2),
            )
        shown.add_section()
    return shown


def _case(step: Callable[[Any], Any], n: int, round_s: float) -> Callable[[], float]:
    actions = np.random.default_rng(0).integers(0, 2, (64, n))
    return lambda: ns_per_env_step(step, actions, round_s)


def _remote_case(racer: Racer, round_s: float) -> Callable[[], float]:
    def case() -> float:
        ns, _ = racer(round_s)
        return float(ns)

    return case


def _raw_case(n: int, round_s: float) -> Callable[[], float]:
    envs = _core.CartPole(n, 500, "same_step")
    envs.seed(np.arange(n), np.stack([np.random.SeedSequence(i).generate_state(4, np.uint64) for i in range(n)]))
    envs.reset()
    return _case(envs.step, n, round_s)


def _vector_case(env: Any, n: int, round_s: float) -> Callable[[], float]:
    env.reset(seed=0)
    return _case(env.step, n, round_s)
