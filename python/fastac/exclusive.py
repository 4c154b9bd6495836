"""One thread at a time: methods that refuse a second thread instead of mixing its work with the first one's."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

from fastac.errors import EnvInUseError

Method = TypeVar("Method", bound=Callable[..., Any])


def exclusive(method: Method) -> Method:
    """A method that one thread at a time may be inside of, together with all others of the same object that are so.

    The object holds a `threading.RLock` in `_inside`. A thread may call one such method from another.

    Raises:
        EnvInUseError: another thread is inside. Nothing has happened then.
    """

    @functools.wraps(method)
    def guarded(self: Any, *args: Any, **kwargs: Any) -> Any:
        inside = self._inside
        if not inside.acquire(blocking=False):
            raise EnvInUseError(
                f"{type(self).__name__}.{method.__name__}: another thread is using this env; "
                "expected an env for each thread, or a lock around its use"
            )
        try:
            return method(self, *args, **kwargs)
        finally:
            inside.release()

    return cast(Method, guarded)
