"""A run of one update scheme, from the parent's side: opens the region, watches, and closes the books.

In: a model's parameters and optimizer state. Out: the trained ones, a History, and a Ledger that balances. The workers'
side of the same region is a session each (shared.py); `Recorder` is how they report.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from fastac import _core
from fastac.config import A2CConfig, A3CConfig, Config
from fastac.errors import NonFiniteGradientError
from fastac.metrics import EPISODE, UPDATE, History, HistoryBuilder, Position, Recent, Solving, row
from fastac.normalization import Statistics, all_of
from fastac.progress import WaitingProgress, return_note
from fastac.shared import Ledger, Toll, create_region, observer_of
from fastac.staleness import StalenessAlarm

if TYPE_CHECKING:
    from fastac.objective import GradientStats
    from fastac.rollout import Rollout

Float32 = npt.NDArray[np.float32]

_LOG_ROWS = 1024
_MOST_LOG_ROWS = 1 << 18  # 32 MiB
_TICK_S = 0.05  # between two looks at the run
_ALARM_S = 1.0  # and at the staleness of each worker
_FLUSH_DEADLINE_S = 600.0  # the parent may be in the user's own code, and saving
_STOPPED_FLUSH_S = 1.0
_REST = 20  # a periodic job rests this many times as long as it takes


def _room_for_an_update(config: Config) -> int:
    """Log rows, a power of two, that one update and all episodes in it may need: so A2C ends with what solved it."""
    assert isinstance(config, (A2CConfig, A3CConfig))
    most = 1 + config.n_steps * config.n_envs
    return min(max(_LOG_ROWS, 1 << (most - 1).bit_length()), _MOST_LOG_ROWS)


@dataclass(frozen=True)
class Moment:
    """A run between two updates: one record of the store, and how far the learn() is with it."""

    params: Float32  # [P]
    state: Float32  # [S, P]
    version: int
    position: Position
    solved: bool  # as Position.solve says, or ended by a callback
    trace: npt.NDArray[np.uint64]  # [n, 2]: the gradients up to here, where the run records them (recording.py)
    statistics: Statistics
    latest: tuple[tuple[float, float], ...]  # (return, length) of the model's latest episodes


@dataclass(frozen=True)
class Outcome:
    """What a run leaves behind."""

    last: Moment
    ledger: Ledger
    history: History


class Job(Protocol):
    """What the parent does between two looks at a run."""

    def do_if_due(self) -> None: ...

    def updates_left(self, env_steps: int) -> int:
        """Until it is due, with `env_steps` in each; 0 where their number does not decide that."""


class Periodic:
    """A job of the parent, done every `every_s` seconds, or less often: it takes a twentieth of the time at most."""

    def __init__(self, every_s: float, job: Callable[[], None]) -> None:
        self._every_s = every_s
        self._job = job
        self._next = time.monotonic() + every_s

    def updates_left(self, env_steps: int) -> int:
        return 0

    def do_if_due(self) -> None:
        started = time.monotonic()
        if started < self._next:
            return
        self._next = math.inf  # a job that failed is not tried again while the run is taken down for it
        self._job()
        now = time.monotonic()
        self._next = now + max(self._every_s, rest_after(now - started))


def rest_after(took_s: float) -> float:
    """Seconds until the next of a job's turns, so that it takes a twentieth of the time at most."""
    return _REST * took_s


class Observer(Protocol):
    """What a run's parent sees of it, by the verbs of a region's observer: one (_core.Session), or a cluster's nodes
    together (cluster/observer.py)."""

    @property
    def stop_requested(self) -> bool: ...
    def request_stop(self) -> None: ...
    def snapshot(self) -> dict[str, Any]: ...
    def ledger(self) -> dict[str, Any]: ...
    def tallies(self) -> list[dict[str, Any]]: ...
    def read_log(self, worker: int) -> npt.NDArray[np.float64]: ...
    def copy_record(self, params: Float32, state: Float32) -> dict[str, Any]: ...
    def statistics(self, worker: int) -> npt.NDArray[np.float64]: ...
    def trace(self) -> npt.NDArray[np.uint64]: ...
    def drain(self) -> int: ...
    def close(self) -> None: ...


