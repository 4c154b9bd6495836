"""What a run tells about itself: rows that workers log, and the History the parent makes of them.

In: rows float64[LOG_COLUMNS] from the event log, snapshots of the parameter store. Out: tables by episode, by update
and by moment, with the three x-axes: updates, env steps, wall-clock.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fastac._core import LOG_COLUMNS
from fastac.config import NATIVE_ENVS
from fastac.errors import ConfigError

Floats = npt.NDArray[np.float64]
Table = dict[str, Floats]

SOLVED = 475.0  # Gymnasium's reward_threshold of CartPole-v1: the mean return of WINDOW episodes that solves it
WINDOW = 100
THRESHOLDS = (195.0, SOLVED)  # what tables tell of CartPole; 195 solved CartPole-v0
EPISODE, UPDATE = 0.0, 1.0
_HEAD = ("kind", "wall_s", "worker", "new_env_steps", "new_updates")
EPISODE_COLUMNS = ("episode_return", "episode_length")
RETURN = len(_HEAD) + EPISODE_COLUMNS.index("episode_return")
UPDATE_COLUMNS = (
    "version_read",
    "grad_norm",
    "grad_norm_clipped",  # by the worker; the same where it does not clip
    "policy_loss",
    "value_loss",
    "entropy",
    "rollout_return_mean",  # of the scaled n-step returns that the values are fitted to
    "rollout_return_var",
    "explained_variance",
    "learning_rate",
    "ent_coef",
    "staleness",  # NaN for one that was not applied, or only after its worker had left
    "applied",
)
_COUNTED = ("wall_s", "env_steps", "updates", "worker")
MOMENT_COLUMNS = ("wall_s", "updates", "env_steps", "staleness_mean", "staleness_max", "retries")

assert len(_HEAD) + max(len(EPISODE_COLUMNS), len(UPDATE_COLUMNS)) <= LOG_COLUMNS


def row(kind: float, wall_s: float, worker: int, new_env_steps: int, new_updates: int, *values: float) -> Floats:
    """One event as the log carries it, float64[LOG_COLUMNS].

    new_env_steps, new_updates: those since the worker's row before. Not its counts, which begin again with the next
    one in its seat. Raises ValueError where `values` are not those of EPISODE_COLUMNS or UPDATE_COLUMNS.
    """
    fits = len(UPDATE_COLUMNS if kind == UPDATE else EPISODE_COLUMNS)
    if len(values) != fits:
        raise ValueError(f"row: expected {fits} values, got {len(values)}")
    out = np.zeros(LOG_COLUMNS)
    out[: len(_HEAD) + len(values)] = (kind, wall_s, worker, new_env_steps, new_updates, *values)
    return out


@dataclass(frozen=True)
class Position:
    """How far a learn() is, over all its parts: one that was interrupted goes on from here.

    Attributes:
        total_timesteps: env steps it was asked for, at most.
        env_steps: those done.
        updates: those made.
        wall_s: seconds that it trained.
        solve: the mean return of 100 episodes with which it ends before; None where it does not.
        returns: of the latest 100 episodes that were told by then.
    """

    total_timesteps: int
    env_steps: int = 0
    updates: int = 0
    wall_s: float = 0.0
    solve: float | None = None
    returns: tuple[float, ...] = ()


@dataclass
class History:
    """A run, as tables of equally long columns.

    That of a resume() holds the rows since then; its env_steps, updates and wall_s count from the beginning of the
    learn() that it finishes.

    Attributes:
        episodes: wall_s, env_steps, updates, worker, episode_return (undiscounted, unscaled), episode_length; in the
            order in which the episodes ended, over all workers.
        updates: wall_s, env_steps, updates, worker and those of UPDATE_COLUMNS, such as `grad_norm` and `staleness`; in
            the order in which they were submitted. `applied` is 1, or 0 for a gradient that was rejected: only the
            former count as updates. The native engine logs the first 10,000 of each worker, then every 10th up to
            100,000, every 100th up to a million, and so on, and its last; `env_steps` and `updates` count all.
        moments: wall_s, updates, env_steps, staleness_mean, staleness_max, retries; sampled by the parent.
            staleness_mean is over the updates since the row before.
        startup_s: from the call of learn() or resume() until the first worker started.
        train_s: from there until the last update.
        cpu_s: processor time of all workers and of the parent over train_s.
        returns_before: those of up to 100 episodes that ended before the rows begin, in the parts of the learn()
            before this one.
    """

    episodes: Table = field(default_factory=lambda: _empty((*_COUNTED, *EPISODE_COLUMNS)))
    updates: Table = field(default_factory=lambda: _empty((*_COUNTED, *UPDATE_COLUMNS)))
    moments: Table = field(default_factory=lambda: _empty(MOMENT_COLUMNS))
    startup_s: float = 0.0
    train_s: float = 0.0
    cpu_s: float = 0.0
    returns_before: tuple[float, ...] = ()

    def time_to(self, threshold: float, window: int = WINDOW) -> dict[str, float] | None:
        """Where the mean return of the last `window` finished episodes first reached `threshold`.

        Returns {"env_steps", "wall_s", "updates", "episodes"}, or None: a run that never got there is censored.
        """
        before = self.returns_before[-(window - 1) :] if window > 1 else ()
        returns = np.concatenate([before, self.episodes["episode_return"]])
        if len(returns) < window:
            return None
        sums = np.concatenate([[0.0], np.cumsum(returns)])
        reached = np.flatnonzero((sums[window:] - sums[:-window]) / window >= threshold)
        if len(reached) == 0:
            return None
        at = int(reached[0]) + window - 1 - len(before)
        return {
            "env_steps": float(self.episodes["env_steps"][at]),
            "wall_s": float(self.episodes["wall_s"][at]),
            "updates": float(self.episodes["updates"][at]),
            "episodes": float(at + 1),
        }

    def final_return(self, window: int = WINDOW) -> float:
        """Mean return of the last `window` finished episodes; NaN if none finished."""
        returns = self.episodes["episode_return"]
        return float(np.mean(returns[-window:])) if len(returns) else float("nan")


def _empty(columns: tuple[str, ...]) -> Table:
    return {name: np.zeros(0) for name in columns}


class HistoryBuilder:
    """Collects rows of several workers while they run and puts them in order at the end."""

    def __init__(self, start_s: float, start: Position | None = None) -> None:
        self.start = start or Position(0)
        self.zero_s = start_s - self.start.wall_s
        self._rows: list[Floats] = []
        self._moments: list[tuple[float, ...]] = []
        self._before = (0.0, 0.0)  # sum of staleness and applied updates at the last moment

    def add_rows(self, rows: Floats) -> None:
        """rows float64[n, LOG_COLUMNS] of one worker, in its order."""
        if len(rows):
            self._rows.append(rows)

    def add_moment(self, wall_s: float, snapshot: dict[str, int], retries: int) -> None:
        """A snapshot of the store: staleness of the updates since the moment before."""
        stale, applied = float(snapshot["staleness_sum"]), float(snapshot["applied"])
        new = applied - self._before[1]
        mean = (stale - self._before[0]) / new if new > 0 else float("nan")
        self._before = (stale, applied)
        self._moments.append(
            (
                wall_s - self.zero_s,
                self.start.updates + applied,
                float(snapshot["env_steps"]),
                mean,
                float(snapshot["staleness_max"]),
                float(retries),
            )
        )

    def build(self) -> History:
        """All events in the order of their time, with the env steps and updates of all workers up to each."""
        history = History(returns_before=self.start.returns)
        if self._moments:
            history.moments = dict(zip(MOMENT_COLUMNS, np.array(self._moments).T, strict=True))
        if not self._rows:
            return history
        rows = np.concatenate(self._rows)
        rows = rows[np.argsort(rows[:, 1], kind="stable")]
        rows[:, 1] -= self.zero_s
        counted = {
            "wall_s": rows[:, 1],
            "env_steps": self.start.env_steps + np.cumsum(rows[:, 3]),
            "updates": self.start.updates + np.cumsum(rows[:, 4]),
            "worker": rows[:, 2],
        }

        def table(kind: float, columns: tuple[str, ...]) -> Table:
            chosen = rows[:, 0] == kind
            own = {name: rows[chosen, len(_HEAD) + i] for i, name in enumerate(columns)}
            return {name: column[chosen] for name, column in counted.items()} | own

        history.episodes, history.updates = table(EPISODE, EPISODE_COLUMNS), table(UPDATE, UPDATE_COLUMNS)
        history.train_s = float(rows[-1, 1]) - self.start.wall_s
        return history


def thresholds_of(env: str, solve: float | None = None) -> tuple[float, ...]:
    """The mean returns whose time is told of a run in this env, in rising order: CartPole's, and where it is to end."""
    return tuple(sorted({*(THRESHOLDS if env in NATIVE_ENVS else ()), *(() if solve is None else (solve,))}))


