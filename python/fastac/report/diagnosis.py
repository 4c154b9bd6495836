"""What `fastac replay --diagnose` left in a run's folder, as a section of its page. In: a folder. Out: Html."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastac import rundir
from fastac.report.drawing import marks
from fastac.report.parts import Html, element, section, shown, table
from fastac.report.reading import number, part, parts

FILE = "diagnose.json"
_FEWEST = 10  # measurements that make a mark, as in diagnose.png
_COLUMNS = {
    "cosine": "cosine to twin",
    "fresh": "two fresh ones",
    "cost": "cost",
    "kl": "KL(acted || updated)",
    "spread": "spread",
    "pairwise": "pairwise",
}


def of_folder(folder: Path) -> Html:
    """Nothing where the run has not been diagnosed."""
    try:
        record = rundir.read_json(folder / FILE)
    except ValueError as error:
        return section("diagnosis", "Diagnosis", element("p", f"{FILE} is damaged: {error}", class_="notice"))
    if not record:
        return Html()
    told = record.get("sentences")
    return section(
        "diagnosis",
        "Diagnosis",
        element("p", f"{_counted(record)} Medians with their 95 % intervals."),
        element("div", *_pictures(record), class_="figures"),
        table("By staleness", ["staleness", "measured", *_COLUMNS.values()], _rows(record, "stale")),
        table("In the course of the run", ["env steps", "measured", *_COLUMNS.values()], _rows(record, "parts")),
        *(element("p", line) for line in (told if isinstance(told, list) else [])),
        element("p", record.get("legend", "")),
    )


def _pictures(record: Mapping[str, Any]) -> list[Html]:
    """Of a run in which nothing was stale there is nothing to see."""
    its = [one for one in parts(record, "stale") if number(one, "n") >= _FEWEST]
    if len(its) < 2:
        return []
    labels = [str(one.get("label", "-")) for one in its]

    def of(column: str) -> list[tuple[float, float, float]]:
        cells = [part(one, column) for one in its]
        return [(number(cell, "value"), number(cell, "low"), number(cell, "high")) for cell in cells]

    note = f"Medians with their 95 % intervals, of the stalenesses that were measured {_FEWEST} times and more."
    cosines = {"the applied gradient and its fresh twin": of("cosine"), "two fresh ones, of two workers": of("fresh")}
    far = {"from the policy that acted to the one that was updated": of("kl")}
    return [
        marks("diagnosis-cosine", "Stale gradients and fresh ones", labels, cosines, "staleness", "cosine", note),
        marks(
            "diagnosis-kl",
            "How far the policy had moved",
            labels,
            far,
            "staleness",
            "KL divergence, nats",
            note,
            zero=True,
        ),
    ]


def _counted(record: Mapping[str, Any]) -> str:
    measured, updates = (shown(number(record, name)) for name in ("measured", "updates"))
    return f"{measured} of {updates} updates measured while the run was replayed."


def _rows(record: dict[str, Any], name: str) -> Sequence[Sequence[object]]:
    return [
        [one.get("label", "-"), number(one, "n"), *(_estimate(part(one, column)) for column in _COLUMNS)]
        for one in parts(record, name)
    ]


def _estimate(of: dict[str, Any]) -> str:
    value, low, high = (number(of, name) for name in ("value", "low", "high"))
    return shown(value) if low != low or low == high else f"{shown(value)} ({shown(low)} to {shown(high)})"
