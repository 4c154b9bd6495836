"""Callbacks for learn(callback=...): evaluation, checkpoints, thresholds. The names are Stable-Baselines3's.

In: the Training that each is told of (training.py). Out: False, to end it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from fastac.algorithm import Algorithm
from fastac.errors import ConfigError
from fastac.evaluation import evaluate_policy
from fastac.metrics import WINDOW
from fastac.problem import expect_env
from fastac.training import BaseCallback, MaybeCallback, Nesting, Step, Training


class EveryNUpdates(Nesting):
    """Calls another callback, a function of the Training, or each of a list of them, every `n_updates` updates."""

    def __init__(self, n_updates: int, callback: BaseCallback | Step | Sequence[BaseCallback | Step]) -> None:
        super().__init__(callback)
        self.every_updates = _positive("n_updates", n_updates)
        if not self._nested:
            raise ConfigError(f"callback: expected a BaseCallback, a function or a list of them, got {callback!r}")

    def on_step(self, training: Training) -> bool:
        return self.call_nested(training)


class CheckpointCallback(BaseCallback):
    """Saves the model every `save_freq` env steps, as `<save_path>/<name_prefix>_<env steps>_steps.safetensors`."""

    def __init__(self, save_freq: int, save_path: str | Path, name_prefix: str = "rl_model") -> None:
        self.every_timesteps = _positive("save_freq", save_freq)
        self._path, self._prefix = Path(save_path), name_prefix

    def on_step(self, training: Training) -> None:
        model = training.model  # first: the env steps are its own from then on
        model.save(self._path / f"{self._prefix}_{training.num_timesteps}_steps.safetensors")


class EvalCallback(Nesting):
    """Plays `n_eval_episodes` every `eval_freq` env steps, and keeps the model that did best.

    Attributes:
        best_mean_reward: of one evaluation; -infinity before the first.
        last_mean_reward: of the latest; NaN before the first.
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
        callback_on_new_best: MaybeCallback = None,
    ) -> None:
        """
        Args:
            eval_env: what to play in, as `env` of evaluate_policy; the model's own kind if None.
            eval_freq: env steps of all envs.
            n_eval_episodes: in each evaluation.
            deterministic: take the most probable action instead of sampling.
            seed: of the initial states, the same in each evaluation; drawn from the system if None.
            best_model_save_path: a folder, for best_model.safetensors.
            callback_on_new_best: called then; it may end the training.

        Raises:
            ConfigError: a number < 1, or an eval_env that is none.
        """
        super().__init__(callback_on_new_best)
        if eval_env is not None:
            expect_env(eval_env)
        self.every_timesteps = _positive("eval_freq", eval_freq)
        self.best_mean_reward, self.last_mean_reward = -math.inf, math.nan
        self.evaluations: list[tuple[int, float, float]] = []
        self._evaluate = functools.partial(
            evaluate_policy,
            env=eval_env,
            n_eval_episodes=_positive("n_eval_episodes", n_eval_episodes),
            deterministic=deterministic,
            seed=seed,
        )
        self._save_path = None if best_model_save_path is None else Path(best_model_save_path)

    def on_step(self, training: Training) -> bool | None:
        mean, std = self._evaluate(cast(Algorithm, training.model))
        self.last_mean_reward = mean
        self.evaluations.append((training.num_timesteps, mean, std))
        if not mean > self.best_mean_reward:  # nor where an env rewards with NaN
            return None
        self.best_mean_reward = mean
        if self._save_path is not None:
            training.model.save(self._save_path / "best_model.safetensors")
        training.eval_mean_reward = mean
        try:
            return self.call_nested(training)
        finally:
            training.eval_mean_reward = None


class StopTrainingOnRewardThreshold(BaseCallback):
    """Ends the training once the mean return of the last 100 episodes is `reward_threshold` or more.

    As `callback_on_new_best` of an EvalCallback: once that of the evaluation is.
    """

    def __init__(self, reward_threshold: float) -> None:
        self._threshold = float(reward_threshold)

    def on_step(self, training: Training) -> bool:
        if training.eval_mean_reward is not None:
            return not training.eval_mean_reward >= self._threshold
        return training.ep_count < WINDOW or not training.ep_rew_mean >= self._threshold


def _positive(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{name}: expected a whole number >= 1, got {value!r}")
    return value