class Run:
    """The parent's half of a run, whoever its workers are."""

    def __init__(
        self,
        session: Observer,
        workers: int,
        update: str,
        state_shape: tuple[int, ...],
        *,
        progress: WaitingProgress,
        begin: Position,
        statistics: Statistics,
    ) -> None:
        self.session = session
        self.workers = workers
        self.update = update
        self._statistics = statistics
        self.progress = progress
        self.begin = begin
        self.jobs: list[Job] = []
        self.recent = Recent()
        self._ended = False  # by a callback
        self._holds_still = False
        self._held: Moment | None = None
        self.toll = Toll()
        self._opened = time.monotonic()
        self._next_tick = 0.0
        self._state_shape = state_shape
        self.start()

    def start(self) -> None:
        """The clock of the run starts now; called again once all workers are ready."""
        self.progress.start(self.begin.env_steps)
        self._started = time.monotonic()
        self._cpu = time.process_time()
        self._builder = HistoryBuilder(self._started, self.begin)
        self._alarm = StalenessAlarm(self.workers)
        self._next_alarm = self._started + _ALARM_S
        self._solving = Solving(self.begin.solve, self.workers, self.begin.returns)

    @property
    def ends_when_solved(self) -> bool:
        """Then the logs are read at every tick, so that few updates follow."""
        return self.begin.solve is not None

    @property
    def seconds(self) -> float:
        """Since the clock of the run started."""
        return time.monotonic() - self._started

    @property
    def wall_s(self) -> float:
        """Of the whole learn(), its earlier parts too."""
        return self.begin.wall_s + self.seconds

    def end(self) -> None:
        """Before its env steps are done, as one that is."""
        self._ended = True
        self.session.request_stop()

    def most_updates(self, env_steps: int) -> int:
        """Of A2C, with `env_steps` in each, before the next look at it has to come; 0 for any number."""
        due = [job.updates_left(env_steps) for job in self.jobs]
        return 1 if self.ends_when_solved else min((n for n in due if n), default=0)

    def finished(self) -> bool:
        """Whether it is solved, was ended, or its env steps are done."""
        return self._solving.solved or self._ended or self.session.snapshot()["env_steps"] >= self.begin.total_timesteps

    def tick(self, *, now: bool = False) -> None:
        """Takes what the workers logged, stops the run once it is solved and, until it is stopped, does what is due.

        Every 50 ms at most, but for a run that ends when it is solved.
        """
        time_s = time.monotonic()
        due = now or time_s >= self._next_tick
        if due or self.ends_when_solved:
            self._read_logs(time_s)
        if due:
            self._next_tick = time_s + _TICK_S
            self._look_at_store(time_s)

    def _read_logs(self, time_s: float) -> None:
        for worker in range(self.workers):
            rows = self.session.read_log(worker)
            self._builder.add_rows(rows)
            self._solving.add_rows(worker, rows)
            self.recent.add_rows(rows)
        if self._solving.look(time_s):
            self.session.request_stop()

    def _look_at_store(self, time_s: float) -> None:
        snapshot = self.session.ledger()
        self._builder.add_moment(time_s, snapshot, snapshot["retries"])
        returns = self._solving.returns
        mean_return = sum(returns) / len(returns) if returns else math.nan
        self.progress.update(snapshot["env_steps"], return_note(mean_return))
        if not self.session.stop_requested:
            if time_s >= self._next_alarm:
                self._next_alarm = time_s + _ALARM_S
                self._alarm.look(self.session.tallies())
            for job in self.jobs:
                job.do_if_due()

    @contextlib.contextmanager
    def one_moment(self) -> Iterator[None]:
        """Within it, `moment` is one and the same while workers go on: what is looked at there is what is saved."""
        self._holds_still = True
        try:
            yield
        finally:
            self._holds_still, self._held = False, None

    def moment(self) -> Moment:
        """Copies of one whole record (`hogwild`: of parameters that are being written)."""
        moment = self._held or self._copied()
        if self._holds_still:
            self._held = moment
        return moment

    def _copied(self) -> Moment:
        params = np.empty(self._state_shape[1], np.float32)
        state = np.empty(self._state_shape, np.float32)
        at = self.session.copy_record(params, state)
        position = dataclasses.replace(
            self.begin,
            env_steps=at["env_steps"],
            updates=self.begin.updates + at["applied"],
            wall_s=self.wall_s,
            returns=self._solving.latest(),
        )
        consumed = at["applied"] + at["rejected_nonfinite"] + at["rejected_stale"]
        return Moment(
            params,
            state,
            at["version"],
            position,
            self._solving.solved or self._ended,
            self.session.trace()[:consumed],
            self.statistics(),
            self.recent.latest(),
        )

    def statistics(self) -> Statistics:
        """What was known before, and what all workers have seen since."""
        if not self._statistics.wanted:
            return self._statistics
        config = self._statistics.config
        return all_of(
            self._statistics,
            (Statistics.unpack(self.session.statistics(w), config) for w in range(self.workers)),
        )

    def history(self) -> History:
        """What was logged so far."""
        history = self._builder.build()
        history.startup_s = self._started - self._opened
        history.cpu_s = time.process_time() - self._cpu + self.toll.cpu_s
        return history

    def close(self) -> Outcome:
        """Once all workers have left: applies what they published, and adds everything up."""
        self.session.request_stop()
        self.session.drain()
        self.tick(now=True)
        self._solving.end()
        history = self.history()
        ledger = Ledger.of(self.session, self.update, self.toll, history.train_s)
        outcome = Outcome(self.moment(), ledger, history)
        self.session.close()
        return outcome


