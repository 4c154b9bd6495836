"""Ctrl-C and SIGTERM at moments when they would leave something half done."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

_deferring = False
_arrived: list[int] = []
_handlers: dict[int, Any] = {}  # those that were in force


@contextlib.contextmanager
def signals_deferred() -> Iterator[None]:
    """SIGINT and SIGTERM that arrive inside take effect at the end; inside another one, at the end of that.

    Outside the main thread, which gets them: no-op. A signal that is ignored stays ignored.

    A handler may raise between any two instructions, here too. So ours stands for the one it replaced wherever nothing
    is deferred: one that is left behind changes nothing.
    """
    global _deferring
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    if _deferring:
        yield
        return
    before = {number: _stood_for(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        _arrived.clear()
        for number, handler in before.items():
            if handler not in (signal.SIG_IGN, None):  # None: not Python's, and could not be put back
                _handlers[number] = handler
                signal.signal(number, _Note(handler))
        _deferring = True
        yield
    finally:
        _deferring = False
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)
        _raise_all(list(dict.fromkeys(_arrived)))


def let_signals_in() -> None:
    """For who waits inside signals_deferred: those that have arrived take effect now."""
    while _arrived and _deferring and threading.current_thread() is threading.main_thread():
        number = _arrived.pop(0)
        _act(number, sys._getframe(), _handlers[number])


class _Note:
    """Our handler, in the place of another one."""

    def __init__(self, handler: Any) -> None:
        self.handler = handler

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if _deferring:
            _arrived.append(number)
        else:
            _act(number, frame, self.handler)


def _stood_for(handler: Any) -> Any:
    return handler.handler if isinstance(handler, _Note) else handler


def _act(number: int, frame: FrameType | None, handler: Any) -> None:
    if callable(handler):
        handler(number, frame)
    else:
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)


def _raise_all(numbers: list[int]) -> None:
    """Each, also where the handler of one before it raises."""
    if numbers:
        try:
            signal.raise_signal(numbers[0])
        finally:
            _raise_all(numbers[1:])
