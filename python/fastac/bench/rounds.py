"""Measures several cases in turn, round by round, so that a machine whose speed drifts drifts for all of them alike."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Spread:
    """Minimum, median and maximum over the rounds."""

    minimum: float
    median: float
    maximum: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        return cls(min(values), statistics.median(values), max(values))

    def text(self, digits: int) -> str:
        """The median, and below it minimum and maximum."""
        return f"{self.median:,.{digits}f}\n[dim]{self.minimum:,.{digits}f}-{self.maximum:,.{digits}f}[/dim]"


Tick = Callable[[], None]  # called after each piece of work that a person waits for


def interleave(cases: Mapping[str, Callable[[], float]], rounds: int, tick: Tick) -> dict[str, list[float]]:
    """Calls every case once a round, and once before the first to warm up. A case returns what it measured."""
    for case in cases.values():
        case()
    figures: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            figures[name].append(case())
        tick()
    return figures


def ratio(numerators: list[float], denominators: list[float]) -> Spread:
    """Spread of the ratios, round by round."""
    return Spread.of([a / b for a, b in zip(numerators, denominators, strict=True)])


def as_json(results: Any) -> Any:
    """Nested results with their Spreads as {minimum, median, maximum}."""
    if isinstance(results, Mapping):
        return {str(key): as_json(value) for key, value in results.items()}
    return asdict(results) if isinstance(results, Spread) else results