class LocalRun(Run):
    """A run of workers of this program, on one region whose observer the parent is."""

    session: _core.Session

    def __init__(
        self,
        config: Config,
        params: Float32,
        state: Float32,
        version: int,
        *,
        workers: int,
        update: str,
        progress: WaitingProgress,
        begin: Position,
        statistics: Statistics,
        trace_entries: int = 0,
    ) -> None:
        self.region = create_region(
            config,
            workers=workers,
            update=update,
            n_params=len(params),
            trace_entries=trace_entries,
            statistics=len(statistics.pack()),
            log_rows=_LOG_ROWS if begin.solve is None else _room_for_an_update(config),
        )
        session = observer_of(self.region)
        session.initialize(params, state, version, begin.env_steps)
        super().__init__(session, workers, update, state.shape, progress=progress, begin=begin, statistics=statistics)


class Recorder:
    """A worker's reports: one row for each update, one for each episode. Never waits while the worker works."""

    def __init__(self, session: _core.Session, worker: int) -> None:
        self._session = session
        self._worker = worker
        self._updates = 0
        self._nonfinite_in_a_row = 0
        self._backlog: deque[npt.NDArray[np.float64]] = deque()

    def record(
        self,
        rollout: Rollout,
        stats: GradientStats,
        version: int,
        learning_rate: float,
        ent_coef: float,
        submitted: str,
    ) -> None:
        """Raises NonFiniteGradientError after ten rejected gradients in a row."""
        self._updates += 1
        now = time.monotonic()
        # One that was published when the run was stopped is applied by the last drain.
        applied = submitted in ("applied", "stopped")
        self._backlog.append(
            row(
                UPDATE,
                now,
                self._worker,
                rollout.env_steps,
                applied,
                version,
                stats.grad_norm,
                stats.grad_norm_clipped,
                stats.policy_loss,
                stats.value_loss,
                stats.entropy,
                stats.return_mean,
                stats.return_var,
                stats.explained_variance,
                learning_rate,
                ent_coef,
                self._session.staleness if submitted == "applied" else math.nan,
                applied,
            )
        )
        for episode_return, length in rollout.episodes:
            self._backlog.append(row(EPISODE, now, self._worker, 0, 0, episode_return, length))
        self._write()
        self._nonfinite_in_a_row = self._nonfinite_in_a_row + 1 if submitted == "rejected_nonfinite" else 0
        if self._nonfinite_in_a_row == _core.MAX_NONFINITE_IN_A_ROW:
            raise diverged(self._worker, self._updates)

    def flush(self, wait: Callable[[], None]) -> None:
        """At the end of the work; see `flush_log`."""
        flush_log(self._session, self._write, wait)

    def _write(self) -> int:
        while self._backlog and self._session.log(self._backlog[0]):
            self._backlog.popleft()
        return len(self._backlog)


def diverged(worker: int, update: int) -> NonFiniteGradientError:
    """What ends a run whose gradients are no numbers any more."""
    return NonFiniteGradientError(
        f"worker {worker}, update {update}: {_core.MAX_NONFINITE_IN_A_ROW} gradients in a row held NaN or infinity; "
        "a smaller learning_rate or a max_grad_norm usually helps"
    )


def flush_log(session: _core.Session, write: Callable[[], int], wait: Callable[[], None]) -> None:
    """Calls `write`, which returns how many rows are left, and `wait` until the parent has read all. Each try is a sign
    of life.

    Raises TimeoutError when it reads nothing for 10 min, or 1 s after the run was stopped.
    """
    deadline = time.monotonic() + (_STOPPED_FLUSH_S if session.stop_requested else _FLUSH_DEADLINE_S)
    before = write()
    while before:
        left = write()
        if left < before and not session.stop_requested:
            deadline = time.monotonic() + _FLUSH_DEADLINE_S
        elif time.monotonic() > deadline:
            raise TimeoutError(f"worker {session.seat}: {left} log rows were not read in time")
        before = left
        wait()
