"""The envs of one worker, in groups that roll out in turn, and their state as arrays: for checkpoints and copies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

Arrays = dict[str, npt.NDArray[Any]]


class Stateful(Protocol):
    """What steps some envs: a Collector, or the native engine's worker."""

    def get_state(self) -> Arrays: ...
    def set_state(self, saved: Arrays) -> None: ...


Member = TypeVar("Member", bound=Stateful)


class Groups(Generic[Member]):
    """The envs of one worker, in groups of one size that roll out in turn."""

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members
        self._next = 0

    @property
    def current(self) -> Member:
        """The group whose turn it is."""
        return self._members[self._next]

    def advance(self) -> None:
        """It has rolled out: now it is the next one's turn."""
        self._next = (self._next + 1) % len(self._members)

    def get_state(self) -> Arrays:
        """That of all groups, one row for each env, and whose turn it is."""
        states = [member.get_state() for member in self._members]
        rows = {name: np.concatenate([state[name] for state in states]) for name in states[0]}
        return {**rows, "next_group": np.array([self._next])}

    def set_state(self, saved: Mapping[str, npt.NDArray[Any]]) -> None:
        """Goes on, bit for bit, where `get_state` was called. Raises KeyError, TypeError or ValueError for no state."""
        rows = {name: column for name, column in saved.items() if name != "next_group"}
        n = len(rows["env_elapsed"]) // len(self._members)
        for k, member in enumerate(self._members):
            member.set_state({name: column[k * n : (k + 1) * n] for name, column in rows.items()})
        self._next = int(saved["next_group"][0])
