"""What A2C and A3C have in common: a policy, an optimizer state, counters, and how these are used and saved."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from fastac import _core
from fastac.checkpoint import Arrays, Checkpoint, load_checkpoint, save_checkpoint
from fastac.config import CUSTOM_POLICY, Config, with_functions_tabulated
from fastac.engines import at_work
from fastac.errors import CheckpointError, ConfigError, NothingToResumeError
from fastac.metrics import History, Position, Recent, expect_reachable
from fastac.mlp import act, initial_params, sample
from fastac.normalization import Statistics
from fastac.problem import CARTPOLE_PROBLEM, arguments_of, is_made, names_an_env, solve_problem
from fastac.progress import WaitingProgress
from fastac.shared import Ledger
from fastac.signals import signals_deferred
from fastac.standing import Keeping, OnCheckpoint, Pathlike, Standing
from fastac.training import BaseCallback, MaybeCallback, as_callbacks, calling
from fastac.updates import LocalRun, Moment, Run
from fastac.words import counted

if TYPE_CHECKING:
    from fastac.policy import FlatPolicy

AlgorithmT = TypeVar("AlgorithmT", bound="Algorithm")
Float32 = npt.NDArray[np.float32]


_OF_ENVS = ("n_envs", "max_episode_steps", "env_kwargs")


class Cluster(Protocol):
    """Other machines to train on: cluster/ray_cluster.py."""

    def expect_possible(self, model: Algorithm) -> None:
        """Raises ConfigError for a model that it cannot train."""

    def open(self, model: Algorithm, progress: WaitingProgress) -> Run: ...
    def train(self, model: Algorithm, run: Run) -> None: ...


@contextlib.contextmanager
def _whole_but(path: Pathlike, why: str) -> Iterator[None]:
    """Around reading what a file says that is not damaged: raises CheckpointError where it makes no sense here."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: whole, but {why}: {error!r}") from error


