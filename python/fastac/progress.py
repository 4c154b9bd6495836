"""What a person sees while they wait: a bar on a terminal, plain lines elsewhere, nothing for the first two seconds."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from fastac.words import counted

_SILENT_S = 2.0
_LINE_EVERY_S = 5.0
_ROOM_FOR_ECHO = 8


def can_draw(console: Console) -> bool:
    """Whether it is a terminal on which one can go back and draw again."""
    return console.is_terminal and not console.is_dumb_terminal


@dataclass(frozen=True)
class Narrower:
    """Leaves room at its right: a terminal writes ^C there, and a line that wraps is not wiped away at the end."""

    what: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from console.render(self.what, options.update(max_width=max(options.max_width - _ROOM_FOR_ECHO, 1)))


class _Bar(Progress):
    def get_renderable(self) -> RenderableType:
        return Narrower(super().get_renderable())


class WaitingProgress:
    """Shows how much of `total` is done, how fast, and the time left, on stderr.

    A context manager, so that the terminal is in order again however the work ends.
    """

    def __init__(self, total: int, label: str, unit: str, *, visible: bool = True) -> None:
        self.total = total
        self.label = label
        self.unit = unit
        self.visible = visible
        self._console = Console(stderr=True)
        self._opened = self._started = time.monotonic()
        self._done_before = 0
        self._next_line = 0.0
        self._bar: _Bar | None = None
        self._task = TaskID(0)

    def __enter__(self) -> WaitingProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def start(self, done: int = 0) -> None:
        """The work begins only now, with `done` of it done earlier: what came before does not count for its speed."""
        self._started = time.monotonic()
        self._done_before = done

    def update(self, done: int, note: str = "") -> None:
        """`note` stands beside the speed."""
        now = time.monotonic()
        if not self.visible or now - self._opened < _SILENT_S:
            return
        rate = (done - self._done_before) / (now - self._started) if now > self._started else 0.0
        if can_draw(self._console):
            bar = self._bar or self._open_bar()
            bar.update(self._task, completed=min(done, self.total), rate=_rate(rate), note=note)
        elif now >= self._next_line:
            self._next_line = now + _LINE_EVERY_S
            left = f"{max(0, self.total - done) / rate:.0f} s left" if rate > 0 else "time left unknown"
            parts = [f"{done:,} of {counted(self.total, self.unit)}", f"{_rate(rate)} per s", note, left]
            print(f"{self.label}: {', '.join(part for part in parts if part)}", file=sys.stderr, flush=True)

    def _open_bar(self) -> _Bar:
        self._bar = _Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.completed:,.0f}/" + counted(self.total, self.unit)),
            TextColumn("{task.fields[rate]}/s"),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._task = self._bar.add_task(self.label, total=self.total, rate="0", note="")
        self._bar.start()
        return self._bar


def return_note(mean_return: float) -> str:
    """The mean return of the latest episodes, in the words of a progress line."""
    return "no episode yet" if math.isnan(mean_return) else f"return {mean_return:.1f}"


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 or rate == 0 else f"{rate:.1f}"
