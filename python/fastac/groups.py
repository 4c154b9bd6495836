"""The envs of one worker, in groups that roll out in turn, and their state as arrays: for checkpoints and copies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from fastac import _core, seeding
from fastac.config import Config

Arrays = dict[str, npt.NDArray[Any]]


class Stateful(Protocol):
    """What steps some envs: a Collector, or the native engine's worker."""

    def get_state(self) -> Arrays: ...
    def set_state(self, saved: Arrays) -> None: ...


Member = TypeVar("Member", bound=Stateful)


class Groups(Generic[Member]):
    """The envs of one worker, in groups of one size that roll out in turn."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = members
        self._next = 0

    @property
    def current(self) -> Member:
        """The group whose turn it is."""
        return self.members[self._next]

    def advance(self) -> None:
        """It has rolled out: now it is the next one's turn."""
        self._next = (self._next + 1) % len(self.members)

    def get_state(self) -> Arrays:
        """That of all groups, one row for each env, and whose turn it is."""
        states = [member.get_state() for member in self.members]
        rows = {name: np.concatenate([state[name] for state in states]) for name in states[0]}
        return {**rows, "next_group": np.array([self._next])}

    def set_state(self, saved: Mapping[str, npt.NDArray[Any]]) -> None:
        """Goes on, bit for bit, where `get_state` was called. Raises KeyError, TypeError or ValueError for no state."""
        rows = {name: column for name, column in saved.items() if name != "next_group"}
        n = len(rows["env_elapsed"]) // len(self.members)
        for k, member in enumerate(self.members):
            member.set_state({name: column[k * n : (k + 1) * n] for name, column in rows.items()})
        self._next = int(saved["next_group"][0])


def native_worker(
    config: Config,
    first: int,
    n_envs: int,
    call: int = 0,
    incarnation: int = 0,
    members: int = 1,
    pauses: npt.NDArray[np.float64] | None = None,
) -> _core.NativeWorker:
    """The native worker of envs `first` and on, shared by `members` threads. `pauses`: see Algorithm._pauses."""
    if config.seed is None:
        raise ValueError("expected a config with a seed: use config.resolve_seed()")
    return _core.NativeWorker(
        hidden_sizes=config.hidden_sizes,
        activation=config.activation,
        shared_trunk=config.shared_trunk,
        n_steps=config.n_steps,
        max_episode_steps=config.native_episode_steps,
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
        reward_scale=config.reward_scale,
        env_words=seeding.env_words(config.seed, call, first, n_envs, incarnation),
        action_words=seeding.action_words(config.seed, call, first, n_envs, incarnation),
        members=members,
        pauses=pauses,
    )
