"""What staleness alone does to learning: the same virtual workers, each gradient applied tau updates late.

In: a Plan. Out: one Run for each staleness, learning rate and seed. No clock is in it, so that a result is of the seeds
and not of the machine's load.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fastac import rundir
from fastac.config import A3CConfig
from fastac.errors import ConfigError, NonFiniteGradientError
from fastac.lab.crew import run_all
from fastac.lab.player import DISTRIBUTIONS, MAX_VIRTUAL_WORKERS, draw_taus, expect_native, play

SOLVED = 475.0
TAUS = (0, 1, 3, 7, 15, 31)
LEARNING_RATES = (5e-4, 1e-3, 2.2e-3)


@dataclass(frozen=True)
class Plan:
    """What is varied, and what is not.

    Attributes:
        taus: mean staleness; under a trace it has no meaning, but 0 is run as well, to compare with.
        distribution: of player.DISTRIBUTIONS, or "trace".
        trace: the stalenesses of a trace, update by update.
        options: fields of A3CConfig, the same for every run.
        lag: of player.play.
    """

    taus: tuple[float, ...] = TAUS
    learning_rates: tuple[float, ...] = LEARNING_RATES
    workers: int = 8
    distribution: str = "constant"
    trace: tuple[int, ...] = ()
    seeds: tuple[int, ...] = tuple(range(20))
    total_timesteps: int = 200_000
    options: dict[str, Any] = field(default_factory=dict)
    lag: int = 0

    def __post_init__(self) -> None:
        """Raises ConfigError for what no run could be made of."""
        if (self.distribution == "trace") != bool(self.trace):
            raise ConfigError("trace: expected stalenesses with the distribution trace, and only with it")
        if self.lag < 0:
            raise ConfigError(f"lag: expected a whole number >= 0, got {self.lag}")
        if not 1 <= self.workers <= MAX_VIRTUAL_WORKERS:
            raise ConfigError(f"workers: expected 1 to {MAX_VIRTUAL_WORKERS:,}, got {self.workers}")
        for tau, learning_rate in itertools.product(self.cells(), self.learning_rates):
            self.draw(tau, 1, 0)
            self.config(learning_rate, 0)

    def cells(self) -> tuple[float, ...]:
        """The stalenesses that are run: means, in the order given."""
        return (0.0, float(np.mean(self.trace))) if self.trace else self.taus

    def draw(self, tau: float, n: int, seed: int) -> Any:
        """n stalenesses int64[n] of one run."""
        if self.trace and tau:
            return np.array(self.trace)
        return draw_taus("constant" if self.trace else self.distribution, tau, n, seed)

    def config(self, learning_rate: float, seed: int) -> A3CConfig:
        """Of one run. Raises ConfigError for what the laboratory cannot play."""
        return expect_native(A3CConfig(**self.options, learning_rate=learning_rate, seed=seed))


@dataclass(frozen=True)
class Run:
    """One staleness and learning rate under one seed.

    Attributes:
        tau: the mean that was asked for.
        env_steps_to_475: None where the run did not get there within its env steps.
        staleness_mean: over the applied gradients; a little less than tau, since the first ones find no old version.
        diverged: its gradients were no numbers any more; it ended there, unsolved.
    """

    tau: float
    learning_rate: float
    seed: int
    env_steps_to_475: float | None
    final_return: float
    staleness_mean: float
    rejected_stale: int
    diverged: bool


@dataclass(frozen=True)
class Task:
    """One run."""

    plan: Plan
    tau: float
    learning_rate: float
    seed: int


def run(plan: Plan, jobs: int, tick: Callable[[], None] = lambda: None) -> Iterator[Run]:
    """All runs, seed by seed, on `jobs` processes; as they end."""
    cells = itertools.product(plan.seeds, plan.learning_rates, plan.cells())
    yield from run_all(run_one, [Task(plan, tau, rate, seed) for seed, rate, tau in cells], jobs, tick)


def run_one(task: Task) -> Run:
    plan = task.plan
    config = plan.config(task.learning_rate, task.seed)
    n_updates = -(-plan.total_timesteps // (config.n_steps * config.n_envs))
    try:
        player = play(config, plan.workers, plan.total_timesteps, plan.draw(task.tau, n_updates, task.seed), plan.lag)
    except NonFiniteGradientError:
        return Run(task.tau, task.learning_rate, task.seed, None, float("nan"), float("nan"), 0, True)
    history, ledger = player.history(), player.ledger()
    solved = history.time_to(SOLVED)
    return Run(
        task.tau,
        task.learning_rate,
        task.seed,
        None if solved is None else solved["env_steps"],
        history.final_return(),
        ledger.staleness_mean,
        ledger.rejected_stale,
        False,
    )


def read_trace(path: Path) -> tuple[int, ...]:
    """A file with one staleness a line, or a run's updates.csv: what was logged of its staleness, in order.

    Raises ConfigError for another one, and where it cannot be read.
    """
    try:
        header, *lines = path.read_text().split() or [""]
        if "," in header:
            logged = (rundir.read_table(path) or {})["staleness"]
            taus = tuple(map(_whole, logged[np.isfinite(logged)].tolist()))
        else:
            taus = tuple(int(line) for line in (header, *lines))
    except KeyError:
        raise ConfigError(f"{path}: expected a run's updates.csv, got no column staleness") from None
    except ValueError as error:
        raise ConfigError(f"{path}: expected one whole number a line, or a run's updates.csv, got: {error}") from None
    except OSError as error:
        raise ConfigError(f"{path}: expected a file that can be read, got: {error.strerror}") from None
    if not taus or min(taus) < 0 or max(taus) == 0:
        raise ConfigError(f"{path}: expected stalenesses >= 0, one at least above 0")
    return taus


def _whole(number: float) -> int:
    if not number.is_integer():
        raise ValueError(number)
    return int(number)


def expect_lag(lag: int, taus: Sequence[float]) -> None:
    """Raises ConfigError for a second reading that would be older than the first, and so change nothing."""
    if not 0 <= lag <= max(taus):
        raise ConfigError(f"lag: expected a whole number from 0 to the largest tau, got {lag}")


def parse_distribution(text: str) -> tuple[str, tuple[int, ...]]:
    """ "geometric" -> ("geometric", ()); "trace:FILE" -> ("trace", its stalenesses). Raises as read_trace does."""
    if text.startswith("trace:"):
        return "trace", read_trace(Path(text.removeprefix("trace:")))
    if text not in DISTRIBUTIONS:
        raise ConfigError(f"distribution: expected one of {', '.join(DISTRIBUTIONS)} or trace:FILE, got {text!r}")
    return text, ()
