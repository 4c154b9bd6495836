"""What A2C and A3C have in common: a policy, an optimizer state, counters, and how these are used and saved."""

from __future__ import annotations

import dataclasses
import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from fastac import _core
from fastac.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from fastac.config import Config
from fastac.errors import CheckpointError, ConfigError
from fastac.metrics import History
from fastac.policy import OBS_DIM, make_policy, one_torch_thread
from fastac.progress import WaitingProgress
from fastac.rollout import sample
from fastac.shared import Ledger
from fastac.signals import signals_deferred
from fastac.updates import Run

AlgorithmT = TypeVar("AlgorithmT", bound="Algorithm")


class Algorithm(ABC):
    """Base of A2C and A3C.

    Attributes:
        config: all hyper-parameters, the seed resolved.
        num_timesteps: env steps trained on so far, over all learn() calls.
        version: optimizer updates so far.
        history, ledger: of the last learn(); None before the first.
    """

    config_type: ClassVar[type[Config]]

    def __init__(self, config: Config) -> None:
        self.config = config.resolve_seed()
        self.policy = make_policy(self.config)
        self.state = np.zeros((_core.state_vectors(config.optimizer), self.policy.n_params), np.float32)
        self.version = 0
        self.num_timesteps = 0
        self.learn_calls = 0
        self.history: History | None = None
        self.ledger: Ledger | None = None
        self._predict_random = np.random.default_rng(self.config.seed)

    def learn(self: AlgorithmT, total_timesteps: int, *, progress_bar: bool | str = False) -> AlgorithmT:
        """Trains for `total_timesteps` more env steps, counted over all workers, and returns the model itself.

        Ends with the first update at or after that count. On Ctrl-C, and when a worker fails, the workers are
        stopped, the model keeps what was learned so far, and the exception is raised. Schedules run over this call.
        `progress_bar` shows one on stderr, under the given label if it is a text.

        Raises:
            ConfigError: total_timesteps is no whole number >= 1.
            WorkerError, WorkerDiedError, NonFiniteGradientError: a worker failed; which, and why.
            LedgerError: a gradient was lost or applied twice.
        """
        if (
            isinstance(total_timesteps, bool)
            or not isinstance(total_timesteps, (int, np.integer))
            or total_timesteps < 1
        ):
            raise ConfigError(f"total_timesteps: expected a whole number >= 1, got {total_timesteps!r}")
        label = progress_bar if isinstance(progress_bar, str) else type(self).__name__
        with (
            one_torch_thread(),
            WaitingProgress(int(total_timesteps), label, "env steps", visible=bool(progress_bar)) as progress,
        ):
            run: Run | None = None
            try:
                with signals_deferred():
                    run = self._open(progress)
                self._train(run, int(total_timesteps))
            finally:
                if run is not None:
                    with signals_deferred():
                        self._close(run)
        return self

    def _close(self, run: Run) -> None:
        """Takes over what was learned, however the run ended, and checks its books."""
        outcome = run.close()
        self.policy.params[:] = outcome.params
        self.state = outcome.state
        self.version = outcome.version
        self.num_timesteps += outcome.env_steps
        self.learn_calls += 1
        self.history, self.ledger = outcome.history, outcome.ledger
        outcome.ledger.check()

    def predict(self, obs: npt.ArrayLike, deterministic: bool = False) -> tuple[npt.NDArray[np.int64], None]:
        """Actions for observations float[N, 4] (int64[N]) or one observation float[4] (int64[]).

        Returns (actions, None), as in Stable-Baselines3: there is no recurrent state. Raises ValueError for another
        shape.
        """
        batch = np.asarray(obs, np.float32)
        if batch.ndim not in (1, 2) or batch.shape[-1] != OBS_DIM:
            raise ValueError(f"obs: expected shape [{OBS_DIM}] or [N, {OBS_DIM}], got {list(batch.shape)}")
        probabilities, _ = self.policy.act(np.ascontiguousarray(batch.reshape(-1, OBS_DIM)))
        if deterministic:
            actions = probabilities.argmax(axis=1)
        else:
            actions = sample(probabilities, self._predict_random.random(len(probabilities)))
        return actions.reshape(batch.shape[:-1]), None

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes parameters, optimizer state, counters and configuration to one safetensors file; returns its path."""
        return save_checkpoint(
            path,
            Checkpoint(
                type(self).__name__,
                self.config.to_dict(),
                self.policy.params,
                self.state,
                self.version,
                self.num_timesteps,
                self.learn_calls,
            ),
        )

    @classmethod
    def load(cls: type[AlgorithmT], path: str | os.PathLike[str]) -> AlgorithmT:
        """The model that `save` wrote, or that `fastac train` left in a run folder.

        Raises FileNotFoundError, or CheckpointError if the file is damaged or holds another algorithm's model.
        """
        saved = load_checkpoint(path)
        if saved.algorithm != cls.__name__:
            raise CheckpointError(
                f"{path}: expected an {cls.__name__} model, got {saved.algorithm}: use fastac.{saved.algorithm}.load"
            )
        model = cls._from_config(cls.config_type.from_dict(saved.config))
        if saved.params.shape != model.policy.params.shape or saved.state.shape != model.state.shape:
            raise CheckpointError(
                f"{path}: expected {model.policy.n_params} parameters for this configuration, got {len(saved.params)}"
            )
        model.policy.params[:] = saved.params
        model.state = saved.state
        model.version, model.num_timesteps, model.learn_calls = (
            saved.version,
            saved.num_timesteps,
            saved.learn_calls,
        )
        return model

    @classmethod
    def _from_config(cls: type[AlgorithmT], config: Config) -> AlgorithmT:
        return cls(**{field.name: getattr(config, field.name) for field in dataclasses.fields(config)})

    @abstractmethod
    def _open(self, progress: WaitingProgress) -> Run:
        """The run of one learn(): as many seats as there are workers."""

    @abstractmethod
    def _train(self, run: Run, total_timesteps: int) -> None:
        """The loop, from the first rollout to the last update."""

    def _new_run(self, progress: WaitingProgress, workers: int, update: str) -> Run:
        return Run(
            self.config,
            self.policy.params,
            self.state,
            self.version,
            workers=workers,
            update=update,
            progress=progress,
        )


def config_from(config_type: type[Config], env: str, options: dict[str, Any]) -> Any:
    """The config of keyword arguments. Raises ConfigError for a name that is no field."""
    return config_type.from_dict({"env": env, **options})
