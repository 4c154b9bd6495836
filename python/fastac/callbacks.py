"""What a learn() calls while it trains: in the parent, between two updates, whatever the workers are at.

In: a Training, the run as it stands. Out: False, to end it. The names are Stable-Baselines3's.
"""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastac.errors import ConfigError
from fastac.metrics import History
from fastac.shared import Ledger
from fastac.updates import Run

if TYPE_CHECKING:
    from fastac.algorithm import Algorithm


class Training:
    """A learn() under way.

    Attributes:
        total_timesteps: env steps that it was asked for.
        eval_mean_reward: of the latest EvalCallback; None before it.
    """

    def __init__(self, model: Algorithm, run: Run, before: int) -> None:
        self._model = model
        self._run = run
        self._before = before - run.begin.env_steps  # of the model, in its earlier learn() calls
        self._version = -1  # of the parameters that the model has
        self.total_timesteps = run.begin.total_timesteps
        self.eval_mean_reward: float | None = None
        self.refresh()

    def refresh(self) -> None:
        """Looks at the run."""
        now = self._run.session.snapshot()
        self.env_steps: int = now["env_steps"]
        self.n_updates: int = now["version"]

    @property
    def num_timesteps(self) -> int:
        """Env steps of the model, over all its learn() calls."""
        return self._before + self.env_steps

    @property
    def time_elapsed(self) -> float:
        """Seconds of training in this learn()."""
        return self._run.wall_s

    @property
    def ep_rew_mean(self) -> float:
        """Mean undiscounted return of the last 100 episodes of all workers; NaN before the first."""
        return self._run.recent.means()[0]

    @property
    def ep_len_mean(self) -> float:
        """Their mean length in env steps."""
        return self._run.recent.means()[1]

    @property
    def model(self) -> Algorithm:
        """With the parameters of now: to predict, evaluate or save. Its training state is not to be changed."""
        if self._version != self.n_updates:
            moment = self._run.moment()
            self._model.params[:] = moment.params
            self._model.statistics = moment.statistics
            self._version = self.n_updates
        return self._model

    def ledger(self) -> Ledger:
        """Where every gradient went so far, and what each worker has brought."""
        return Ledger.of(self._run.session, self._run.update, self._run.toll, self.time_elapsed)

    def history(self) -> History:
        """The tables so far."""
        return self._run.history()

    def scalars(self) -> dict[str, float]:
        """What loggers write, by the keys of Stable-Baselines3 and `async/*`.

        Losses and their like are means over the updates since the call before; NaN where there were none.
        """
        episodes, lengths = self._run.recent.means()
        its = self._run.recent.take_updates()
        books = self._run.session.ledger()
        applied = books["applied"]
        return {
            "rollout/ep_rew_mean": episodes,
            "rollout/ep_len_mean": lengths,
            "time/fps": (self.env_steps - self._run.begin.env_steps) / max(self._run.seconds, 1e-9),
            "time/time_elapsed": self.time_elapsed,
            "time/total_timesteps": float(self.num_timesteps),
            "train/n_updates": float(self.n_updates),
            "train/learning_rate": its["learning_rate"],
            "train/entropy_loss": -its["entropy"],
            "train/policy_loss": its["policy_loss"],
            "train/value_loss": its["value_loss"],
            "train/explained_variance": its["explained_variance"],
            "train/grad_norm": its["grad_norm"],
            "async/staleness": its["staleness"],
            "async/staleness_mean": books["staleness_sum"] / applied if applied else math.nan,
            "async/staleness_max": float(books["staleness_max"]),
            "async/retries": float(books["retries"]),
            "async/rejected": float(books["rejected_nonfinite"] + books["rejected_stale"]),
            "async/aborted": float(books["aborted"]),
            "async/deaths": float(self._run.toll.deaths),
        }

    def stop(self) -> None:
        """Ends the training, as one that is done, with the updates under way."""
        self._run.end()


class BaseCallback:
    """To be derived from: `on_step` is called at each look of the parent, every 50 ms, or when `every_*` says.

    A2C keeps to `every_updates` to the update. A3C's workers go on meanwhile: it is called at the first look after as
    many, once however many there were. What it raises ends the training, and learn() raises it.
    """

    every_updates: int = 0
    every_timesteps: int = 0
    every_s: float = 0.0

    def on_training_start(self, training: Training) -> None:
        """Once, before the first rollout."""

    def on_step(self, training: Training) -> bool | None:
        """Returns False to end the training."""

    def on_training_end(self, training: Training) -> None:
        """Once, after the last update, however it ended."""


Step = Callable[[Training], "bool | None"]
MaybeCallback = BaseCallback | Step | Sequence["BaseCallback | Step"] | None


class _Function(BaseCallback):
    def __init__(self, step: Step) -> None:
        self._step = step

    def on_step(self, training: Training) -> bool | None:
        return self._step(training)


class EveryNUpdates(BaseCallback):
    """Calls another callback, or a function of the Training, every `n_updates` updates."""

    def __init__(self, n_updates: int, callback: BaseCallback | Step) -> None:
        self.every_updates = _positive("n_updates", n_updates)
        self._callback = as_callbacks(callback)[0]

    def on_training_start(self, training: Training) -> None:
        self._callback.on_training_start(training)

    def on_step(self, training: Training) -> bool | None:
        return self._callback.on_step(training)

    def on_training_end(self, training: Training) -> None:
        self._callback.on_training_end(training)


