"""`fastac bench updates`: what read, push and apply cost under every update scheme, and how many additions get lost."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable

import numpy as np
from rich.table import Table

from fastac import _core
from fastac._core import UPDATE_SCHEMES
from fastac.bench.rounds import Spread, Tick, ratio
from fastac.shared import learner_of, observer_of, serve_until_stopped

_START_DEADLINE_S = 30.0
_STOP_DEADLINE_S = 2.0
_PIECES = 21  # of a round of pushes, so that its median passes by those that were interrupted
MOST_ADDITIONS = 2**24  # up to here every whole number is a float32, and the sum of the gradients is exact
_COLUMNS = ("read_us", "push_us", "apply_us", "updates_per_s", "retries_per_update", "staleness_mean", "lost")


def measure(
    worker_counts: tuple[int, ...], n_params: int, rounds: int, n_updates: int, tick: Tick
) -> dict[int, dict[str, dict[str, Spread]]]:
    """For each number of worker threads (native loops, without the GIL) and each scheme: the spreads of _COLUMNS.

    `lost` is the part of all additions that is missing from the parameters at the end. Gradients are whole
    numbers under plain sgd, so the sum is exact and what is missing was lost.
    """
    results: dict[int, dict[str, dict[str, Spread]]] = {}
    for workers in worker_counts:
        measured: dict[str, list[dict[str, float]]] = {scheme: [] for scheme in UPDATE_SCHEMES}
        for _ in range(rounds):
            for scheme in UPDATE_SCHEMES:
                cost = one_round("rmsprop", scheme, workers, n_params, n_updates)
                cost["lost"] = one_round("sgd", scheme, workers, n_params, n_updates)["lost"]
                measured[scheme].append(cost)
            tick()
        results[workers] = {
            scheme: {column: Spread.of([one[column] for one in its]) for column in _COLUMNS}
            for scheme, its in measured.items()
        }
    return results


def one_round(optimizer: str, scheme: str, workers: int, n_params: int, n_updates: int) -> dict[str, float]:
    """Each of `workers` threads reads, pushes and sees applied `n_updates` gradients of `n_params` ones."""
    region = _core.Region.create(workers=workers, parameters=n_params, scheme=scheme, optimizer=optimizer)
    observer = observer_of(region)
    observer.initialize(np.zeros(n_params, np.float32))
    learner = threading.Thread(target=serve_until_stopped, args=(learner_of(region),), daemon=True)
    spent, began, ended = np.zeros((workers, 3)), np.zeros(workers), np.zeros(workers)
    barrier = threading.Barrier(workers + 1, timeout=_START_DEADLINE_S)

    def work(worker: int) -> None:
        session = _core.Session(region, worker)
        gradients = np.ones((1, n_params), np.float32)
        barrier.wait()
        began[worker] = time.perf_counter()
        spent[worker] = session.submit_many(gradients, n_updates, 1.0)
        ended[worker] = time.perf_counter()
        session.close()

    threads = [threading.Thread(target=work, args=(worker,), daemon=True) for worker in range(workers)]
    try:
        if scheme == "queue":
            learner.start()
        for thread in threads:
            thread.start()
        barrier.wait()
        for thread in threads:
            thread.join()
    finally:
        observer.request_stop()
        if learner.is_alive():
            learner.join(_STOP_DEADLINE_S)
    ledger = observer.ledger()
    params = np.empty(n_params, np.float32)
    observer.read(params)
    read_us, push_us, apply_us = spent.mean(axis=0) / n_updates * 1e6
    return {
        "read_us": read_us,
        "push_us": push_us,
        "apply_us": apply_us,
        "updates_per_s": workers * n_updates / (ended.max() - began.min()),
        "retries_per_update": ledger["retries"] / ledger["applied"],
        "staleness_mean": ledger["staleness_sum"] / ledger["applied"],
        "lost": float(1.0 + params.mean(dtype=np.float64) / (workers * n_updates)),
    }


def measure_push(n_params: int, rounds: int, n_updates: int) -> dict[str, Spread]:
    """A push that nobody contends for against a plain copy plus an addition of as many floats, native and one thread.

    They take turns, gradient by gradient, on the same gradient; the push also looks whether it is finite. Each time
    holds one look at the clock.
    """
    each = -(-n_updates // _PIECES)
    push_us: list[float] = []
    plain_us: list[float] = []
    for _ in range(rounds):
        pieces = [_core.push_beside_copy_and_add(n_params, each) for _ in range(_PIECES)]
        for us, spent in zip((push_us, plain_us), zip(*pieces, strict=True), strict=True):
            us.append(statistics.median(spent) / each * 1e6)
    return {
        "push_us": Spread.of(push_us),
        "copy_and_add_us": Spread.of(plain_us),
        "times_copy_and_add": ratio(push_us, plain_us),
    }


def push_line(push: dict[str, Spread], n_params: int) -> str:
    times = push["times_copy_and_add"]
    return (
        f"A push of {n_params:,} floats that nobody contends for: {push['push_us'].median:.2f} us, "
        f"{times.median:.2f} ({times.minimum:.2f}-{times.maximum:.2f}) times a plain copy plus an addition of as many."
    )


def table(results: dict[int, dict[str, dict[str, Spread]]], n_params: int) -> Table:
    shown = Table(
        title=f"Update schemes, {n_params:,} floats, RMSProp: medians over the rounds, minimum and maximum below"
    )
    headings: dict[str, Callable[[Spread], str]] = {
        "read us": lambda s: s.text(1),
        "push us": lambda s: s.text(1),
        "apply us": lambda s: s.text(1),
        "updates/s": lambda s: s.text(0),
        "retries": lambda s: f"{s.median:.2f}",
        "stale": lambda s: f"{s.median:.2f}",
        "lost": lambda s: "0" if s.maximum == 0 else f"{s.median:.3%}",
    }
    for column in ("W", "scheme", *headings):
        shown.add_column(column, justify="left" if column == "scheme" else "right")
    for workers, schemes in results.items():
        for i, (scheme, figures) in enumerate(schemes.items()):
            cells = [text(figures[column]) for column, text in zip(_COLUMNS, headings.values(), strict=True)]
            shown.add_row(str(workers) if i == 0 else "", scheme, *cells)
        shown.add_section()
    return shown
