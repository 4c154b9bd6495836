"""A3C with any number of workers in one thread: who updates when, and from which version, is the caller's choice.

In: a config, and for each update a worker and the reading it acted with. Out: the update, applied by the same native
kernels, optimizer and rules of staleness as in a run of A3C. Nothing depends on the clock: a run is a function of its
seed.
"""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fastac import _core, seeding
from fastac.config import A3CConfig, scheduled
from fastac.errors import ConfigError
from fastac.groups import Arrays, native_worker
from fastac.metrics import History
from fastac.mlp import Float32, initial_params
from fastac.shared import Ledger, create_region, observer_of
from fastac.updates import diverged

MAX_VIRTUAL_WORKERS = 1024
DISTRIBUTIONS = ("constant", "uniform", "geometric")
_WINDOW = 100  # episodes, as in History.time_to
_EPISODE_COLUMNS = ("wall_s", "env_steps", "updates", "worker", "episode_return", "episode_length")


@dataclass(frozen=True)
class Reading:
    """What a worker read: the parameters float32[P] of one version, read-only, shared by all who read that version."""

    params: Float32
    version: int
    env_steps: int


def expect_native(config: A3CConfig) -> A3CConfig:
    """The config itself. Raises ConfigError where its env, policy or normalization is none of the native engine's."""
    if not config.can_be_native:
        raise ConfigError(f"expected CartPole-v1, MlpPolicy and no normalization, got {config.why_not_native}")
    return config


class Player:
    """Virtual workers, each with envs and random streams of its own: those that a run of A3C gives to its workers.

    One native worker plays all: it takes the state of the worker whose turn it is. So a virtual worker costs the
    state of its envs, about a kilobyte each, and not a policy.

    Attributes:
        now: the current version, as a worker would read it.
    """

    def __init__(self, config: A3CConfig, workers: int, total_timesteps: int) -> None:
        """`workers` counts, not config.workers.

        Raises ConfigError for a number out of range, a config without seed, or one that is not native.

        Args:
            workers: 1 to MAX_VIRTUAL_WORKERS, with config.n_envs envs each.
            total_timesteps: env steps over which the schedules run; the caller ends the run.
        """
        if not 1 <= workers <= MAX_VIRTUAL_WORKERS:
            raise ConfigError(f"workers: expected 1 to {MAX_VIRTUAL_WORKERS:,}, got {workers!r}")
        if total_timesteps < 1:
            raise ConfigError(f"total_timesteps: expected at least 1, got {total_timesteps!r}")
        if config.seed is None:
            raise ConfigError("seed: expected a config with a seed, got None; use config.resolve_seed()")
        self.config = expect_native(config)
        self.workers = workers
        self.total_timesteps = total_timesteps
        self._native = native_worker(config, 0, config.n_envs)
        self._states = _first_states(config, workers)
        self._at = 0  # the worker whose state the native one has
        self._grad = np.empty(self._native.parameters, np.float32)
        region = create_region(config, workers=1, update="lockfree", n_params=self._native.parameters)
        self._observer = observer_of(region)
        self._observer.initialize(initial_params(config))
        self._session = _core.Session(region, 0)
        self._nonfinite = [0] * workers  # in a row
        self._episodes: list[tuple[float, ...]] = []
        self._last_returns: deque[float] = deque(maxlen=_WINDOW)
        self.now = self._read()

    def update(self, worker: int, reading: Reading, virtual_s: float = 0.0, second: Reading | None = None) -> bool:
        """One update: the worker acts with what it read then, and its gradient is applied now, at `virtual_s`.

        `second`: what it read after its rollout, which delay_compensation and v_trace make use of, and nothing else.
        By default it is `now`: as if nothing came between that reading and the update, the best that they can have.

        Staleness is now.version - reading.version, with v_trace now.version - second.version. Returns whether the
        gradient was applied: not if it was too stale or not finite. Raises NonFiniteGradientError as a run does, for
        the tenth in a row of a worker.
        """
        second = self.now if second is None else second
        config = self.config
        progress = reading.env_steps / self.total_timesteps
        self._turn_to(worker)
        self._native.collect(reading.params)
        if config.v_trace:
            self._native.reweigh(second.params)
        self._native.gradient(
            self._grad,
            vf_coef=config.vf_coef,
            ent_coef=scheduled(config.ent_schedule, config.ent_coef, progress),
            max_grad_norm=config.max_grad_norm if config.clip_at == "worker" else 0.0,
        )
        if config.delay_compensation:
            with np.errstate(over="ignore", invalid="ignore"):  # told by the gradient, not by warnings
                drift = second.params - reading.params
                self._grad += np.float32(config.delay_compensation) * self._grad * self._grad * drift
        submitted = self._session.submit(
            self._grad,
            version_read=second.version if config.v_trace else reading.version,
            env_steps=config.n_steps * config.n_envs,
            learning_rate=scheduled(config.lr_schedule, config.learning_rate, progress),
        )
        self.now = self._read()
        for episode_return, length in self._native.episodes():
            row = (virtual_s, self.now.env_steps, self.now.version, worker, episode_return, length)
            self._episodes.append(row)
            self._last_returns.append(episode_return)
        self._nonfinite[worker] = self._nonfinite[worker] + 1 if submitted == "rejected_nonfinite" else 0
        if self._nonfinite[worker] == _core.MAX_NONFINITE_IN_A_ROW:
            raise diverged(worker, self.now.version)
        return submitted == "applied"

    def solved(self, threshold: float) -> dict[str, float] | None:
        """Where the run reached it, as History.time_to says; `wall_s` is virtual. Cheap as long as it has not."""
        if len(self._last_returns) < _WINDOW or sum(self._last_returns) < threshold * _WINDOW:
            return None
        return self.history().time_to(threshold)

    def history(self) -> History:
        """The episodes so far; wall_s is virtual. There are no rows for updates and moments."""
        rows = np.array(self._episodes, np.float64).reshape(-1, len(_EPISODE_COLUMNS))
        return History(episodes=dict(zip(_EPISODE_COLUMNS, rows.T, strict=True)))

    def ledger(self) -> Ledger:
        """The books, checked."""
        ledger = Ledger.of(self._observer, "lockfree")
        ledger.check()
        return ledger

    def _turn_to(self, worker: int) -> None:
        if worker != self._at:
            self._states[self._at] = self._native.get_state()
            self._native.set_state(self._states[worker])
            self._at = worker

    def _read(self) -> Reading:
        params = np.empty(self._native.parameters, np.float32)
        version, env_steps = self._session.read(params)
        params.flags.writeable = False
        return Reading(params, version, env_steps)


