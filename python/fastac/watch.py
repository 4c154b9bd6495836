"""Heartbeats: who stands still, and since when."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from fastac import _core

STUCK_AFTER_S = 10.0  # every verb of a session is a sign of life, and so is every poll of its waits (updates.hpp)
LOOK_EVERY_S = 1.0


@dataclass
class _Standstill:
    heartbeat: int
    for_s: float = 0.0
    told: bool = False


class Watch:
    """Follows the heartbeats of some seats. Each standstill of STUCK_AFTER_S is told once."""

    def __init__(self, observer: _core.Session) -> None:
        self._observer = observer
        self._seats: dict[int, _Standstill] = {}
        self._looked = time.monotonic()

    def follow(self, seat: int) -> None:
        """From now on; what it has stood still before does not count."""
        self._seats[seat] = _Standstill(self._observer.heartbeat(seat))

    def forget(self, seat: int) -> None:
        self._seats.pop(seat, None)

    def stuck(self, seat: int) -> bool:
        """Whether its standstill is as long as that now."""
        return seat in self._seats and self._seats[seat].for_s >= STUCK_AFTER_S

    def news(self) -> dict[int, float]:
        """{seat: how long it has stood still, in seconds} of those not yet told. Looks once in LOOK_EVERY_S."""
        now = time.monotonic()
        passed = now - self._looked
        if passed < LOOK_EVERY_S:
            return {}
        self._looked = now
        news = {}
        for seat, its in self._seats.items():
            heartbeat = self._observer.heartbeat(seat)
            if heartbeat != its.heartbeat:
                self._seats[seat] = _Standstill(heartbeat)
                continue
            # After a longer pause we did not look ourselves: Ctrl-Z in a terminal stops all, and the workers with us.
            its.for_s += min(passed, 2 * LOOK_EVERY_S)
            if self.stuck(seat) and not its.told:
                its.told = True
                news[seat] = its.for_s
        return news


def kernel_state(task: str) -> str:
    """The letter that the kernel has for the state of /proc/<task>: R, S, D, T, ...; nothing if it is gone."""
    try:
        # The name of the program, in parentheses, may itself hold parentheses and spaces.
        return Path(f"/proc/{task}/stat").read_text().rpartition(") ")[2][:1]
    except OSError:
        return ""


def is_stopped(task: str) -> bool:
    """By a signal, or by a debugger."""
    return kernel_state(task) in ("T", "t")
