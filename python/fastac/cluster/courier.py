"""A node's calls of its server: one at a time, each with a deadline and bounded retries, over a link that may lose,
delay or repeat them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Protocol

from fastac.cluster.messages import Answer, Hello, Welcome

_LOOK_S = 0.05  # between two looks at the clock


class ServerLostError(Exception):
    """The server is dead, or gives no answer in time. Another may have taken its place."""


class CallLostError(Exception):
    """This call will not be answered; the server may live."""


class Pending(Protocol):
    """A call under way."""

    def done(self, wait_s: float) -> bool:
        """Whether it is over, or is within that time. Raises as `take`."""

    def take(self) -> Any:
        """What came of it, once it is done. Raises what the server raised, CallLostError or ServerLostError."""


class Link(Protocol):
    """What carries calls to the server (actors.py: Ray)."""

    def call(self, verb: str, message: Any) -> Pending: ...
    def reconnect(self) -> None:
        """To the server that there is now. Raises ServerLostError where there is none yet."""


@dataclass(frozen=True)
class Patience:
    """How long, and how often.

    Attributes:
        deadline_s: after which a call is made again.
        retries: how often, before the server is taken for lost.
        outage_s: after which a node without a server gives up.
    """

    deadline_s: float = 5.0
    retries: int = 3
    outage_s: float = 60.0


class Courier:
    """One call at a time.

    Attributes:
        retried: calls that were made again so far.
        since: when the call under way was first made; None where there is none.
    """

    def __init__(self, link: Link, patience: Patience) -> None:
        self._link = link
        self._patience = patience
        self._pending: Pending | None = None
        self._call: tuple[str, Any] = ("", None)
        self._until = self._give_up = 0.0
        self._tries = 0
        self.retried = 0
        self.since: float | None = None

    def begin(self, verb: str, message: Any) -> None:
        """The next call; the one before it is over."""
        self._call = (verb, message)
        self._tries = 0
        self.since = time.monotonic()
        self._give_up = self.since + self._patience.deadline_s * (self._patience.retries + 1)
        self._send()

    def poll(self, wait_s: float = 0.0) -> Any:
        """Its answer, if it is there within that time; else None. Raises what the server raised, or ServerLostError."""
        assert self._pending is not None
        try:
            is_done = self._pending.done(wait_s)
            answer = self._pending.take() if is_done else None
        except CallLostError as error:
            if time.monotonic() > self._give_up:
                raise ServerLostError(f"no answer to {self._call[0]}: {error}") from error
            time.sleep(_LOOK_S)
            self.retried += 1
            self._send()
            return None
        if is_done:
            if isinstance(answer, Answer) and answer.waiting:
                self._send()
                return None
            self._pending, self.since = None, None
            return answer
        if time.monotonic() > self._until:
            self._again()
        return None

    def ask(self, verb: str, message: Any) -> Any:
        """Begins, and waits for the answer."""
        self.begin(verb, message)
        while (answer := self.poll(_LOOK_S)) is None:
            pass
        return answer

    def _again(self) -> None:
        self._tries += 1
        if self._tries > self._patience.retries:
            raise ServerLostError(
                f"no answer to {self._call[0]} within {self._patience.deadline_s:g} s, {self._tries} times"
            )
        self.retried += 1
        self._send()

    def _send(self) -> None:
        self._pending = self._link.call(*self._call)
        self._until = time.monotonic() + self._patience.deadline_s


def joined(courier: Courier, link: Link, hello: Hello, patience: Patience) -> Welcome:
    """Asks until a server has taken this node as a member. Raises Refused, or ServerLostError after `outage_s`."""
    until = time.monotonic() + patience.outage_s
    while True:
        try:
            link.reconnect()
            welcome: Welcome = courier.ask("join", hello)
            return welcome
        except ServerLostError:
            if time.monotonic() > until:
                raise
            time.sleep(_LOOK_S)