def expect_reachable(solve: Any, max_episode_steps: float) -> float | None:
    """A mean return to end at, or None. Raises ConfigError for one that no episode of CartPole has: each step is
    rewarded 1. `max_episode_steps`: infinite for other envs, whose returns are not known."""
    if solve is None:
        return None
    number = isinstance(solve, (int, float, np.integer, np.floating)) and not isinstance(solve, bool)
    if max_episode_steps == math.inf:
        if not number or not math.isfinite(solve):
            raise ConfigError(f"solve: expected a mean return, a finite number, got {solve!r}")
        return float(solve)
    if not number or not 0 <= solve <= max_episode_steps:
        raise ConfigError(
            f"solve: expected a mean return from 0 to {max_episode_steps:,.0f}, as each of at most "
            f"{max_episode_steps:,.0f} env steps of an episode is rewarded with 1, got {solve!r}"
        )
    return float(solve)


class Recent:
    """The latest episodes of a model whose run is under way, and what the updates of the run told.

    `episodes`: (return, length) of those that ended before it.
    """

    def __init__(self, episodes: Iterable[tuple[float, float]] = ()) -> None:
        self._episodes = deque(episodes, maxlen=WINDOW)
        self._sums = np.zeros(len(UPDATE_COLUMNS))
        self._counts = np.zeros(len(UPDATE_COLUMNS))

    def add_rows(self, rows: Floats) -> None:
        """rows float64[n, LOG_COLUMNS] of one worker."""
        if not len(rows):
            return
        ended = rows[rows[:, 0] == EPISODE]
        self._episodes.extend(zip(ended[:, RETURN].tolist(), ended[:, RETURN + 1].tolist(), strict=True))
        told = rows[rows[:, 0] == UPDATE, len(_HEAD) : len(_HEAD) + len(UPDATE_COLUMNS)]
        known = np.isfinite(told)  # an infinity would stay in the sums for ever
        self._sums += np.sum(told, axis=0, where=known)
        self._counts += np.count_nonzero(known, axis=0)

    def means(self) -> tuple[float, float]:
        """Mean return and length of the last WINDOW episodes; NaN before the first."""
        if not self._episodes:
            return math.nan, math.nan
        mean_return, mean_length = np.mean(self._episodes, axis=0)
        return float(mean_return), float(mean_length)

    def latest(self) -> tuple[tuple[float, float], ...]:
        """(return, length) of the last WINDOW episodes."""
        return tuple(self._episodes)

    def updates(self) -> UpdateSums:
        """What the updates told so far."""
        return UpdateSums(self._sums.copy(), self._counts.copy())


