"""What nodes and server say to each other. Plain data: whatever carries it may lose, repeat or delay it."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fastac import _core
from fastac.cluster.books import Books
from fastac.config import Config

Float32 = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

SENDS = ("steps", "gradients")
SYNCHRONOUS = "round"  # A2C: one gradient of each node makes one step


class Refused(Exception):
    """The server does not take this call, and never will: another version, a stranger, or one whose time is over."""


class Unknown(Exception):
    """The server does not know this member: it was restored from a checkpoint, or took it for dead. Join again."""


@dataclass(frozen=True)
class Hello:
    """A node wants to join.

    Attributes:
        name: of its place, "node 0".
        token: of this agent; the driver takes it back when it has seen it dead.
        fingerprint: see `fingerprint`.
        attempt: 0, 1, 2 ...: which membership of this agent's it is to be. A repeated call asks for the same one.
        before: its member number, and `books` what it had done, where it was a member of a server that died.
    """

    name: str
    token: str
    fingerprint: dict[str, Any]
    attempt: int = 0
    before: int | None = None
    books: Books | None = None


@dataclass(frozen=True)
class Welcome:
    """It is a member.

    Attributes:
        member: its number, never given twice.
        joined: how often its place was taken before.
        params, state: float32[P], float32[S, P].
        clock: the server's monotonic clock, in seconds.
    """

    member: int
    joined: int
    params: Float32
    state: Float32
    version: int
    env_steps: int
    statistics: Floats
    clock: float


@dataclass(frozen=True)
class Delivery:
    """What a node has done since its last one.

    Attributes:
        seq: 1, 2, 3 ...: a repeated one is answered again, and nothing else.
        values: its parameters (steps), or the sum of its gradients (gradients, round), float32[P]; None where shards
            have them already.
        books: all that it has done since it joined.
        rows: of its workers' logs, [n, LOG_COLUMNS], with the server's time.
        state: of its optimizer (steps), from time to time.
        statistics: packed, of all that it has seen since it joined.
        notes: warnings.
        last: it leaves, and all its workers have.
    """

    member: int
    seq: int
    values: Any
    books: Books
    rows: Floats
    state: Float32 | None = None
    statistics: Floats | None = None
    notes: tuple[str, ...] = ()
    last: bool = False


@dataclass(frozen=True)
class Answer:
    """What the others have done.

    Attributes:
        waiting: nothing yet: ask again (round: some have not delivered).
        values: the server's parameters, float32[P].
        others_env_steps: of all that is not this member's, so far.
        members: how many there are now.
        statistics: packed, of all others.
        stop: the run is over.
    """

    seq: int
    waiting: bool = False
    values: Any = None
    version: int = 0
    others_env_steps: int = 0
    members: int = 1
    statistics: Floats = field(default_factory=lambda: np.zeros(0))
    stop: bool = False


def fingerprint(config: Config, parameters: int) -> dict[str, Any]:
    """What must be equal on both sides."""
    from fastac import __version__

    return {
        "fastac": __version__,
        "layout": _core.LAYOUT_VERSION,
        "python": "{}.{}".format(*sys.version_info),
        "parameters": parameters,
        **{f"config.{name}": value for name, value in config.to_dict().items()},
    }


def differences(expected: dict[str, Any], got: dict[str, Any]) -> str:
    """In words, what of two fingerprints differs; empty where nothing does."""
    names = [name for name in {**expected, **got} if expected.get(name) != got.get(name)]
    return "; ".join(f"{name}: expected {expected.get(name)!r}, got {got.get(name)!r}" for name in names)
