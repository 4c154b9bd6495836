"""The server's vectors: parameters and optimizer state, and what each member was given last. A part of them where one
server is not enough.

In: what a member delivers. Out: the parameters after it, which are what its next delivery counts from.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastac import _core
from fastac.config import Config
from fastac.shared import create_region, observer_of

Float32 = npt.NDArray[np.float32]


@dataclass
class _Given:
    """What a member has: the parameters of an edition, and the latest optimizer state that it told of."""

    params: Float32
    edition: int
    state: Float32 | None = None


class Shard:
    """float32[n] of the parameters. Not thread-safe; each change is one call, and whole or not at all.

    A member's steps are the difference between the parameters that it delivers and those that it was given. Where
    nobody else has changed them meanwhile, what it delivers is taken as it is: one node alone trains to the same bits
    as without a server.
    """

    def __init__(self, config: Config, params: Float32, state: Float32, version: int = 0) -> None:
        self.params = params.copy()
        self._config = config
        self._state: Float32 = state.copy()
        self._version = version
        self._edition = 0
        self._given: dict[int, _Given] = {}
        self._staged: dict[int, tuple[Float32, Float32 | None]] = {}
        self._sum = np.zeros_like(self.params)
        self._core: tuple[_core.Session, _core.Session] | None = None

    def join(self, member: int) -> tuple[Float32, Float32]:
        """Parameters and state, from which it begins."""
        self._given[member] = _Given(self.params.copy(), self._edition)
        return self.params.copy(), self.state()

    def leave(self, member: int) -> None:
        """Its state stays where no other member has told of one."""
        its = self._given.pop(member, None)
        self._staged.pop(member, None)
        if its is not None and its.state is not None and all(other.state is None for other in self._given.values()):
            self._state = its.state

    def stage(self, member: int, values: Float32, state: Float32 | None = None) -> None:
        """What a member delivers; nothing comes of it before `add` or `reduce`."""
        self._staged[member] = (values, state)

    def add(self, member: int) -> None:
        """The steps of a member: it has staged its parameters, and sometimes its optimizer state, which is its own."""
        params, state = self._staged.pop(member)
        its = self._given[member]
        if its.edition == self._edition:
            self.params[:] = params
        else:
            self.params += params - its.params
        if state is not None:
            its.state = state.copy()
        self._edition += 1

    def reduce(self, weights: Sequence[tuple[int, float]]) -> float:
        """Adds up the gradients that these members have staged, each times its weight, in this order; the norm."""
        self._sum[:] = 0.0
        for member, weight in weights:
            self._sum += self._staged.pop(member)[0] * np.float32(weight)
        return _core.clip_grad_norm(self._sum, 0.0)

    def step(self, factor: float, learning_rate: float) -> None:
        """One step of the optimizer with the reduced gradient, times the factor."""
        if factor < 1.0:
            self._sum *= np.float32(factor)
        observer, session = self._core = self._core or self._begin_steps()
        version, _ = session.read(self.params)
        session.submit(self._sum, version_read=version, env_steps=0, learning_rate=learning_rate)
        observer.copy_record(self.params, self._state)
        self._edition += 1

    def _begin_steps(self) -> tuple[_core.Session, _core.Session]:
        """The same optimizer as anywhere: the core's, on a region of its own."""
        unclipped = dataclasses.replace(self._config, clip_at="worker")  # whoever sums up has clipped
        region = create_region(unclipped, workers=1, update="lockfree", n_params=len(self.params))
        observer = observer_of(region)
        observer.initialize(self.params, self._state, self._version)
        return observer, _core.Session(region, 0)

    def give(self, member: int) -> Float32:
        """What everybody has now: what this member's next steps count from. Read-only."""
        its = self._given[member]
        its.params, its.edition = self.params.copy(), self._edition
        its.params.flags.writeable = False
        return its.params

    def state(self) -> Float32:
        """Of the optimizer: the mean of what the members told of theirs, or that of the steps that are made here."""
        told = [its.state for its in self._given.values() if its.state is not None]
        state: Float32 = self._state.copy()
        if told:
            state[...] = np.mean(told, axis=0, dtype=np.float64)
        return state


class OneShard(Shard):
    """All vectors in the server's own process."""

    def whole(self) -> tuple[Float32, Float32]:
        """Parameters and state."""
        return self.params, self.state()


def cut(parameters: int, shards: int) -> list[slice]:
    """Where each of the shards begins and ends: whole cache lines, about equally many."""
    edges = [min(parameters, -(-parameters * k // shards) // 16 * 16) for k in range(shards)] + [parameters]
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


def shards_for(parameters: int, most_bytes: int) -> int:
    """So that none has more than that."""
    return max(1, -(-4 * parameters // most_bytes))


def whole(parts: list[Any]) -> Float32:
    """Parameters float32[P] of the shards' parts."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