class Algorithm(ABC):
    """Base of A2C and A3C.

    Attributes:
        config: all hyper-parameters, the seed resolved.
        params: the policy's parameters, float32[P], and so for good: learn() writes them when it ends.
        state: the optimizer's state, float32[S, P].
        num_timesteps: env steps trained on so far, over all learn() calls.
        version: optimizer updates so far.
        learn_calls: calls of learn() and resume() so far.
        unfinished: how far the last learn() came, if it was interrupted; None if it was not.
        history: what the last learn() or resume() logged; None before the first.
        ledger: where its gradients went; None before the first.
    """

    config_type: ClassVar[type[Config]]

    def __init__(self, *policy_and_env: Any, **options: Any) -> None:
        policy, env, options = arguments_of(policy_and_env, options)
        config, self.problem = solve_problem(self.config_type, env, policy, with_functions_tabulated(options))
        self.config = config.resolve_seed()
        self.params = self._initial_params()
        self.statistics = Statistics.empty(self.config, self.problem.spaces)
        self.state = np.zeros((_core.state_vectors(config.optimizer), len(self.params)), np.float32)
        self._policy: FlatPolicy | None = None
        self._standing = Standing()
        self._learning = False
        self._running: tuple[Run, int] | None = None  # the run of the learn() that is under way, and in which thread
        self.history: History | None = None
        self.ledger: Ledger | None = None
        self._predict_random = np.random.default_rng(self.config.seed)

    def __repr__(self) -> str:
        return f"<{self.title}, {counted(self.num_timesteps, 'env steps')} trained>"

    @property
    def title(self) -> str:
        """What it is, in a few words: "A3C MlpPolicy on CartPole-v1, native engine"."""
        its = self.config
        return f"{type(self).__name__} {its.policy} on {its.env}, {its.engine} engine"

    def __getstate__(self) -> dict[str, Any]:
        """For copies, pickled ones too: a torch module of the copy has to lie on its own parameters."""
        return {**self.__dict__, "_policy": None}

    def _initial_params(self) -> Float32:
        if self._has_native_policy:
            return initial_params(self.config)
        with signals_deferred():
            from fastac.policy import make_policy

        return make_policy(self.config, None, self.problem.spaces, self.problem.module).params

    @property
    def _has_native_policy(self) -> bool:
        """The C++ core evaluates it, without torch."""
        return self.config.can_be_native and self.problem == CARTPOLE_PROBLEM

    @property
    def policy(self) -> FlatPolicy:
        """The policy in torch, whose tensors share their memory with `params`: `policy.module`. Imports torch."""
        if self._policy is None:
            with signals_deferred():  # torch aborts the process where its import is interrupted
                from fastac.policy import make_policy

            self._policy = make_policy(self.config, self.params, self.problem.spaces, self.problem.module)
        return self._policy

    @property
    def _most_return(self) -> float:
        """That an episode can have, as far as that is known."""
        steps = self.config.max_episode_steps
        return float(steps) if self.config.has_native_env and steps is not None else math.inf

    @property
    def num_timesteps(self) -> int:
        return self._standing.num_timesteps

    @property
    def version(self) -> int:
        return self._standing.version

    @property
    def learn_calls(self) -> int:
        return self._standing.learn_calls

    @property
    def unfinished(self) -> Position | None:
        return self._standing.unfinished

    def learn(
        self: AlgorithmT,
        total_timesteps: int,
        *,
        solve: float | None = None,
        checkpoint: Pathlike | None = None,
        checkpoint_every_s: float = 30.0,
        on_checkpoint: OnCheckpoint | None = None,
        callback: MaybeCallback = None,
        progress_bar: bool | str = False,
        cluster: Cluster | None = None,
    ) -> AlgorithmT:
        """Trains for `total_timesteps` more env steps, counted over all workers, and returns the model itself.

        Ends with the first update at or after that count, or before, as `solve` says. On Ctrl-C, and when a worker
        fails, the workers are stopped, the model keeps what was learned so far, and the exception is raised; resume()
        then goes on. Schedules run over this call.

        Args:
            solve: the run also ends, as one that is finished, once the mean undiscounted return of the last 100
                episodes of all workers is as high: 475 solves CartPole-v1. A2C ends with the update whose rollout
                did it; A3C makes some more until its parent has read of it. `history.time_to(solve)` tells of the
                solving episode itself: env steps, updates and seconds until its rollout was in; None where the env
                steps ran out before.
            checkpoint: the model is saved there (see `save`) when training begins, every `checkpoint_every_s` seconds
                and at the end, however it ends. A killed program loses what came after the last of them.
            checkpoint_every_s: 0 saves at the end only. Saving takes a twentieth of the time at most: where it is
                slow, it is done less often.
            on_checkpoint: called about as often, each time before the model is saved, with the history so far.
            callback: a function of the Training (training.py), a BaseCallback, or a list of them, called in this
                thread between two updates; one that returns False ends the training, as one that is done.
            progress_bar: shows one on stderr, under the given label if it is a text.
            cluster: a RayCluster to train on, instead of this machine alone. The model ends with what its server had.

        Raises:
            ConfigError: total_timesteps is no whole number >= 1, solve no return that an episode can have (0 to
                max_episode_steps), or checkpoint_every_s no number >= 0.
            WorkerError, WorkerDiedError, NonFiniteGradientError: a worker failed; which, and why.
            LedgerError: a gradient was lost or applied twice.
            OSError: a checkpoint could not be written. The model has what was learned so far.
            RuntimeError: the model is inside learn() already: in another thread, or this is its on_checkpoint.
        """
        if (
            isinstance(total_timesteps, bool)
            or not isinstance(total_timesteps, (int, np.integer))
            or total_timesteps < 1
        ):
            raise ConfigError(f"total_timesteps: expected a whole number >= 1, got {total_timesteps!r}")
        begin = Position(int(total_timesteps), solve=expect_reachable(solve, self._most_return))
        keeping = Keeping(checkpoint, checkpoint_every_s, on_checkpoint)
        with self._alone():
            return self._learn(begin, keeping, as_callbacks(callback), progress_bar, cluster)

    def resume(
        self: AlgorithmT,
        *,
        checkpoint: Pathlike | None = None,
        checkpoint_every_s: float = 30.0,
        on_checkpoint: OnCheckpoint | None = None,
        callback: MaybeCallback = None,
        progress_bar: bool | str = False,
        cluster: Cluster | None = None,
    ) -> AlgorithmT:
        """Finishes the learn() that was interrupted, in this program or in the one that saved the model.

        Env steps and schedules go on where they were. A2C ends with the same bits as if it had never been interrupted;
        after load() on the native env only, since those of Gymnasium begin new episodes then. A3C starts its workers
        anew, in new episodes: its updates are in no fixed order anyway.
        Arguments and exceptions are those of learn().

        Raises:
            NothingToResumeError: the last learn() came to its end, or there was none.
        """
        if self.unfinished is None:
            raise NothingToResumeError(
                "no learn() of this model was interrupted: use learn(total_timesteps) to train on"
            )
        keeping = Keeping(checkpoint, checkpoint_every_s, on_checkpoint)
        with self._alone():
            return self._learn(self.unfinished, keeping, as_callbacks(callback), progress_bar, cluster)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Within it nobody else may begin a learn()."""
        if self._learning:
            raise RuntimeError("this model is inside learn() already, in this thread or in another one")
        self._learning = True
        try:
            yield
        finally:
            self._learning = False

    def _learn(
        self: AlgorithmT,
        begin: Position,
        keeping: Keeping,
        callbacks: list[BaseCallback],
        progress_bar: bool | str,
        cluster: Cluster | None,
    ) -> AlgorithmT:
        self._expect_possible(begin)
        if cluster is not None:
            if not hasattr(cluster, "expect_possible"):
                raise ConfigError(f"cluster: expected a fastac.RayCluster, got {cluster!r}")
            cluster.expect_possible(self)
        self._standing = dataclasses.replace(self._standing, unfinished=begin)
        if keeping.path is not None and keeping.every_s > 0:
            self.save(keeping.path)  # now, so that a path that cannot be written ends the run here
        label = progress_bar if isinstance(progress_bar, str) else type(self).__name__
        with (
            at_work(self.config),
            WaitingProgress(begin.total_timesteps, label, "env steps", visible=bool(progress_bar)) as progress,
        ):
            run: Run | None = None
            try:
                with signals_deferred():
                    run = self._open(progress) if cluster is None else cluster.open(self, progress)
                    self._running = run, threading.get_ident()
                    run.jobs += keeping.jobs(run, functools.partial(self._save_moment, run))
                    run.recent = Recent(self._standing.latest)
                with calling(callbacks, self, run, self.num_timesteps):
                    if cluster is None:
                        self._train(run, begin.total_timesteps)
                    else:
                        cluster.train(self, run)
            finally:
                if run is not None:
                    with signals_deferred():
                        self._running = None
                        self._close(run, keeping.path)
                        if cluster is not None:
                            self._leave_envs()
        return self

    @signals_deferred()
    def _save_moment(self, run: Run, path: Pathlike, moment: Moment) -> Path:
        """In the midst of a run, in the parent's thread and between two updates of A2C."""
        self._record(run, moment)
        standing = self._standing.after(run.begin, moment)
        return self._save(path, moment.params, moment.state, standing, moment.statistics)

    def _close(self, run: Run, path: Pathlike | None) -> None:
        """Takes over what was learned, however the run ended, saves it and checks its books."""
        outcome = run.close()
        self._record(run, outcome.last)
        self.params[:] = outcome.last.params
        self.state = outcome.last.state
        self.statistics = outcome.last.statistics
        self._standing = self._standing.after(run.begin, outcome.last)
        self.history, self.ledger = outcome.history, outcome.ledger
        if path is not None:
            self.save(path)
        outcome.ledger.check()

    def predict(
        self,
        obs: npt.ArrayLike,
        deterministic: bool = False,
        *,
        state: Float32 | None = None,
        episode_start: npt.ArrayLike | None = None,
    ) -> tuple[npt.NDArray[Any], Float32 | None]:
        """Actions for observations [N, *obs_shape], or for one observation [*obs_shape], as the env wants them.

        Args:
            obs: as the env gives them; those of a Discrete space as whole numbers, [N] or one, or one-hot.
            deterministic: the most probable action instead of a sampled one.
            state: what a policy that remembers returned for the step before, float32[N, S]; None at the start.
            episode_start: bool[N], which of the observations are the first of an episode: there it remembers nothing.

        Returns:
            (actions, state), as in Stable-Baselines3; the state of a policy that remembers nothing is None.

        Raises:
            ValueError: another shape, or no number of the Discrete space.
        """
        spaces = self.problem.spaces
        batch = spaces.seen(obs)
        single = batch.ndim == len(spaces.obs_shape)
        if single:
            batch = batch[None]
        if batch.shape[1:] != spaces.obs_shape:
            shape = ", ".join(map(str, spaces.obs_shape))
            raise ValueError(f"obs: expected shape [{shape}] or [N, {shape}], got {list(np.shape(obs))}")
        actions, state = self.choose(np.ascontiguousarray(batch), deterministic, state, episode_start)
        actions = spaces.actions.for_env(actions)
        return (actions[0] if single else actions), state

    def choose(
        self,
        obs: npt.NDArray[Any],
        deterministic: bool,
        state: Float32 | None = None,
        episode_start: npt.ArrayLike | None = None,
        random: np.random.Generator | None = None,
    ) -> tuple[npt.NDArray[Any], Float32 | None]:
        """predict() for a batch [N, *obs_shape], contiguous, with the actions as the policy has them: unbounded, from
        0 on (spaces.Actions.for_env). `random`: what they are sampled from; predict's own stream if None."""
        random = self._predict_random if random is None else random
        if self._has_native_policy:
            probabilities, _ = act(self.config, self.params, obs)
            if deterministic:
                return probabilities.argmax(axis=1), None
            return sample(probabilities, random.random(len(probabilities))), None
        policy = self.policy
        memory = policy.no_memory(len(obs)) if state is None else np.asarray(state, np.float32)
        if memory is not None and episode_start is not None:
            memory = memory * ~np.asarray(episode_start, np.bool_).reshape(-1, 1)
        acted = policy.act(self.statistics.normalized_obs(obs), memory)
        if deterministic:
            actions = policy.distribution.mode(acted.parameters)
        else:
            uniforms = random.random((len(obs), policy.distribution.n_uniforms))
            actions = policy.distribution.sample(acted.parameters, uniforms)
        return actions, acted.memory

    def save(self, path: Pathlike) -> Path:
        """Writes all that decides how training goes on to one safetensors file, and returns its path.

        The file that was there is kept beside it, as `<name>.previous.<suffix>`: whatever happens meanwhile, one of the
        two is whole. Where `path` is a folder, the file is model.safetensors in it.

        In `on_checkpoint` and in callbacks that is the model as it is between two updates, to be resumed from there.

        Raises:
            OSError: it could not be written; what was there before is still there then.
            RuntimeError: another thread is inside learn(), maybe in the midst of an update.
        """
        if self._running is not None:
            run, thread = self._running
            if thread != threading.get_ident():
                raise RuntimeError("save: another thread is inside learn(); use learn(checkpoint=...) or on_checkpoint")
            return self._save_moment(run, path, run.moment())
        return self._save(path, self.params, self.state, self._standing, self.statistics)

    def _save(
        self, path: Pathlike, params: Float32, state: Float32, standing: Standing, statistics: Statistics
    ) -> Path:
        done = {**dataclasses.asdict(standing), "predict_stream": self._predict_random.bit_generator.state}
        arrays: dict[str, npt.NDArray[Any]] = {"params": params, "optimizer_state": state, **self._envs_state()}
        # Returns may be NaN, which is no JSON.
        arrays["latest_episodes"] = np.array(done.pop("latest"), np.float64).reshape(-1, 2)
        if done["unfinished"] is not None:
            arrays["unfinished_returns"] = np.array(done["unfinished"].pop("returns"), np.float64)
        if statistics.wanted:
            arrays["statistics"] = statistics.pack()
        return save_checkpoint(path, Checkpoint(type(self).__name__, self.config.to_dict(), done, arrays))

    @classmethod
    def load(cls: type[AlgorithmT], path: Pathlike, *, env: Any = None, policy: Any = None) -> AlgorithmT:
        """The model that `save` wrote, or that `fastac train` left in a run folder.

        Args:
            path: a file, or a folder with a model.safetensors.
            env: what the model was made with, where that was no id: a file holds no functions and no envs.
            policy: the same of a torch module.

        Raises:
            FileNotFoundError: there is no such file.
            CheckpointError: it is damaged, holds another algorithm's model, or one that env and policy do not fit; the
                message says whether the previous one is whole.
            ConfigError: env or policy is none, or has to be given.
        """
        saved = load_checkpoint(path, cls.__name__)
        another_version = "made by another version of fastac"
        with _whole_but(path, another_version):
            config = cls.config_type.from_dict(saved.config)
        if policy is None and config.policy == CUSTOM_POLICY:
            raise ConfigError(f"{path}: the model's policy was a torch module: give it, load(..., policy=...)")
        if env is None and not names_an_env(config.env):
            raise ConfigError(
                f"{path}: the model's env was {config.env}: register it before, or give it, load(..., env=...)"
            )
        model = cls._from_config(config, env, policy)
        with _whole_but(path, another_version if env is policy is None else "not of this env and policy"):
            model._restore(saved)
        return model

    def _restore(self, saved: Checkpoint) -> None:
        arrays, done = dict(saved.arrays), dict(saved.standing)
        for name, own in (("params", self.params), ("optimizer_state", self.state)):
            if (array := arrays.pop(name)).shape != own.shape:
                raise ValueError(f"{name}: expected shape {list(own.shape)}, got {list(array.shape)}")
            own[...] = array
        latest = tuple(map(tuple, arrays.pop("latest_episodes", np.zeros((0, 2))).tolist()))
        returns = tuple(arrays.pop("unfinished_returns", np.zeros(0)).tolist())
        if self.statistics.wanted:
            self.statistics = Statistics.unpack(arrays.pop("statistics"), self.config)
        self._set_envs_state(arrays)
        self._predict_random.bit_generator.state = done.pop("predict_stream")
        unfinished = done.pop("unfinished")
        if unfinished is not None:
            unfinished = Position(**{"returns": returns, **unfinished})
        self._standing = Standing(**done, unfinished=unfinished, latest=latest)

    @classmethod
    def _from_config(cls: type[AlgorithmT], config: Config, env: Any = None, policy: Any = None) -> AlgorithmT:
        options = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
        given = {name: value for name, value in (("env", env), ("policy", policy)) if value is not None}
        if given and config.engine == "native":
            options["engine"] = "auto"
        if is_made(env):  # it knows better
            options = {name: options[name] for name in options if name not in _OF_ENVS}
        return cls(**{**options, **given})

    def _envs_state(self) -> Arrays:
        """What decides the future of the envs, where they outlive a learn()."""
        return {}

    def _set_envs_state(self, saved: Arrays) -> None:
        """The inverse of `_envs_state`."""
        if saved:
            raise ValueError(f"expected no state of envs, got {', '.join(saved)}")

    def _pauses(self, worker: int) -> npt.NDArray[np.float64] | None:
        """For the laboratory (lab/real.py), whose envs are slow: what a rollout of each block of BLOCK_ENVS envs of a
        worker takes at least, in seconds float64[n, blocks], update by update, beginning anew at the end."""
        return None

    def _expect_possible(self, begin: Position) -> None:  # noqa: B027 - by default all are
        """Raises ConfigError for a run that cannot be, before anything is changed or saved."""

    def _leave_envs(self) -> None:  # noqa: B027 - by default no envs outlive a learn()
        """The nodes of a cluster have played what ours would have: the next learn() here begins in new episodes."""

    @abstractmethod
    def _open(self, progress: WaitingProgress) -> LocalRun:
        """The run of one learn(): as many seats as there are workers."""

    @abstractmethod
    def _train(self, run: Any, total_timesteps: int) -> None:
        """The loop, from the first rollout to the last update."""

    def _record(self, run: Run, moment: Moment) -> None:  # noqa: B027 - by default nothing is recorded
        """Takes over the schedule of the run so far, where it is recorded."""

    def _new_run(self, progress: WaitingProgress, workers: int, update: str, trace_entries: int = 0) -> LocalRun:
        assert self.unfinished is not None
        return LocalRun(
            self.config,
            self.params,
            self.state,
            self.version,
            workers=workers,
            update=update,
            progress=progress,
            begin=self.unfinished,
            statistics=self.statistics,
            trace_entries=trace_entries,
        )
