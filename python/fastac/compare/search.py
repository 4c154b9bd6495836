"""A random search for hyper-parameters, with the same budget for every algorithm and number of envs.

In: cases and budgets. Out: for each case the candidates with the env steps that they needed by seed, best first.
Every case tries the same candidates on the same seeds with as many env steps; who does well goes on to more seeds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastac.a2c import A2C
from fastac.a3c import A3C
from fastac.algorithm import Algorithm
from fastac.errors import NonFiniteGradientError
from fastac.metrics import SOLVED

# (one in k of the candidates, seeds that each of them has been tried on by the end of the round)
ROUNDS = ((1, 3), (4, 5), (16, 10), (32, 30))
FIRST_SEED, FIRST_FRESH_SEED = 1000, 5000

Options = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """What is tuned: an algorithm with a number of envs. A3C has one env for each of as many workers."""

    algorithm: str  # "a2c" or "a3c"
    n_envs: int

    @property
    def name(self) -> str:
        return f"{self.algorithm}-{self.n_envs}"

    @property
    def size(self) -> Options:
        """The field of the config that says so."""
        return {"n_envs" if self.algorithm == "a2c" else "workers": self.n_envs}

    def model(self, options: Options, seed: int) -> Algorithm:
        if self.algorithm == "a2c":
            return A2C(**self.size, **options, seed=seed)
        return A3C(**self.size, **options, seed=seed, backend="thread")


@dataclass
class Candidate:
    """A set of hyper-parameters, and how it did: env steps to SOLVED by seed, infinity where they did not suffice."""

    options: Options
    env_steps: dict[int, float] = field(default_factory=dict)

    @property
    def solved(self) -> int:
        return sum(map(math.isfinite, self.env_steps.values()))

    def rank(self) -> tuple[int, float]:
        """Smaller is better: unsolved seeds first, then the median over the seeds."""
        return len(self.env_steps) - self.solved, float(np.median(list(self.env_steps.values())))


def draw(random: np.random.Generator) -> Options:
    """One candidate."""
    deep = bool(random.integers(2))
    low, high = (1e-3, 8e-3) if deep else (2e-3, 1.6e-2)
    return {
        "hidden_sizes": (64, 64) if deep else (128,),
        "learning_rate": float(f"{math.exp(random.uniform(math.log(low), math.log(high))):.2g}"),
        "n_steps": int(random.choice([4, 8, 16, 24, 32])),
        "gae_lambda": float(random.choice([0.7, 0.75, 0.8, 0.85, 0.9])),
        "max_grad_norm": float(random.choice([0.5, 0.7, 1.0])),
        "ent_coef": float(random.choice([0.0, 1e-4, 1e-3])),
        "vf_coef": float(random.choice([0.25, 0.5, 1.0])),
        "reward_scale": float(random.choice([0.1, 0.15, 0.2])),
        "eps": float(random.choice([1e-5, 1e-4, 1e-3])),
    }


@dataclass
class Search:
    """The search of one case.

    Attributes:
        candidates: all that were drawn; the same for every case of a seed.
        fresh: the winner, if there is one, and the defaults, on seeds that the search has not seen, once `run` has come
            to its end.
    """

    case: Case
    n_candidates: int
    total_timesteps: int
    n_fresh: int
    seed: int = 0
    candidates: list[Candidate] = field(init=False)
    fresh: dict[str, Candidate] = field(default_factory=dict)

    def __post_init__(self) -> None:
        random = np.random.default_rng(self.seed)
        self.candidates = [Candidate(draw(random)) for _ in range(self.n_candidates)]

    @property
    def n_runs(self) -> int:
        """Trainings in all; fewer where none solved."""
        tried, total = 0, 0
        for one_in, seeds in ROUNDS:
            total += self._left(one_in) * (seeds - tried)
            tried = seeds
        return total + 2 * self.n_fresh

    def run(self) -> Iterator[None]:
        """Trains, and yields after each training."""
        for one_in, seeds in ROUNDS:
            for candidate in self.best()[: self._left(one_in)]:
                tried = len(candidate.env_steps)
                yield from self._try(candidate, range(FIRST_SEED + tried, FIRST_SEED + seeds), self.total_timesteps)
        winner = self.winner()
        self.fresh = {} if winner is None else {"found": Candidate(winner.options)}
        self.fresh["defaults"] = Candidate({})
        for candidate in self.fresh.values():
            fresh = range(FIRST_FRESH_SEED, FIRST_FRESH_SEED + self.n_fresh)
            yield from self._try(candidate, fresh, 2 * self.total_timesteps)

    def best(self) -> list[Candidate]:
        """Best first; those that went on to more seeds before the others."""
        return sorted(self.candidates, key=lambda candidate: (-len(candidate.env_steps), *_rank_of(candidate)))

    def winner(self) -> Candidate | None:
        """The best; None where that, too, solved on no seed: what ranks first then is chance."""
        best = self.best()[0]
        return best if best.solved else None

    def _left(self, one_in: int) -> int:
        return max(1, self.n_candidates // one_in)

    def _try(self, candidate: Candidate, seeds: Sequence[int], total_timesteps: int) -> Iterator[None]:
        for seed in seeds:
            candidate.env_steps[seed] = env_steps_to_solve(self.case, candidate.options, seed, total_timesteps)
            yield


def _rank_of(candidate: Candidate) -> tuple[int, float]:
    return candidate.rank() if candidate.env_steps else (0, 0.0)


def env_steps_to_solve(case: Case, options: Options, seed: int, total_timesteps: int) -> float:
    """Infinity where `total_timesteps` did not suffice, or training diverged."""
    model = case.model(options, seed)
    try:
        model.learn(total_timesteps, solve=SOLVED)
    except NonFiniteGradientError:
        return math.inf
    assert model.history is not None
    solved = model.history.time_to(SOLVED)
    return math.inf if solved is None else solved["env_steps"]
