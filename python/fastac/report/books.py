"""The ledger, the machine and the notices: what stands on both kinds of page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fastac import machine
from fastac.report.parts import Html, element, joined, section, shown, table
from fastac.report.reading import number, part

_LEDGER = {
    "begun": "pushes that started",
    "published": "pushes that completed",
    "aborted": "pushes that their worker did not live to complete",
    "applied": "optimizer steps made, one for each gradient",
    "rejected_nonfinite": "gradients with NaN or infinity, not applied",
    "rejected_stale": "gradients staler than max_staleness, not applied",
    "pending": "published, neither applied nor rejected",
    "merged": "gradients summed into another one before the push",
    "retries": "builds thrown away because another worker committed first",
    "staleness_mean": "updates between read and apply, mean",
    "staleness_p95": "updates between read and apply, not exceeded by 95 %",
    "staleness_max": "updates between read and apply, largest",
    "lost_fraction": "hogwild: part of the watched additions that got lost",
    "deaths": "worker processes that died",
    "restarts": "those of them that were replaced",
    "lost": "gradients of a cluster's nodes that died with them, or with the server",
}


def ledger_rows(books: Mapping[str, Any]) -> list[list[object]]:
    return [[name, number(books, name), meaning] for name, meaning in _LEDGER.items() if books.get(name) is not None]


def balance(books: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether the books balance, and the two equations with their numbers."""
    n = {name: number(books, name) for name in _LEDGER}
    rejected = n["rejected_nonfinite"] + n["rejected_stale"]
    lost = n["lost"] if books.get("lost") else 0
    balanced = (
        n["begun"] == n["published"] + n["aborted"]
        and n["published"] == n["applied"] + rejected + n["pending"] + lost
        and n["pending"] == 0
    )
    return balanced, (
        f"{shown(n['begun'])} begun = {shown(n['published'])} published + {shown(n['aborted'])} aborted; "
        f"{shown(n['published'])} published = {shown(n['applied'])} applied + {shown(rejected)} rejected "
        f"+ {shown(n['pending'])} pending{f' + {shown(lost)} lost' if lost else ''}"
    )


def where(record: Mapping[str, Any]) -> Html:
    """The machine and the versions."""
    described = part(record, "machine")
    if not described:
        return section("machine", "Machine and versions", element("p", "Not recorded."))
    rows = [(name, value) for name, value in described.items() if value != {}]
    busy = ""
    if machine_was_busy(record):
        busy = element("p", "Other work was going on: trust ratios, not times.", class_="notice")
    return section("machine", "Machine and versions", busy, table("Measured on", ["", ""], rows))


def machine_was_busy(record: Mapping[str, Any]) -> bool:
    described = part(record, "machine")
    known = {name: number(described, name) for name in ("load_1min", "cores")}
    return not any(map(math.isnan, known.values())) and machine.busy(known)


def notices(lines: Sequence[object]) -> Html:
    """What a reader has to know before the figures."""
    if not lines:
        return Html()
    return element("div", *(element("p", line) for line in lines), class_="notice", role="note")


def commands(lines: Sequence[str | None], note: str) -> Html:
    known = [line for line in lines if line]
    body = joined([element("pre", element("code", line), tabindex="0") for line in known])
    return section("command", "Command", body or element("p", "Not recorded."), element("p", note) if known else "")


def facts(pairs: Mapping[str, object]) -> Html:
    """Figures that one looks for first."""
    its = [element("div", element("dt", name), element("dd", value)) for name, value in pairs.items()]
    return element("dl", *its, class_="facts")
