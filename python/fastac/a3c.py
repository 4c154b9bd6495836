"""A3C: workers that read, roll out and update by themselves. a2c.py runs the same loop in one worker (engines.py)."""

from __future__ import annotations

import dataclasses
import secrets
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from fastac import _core
from fastac.algorithm import Algorithm, Float32
from fastac.checkpoint import previous_of
from fastac.config import A3CConfig
from fastac.engines import at_work, make_engine, preload
from fastac.errors import CheckpointError
from fastac.forking import START_DEADLINE_S
from fastac.launch import POLL_S, launch
from fastac.metrics import Position
from fastac.normalization import Statistics
from fastac.problem import Problem
from fastac.progress import WaitingProgress
from fastac.recording import ENTRY, Part, Recording, entries_of, recording_of, room_for
from fastac.standing import Pathlike, Standing
from fastac.updates import LocalRun, Moment, Run
from fastac.worker import READY, Report

A3C_T = TypeVar("A3C_T", bound="A3C")


class A3C(Algorithm):
    """Asynchronous advantage actor-critic: Mnih et al. 2016, arXiv:1602.01783.

    Each of `workers` workers, a thread or a process, has its own envs and random streams. `update` says who applies a
    gradient and who waits for whom; see docs/design.md.

    Args:
        policy_and_env: (env), or (policy, env) as in Stable-Baselines3; by name, too.
            env: the id of an env, or a function or class that makes one, as each worker has its own.
            policy: a name, "MlpPolicy" if not given, a torch module, or a function that makes one of the env's Spaces.
        options: the fields of A3CConfig.

    Attributes:
        recording: the schedule of all learn() calls, where `record` is set; for lab.replay.

    Raises:
        ConfigError: a value outside its range, a name that is no field, or an env or policy that cannot be one.
    """

    config: A3CConfig
    config_type = A3CConfig

    def __init__(self, *policy_and_env: Any, **options: Any) -> None:
        super().__init__(*policy_and_env, **options)
        self.recording: Recording | None = None

    def _room(self, begin: Position) -> int:
        return room_for(self.config, begin.env_steps, begin.total_timesteps) if self.config.record else 0

    def _expect_possible(self, begin: Position) -> None:
        self._room(begin)

    def _open(self, progress: WaitingProgress) -> LocalRun:
        begin = self.unfinished
        assert begin is not None
        room = self._room(begin)
        self._part = Part(
            self.learn_calls,
            self.version,
            self.num_timesteps,
            begin.env_steps,
            begin.total_timesteps,
            self.params.copy(),
            self.state.copy(),
            np.empty(0, ENTRY),
            secrets.token_hex(8),
        )
        return self._new_run(progress, self.config.workers, self.config.update, room)

    def _record(self, run: Run, moment: Moment) -> None:
        if self.config.record:
            part = dataclasses.replace(self._part, entries=entries_of(moment.trace))
            self.recording = (self.recording or Recording(self.config, ())).with_part(part)

    def _save(
        self, path: Pathlike, params: Float32, state: Float32, standing: Standing, statistics: Statistics
    ) -> Path:
        """The recording first: it may go further than the model, not less far. One that cannot be written is told, but
        only once the model is."""
        recording = self.recording or Recording(self.config, ())
        failed: OSError | None = None
        try:
            if recording.parts:
                recording.save(recording_of(path))
        except OSError as error:
            failed = error
        saved = super()._save(path, params, state, dataclasses.replace(standing, recording=recording.id), statistics)
        if failed is not None:
            words = f"{failed.strerror}; the model is saved, {saved}, its recording is not"
            raise OSError(failed.errno, words, str(recording_of(path))) from failed
        return saved

    @classmethod
    def load(cls: type[A3C_T], path: Pathlike, *, env: Any = None, policy: Any = None) -> A3C_T:
        """As of every model; with it, where `record` is set, the recording beside it: that of the same training, as far
        as the model goes. Warns where that is damaged, or of another one."""
        model = super().load(path, env=env, policy=policy)
        file = recording_of(path)
        if model.config.record and file.exists() and model.learn_calls:
            model.recording = model._recording_in(file)
        return model

    def _recording_in(self, file: Path) -> Recording | None:
        """The latest recording or the one before it, whichever is this model's, cut to where the model is."""
        lost = f"{file} is of another training, or ends before the model: its recording begins anew"
        for saved in (file, previous_of(file)):
            try:
                recording = Recording.load(saved).until(self.learn_calls, self.num_timesteps)
            except FileNotFoundError:
                continue
            except CheckpointError as error:
                if saved == file:
                    lost = f"the recording is lost, and begins anew: {error}"
                continue
            if (recording.id, recording.num_timesteps) == (self._standing.recording, self.num_timesteps):
                return recording
        if self._standing.recording:
            warnings.warn(lost, stacklevel=3)
        return None

    def _train(self, run: LocalRun, total_timesteps: int) -> None:
        tasks = [
            Task(
                self.config,
                worker,
                self.learn_calls,
                total_timesteps,
                self.problem,
                self.statistics,
                self._pauses(worker),
            )
            for worker in range(self.config.workers)
        ]
        with launch(
            self.config.backend,
            run.region,
            run.session,
            work,
            tasks,
            run.tick,
            on_death=self.config.on_worker_death,
            finished=run.finished,
            toll=run.toll,
            poll_s=0.002 if run.ends_when_solved else POLL_S,
            preload=preload(self.config),
        ) as crew:
            crew.wait_ready()
            run.start()
            run.session.give_go()
            crew.wait_done()


@dataclass(frozen=True)
class Task:
    """What a worker needs to know."""

    config: A3CConfig
    worker: int
    call: int  # the model's learn() calls before this one
    total_timesteps: int  # of all workers together
    problem: Problem
    statistics: Statistics  # before this run
    pauses: npt.NDArray[np.float64] | None = None
    first_worker: int = 0  # of this region, where a cluster has others before it
    incarnation: int = 0  # of this region: what was played before by others in its place is not played again
    others: int = 0  # seats beside the workers', that share statistics: a cluster's other nodes


def work(task: Task, session: _core.Session, report: Report) -> float:
    """One worker, from its start to its end. Returns the processor time, in seconds, that it trained."""
    config = task.config
    incarnation = task.incarnation + session.incarnation(task.worker)
    first = (task.first_worker + task.worker) * config.n_envs
    with at_work(config):
        engine = make_engine(
            config,
            config.n_envs,
            first=first,
            call=task.call,
            incarnation=incarnation,
            pauses=task.pauses,
            problem=task.problem,
        )
        try:
            loop = engine.begin(session, config.workers + task.others, task.statistics)
            report(READY)
            wait_for_go(session)
            started = time.thread_time()
            while loop.run(task.total_timesteps):
                wait_while_held(session)
            loop.flush(lambda: time.sleep(0.001))
            return time.thread_time() - started
        finally:
            engine.close()


def wait_while_held(session: _core.Session) -> None:
    """A node whose server does not answer holds its workers: what they do meanwhile would be old by then."""
    while session.held and not session.stop_requested:
        session.beat()
        time.sleep(0.001)


def wait_for_go(session: _core.Session) -> None:
    """All workers start together, once the last of them is ready."""
    deadline = time.monotonic() + START_DEADLINE_S
    while not session.go and not session.stop_requested:
        if time.monotonic() > deadline:
            raise TimeoutError(f"the parent did not start the run within {START_DEADLINE_S:g} s")
        session.beat()
        time.sleep(0.001)
