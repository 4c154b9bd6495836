"""One call across the boundary: counted, and its outcome judged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

BAD_ARGUMENT = (TypeError, ValueError, IndexError, OverflowError)
DOCUMENTED = (*BAD_ARGUMENT, RuntimeError, TimeoutError, OSError, MemoryError)
Errors = type[Exception] | tuple[type[Exception], ...]


class Caller:
    """Makes the calls. Not one may end otherwise than with a value or a documented exception that says something."""

    def __init__(self) -> None:
        self.calls = 0
        self.refused = 0

    def __call__(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        fits: bool = True,
        raises: Errors = (),
        may: Errors = (),
        **named: Any,
    ) -> Any:
        """What function(*arguments, **named) returned, or the exception that it raised.

        Args:
            fits: every argument is one that it takes; one that it does not take must be refused.
            raises: what it must raise, whatever the arguments.
            may: what it may raise.
        """
        raises, may = (e if isinstance(e, tuple) else (e,) for e in (raises, may))
        self.calls += 1
        try:
            returned = function(*arguments, **named)
        except DOCUMENTED as error:
            self.refused += 1
            allowed = raises + may + (() if fits else BAD_ARGUMENT)
            if str(error) and isinstance(error, allowed):
                return error
            outcome: Any = error
        else:
            if fits and not raises:
                return returned
            allowed, outcome = raises or BAD_ARGUMENT, returned
        expected = " or ".join(error.__name__ for error in allowed) or "a value"
        what = f"{getattr(function, '__name__', function)}{arguments}{named}"
        raise AssertionError(f"expected {expected}, got {outcome!r} of {what}")


def failed(outcome: Any) -> bool:
    return isinstance(outcome, Exception)
