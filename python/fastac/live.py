"""A training as one watches it in a terminal: returns, pace, the staleness of each worker, the books.

In: the Training that callbacks see. Out: a view on stderr, drawn anew four times a second.
"""

from __future__ import annotations

import math
import sys
import time
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fastac.progress import Narrower, can_draw
from fastac.shared import Ledger
from fastac.signals import signals_deferred
from fastac.staleness import WorkerShare
from fastac.training import BaseCallback, Training
from fastac.updates import rest_after
from fastac.words import counted

_EVERY_S = 0.25
_POINTS = 256  # of a figure over time: as many as a wide terminal has columns
_RAMPS = ("▁▂▃▄▅▆▇█", "_.-=+*%#")  # the latter where the terminal knows ASCII alone
_LABEL, _FIGURE, _ENDS, _COUNT = 12, 14, 16, 11  # columns
_FROM = (0, 1, 2, 3, 4, 8, 16, 32, 64)  # the staleness at which the bars of a worker begin; the last has no end
_MOST_LINES, _WORKER = 8, 36  # of workers, where there is room for more side by side, and columns of one
_GAP = "   "
_OTHER_LINES = 13  # that are not of workers


class LiveView(BaseCallback):
    """Shows the training in the terminal: mean return and env steps per second over time, staleness, the ledger.

    Of each worker the mean, the 95th percentile and the maximum of the staleness of its applied gradients, and bars for
    how many were as stale. The view is on stderr, and is wiped away at the end, however that comes. Where stderr is no
    terminal, there is a plain line every 5 s, as with learn(progress_bar=True). Drawing takes a twentieth of the time
    at most.
    """

    every_s = _EVERY_S

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._live: Live | None = None

    def on_training_start(self, training: Training) -> None:
        self._view = View(training.title)
        training.show_progress(not can_draw(self._console))

    @signals_deferred()  # one that cut an escape sequence would leave the terminal in disorder
    def on_step(self, training: Training) -> None:
        if not can_draw(self._console):
            return
        started = time.monotonic()
        if self._live is None:
            # What is printed meanwhile comes to stand above the view; what goes to a file or a pipe is left alone.
            redirect = sys.stdout.isatty()
            self._live = Live(console=self._console, auto_refresh=False, transient=True, redirect_stdout=redirect)
            self._live.start()
        self._view.look(training)
        self._live.update(Narrower(self._view), refresh=True)
        self.every_s = max(_EVERY_S, rest_after(time.monotonic() - started))

    @signals_deferred()
    def on_training_end(self, training: Training) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


class OverTime:
    """A figure over the time of a run, as means of equally long stretches of it, from 1 to 2 * _POINTS of them."""

    def __init__(self) -> None:
        self.values: list[float] = []
        self._each = 1  # figures in a stretch
        self._pending: list[float] = []

    def append(self, value: float) -> None:
        self._pending.append(value)
        if len(self._pending) == self._each:
            self.values.append(sum(self._pending) / self._each)
            self._pending.clear()
        if len(self.values) == 2 * _POINTS:
            self.values = np.reshape(self.values, (-1, 2)).mean(axis=1).tolist()
            self._each *= 2


def sparkline(values: Sequence[float], width: int, ramp: str, low: float, high: float) -> str:
    """Bars of means of the values, in `width` columns or as many as there are values; blank where there is none."""
    width = min(width, len(values))
    if width < 1:
        return ""
    ends = np.linspace(0, len(values), width + 1).astype(int)
    means = np.add.reduceat(np.asarray(values, np.float64), ends[:-1]) / np.diff(ends)
    levels = ((means - low) / (high - low) if high > low else means * 0.0 + 1.0) * (len(ramp) - 1)
    return "".join(" " if math.isnan(level) else ramp[round(level)] for level in levels)


