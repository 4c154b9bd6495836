"""What each worker brought to a run, and how stale: a histogram and a table. In: the ledger of run.json."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastac.metrics import Floats
from fastac.report.drawing import SLOTS, bars
from fastac.report.parts import Html, element, shown, table
from fastac.report.reading import number, part, parts

_BINS = (0, 1, 2, 3, 4, 8, 16, 32, 64, 256, 1024, 4096)  # lower ends, each where a bucket begins
_COLUMNS = {
    "updates": "updates",
    "env_steps": "env steps",
    "env_steps_per_s": "env steps per second",
    "staleness_mean": "staleness, mean",
    "staleness_p95": "p95",
    "staleness_max": "largest",
    "rejected_stale": "rejected as stale",
    "rejected_nonfinite": "as not finite",
}


_OF_NODES = {
    "updates": "updates",
    "env_steps": "env steps",
    "deliveries": "exchanges with the server",
    "lost": "gradients lost",
    "staleness_mean": "staleness, mean",
    "staleness_p95": "p95",
    "staleness_max": "largest",
}


def staleness_bars(ledger: Mapping[str, Any]) -> Html:
    """How many updates came how late; by worker, as long as there are colours for them."""
    whole = _in_bins(part(ledger, "staleness"))
    applied = whole.sum()
    if applied == 0:
        return element("p", "No histogram: the ledger holds none.")
    workers = {f"worker {shown(number(its, 'worker'))}": _in_bins(part(its, "staleness")) for its in _workers(ledger)}
    last = int(np.flatnonzero(whole)[-1]) + 1
    bins = [*itertools.pairwise(_BINS), (_BINS[-1], None)][:last]
    labels = {str(low): _in_words(low, high) for low, high in bins}
    columns = {name: (100 * counts[:last] / applied).tolist() for name, counts in {"all": whole, **workers}.items()}
    stacked = list(workers) if 1 < len(workers) <= SLOTS else ["all"]
    note = f"Of all {shown(int(applied))} updates, those that the log leaves out, too."
    return bars("staleness-bars", "Staleness of the updates", labels, columns, stacked, "updates", note)


def workers_table(ledger: Mapping[str, Any]) -> Html:
    """A row for each worker."""
    rows = [
        [f"worker {shown(number(its, 'worker'))}", *(number(its, name) for name in _COLUMNS)]
        for its in _workers(ledger)
    ]
    return table("By worker, with those before it in its seat", ["", *_COLUMNS.values()], rows) if rows else Html()


def nodes_table(ledger: Mapping[str, Any]) -> Html:
    """A row for each node of a cluster; nothing for a run on one machine."""
    rows = [[str(its.get("name")), *(number(its, name) for name in _OF_NODES)] for its in parts(ledger, "nodes")]
    caption = "By node, with those before it in its place; staleness between nodes"
    return table(caption, ["", *_OF_NODES.values()], rows) if rows else Html()


def _in_words(low: int, high: int | None) -> str:
    if high is None:
        return f"{low} or more"
    return str(low) if low + 1 == high else f"{low}-{high - 1}"


def _workers(ledger: Mapping[str, Any]) -> list[dict[str, Any]]:
    return parts(ledger, "workers")


def _in_bins(histogram: Mapping[str, Any]) -> Floats:
    counts = np.zeros(len(_BINS))
    for low in histogram:
        if low.isdecimal() and (n := number(histogram, low)) > 0:
            counts[np.searchsorted(_BINS, int(low), side="right") - 1] += n
    return counts
