"""What waiting costs: A2C, which waits for the slowest worker at each update, against A3C, in virtual time.

In: a Plan. Out: one Run for each algorithm, number of workers, spread and seed. Rollouts take as much virtual
time as they are dealt; which gradient comes next, and how stale it is, follows from that. The training is real.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fastac import seeding
from fastac.config import A3CConfig
from fastac.errors import ConfigError, NonFiniteGradientError
from fastac.lab.crew import run_all
from fastac.lab.player import MAX_VIRTUAL_WORKERS, Player, expect_native
from fastac.lab.staleness import SOLVED

ALGORITHMS = ("A2C", "A3C")
COSTS = {  # what a spread is, the least one, and those run by default
    "gamma": ("coefficient of variation of an env step's cost", 0.0, (0.0, 1.0, 2.0, 4.0, 8.0)),
    "slow": ("times that one worker is slower", 1.0, (1.0, 2.0, 4.0, 8.0, 16.0)),
    "stalls": ("length of a stall, in env steps; one in a hundred stalls", 0.0, (0.0, 10.0, 30.0, 100.0, 300.0)),
}
STALL_PROBABILITY = 0.01
WORKERS = (8, 64, 256)
LEARNING_RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
TUNING_SEEDS = tuple(range(1000, 1003))
_ROUNDS = 16  # dealt at a time


@dataclass(frozen=True)
class Plan:
    """What is varied, and what is not.

    Attributes:
        costs: a key of COSTS, and `spreads` what is said there. A mean env step takes `step_s` seconds under gamma, and
            one that is neither slower nor stalled under the others. All envs of a worker step together.
        learning_rates: for each algorithm and number of workers the best one is chosen on TUNING_SEEDS, at the first
            spread, by both algorithms alike.
        total_timesteps: a run that has not reached 475 by then is censored; one that has ends there.
        options: fields of A3CConfig, the same for every run.
    """

    costs: str = "gamma"
    spreads: tuple[float, ...] = COSTS["gamma"][2]
    workers: tuple[int, ...] = WORKERS
    learning_rates: tuple[float, ...] = LEARNING_RATES
    seeds: tuple[int, ...] = tuple(range(10))
    total_timesteps: int = 1_000_000
    step_s: float = 1e-3
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises ConfigError for what no run could be made of."""
        if self.costs not in COSTS:
            raise ConfigError(f"costs: expected one of {', '.join(COSTS)}, got {self.costs!r}")
        meaning, least, _ = COSTS[self.costs]
        for spread in self.spreads:
            if not least <= spread < math.inf:
                raise ConfigError(f"spread: expected a number >= {least:g} ({meaning}), got {spread!r}")
        for workers in self.workers:
            if not 1 <= workers <= MAX_VIRTUAL_WORKERS:
                raise ConfigError(f"workers: expected 1 to {MAX_VIRTUAL_WORKERS:,}, got {workers}")
        if set(self.seeds) & set(TUNING_SEEDS):
            raise ConfigError(
                f"seeds: expected none of {TUNING_SEEDS[0]} to {TUNING_SEEDS[-1]}, on which learning rates are chosen"
            )
        for learning_rate in self.learning_rates:
            self.config(learning_rate, 0)

    def config(self, learning_rate: float, seed: int) -> A3CConfig:
        """Of one run. Raises ConfigError for what the laboratory cannot play."""
        return expect_native(A3CConfig(**self.options, learning_rate=learning_rate, seed=seed))


@dataclass(frozen=True)
class Run:
    """One algorithm, number of workers and spread under one seed.

    Attributes:
        clock: "virtual", or "real" (lab/real.py).
        time_s, env_steps, updates: until the mean return of 100 episodes reached 475; None where it did not.
        staleness_mean, staleness_max: over the applied gradients.
        waiting: the part of the workers' time that was no rollout's: virtual ones wait for the slowest alone.
        cores: how many the run kept busy; None under the virtual clock.
    """

    algorithm: str
    workers: int
    spread: float
    learning_rate: float
    seed: int
    clock: str
    time_s: float | None
    env_steps: float | None
    updates: float | None
    staleness_mean: float
    staleness_max: int
    waiting: float
    cores: float | None = None


@dataclass(frozen=True)
class Task:
    """One training: A2C's, which no spread changes but in time, is timed under all of them."""

    plan: Plan
    algorithm: str
    workers: int
    spreads: tuple[float, ...]
    learning_rate: float
    seed: int


