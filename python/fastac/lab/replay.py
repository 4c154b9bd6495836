"""A recorded run again, in one thread: to the last bit, up to any update, or in the same order with other staleness.

In: a Recording. Out: parameters and optimizer state, and the episodes that were played on the way.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fastac import _core
from fastac.config import A3CConfig, scheduled
from fastac.errors import ConfigError, ReplayError
from fastac.groups import native_worker
from fastac.recording import OUTCOMES, Part, Recording, recording_of
from fastac.shared import create_region

Float32 = npt.NDArray[np.float32]
_REASONS = (
    "was it recorded by another build of fastac or on another kind of processor, or were the model's parameters "
    "changed between two learn() calls?"
)


@dataclass(frozen=True)
class Replayed:
    """Where a replay ended.

    Attributes:
        params, state: float32[P] and float32[S, P].
        version: optimizer updates of the model by then.
        updates: those of the recording that were replayed.
        env_steps: of the recording.
        episodes: float64[n, 2]: of each episode the env steps by the time its gradient was applied, and the return.
        rejected: gradients that were rejected.
    """

    params: Float32
    state: Float32
    version: int
    updates: int
    env_steps: int
    episodes: npt.NDArray[np.float64]
    rejected: int

    def final_return(self) -> float:
        """Mean of the last 100 episodes; NaN where there was none."""
        return float(self.episodes[-100:, 1].mean()) if len(self.episodes) else float("nan")

    def solved_after(self, threshold: float = 475.0) -> int | None:
        """Env steps by which the mean return of 100 episodes in a row reached `threshold`; None if it never did."""
        if len(self.episodes) < 100:
            return None
        means = np.convolve(self.episodes[:, 1], np.full(100, 0.01), "valid")
        solved = np.flatnonzero(means >= threshold - 1e-9)
        return int(self.episodes[99 + solved[0], 0]) if len(solved) else None


@dataclass(frozen=True)
class Reading:
    """Parameters float32[P] and their version."""

    version: int
    params: Float32


@dataclass(frozen=True)
class Turn:
    """A gradient of a replay, as a Probe sees it.

    Attributes:
        env_steps: of the recording, done before it.
        seat: the worker that takes it; outcome: what becomes of it, as recorded.
        worker: about to roll out; in `after`, it has.
        others: the native workers of all other seats, the latest of each, between two rollouts.
        read, now: what `worker` had read, and what its gradient will be applied to.
        take: (worker, params) -> its next rollout's gradient float32[P], clipped as the run's, and its norm before;
            with the loss of this gradient.
    """

    env_steps: int
    seat: int
    outcome: str
    worker: _core.NativeWorker
    others: Sequence[_core.NativeWorker]
    read: Reading
    now: Reading
    take: Callable[[_core.NativeWorker, Float32], tuple[Float32, float]]


class Probe(Protocol):
    """What looks on while a run is replayed. Workers that it uses get the state back that they had."""

    def before(self, turn: Turn) -> None:
        """The turn's worker is about to roll out."""

    def after(self, turn: Turn, grad: Float32, norm: float) -> None:
        """It has taken this gradient float32[P], which is about to be applied. No worker may roll out."""


def replay(
    recording: Recording, at: int | None = None, staleness: int | None = None, probe: Probe | None = None
) -> Replayed:
    """Makes the recorded run again.

    Args:
        at: stop after that many updates of the recording; 0 is its beginning. None: all of them.
        staleness: None replays the run, and ends with its bits. Else the counterfactual: the same workers in the same
            order, each gradient computed from the parameters of that many gradients before; 0: always fresh ones.
        probe: looks on, gradient by gradient; it changes nothing.

    Raises:
        ConfigError: `at` or `staleness` is negative, or `at` more than the updates recorded.
        ReplayError: it goes another way than was recorded; where that shows first.
    """
    if at is not None and not 0 <= at <= recording.updates:
        raise ConfigError(f"at: expected 0 to {recording.updates:,}, the updates recorded, got {at:,}")
    if staleness is not None and staleness < 0:
        raise ConfigError(f"staleness: expected a number >= 0, got {staleness}")
    if not recording.parts:
        raise ConfigError("expected a recording with at least one update, got an empty one")
    first = recording.parts[0]
    now = _Moment(first.params.copy(), first.state.copy(), first.version)
    episodes: list[tuple[int, float]] = []
    env_steps = rejected = updates = 0
    for number, part in enumerate(recording.parts, 1):
        if at is not None and updates == at:
            break
        if staleness is None:
            _expect_beginning(number, part, now)
        walk = _Walk(recording.config, part, now, staleness, probe, env_steps)
        for outcome, played in walk:
            env_steps += walk.steps_each
            episodes += [(env_steps, episode_return) for episode_return, _ in played]
            updates += outcome == "applied"
            rejected += outcome != "applied"
            if at is not None and updates == at:
                break
        now = walk.end()
    table = np.array(episodes, np.float64).reshape(-1, 2)
    return Replayed(now.params, now.state, now.version, updates, env_steps, table, rejected)


def load_recording(path: str | os.PathLike[str]) -> Recording:
    """The recording beside a model, or in a run folder, as far as it was saved; see `expect_equal`.

    Raises FileNotFoundError where there is none, CheckpointError where it is damaged.
    """
    file = recording_of(path)
    if not file.exists():
        raise FileNotFoundError(
            f"no recording at {file}: only an A3C that was trained with record=True (--record) has one"
        )
    return Recording.load(file)