class CheckpointCallback(BaseCallback):
    """Saves the model every `save_freq` env steps, as <save_path>/<name_prefix>_<env steps>_steps.safetensors."""

    def __init__(self, save_freq: int, save_path: str | Path, name_prefix: str = "rl_model") -> None:
        self.every_timesteps = _positive("save_freq", save_freq)
        self._path, self._prefix = Path(save_path), name_prefix

    def on_step(self, training: Training) -> None:
        training.model.save(self._path / f"{self._prefix}_{training.num_timesteps}_steps.safetensors")


class EvalCallback(BaseCallback):
    """Plays `n_eval_episodes` every `eval_freq` env steps, and keeps the model that did best.

    Attributes:
        best_mean_reward, last_mean_reward: of one evaluation; -infinity and NaN before the first.
        evaluations: (env steps of the model, mean, standard deviation) of each.
    """

    def __init__(
        self,
        eval_env: Any = None,
        *,
        eval_freq: int = 10_000,
        n_eval_episodes: int = 5,
        deterministic: bool = True,
        seed: int | None = None,
        best_model_save_path: str | Path | None = None,
        callback_on_new_best: BaseCallback | Step | None = None,
    ) -> None:
        """
        Args:
            eval_env, n_eval_episodes, deterministic, seed: as of evaluate_policy.
            eval_freq: env steps.
            best_model_save_path: a folder, for best_model.safetensors.
            callback_on_new_best: called then; it may end the training.
        """
        self.every_timesteps = _positive("eval_freq", eval_freq)
        self.best_mean_reward, self.last_mean_reward = -math.inf, math.nan
        self.evaluations: list[tuple[int, float, float]] = []
        self._evaluate = functools.partial(
            _evaluate, env=eval_env, n_eval_episodes=n_eval_episodes, deterministic=deterministic, seed=seed
        )
        self._save_path = None if best_model_save_path is None else Path(best_model_save_path)
        self._on_new_best = as_callbacks(callback_on_new_best)

    def on_step(self, training: Training) -> bool | None:
        mean, std = self._evaluate(training.model)
        self.last_mean_reward = training.eval_mean_reward = mean
        self.evaluations.append((training.num_timesteps, mean, std))
        if mean <= self.best_mean_reward:
            return None
        self.best_mean_reward = mean
        if self._save_path is not None:
            training.model.save(self._save_path / "best_model.safetensors")
        return all(callback.on_step(training) is not False for callback in self._on_new_best)


class StopTrainingOnRewardThreshold(BaseCallback):
    """Ends the training once the mean return of the last 100 episodes is `reward_threshold` or more.

    As `callback_on_new_best` of an EvalCallback: once that of the evaluation is.
    """

    def __init__(self, reward_threshold: float) -> None:
        self._threshold = float(reward_threshold)

    def on_step(self, training: Training) -> bool:
        mean = training.ep_rew_mean if training.eval_mean_reward is None else training.eval_mean_reward
        return not mean >= self._threshold


def _evaluate(model: Algorithm, **options: Any) -> tuple[float, float]:
    from fastac.evaluation import evaluate_policy  # which stands above, on models

    return evaluate_policy(model, **options)


def as_callbacks(callback: MaybeCallback) -> list[BaseCallback]:
    """One, several or none, functions among them. Raises ConfigError for what is none of these."""
    if callback is None:
        return []
    several = list(callback) if isinstance(callback, Sequence) else [callback]
    for one in several:
        if not (isinstance(one, BaseCallback) or callable(one)):
            raise ConfigError(f"callback: expected a BaseCallback, a function or a list of them, got {one!r}")
    return [one if isinstance(one, BaseCallback) else _Function(one) for one in several]


class Calls:
    """A callback in a run: when it is due, and what it says."""

    def __init__(self, callback: BaseCallback, training: Training, run: Run) -> None:
        self._callback = callback
        self._training = training
        self._run = run
        self._updates, self._env_steps = training.n_updates, training.env_steps
        self._next_s = time.monotonic() + callback.every_s

    def updates_left(self) -> int:
        """Until it is due; 0 where updates do not decide that."""
        its = self._callback
        return max(1, self._updates + its.every_updates - self._training.n_updates) if its.every_updates else 0

    def do_if_due(self) -> None:
        """Calls it, where it is time."""
        self._training.refresh()
        its, now = self._callback, self._training
        if (
            now.n_updates - self._updates < its.every_updates
            or now.env_steps - self._env_steps < its.every_timesteps
            or time.monotonic() < self._next_s
        ):
            return
        self._updates += _passed(now.n_updates - self._updates, its.every_updates)
        self._env_steps += _passed(now.env_steps - self._env_steps, its.every_timesteps)
        if its.on_step(now) is False:
            self._run.end()
        self._next_s = time.monotonic() + its.every_s


@contextlib.contextmanager
def calling(callbacks: Sequence[BaseCallback], model: Algorithm, run: Run, num_timesteps: int) -> Iterator[None]:
    """Around the training of a model that had made `num_timesteps`: all of its callbacks are told and asked."""
    if not callbacks:
        yield
        return
    training = Training(model, run, num_timesteps)
    for callback in callbacks:
        callback.on_training_start(training)
    calls = [Calls(callback, training, run) for callback in callbacks]
    run.jobs += calls
    try:
        yield
        run.tick(now=True)
        for call in calls:
            call.do_if_due()  # a run may be over before the parent's first look
    finally:
        training.refresh()
        for callback in callbacks:
            callback.on_training_end(training)


def _passed(done: int, every: int) -> int:
    """Whole intervals of `every` in `done`: so that what is called every 1,000 steps keeps to the thousands."""
    return done // every * every if every else 0


def _positive(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{name}: expected a whole number >= 1, got {value!r}")
    return value
