"""What one more worker thread of the native engine keeps resident, beyond its rollout and its slots.

Two processes, with few and with many workers, that differ in nothing else: the difference of their resident memory,
for each worker between them. It is read while the workers are idle, after as many updates as it takes until all pages
of theirs are in use: stack and heap, the policy, the gradient and, in the region, slots, records and log.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fastac import _core
from fastac.a3c import wait_for_go
from fastac.bench.racer import Racer, closing, cores
from fastac.bench.rounds import Spread
from fastac.config import A3CConfig
from fastac.engines import NativeEngine, make_engine
from fastac.launch import launch
from fastac.mlp import initial_params
from fastac.normalization import Statistics
from fastac.shared import create_region, observer_of
from fastac.spaces import CARTPOLE
from fastac.worker import READY, Report

FEW, MANY = 1, 17
_MOST_ROUNDS = 3  # memory hardly varies, and each takes two new processes
_UPDATES = 400  # of each worker: rows for the whole ring of its log, and hardly more, which it would have to keep
_TARGET = "fastac.bench.memory:holder"


def measure(options: dict[str, Any], rounds: int) -> dict[str, Spread]:
    """Bytes of one more worker: all that is resident, its slots and its rollout as computed, what is beyond them."""
    figures: dict[str, list[float]] = {name: [] for name in ("resident", "slots", "rollout", "beyond")}
    for _ in range(min(rounds, _MOST_ROUNDS)):
        few, many = (_resident(workers, options) for workers in (FEW, MANY))
        slots, rollout = many[1:]
        resident = (many[0] - few[0]) / (MANY - FEW)
        for name, value in zip(figures, (resident, slots, rollout, resident - slots - rollout), strict=True):
            figures[name].append(value)
    return {name: Spread.of(values) for name, values in figures.items()}


def _resident(workers: int, options: dict[str, Any]) -> tuple[int, int, int]:
    racers: dict[str, Racer] = {}
    with closing(racers):
        racers["one"] = Racer(_TARGET, workers, options, on=cores())
        answer: tuple[int, int, int] = racers["one"]()
    return answer


def holder(workers: int, options: dict[str, Any]) -> Callable[[], tuple[int, int, int]]:
    """In a process of its own: bytes resident while workers are idle, those of one's slots, those of its rollout."""
    config = A3CConfig(workers=workers, backend="thread", **options).resolve_seed()

    def resident() -> tuple[int, int, int]:
        params = initial_params(config)
        region = create_region(config, workers=workers, update=config.update, n_params=len(params))
        observer = observer_of(region)
        state = np.zeros((region.state_vectors, len(params)), np.float32)
        observer.initialize(params, state)

        def tick() -> None:
            for worker in range(workers):
                observer.read_log(worker)

        with launch("thread", region, observer, work, [config] * workers, tick) as crew:
            crew.wait_ready()
            found = _resident_bytes()
            observer.give_go()
            crew.wait_done()
        worker = _engine(config, 0).groups.current
        worker.collect(params)
        return found, region.slots * params.nbytes, sum(array.nbytes for array in worker.rollout().values())

    return resident


def work(config: A3CConfig, session: _core.Session, report: Report) -> float:
    """A worker that has trained a little, and waits."""
    engine = _engine(config, session.seat)
    loop, worker = engine.begin(session, 1, Statistics.empty(config, CARTPOLE)), engine.groups.current
    while worker.updates < _UPDATES and loop.run(sys.maxsize, _UPDATES - worker.updates):
        pass
    report(READY)
    wait_for_go(session)
    return 0.0


def _engine(config: A3CConfig, worker: int) -> NativeEngine:
    engine = make_engine(config, config.n_envs, first=worker * config.n_envs)
    assert isinstance(engine, NativeEngine)
    return engine


def _resident_bytes() -> int:
    """As the kernel adds it up page by page; its running count is some pages off."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/smaps_rollup: expected a line Rss:, got none")


def line(memory: dict[str, Spread], options: dict[str, Any]) -> str:
    def kb(name: str) -> str:
        return f"{memory[name].median / 1000:,.0f} kB"

    beyond = memory["beyond"]
    return (
        f"One more worker thread ({options['n_envs']} envs, T = {options['n_steps']}), trained a little and idle: "
        f"{kb('resident')} resident, {kb('beyond')} ({beyond.minimum / 1000:,.0f}-{beyond.maximum / 1000:,.0f}) beyond "
        f"its slots ({kb('slots')}) and its rollout ({kb('rollout')}); a {MANY - FEW}th of what {MANY - FEW} more take."
    )