class Costs:
    """What rollout r of worker w takes, seconds [r, w]: the same for both algorithms under one seed."""

    def __init__(self, plan: Plan, spread: float, workers: int, seed: int) -> None:
        self._plan, self._spread, self._workers = plan, spread, workers
        self._n = plan.config(plan.learning_rates[0], seed).n_steps  # env steps of a rollout
        self._random = np.random.default_rng(seeding.cost_words(seed))
        self._dealt: list[npt.NDArray[np.float64]] = []

    def of_round(self, r: int) -> npt.NDArray[np.float64]:
        """Seconds float64[W], a view."""
        while r >= _ROUNDS * len(self._dealt):
            self._dealt.append(self._deal())
        row: npt.NDArray[np.float64] = self._dealt[r // _ROUNDS][r % _ROUNDS]
        return row

    def first(self, rounds: int) -> npt.NDArray[np.float64]:
        """Seconds float64[rounds, W]."""
        return np.stack([self.of_round(r) for r in range(rounds)])

    def _deal(self) -> npt.NDArray[np.float64]:
        shape, n, spread = (_ROUNDS, self._workers), self._n, self._spread
        steps = np.full(shape, float(n))
        if self._plan.costs == "gamma" and spread > 0:
            # The sum of n: a gamma distribution has the mean shape * scale and the variance shape * scale^2.
            steps = self._random.gamma(n / spread**2, spread**2, shape)
        elif self._plan.costs == "slow":
            steps[:, 0] *= spread
        elif self._plan.costs == "stalls":
            steps += spread * self._random.binomial(n, STALL_PROBABILITY, shape)
        return steps * self._plan.step_s


def tune(plan: Plan, jobs: int, tick: Callable[[], None] = lambda: None) -> dict[tuple[str, int], float]:
    """The learning rate of each algorithm and number of workers: most seeds solved, then the least virtual time."""
    if len(plan.learning_rates) == 1:
        return dict.fromkeys(arms_of(plan), plan.learning_rates[0])
    tasks = [
        Task(plan, algorithm, workers, plan.spreads[:1], rate, seed)
        for seed in TUNING_SEEDS
        for algorithm, workers in arms_of(plan)
        for rate in plan.learning_rates
    ]
    found: dict[tuple[str, int], dict[float, list[float]]] = {}
    for (run,) in run_all(run_one, tasks, jobs, tick):
        rates = found.setdefault((run.algorithm, run.workers), {})
        rates.setdefault(run.learning_rate, []).append(math.inf if run.time_s is None else run.time_s)
    return {arm: min(sorted(rates), key=lambda rate: _cost(rates[rate])) for arm, rates in found.items()}


def run(
    plan: Plan, rates: dict[tuple[str, int], float], jobs: int, tick: Callable[[], None] = lambda: None
) -> Iterator[Run]:
    """All runs with the rates of `tune`, seed by seed, on `jobs` processes; as they end."""
    tasks = tasks_of(plan, rates, {"A2C": [plan.spreads], "A3C": [(spread,) for spread in plan.spreads]})
    for runs in run_all(run_one, tasks, jobs, tick):
        yield from runs


def tasks_of(
    plan: Plan, rates: dict[tuple[str, int], float], spreads: dict[str, list[tuple[float, ...]]]
) -> list[Task]:
    """Seed by seed; `spreads` says for each algorithm which ones are tasks of their own."""
    return [
        Task(plan, algorithm, workers, some, rates[algorithm, workers], seed)
        for seed in plan.seeds
        for algorithm, workers in arms_of(plan)
        for some in spreads[algorithm]
    ]


def arms_of(plan: Plan) -> list[tuple[str, int]]:
    return list(itertools.product(ALGORITHMS, plan.workers))


def run_one(task: Task) -> tuple[Run, ...]:
    """The runs of one training."""
    return _a2c(task) if task.algorithm == "A2C" else (_a3c(task),)


def _a2c(task: Task) -> tuple[Run, ...]:
    """One batch of all workers' envs. An update comes when the slowest worker has ended its rollout."""
    plan = task.plan
    config = plan.config(task.learning_rate, task.seed)
    config = dataclasses.replace(config, n_envs=task.workers * config.n_envs)
    player = Player(config, 1, plan.total_timesteps)
    rounds = 0

    def step() -> None:
        nonlocal rounds
        player.update(0, player.now)
        rounds += 1

    solved = _until_solved(player, step)
    runs = []
    for spread in task.spreads:
        costs = Costs(plan, spread, task.workers, task.seed)
        slowest = sum(float(costs.of_round(r).max()) for r in range(rounds))
        mean = sum(float(costs.of_round(r).mean()) for r in range(rounds))
        runs.append(_run(task, spread, player, solved, slowest, 1.0 - mean / slowest))
    return tuple(runs)


def _a3c(task: Task) -> Run:
    """Each worker reads, rolls out as long as that takes, and updates: in the order of that time, then of numbers."""
    plan, (spread,) = task.plan, task.spreads
    player = Player(plan.config(task.learning_rate, task.seed), task.workers, plan.total_timesteps)
    costs = Costs(plan, spread, task.workers, task.seed)
    readings = [player.now] * task.workers
    rounds = [0] * task.workers
    queue = [(float(seconds), worker) for worker, seconds in enumerate(costs.of_round(0))]
    heapq.heapify(queue)
    now_s = 0.0

    def step() -> None:
        nonlocal now_s
        now_s, worker = queue[0]
        player.update(worker, readings[worker], now_s)
        readings[worker] = player.now
        rounds[worker] += 1
        heapq.heapreplace(queue, (now_s + float(costs.of_round(rounds[worker])[worker]), worker))

    return _run(task, spread, player, _until_solved(player, step), now_s, 0.0)


def _until_solved(player: Player, step: Callable[[], None]) -> dict[str, float] | None:
    """Updates until the run has reached 475, has used up its env steps, or makes no numbers any more."""
    while player.now.env_steps < player.total_timesteps:
        try:
            step()
        except NonFiniteGradientError:
            return None
        if solved := player.solved(SOLVED):
            return solved
    return None


def _run(
    task: Task, spread: float, player: Player, solved: dict[str, float] | None, now_s: float, waiting: float
) -> Run:
    ledger = player.ledger()
    return Run(
        task.algorithm,
        task.workers,
        spread,
        task.learning_rate,
        task.seed,
        "virtual",
        now_s if solved else None,
        solved["env_steps"] if solved else None,
        solved["updates"] if solved else None,
        ledger.staleness_mean,
        ledger.staleness_max,
        waiting,
    )


def _cost(times: Sequence[float]) -> tuple[int, float]:
    solved = [seconds for seconds in times if math.isfinite(seconds)]
    return len(times) - len(solved), float(np.median(solved)) if solved else math.inf