def expect_equal(replayed: Replayed, params: Float32, state: Float32) -> None:
    """Raises ReplayError where a model differs from its replay, naming the first entry that does."""
    for name, ours, theirs in (("params", replayed.params, params), ("optimizer_state", replayed.state, state)):
        differing = np.flatnonzero(ours.view(np.uint32) != theirs.view(np.uint32))
        if len(differing):
            i = differing[0]
            raise ReplayError(
                f"{name}: {len(differing):,} of {ours.size:,} differ, first number {i}: "
                f"{theirs.ravel()[i]!r} in the model, {ours.ravel()[i]!r} in its replay; {_REASONS}"
            )


@dataclass(frozen=True)
class _Moment:
    params: Float32
    state: Float32
    version: int


def _expect_beginning(number: int, part: Part, now: _Moment) -> None:
    same = part.params.tobytes() == now.params.tobytes() and part.state.tobytes() == now.state.tobytes()
    if part.version != now.version or not same:
        raise ReplayError(
            f"learn() number {number} began elsewhere than the replay of those before it ends: {_REASONS}"
        )


class _Walk:
    """One part, gradient by gradient: iterating gives (outcome, episodes played for it) of each."""

    def __init__(
        self,
        config: A3CConfig,
        part: Part,
        begin: _Moment,
        staleness: int | None,
        probe: Probe | None,
        env_steps: int,
    ) -> None:
        self._probe, self._before = probe, env_steps
        self.steps_each = config.n_steps * config.n_envs
        self._config, self._part, self._checks = config, part, staleness is None
        self._reads = part.entries["read_at"].astype(np.int64)
        if staleness is not None:
            self._reads = np.maximum(np.arange(len(part.entries)) - staleness, 0)
        self._state_shape = begin.state.shape
        self._region = create_region(config, workers=1, update="lockfree", n_params=len(begin.params))
        self._session = _core.Session(self._region, 0)
        self._session.initialize(begin.params, begin.state, begin.version)

    def __iter__(self) -> Iterator[tuple[str, list[tuple[float, int]]]]:
        n = len(self._reads)
        if n and (self._reads > np.arange(n)).any():
            raise ReplayError("damaged recording: a gradient was computed from parameters that came after it")
        last_use = np.full(n + 1, -1)
        np.maximum.at(last_use, self._reads, np.arange(n))
        versions: dict[int, Reading] = {}  # those that are still to be read
        workers: dict[tuple[int, int], _core.NativeWorker] = {}
        latest: dict[int, _core.NativeWorker] = {}  # in each seat
        for j, (entry, read_at) in enumerate(zip(self._part.entries, self._reads.tolist(), strict=True)):
            now = self._read()
            if last_use[j] >= 0:
                versions[j] = now
            key = int(entry["worker"]), int(entry["incarnation"])
            if key not in workers:
                first = key[0] * self._config.n_envs
                workers[key] = native_worker(self._config, first, self._config.n_envs, self._part.call, key[1])
            latest[key[0]] = workers[key]
            recorded = OUTCOMES[entry["outcome"]]
            turn = Turn(
                self._before + j * self.steps_each,
                key[0],
                recorded,
                workers[key],
                [worker for seat, worker in latest.items() if seat != key[0]],
                versions[read_at],
                now,
                functools.partial(self._take, read_at),
            )
            outcome = self._submit(self._probed(turn), turn.read.version, read_at)
            if self._checks and outcome != recorded:
                raise ReplayError(
                    f"gradient {j}, of worker {key[0]}: {recorded} when recorded, now {outcome}; {_REASONS}"
                )
            if last_use[read_at] == j:
                del versions[read_at]
            yield outcome, turn.worker.episodes()

    def _read(self) -> Reading:
        params = np.empty(self._region.parameters, np.float32)
        return Reading(self._session.read(params)[0], params)

    def _probed(self, turn: Turn) -> Float32:
        """The gradient of the turn."""
        if self._probe is not None:
            self._probe.before(turn)
        grad, norm = turn.take(turn.worker, turn.read.params)
        if self._probe is not None:
            self._probe.after(turn, grad, norm)
        return grad

    def _progress(self, read_at: int) -> float:
        return (self._part.env_steps + read_at * self.steps_each) / self._part.total_timesteps

    def _take(self, read_at: int, worker: _core.NativeWorker, params: Float32) -> tuple[Float32, float]:
        config = self._config
        grad = np.empty_like(params)
        worker.collect(params)
        stats = worker.gradient(
            grad,
            vf_coef=config.vf_coef,
            ent_coef=scheduled(config.ent_schedule, config.ent_coef, self._progress(read_at)),
            max_grad_norm=config.max_grad_norm if config.clip_at == "worker" else 0.0,
        )
        return grad, stats[0]

    def _submit(self, grad: Float32, version_read: int, read_at: int) -> str:
        rate = scheduled(self._config.lr_schedule, self._config.learning_rate, self._progress(read_at))
        return self._session.submit(grad, version_read=version_read, env_steps=self.steps_each, learning_rate=rate)

    def end(self) -> _Moment:
        """Where it is."""
        params = np.empty(self._region.parameters, np.float32)
        state: npt.NDArray[Any] = np.empty(self._state_shape, np.float32)
        version = self._session.copy_record(params, state)["version"]
        self._session.close()
        return _Moment(params, state, version)
