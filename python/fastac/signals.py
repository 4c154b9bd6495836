"""Ctrl-C and SIGTERM at moments when they would leave something half done."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

_before: dict[int, Any] = {}  # the handlers that were in force; empty: nothing is deferred
_arrived: list[int] = []


@contextlib.contextmanager
def signals_deferred() -> Iterator[list[int]]:
    """SIGINT and SIGTERM that arrive inside take effect at the end; inside another one, at the end of that.

    Outside the main thread, which gets them: no-op. Yields the list of those that have arrived, for who wants to come
    to the end sooner.
    """
    if threading.current_thread() is not threading.main_thread():
        yield []
        return
    if _before:
        yield _arrived
        return
    _arrived.clear()
    for number in (signal.SIGINT, signal.SIGTERM):
        _before[number] = signal.getsignal(number)
        signal.signal(number, lambda arrived, _: _arrived.append(arrived))
    try:
        yield _arrived
    finally:
        for which, handler in _before.items():
            _restore(which, handler)
        _before.clear()
        if _arrived:
            signal.raise_signal(_arrived[0])


def let_signals_in() -> None:
    """For who waits inside signals_deferred: one that has arrived takes effect now."""
    if _arrived and _before and threading.current_thread() is threading.main_thread():
        number = _arrived.pop(0)
        deferring = signal.getsignal(number)
        _restore(number, _before[number])
        try:
            signal.raise_signal(number)
        finally:
            signal.signal(number, deferring)


def _restore(number: int, handler: Any) -> None:
    signal.signal(number, signal.SIG_DFL if handler is None else handler)
