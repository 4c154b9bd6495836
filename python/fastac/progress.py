"""What a person sees during a run: a bar on a terminal, plain lines elsewhere, nothing for the first two seconds."""

from __future__ import annotations

import math
import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

_SILENT_S = 2.0
_LINE_EVERY_S = 10.0


class TrainingProgress:
    """Shows env steps, env steps per second, mean episode return and the time left, on stderr.

    A context manager, so that the terminal is in order again however the run ends.
    """

    def __init__(self, total_timesteps: int, label: str, *, visible: bool) -> None:
        self.total = total_timesteps
        self.label = label
        self.visible = visible
        self._console = Console(stderr=True)
        self._start = time.monotonic()
        self._next_line = self._start + _SILENT_S
        self._bar: Progress | None = None
        self._task = TaskID(0)

    def __enter__(self) -> TrainingProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, env_steps: int, mean_return: float) -> None:
        now = time.monotonic()
        if not self.visible or now - self._start < _SILENT_S:
            return
        rate = env_steps / (now - self._start)
        shown_return = "-" if math.isnan(mean_return) else f"{mean_return:.1f}"
        if self._console.is_terminal:
            bar = self._bar or self._open_bar()
            bar.update(
                self._task,
                completed=min(env_steps, self.total),
                rate=f"{rate:,.0f}",
                mean_return=shown_return,
            )
        elif now >= self._next_line:
            self._next_line = now + _LINE_EVERY_S
            left = (self.total - env_steps) / rate if rate > 0 else math.inf
            print(
                f"{self.label}: {env_steps:,} of {self.total:,} env steps, {rate:,.0f} per s, return {shown_return}, "
                f"{left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )

    def _open_bar(self) -> Progress:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} env steps"),
            TextColumn("{task.fields[rate]}/s"),
            TextColumn("return {task.fields[mean_return]}"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._task = self._bar.add_task(self.label, total=self.total, rate="0", mean_return="-")
        self._bar.start()
        return self._bar