class View:
    """What is shown, for a terminal of any size."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._returns, self._paces = OverTime(), OverTime()
        self._first = -1  # env step that this learn() began with
        self._seen = 0.0, 0  # when, and at which env step
        self._pace_now = 0.0  # env steps per second since then

    def look(self, training: Training) -> None:
        """Takes the figures of now."""
        now = time.monotonic()
        self._done, self._total = training.env_steps, training.total_timesteps
        self._books: Ledger = training.ledger()
        self._return = training.ep_rew_mean
        self._pace = training.scalars(self)["time/fps"]
        if self._first < 0:
            self._first = self._done
        if self._done > self._first:  # else workers are starting
            self._pace_now = (self._done - self._seen[1]) / (now - self._seen[0])
            self._paces.append(self._pace_now)
            self._returns.append(self._return)
        self._seen = now, self._done

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, ramp = options.max_width, _RAMPS[options.ascii_only]
        height = options.height or console.height
        yield from (_cut(Text(self._title_line(), "bold")), self._progress(width), Text())
        yield from map(_cut, self._over_time(width, ramp))
        yield Text()
        yield from map(_cut, _staleness(self._books.workers, width, height - _OTHER_LINES, ramp))
        yield Text()
        yield from map(_cut, _gradients(self._books))

    def _title_line(self) -> str:
        workers = len(self._books.workers)
        return f"{self._title}, {counted(workers, 'workers')}" if workers > 1 else self._title

    def _progress(self, width: int) -> RenderableType:
        part = min(self._done / self._total, 1.0)
        left = (self._total - self._done) / self._pace if self._pace > 0 else math.nan
        told = [f"{part:.0%}", f"{self._done:,}/{counted(self._total, 'env steps')}"]
        told += [] if math.isnan(left) else [f"{_clock(max(left, 0.0))} left"]
        words = "  ".join(told)
        line = Table.grid(padding=(0, 2, 0, 0))
        line.add_row(ProgressBar(1.0, part, width=max(width - len(words) - 2, 1)), Text(words, no_wrap=True))
        return line

    def _over_time(self, width: int, ramp: str) -> Iterator[Text]:
        room = width - _LABEL - _FIGURE - _ENDS
        known = [value for value in self._returns.values if not math.isnan(value)]
        low, high = min(known, default=0.0), max(known, default=0.0)
        now = "no episode yet" if math.isnan(self._return) else f"{self._return:,.1f}"
        line = sparkline(self._returns.values, room, ramp, low, high)
        yield _figure("return", now, line, f"{low:,.1f} to {high:,.1f}" if known else "")
        fastest = max(self._paces.values, default=0.0)
        line = sparkline(self._paces.values, room, ramp, 0.0, fastest)
        yield _figure("env steps/s", f"{self._pace_now:,.0f}", line, f"0 to {fastest:,.0f}" if line else "")


def _figure(name: str, now: str, line: str, ends: str) -> Text:
    """`ends`: what the lowest and the highest bar of the line stand for."""
    return Text.assemble((f"{name:<{_LABEL}}", "dim"), f"{now:>{_FIGURE}} ", (line, "cyan"), (f" {ends}", "dim"))


def _cut(line: Text) -> Text:
    """At the edge, rather than wrapped."""
    line.no_wrap, line.overflow = True, "ellipsis"
    return line


def _staleness(workers: Sequence[WorkerShare], width: int, most_lines: int, ramp: str) -> Iterator[Text]:
    """A line for each worker; side by side where they are many, and no more than there is room for."""
    columns = max(1, min(width // _WORKER, math.ceil(len(workers) / _MOST_LINES)))
    lines = min(math.ceil(len(workers) / columns), max(most_lines, 1))
    alone = columns == 1
    label, bar = (_LABEL, 2) if alone else (3, 1)
    if not alone:
        yield Text("staleness, by worker", "dim")
    bars = f"0{f'{_FROM[-1]}+':>{len(_FROM) * bar - 1}}"
    heading = f"{'staleness' if alone else '':<{label}}{'mean':>7}{'p95':>6}{'max':>7}  {bars}"
    yield Text(heading + (columns - 1) * f"{_GAP}{heading}", "dim")
    for at in range(lines):
        cells: list[Text] = []
        for one in workers[at : lines * columns : lines]:
            name = (f"{'worker ' if alone else ''}{one.worker}".ljust(label), "dim")
            figures = f"{one.staleness_mean:>7,.2f}{one.staleness_p95:>6,}{one.staleness_max:>7,}  "
            its_bars = ("".join(each * bar for each in bars_of(one.staleness, ramp)), "cyan")
            cells.append(Text.assemble(_GAP if cells else "", name, figures, its_bars))
        yield Text.assemble(*cells)
    if rest := workers[lines * columns :]:
        stalest = max(one.staleness_max for one in rest)
        yield Text(f"{counted(len(rest), 'more workers')}, staleness at most {stalest:,}", "dim")


def bars_of(histogram: Mapping[int, int], ramp: str) -> str:
    """One for each of _FROM: how many gradients were as stale, beside the most frequent; blank where there was none."""
    counts = [0] * len(_FROM)
    for staleness, count in histogram.items():
        counts[bisect_right(_FROM, staleness) - 1] += count
    most = max(counts)
    return "".join(ramp[math.ceil(count / most * len(ramp)) - 1] if count else " " for count in counts)


def _gradients(books: Ledger) -> Iterator[Text]:
    figures = {
        "applied": (books.applied, ""),
        "rejected": (books.rejected_nonfinite + books.rejected_stale, "yellow"),
        "aborted": (books.aborted, "yellow"),
        "retries": (books.retries, ""),
        "deaths": (books.deaths, "red"),
    }
    yield Text(f"{'gradients':<{_LABEL}}" + "".join(f"{name:>{_COUNT}}" for name in figures), "dim")
    counts = [(f"{count:>{_COUNT},}", style if count else "") for count, style in figures.values()]
    yield Text.assemble(" " * _LABEL, *counts)


def _clock(seconds: float) -> str:
    """59.2 -> "0:59"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