@dataclass(frozen=True)
class UpdateSums:
    """Sums of UPDATE_COLUMNS, and of how many updates each is. Two of them tell of the updates in between."""

    sums: Floats
    counts: Floats

    def means_since(self, before: UpdateSums | None) -> dict[str, float]:
        """UPDATE_COLUMNS: the mean of each; NaN where nothing was told. None: since the beginning."""
        sums, counts = (
            (self.sums, self.counts) if before is None else (self.sums - before.sums, self.counts - before.counts)
        )
        means = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
        return dict(zip(UPDATE_COLUMNS, means.tolist(), strict=True))


class Solving:
    """Whether a run under way is solved: what `History.time_to` will say of it, as soon as that is certain.

    The rows of one worker arrive in their order, those of several do not. So an episode counts once every worker has
    told of as late a time; or after a second, so that one that tells nothing holds nobody up. Whoever does tell is
    waited for, however old its rows are: they pile up while the parent is in the user's code.

    Attributes:
        returns: of the latest WINDOW episodes that count, over all workers, in the order in which they ended.
        solved: whether their mean has reached `threshold`; it stays so.
    """

    _PATIENCE_S = 1.0

    def __init__(self, threshold: float | None, workers: int, returns: Iterable[float] = ()) -> None:
        self.returns = deque(returns, maxlen=WINDOW)
        self.solved = False
        self._threshold = threshold
        self._told_until = [-math.inf] * workers
        self._has_told = [False] * workers  # since the last look
        self._heard = [-math.inf] * workers  # when
        self._waiting: list[tuple[float, float]] = []  # (time, return) of episodes that do not count yet

    def add_rows(self, worker: int, rows: Floats) -> None:
        """rows float64[n, LOG_COLUMNS] of one worker, in its order."""
        if len(rows):
            self._told_until[worker] = float(rows[-1, 1])
            self._has_told[worker] = True
            episodes = rows[rows[:, 0] == EPISODE]
            self._waiting += zip(episodes[:, 1].tolist(), episodes[:, RETURN].tolist(), strict=True)

    def look(self, now_s: float) -> bool:
        """Whether it is solved by what has been told until now."""
        self._heard = [now_s if told else before for told, before in zip(self._has_told, self._heard, strict=True)]
        self._has_told = [False] * len(self._has_told)
        if self._waiting:
            self._waiting.sort(key=_time_of)
            patient_until = now_s - self._PATIENCE_S
            certain = min(
                told if heard > patient_until else max(told, patient_until)
                for told, heard in zip(self._told_until, self._heard, strict=True)
            )
            n = bisect_right(self._waiting, certain, key=_time_of)
            for _, episode_return in self._waiting[:n]:
                self.returns.append(episode_return)
                self.solved = self.solved or self._reached()
            del self._waiting[:n]
        return self.solved

    def latest(self) -> tuple[float, ...]:
        """Returns of the latest WINDOW episodes told so far, those that do not count yet included."""
        waiting = [episode_return for _, episode_return in sorted(self._waiting, key=_time_of)]
        return (*self.returns, *waiting)[-WINDOW:]

    def end(self) -> None:
        """Nobody will tell of any more: all episodes count."""
        self.look(math.inf)

    def _reached(self) -> bool:
        if self._threshold is None or len(self.returns) < WINDOW:
            return False
        return sum(self.returns) / WINDOW >= self._threshold


def _time_of(episode: tuple[float, float]) -> float:
    return episode[0]