def play(
    config: A3CConfig,
    workers: int,
    total_timesteps: int,
    taus: Sequence[int] | npt.NDArray[np.int64],
    lag: int = 0,
) -> Player:
    """Workers in turn, each gradient applied `tau` updates late: taken with the parameters of that many versions ago.

    `taus` says it update by update, and begins anew where it ends. Before there are so many versions, the first one is
    read.
    With tau = workers - 1 each worker reads what its own last update made, as in lockstep; a larger one means
    that a worker does not wait for its own update, as over a network.
    `lag`: with delay_compensation or v_trace, how many updates before its own a worker reads for the second time (at
    most tau). 0 is the best case; over a network it would be the way there.

    Returns the player, at the first update at or after total_timesteps. Raises ConfigError and NonFiniteGradientError.
    """
    late = np.asarray(taus)
    if late.ndim != 1 or len(late) == 0 or late.dtype.kind not in "iu" or late.min() < 0:
        raise ConfigError(f"taus: expected whole numbers >= 0, at least one, got {taus!r}")
    if lag < 0:
        raise ConfigError(f"lag: expected a whole number >= 0, got {lag}")
    player = Player(config, workers, total_timesteps)
    readings = deque([player.now], maxlen=int(late.max()) + 1)
    turn = 0
    while player.now.env_steps < total_timesteps:
        tau = min(int(late[turn % len(late)]), len(readings) - 1)
        if player.update(turn % workers, readings[-1 - tau], second=readings[-1 - min(lag, tau)]):
            readings.append(player.now)
        else:  # the version is the same, the env steps are not
            readings[-1] = player.now
        turn += 1
    return player


def draw_taus(distribution: str, mean: float, n: int, seed: int) -> npt.NDArray[np.int64]:
    """n stalenesses int64[n] with that mean: constant; uniform from 0 to twice the mean; geometric from 0 on.

    Raises ConfigError where there is no such distribution: constant and uniform need a whole 1 x and 2 x the mean.
    """
    if not 0 <= mean < math.inf:
        raise ConfigError(f"tau: expected a number >= 0, got {mean!r}")
    random = np.random.default_rng(seeding.staleness_words(seed))
    if distribution == "geometric":
        return random.geometric(1.0 / (1.0 + mean), n).astype(np.int64) - 1
    if distribution not in DISTRIBUTIONS:
        raise ConfigError(f"distribution: expected one of {', '.join(DISTRIBUTIONS)}, got {distribution!r}")
    most = mean * (2 if distribution == "uniform" else 1)
    if most != round(most):
        raise ConfigError(f"tau: expected a whole number for {distribution}, got {mean!r}")
    if distribution == "constant":
        return np.full(n, int(mean), np.int64)
    return random.integers(0, int(most), n, endpoint=True)


def _first_states(config: A3CConfig, workers: int) -> list[Arrays]:
    """The envs of each worker, newly reset. They do not depend on the policy, so the smallest one will do."""
    n = config.n_envs
    small = dataclasses.replace(config, hidden_sizes=(1,), n_steps=1)
    states = native_worker(small, 0, workers * n).get_state()
    return [{name: rows[w * n : (w + 1) * n].copy() for name, rows in states.items()} for w in range(workers)]
