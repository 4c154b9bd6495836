"""A learn() under way, as its callbacks see it: in the parent, between two updates, whatever the workers are at.

In: the Run and callbacks of the user's own or of callbacks.py. Out: each is called when it is due, and may end the run.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fastac.errors import ConfigError
from fastac.metrics import History, UpdateSums
from fastac.normalization import Statistics
from fastac.shared import Ledger
from fastac.updates import Run


class Model(Protocol):
    """What callbacks may use of an Algorithm."""

    params: npt.NDArray[np.float32]
    statistics: Statistics

    @property
    def title(self) -> str: ...
    def predict(self, obs: npt.ArrayLike, deterministic: bool = False) -> tuple[npt.NDArray[Any], Any]: ...
    def save(self, path: str | os.PathLike[str]) -> Path: ...


class Training:
    """A learn() under way.

    Attributes:
        title: of the model, "A3C MlpPolicy on CartPole-v1, native engine".
        total_timesteps: env steps that it was asked for.
        env_steps: made so far in this learn(), and in what it resumes.
        n_updates: optimizer updates of the model so far.
        eval_mean_reward: of the evaluation for which an EvalCallback is calling its callback_on_new_best; else None.
    """

    def __init__(self, model: Model, run: Run, before: int) -> None:
        self._model = model
        self._run = run
        self._before = before - run.begin.env_steps  # of the model, in its earlier learn() calls
        self._told: dict[Hashable, UpdateSums] = {}  # to whom
        self.title = model.title
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
        """Mean undiscounted return of the model's last 100 episodes, of all workers; NaN before the first.

        Those of earlier learn() calls count, as in Stable-Baselines3 with reset_num_timesteps=False.
        """
        return self._run.recent.means()[0]

    @property
    def ep_count(self) -> int:
        """Of how many episodes these means are: 100, and fewer before so many have ended."""
        return len(self._run.recent.latest())

    @property
    def ep_len_mean(self) -> float:
        """Their mean length in env steps."""
        return self._run.recent.means()[1]

    @property
    def model(self) -> Model:
        """With the parameters of now: to predict, evaluate or save. Its training state is not to be changed.

        Within one call of a callback it is one and the same, though workers of A3C go on: what is evaluated is what is
        saved, and `env_steps`, `num_timesteps` and `n_updates` are its own from then on.
        """
        moment = self._run.moment()
        self._model.params[:] = moment.params
        self._model.statistics = moment.statistics
        self.env_steps, self.n_updates = moment.position.env_steps, moment.version
        return self._model

    def ledger(self) -> Ledger:
        """Where every gradient went so far, and what each worker has brought."""
        return Ledger.of(self._run.session, self._run.update, self._run.toll, self._run.seconds)

    def history(self) -> History:
        """The tables so far."""
        return self._run.history()

    def scalars(self, asker: Hashable = None) -> dict[str, float]:
        """What loggers write, by the keys of Stable-Baselines3 and `async/*`.

        Losses and their like are means over the updates since the call before by the same asker that were logged, of
        which the native engine logs ever fewer (History.updates); NaN where none was.
        """
        episodes, lengths = self._run.recent.means()
        updates = self._run.recent.updates()
        its = updates.means_since(self._told.get(asker))
        self._told[asker] = updates
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

    def show_progress(self, visible: bool) -> None:
        """The bar of learn(progress_bar=True), or its lines where there is no terminal: whether they are shown."""
        self._run.progress.visible = visible

    def stop(self) -> None:
        """Ends the training, as one that is done, with the updates under way."""
        self._run.end()


class BaseCallback:
    """To be derived from: `on_step` is called at each look of the parent, every 50 ms, or when `every_*` says.

    A2C keeps to `every_updates` to the update, and to `every_timesteps` to the first update after as many. A3C's
    workers go on meanwhile: it is called at the first look after as many, once however many there were. What it raises
    ends the training, and learn() raises it.

    Attributes:
        every_updates: updates between two calls; 0 if they do not matter.
        every_timesteps: env steps between two calls; 0 likewise. Where several of these are set, all are waited for.
        every_s: seconds between two calls; 0 likewise.
    """

    every_updates: int = 0
    every_timesteps: int = 0
    every_s: float = 0.0

    def on_training_start(self, training: Training) -> None:
        """Once, before the first rollout."""

    def on_step(self, training: Training) -> bool | None:
        """Returns False to end the training, and is not called again then."""

    def on_training_end(self, training: Training) -> None:
        """Once, after the last update, however it ended, where it was told of the start."""


Step = Callable[[Training], "bool | None"]
MaybeCallback = BaseCallback | Step | Sequence["BaseCallback | Step"] | None


class _Function(BaseCallback):
    def __init__(self, step: Step) -> None:
        self._step = step

    def on_step(self, training: Training) -> bool | None:
        return self._step(training)


def as_callbacks(callback: MaybeCallback) -> list[BaseCallback]:
    """One, several or none, functions among them. Raises ConfigError for what is none of these."""
    if callback is None:
        return []
    several = list(callback) if isinstance(callback, Sequence) else [callback]
    for one in several:
        if not (isinstance(one, BaseCallback) or callable(one)):
            raise ConfigError(f"callback: expected a BaseCallback, a function or a list of them, got {one!r}")
    return [one if isinstance(one, BaseCallback) else _Function(one) for one in several]


@contextlib.contextmanager
def told(callbacks: Sequence[BaseCallback], training: Training) -> Iterator[None]:
    """Around a training: each is told of its start, and those that were are told of its end, in the other order."""
    if not callbacks:
        yield
        return
    callbacks[0].on_training_start(training)
    try:
        with told(callbacks[1:], training):
            yield
    finally:
        callbacks[0].on_training_end(training)


class Nesting(BaseCallback):
    """One that calls others, whenever it wants to; they are told of start and end with it."""

    def __init__(self, callback: MaybeCallback) -> None:
        self._nested = as_callbacks(callback)
        self._told = contextlib.ExitStack()

    def on_training_start(self, training: Training) -> None:
        self._told.enter_context(told(self._nested, training))

    def call_nested(self, training: Training) -> bool:
        """Calls each. Whether the training goes on."""
        return False not in [callback.on_step(training) for callback in self._nested]

    def on_training_end(self, training: Training) -> None:
        self._told.close()


class Calls:
    """A callback in a run: when it is due, and what it says."""

    def __init__(self, callback: BaseCallback, training: Training, run: Run) -> None:
        self._callback = callback
        self._training = training
        self._run = run
        self._updates, self._env_steps = training.n_updates, training.env_steps
        self._seen = training.n_updates  # at its latest call
        self._next_s = time.monotonic() + callback.every_s

    def updates_left(self, env_steps: int) -> int:
        """Until it is due, with `env_steps` in each; 0 where neither count decides that."""
        its, now = self._callback, self._training
        if not its.every_updates and not its.every_timesteps:
            return 0
        updates = self._updates + its.every_updates - now.n_updates
        of_env_steps = math.ceil((self._env_steps + its.every_timesteps - now.env_steps) / env_steps)
        return max(1, updates, of_env_steps)

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
        self._seen = now.n_updates
        self._next_s = math.inf  # one that failed, or ended the run, is not called again while it is taken down
        with self._run.one_moment():
            goes_on = its.on_step(now) is not False
        if goes_on:
            self._next_s = time.monotonic() + its.every_s
        else:
            self._run.end()

    def do_at_the_end(self) -> None:
        """Calls it, where it is due, of the last update: a run may be over before the parent's first look."""
        self._training.refresh()
        if self._training.n_updates != self._seen:
            self.do_if_due()


@contextlib.contextmanager
def calling(callbacks: Sequence[BaseCallback], model: Model, run: Run, num_timesteps: int) -> Iterator[None]:
    """Around the training of a model that had made `num_timesteps`: all of its callbacks are told and asked."""
    if not callbacks:
        yield
        return
    training = Training(model, run, num_timesteps)
    with told(callbacks, training):
        calls = [Calls(callback, training, run) for callback in callbacks]
        run.jobs += calls
        try:
            yield
            run.tick(now=True)
            for call in calls:
                call.do_at_the_end()
        finally:
            training.refresh()


def _passed(done: int, every: int) -> int:
    """Whole intervals of `every` in `done`: so that what is called every 1,000 steps keeps to the thousands."""
    return done // every * every if every else 0
