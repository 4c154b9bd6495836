"""A run of one update scheme, from the parent's side: opens the region, watches, and closes the books.

In: a model's parameters and optimizer state. Out: the trained ones, a History, and a Ledger that balances. The workers'
side of the same region is a session each (shared.py); `Recorder` is how they report.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fastac import _core
from fastac.config import Config
from fastac.errors import NonFiniteGradientError
from fastac.metrics import EPISODE, UPDATE, History, HistoryBuilder, row
from fastac.objective import GradientStats
from fastac.progress import WaitingProgress, return_note
from fastac.rollout import Rollout
from fastac.shared import Ledger, Toll, create_region, observer_of

Float32 = npt.NDArray[np.float32]

_TICK_S = 0.05  # between two looks at the logs
_MAX_NONFINITE_IN_A_ROW = 10
_FLUSH_DEADLINE_S = 10.0
_STOPPED_FLUSH_S = 1.0


@dataclass(frozen=True)
class Outcome:
    """What a run leaves behind."""

    params: Float32  # [P]
    state: Float32  # [S, P]
    version: int
    env_steps: int
    ledger: Ledger
    history: History


class Run:
    """The parent's half of a run: one region and the observer's seat."""

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
    ) -> None:
        self.update = update
        self.region = create_region(config, workers=workers, update=update, n_params=len(params))
        self.session = observer_of(self.region)
        self.session.initialize(params, state, version)
        self.progress = progress
        self.toll = Toll()
        self._opened = time.monotonic()
        self._next_tick = 0.0
        self._recent: deque[float] = deque(maxlen=100)
        self._state_shape = state.shape
        self.start()

    def start(self) -> None:
        """The clock of the run starts now; called again once all workers are ready."""
        self.progress.start()
        self._started = time.monotonic()
        self._cpu = time.process_time()
        self._builder = HistoryBuilder(self._started)

    def tick(self, *, now: bool = False) -> None:
        """Takes what the workers logged, every 50 ms at most."""
        time_s = time.monotonic()
        if not now and time_s < self._next_tick:
            return
        self._next_tick = time_s + _TICK_S
        for worker in range(self.region.workers):
            rows = self.session.read_log(worker)
            self._builder.add_rows(rows)
            self._recent.extend(rows[rows[:, 0] == EPISODE, 4])
        snapshot = self.session.ledger()
        self._builder.add_moment(time_s, snapshot, snapshot["retries"])
        mean_return = float(np.mean(self._recent)) if self._recent else float("nan")
        self.progress.update(snapshot["env_steps"], return_note(mean_return))

    def close(self) -> Outcome:
        """Once all workers have left: applies what they published, and adds everything up."""
        self.session.request_stop()
        self.session.drain()
        self.tick(now=True)
        history = self._builder.build()
        history.startup_s = self._started - self._opened
        history.cpu_s = time.process_time() - self._cpu + self.toll.cpu_s
        params = np.empty(self.region.parameters, np.float32)
        state = np.empty(self._state_shape, np.float32)
        last = self.session.copy_record(params, state)
        ledger = Ledger.of(self.session, self.update, self.toll)
        self.session.close()
        return Outcome(params, state, last["version"], last["env_steps"], ledger, history)


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
        self._backlog.append(
            row(
                UPDATE,
                now,
                self._worker,
                rollout.env_steps,
                version,
                stats.grad_norm,
                stats.policy_loss,
                stats.value_loss,
                stats.entropy,
                stats.return_mean,
                stats.return_var,
                stats.explained_variance,
                learning_rate,
                ent_coef,
                # One that was published when the run was stopped is applied by the last drain.
                submitted in ("applied", "stopped"),
            )
        )
        for episode_return, length in rollout.episodes:
            self._backlog.append(row(EPISODE, now, self._worker, 0, episode_return, length))
        self._write()
        self._nonfinite_in_a_row = self._nonfinite_in_a_row + 1 if submitted == "rejected_nonfinite" else 0
        if self._nonfinite_in_a_row == _MAX_NONFINITE_IN_A_ROW:
            raise NonFiniteGradientError(
                f"worker {self._worker}, update {self._updates}: {_MAX_NONFINITE_IN_A_ROW} gradients in a row held NaN "
                "or infinity; a smaller learning_rate or a max_grad_norm usually helps"
            )

    def flush(self, wait: Callable[[], None]) -> None:
        """At the end of the work: calls `wait` until the parent has read what is left. Each try is a sign of life.

        Raises TimeoutError when it reads nothing for 10 s, or 1 s after the run was stopped.
        """
        deadline = time.monotonic() + (_STOPPED_FLUSH_S if self._session.stop_requested else _FLUSH_DEADLINE_S)
        left = len(self._backlog)
        while self._backlog:
            self._write()
            if len(self._backlog) < left and not self._session.stop_requested:
                deadline = time.monotonic() + _FLUSH_DEADLINE_S
            elif time.monotonic() > deadline:
                raise TimeoutError(f"worker {self._worker}: {len(self._backlog)} log rows were not read in time")
            left = len(self._backlog)
            wait()

    def _write(self) -> None:
        while self._backlog and self._session.log(self._backlog[0]):
            self._backlog.popleft()
