"""The page of `fastac bench scaling`. In: a ScalingSource. Out: its title and its sections."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from fastac.report import books
from fastac.report.drawing import SLOTS, marks
from fastac.report.page import Page
from fastac.report.parts import Html, element, section, shown, table
from fastac.report.reading import ScalingSource, number, part

_FIGURES = {
    "env_steps_per_s": "env steps per second",
    "times_one_worker": "times one worker",
    "env_steps_per_cpu_s": "env steps per CPU-second",
}
_SPREAD = ("median", "minimum", "maximum")


def scaling_page(source: ScalingSource) -> Page:
    record = source.record
    figures = part(record, "figures")
    forms = {name: part(figures, name) for name in figures}
    forms = {
        name: by_workers for name, by_workers in forms.items() if by_workers and all(map(str.isdecimal, by_workers))
    }
    words = record.get("command")
    command = " ".join(map(shlex.quote, ["fastac", *map(str, words)])) if isinstance(words, list) else None
    body = [
        books.notices(source.notices),
        _scaling(forms, shown(number(record, "rounds"))),
        books.where(record),
        books.commands([command], "As it was given."),
    ]
    return Page(f"Scaling: {source.folder.resolve().name}", body, {}, axes=False)


def _scaling(forms: Mapping[str, Mapping[str, Any]], rounds: str) -> Html:
    if not forms:
        return section("scaling", "Scaling", element("p", "Not recorded."))
    workers = sorted({int(w) for by_workers in forms.values() for w in by_workers})
    its = dict(list(forms.items())[:SLOTS])
    note = f"Medians of {rounds} rounds, minimum and maximum. What runs apart make is what the machine itself allows."
    pictures = [
        marks(
            key.replace("_", "-"),
            title[0].upper() + title[1:],
            [f"{w:,}" for w in workers],
            {name: [_spread(part(by_workers, str(w)), key) for w in workers] for name, by_workers in its.items()},
            "workers",
            title,
            note,
            zero=True,
        )
        for key, title in list(_FIGURES.items())[:2]
    ]
    rows = [
        [name, int(w), *(_text(_spread(part(by_workers, w), key)) for key in _FIGURES)]
        for name, by_workers in forms.items()
        for w in sorted(by_workers, key=int)
    ]
    numbers = table("Native training on CartPole-v1", ["", "workers", *_FIGURES.values()], rows)
    return section("scaling", "Scaling", element("div", *pictures, class_="figures"), numbers)


def _spread(figures: Mapping[str, Any], key: str) -> tuple[float, float, float]:
    median, minimum, maximum = (number(part(figures, key), end) for end in _SPREAD)
    return median, minimum, maximum


def _text(spread: tuple[float, float, float]) -> str:
    median, minimum, maximum = map(shown, spread)
    return f"{median} ({minimum} to {maximum})"
