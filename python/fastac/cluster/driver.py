"""The program that started a run on a cluster: it starts server and nodes, follows them, and answers deaths.

In: options and a model. Out: the run's observer hears all that the server reports, until its env steps are done. It
looks every 50 ms; nothing of the training waits for it.
"""

from __future__ import annotations

import contextlib
import math
import secrets
import time
import warnings
from dataclasses import dataclass
from typing import Any

from fastac.algorithm import Algorithm
from fastac.cluster import actors
from fastac.cluster.courier import CallLostError, ServerLostError
from fastac.cluster.messages import Refused
from fastac.cluster.node import NodeEnd, NodeTask
from fastac.cluster.observer import ClusterObserver
from fastac.cluster.options import ClusterOptions
from fastac.cluster.server import Report, State, Terms, workers_of
from fastac.cluster.shards import shards_for
from fastac.config import A2CConfig, A3CConfig
from fastac.errors import ConfigError, NodeWarning, WorkerDeathWarning, WorkerDiedError, WorkerStuckWarning
from fastac.normalization import Statistics
from fastac.progress import WaitingProgress
from fastac.signals import signals_deferred
from fastac.updates import Run
from fastac.words import counted

_LOOK_S = 0.05
_MACHINES_S = 1.0  # between two looks for machines that have joined
_SILENT_S = 10.0  # a node that has not delivered for so long is told of
_STOP_S = 10.0  # for nodes to leave, once they are told
_MAX_DEATHS_IN_A_ROW = 3
_NUMBERS_OF_A_SERVER = 1_000_000


def open_run(cluster: ClusterOptions, model: Algorithm, progress: WaitingProgress) -> ClusterRun:
    """The run of one learn(), before anything has started."""
    begin = model.unfinished
    assert begin is not None
    config = cluster.node_config(model.config)
    statistics = Statistics.empty(model.config, model.problem.spaces)
    state = State(model.params.copy(), model.state.copy(), model.version, begin.env_steps, model.statistics.pack())
    workers = workers_of(config)
    driver = Driver(cluster, model, state)
    observer = ClusterObserver(state, cluster.nodes, workers, driver.fetch)
    driver.observer = observer
    run = ClusterRun(
        observer,
        cluster.nodes * workers,
        getattr(config, "update", "lockfree"),
        model.state.shape,
        progress=progress,
        begin=begin,
        statistics=statistics,
    )
    run.driver = driver
    return run


class ClusterRun(Run):
    """A run whose workers are on other machines."""

    driver: Driver


@dataclass
class _Place:
    """A node's place, and who has it."""

    slot: int
    token: str = ""
    machine: str = ""
    actor: Any = None
    ref: Any = None  # to its NodeEnd
    end: NodeEnd | None = None
    deaths_in_a_row: int = 0
    deliveries: int = 0  # when it was given to who has it
    started: float = 0.0
    told_silent: bool = False

    @property
    def name(self) -> str:
        return f"node {self.slot}"


class Driver:
    """One run's."""

    observer: ClusterObserver

    def __init__(self, cluster: ClusterOptions, model: Algorithm, state: State) -> None:
        self._cluster = cluster
        self._model = model
        self._state = state  # of the server: the latest that we have
        config = cluster.node_config(model.config)
        begin = model.unfinished
        assert begin is not None
        self._terms = Terms(config, cluster.send_of(config), cluster.nodes, len(model.params), begin.total_timesteps)
        self._parts = shards_for(len(model.params), int(cluster.most_shard_mb * 2**20))
        assert isinstance(config, (A2CConfig, A3CConfig))
        self._cpus = config.workers
        self._places = [_Place(slot) for slot in range(cluster.nodes)]
        self._id = secrets.token_hex(2)
        self._servers = 0  # that there were
        self._server: Any = None
        self._shards: list[Any] = []
        self._report: Report | None = None
        self._offset = 0.0
        self._began = False
        self._stop_told = False
        self._next_checkpoint = 0.0
        self._next_machines = 0.0
        self._deaths = 0
        self._heard = 0  # reports of the server
        self._to_give_up: set[str] = set()  # tokens of agents that are dead, of which the server does not know yet
        self._given_up: set[str] = set()

    # ---- the run ----------------------------------------------------------------------------------------------

    def train(self, run: Run) -> None:
        """Raises ConfigError, WorkerDiedError and what ended a node."""
        its = self._cluster
        try:
            ours = actors.connect(its.address, its.nodes * self._cpus)
        except ConnectionError as error:
            raise ConfigError(
                f"cluster: expected a Ray cluster at {its.address!r}: {error}; `ray start --head` starts one; without "
                "an address (--cluster local) the run has a Ray of its own"
            ) from error
        try:
            self._start_server()
            self._began_at = time.monotonic()
            while True:
                while not self._all_ended():
                    self._look(run)
                self._hear_last(run)
                if self._done():  # not where the server has died since, and what it had is to be trained again
                    break
        finally:
            with signals_deferred():
                try:
                    self._see_off(run)
                finally:
                    if ours:
                        actors.disconnect()

    def _look(self, run: Run) -> None:
        self._fill_places()
        waiting = [place.ref for place in self._places if place.ref is not None]
        if waiting:
            actors.ended(waiting[0], _LOOK_S)
        else:
            time.sleep(_LOOK_S)
        for place in self._places:
            if place.ref is not None and actors.ended(place.ref):
                self._hear_end(place)
        self._give_up_the_dead()
        self._follow_server()
        self._count_deaths(run)
        self._begin_if_ready(run)
        self._end_the_silent()
        run.tick()
        if self.observer.stop_requested and not self._stop_told:
            self._tell_stop()

    def _count_deaths(self, run: Run) -> None:
        """Of nodes, and of workers in them; their processor time comes with their last delivery."""
        if self._report is not None:
            its = self._report.books
            run.toll.deaths, run.toll.restarts = its.deaths + self._deaths, its.restarts
            run.toll.cpu_s = its.cpu_s

    def _all_ended(self) -> bool:
        return self._done() and all(place.ref is None for place in self._places)

    def _done(self) -> bool:
        steps = self._state.env_steps if self._report is None else self._report.env_steps
        return self.observer.stop_requested or steps >= self._terms.total_timesteps

    # ---- the server -------------------------------------------------------------------------------------------

    def _start_server(self) -> None:
        name = actors.server_name(self._id, self._servers)
        self._servers += 1
        self._server, self._shards = actors.start_server(name, self._terms, self._state, self._parts)
        self._heard = 0
        self._hear(self._ask("report", self._heard))
        self._next_checkpoint = time.monotonic() + self._cluster.checkpoint_every_s

    def _ask(self, verb: str, *args: Any) -> Any:
        """Raises ServerLostError; tries again where it only does not answer."""
        patience = self._cluster.patience
        until = time.monotonic() + patience.deadline_s * (patience.retries + 1)
        while True:
            try:
                return actors.result(getattr(self._server, verb).remote(*args), patience.deadline_s)
            except CallLostError as error:
                if time.monotonic() > until:
                    raise ServerLostError(f"no answer to {verb}: {_first_line(error)}") from error
                time.sleep(_LOOK_S)

    def _follow_server(self) -> None:
        """Hears what it reports, keeps its checkpoint, and starts another where it is dead."""
        try:
            asked = time.monotonic()
            report: Report = self._ask("report", self._heard)
            self._offset = (asked + time.monotonic()) / 2 - report.clock
            self._hear(report)
            if time.monotonic() >= self._next_checkpoint:
                self._state = self._ask("checkpoint")
                self._next_checkpoint = time.monotonic() + self._cluster.checkpoint_every_s
        except ServerLostError as error:
            self._restore(error)

    def _hear(self, report: Report) -> None:
        self._report = report
        self._heard = report.number
        self.observer.hear(report, self._offset)
        for note in report.notes:
            warnings.warn(NodeWarning(note), stacklevel=2)
        for place in self._places:
            silent_s = report.silent_s.get(place.name, 0.0)
            if place.ref is not None and self._began and silent_s > _SILENT_S and not place.told_silent:
                place.told_silent = True
                words = f"{place.name} has not delivered for {silent_s:.0f} s"
                warnings.warn(WorkerStuckWarning(words), stacklevel=2)
            elif silent_s < _SILENT_S:
                place.told_silent = False

    def _restore(self, error: ServerLostError) -> None:
        """Another server, with what the last checkpoint has. The nodes find it by its name."""
        before = self._report
        for actor in (self._server, *self._shards):
            actors.kill(actor)
        lost = 0 if before is None else before.env_steps - self._state.env_steps
        words = f"the server died: {error}".splitlines()[0]
        warnings.warn(
            WorkerDeathWarning(f"{words}; another goes on from its checkpoint, {counted(lost, 'env steps')} before"),
            stacklevel=2,
        )
        until = time.monotonic() + self._cluster.outage_s
        # Members that joined after the checkpoint have numbers, too: none is given twice.
        self._state.members += _NUMBERS_OF_A_SERVER
        self._to_give_up |= self._given_up
        while True:
            try:
                self._start_server()
                if self._began:
                    self._ask("begin")
                break
            except ServerLostError as again:  # its machine died meanwhile, and Ray does not know it yet
                if time.monotonic() > until:
                    raise WorkerDiedError(f"{words}; no other could be started: {again}") from again
                time.sleep(_LOOK_S)
        if self._stop_told:
            self._tell_stop()

    def fetch(self) -> None:
        """For the observer: the server's vectors as they are now, if it lives."""
        if self._server is not None:
            with contextlib.suppress(ServerLostError):  # found out, and told, by the next look
                self._state = self._ask("checkpoint")
        self.observer.latest = self._state

    def _tell_stop(self) -> None:
        self._stop_told = True
        with contextlib.suppress(ServerLostError):  # the next one is told
            self._ask("stop")

    # ---- the nodes --------------------------------------------------------------------------------------------

    def _fill_places(self) -> None:
        """Gives each free place to a machine that has no node, where there is one."""
        free = [place for place in self._places if place.ref is None]
        if not free or self._done() or time.monotonic() < self._next_machines:
            return
        self._next_machines = time.monotonic() + _MACHINES_S
        machines = actors.machines(self._cpus)
        if self._cluster.address is None:
            machines = machines[:1] * len(free)
        else:
            taken = {place.machine for place in self._places if place.ref is not None}
            machines = [machine for machine in machines if machine not in taken]
        for place, machine in zip(free, machines, strict=False):
            self._start_node(place, machine)
        started = any(place.ref is not None for place in self._places)
        if not started and time.monotonic() > self._began_at + self._cluster.outage_s:
            words = f"no machine with {counted(self._cpus, 'CPUs')} has joined the cluster"
            raise WorkerDiedError(f"{words} within {self._cluster.outage_s:g} s")

    def _start_node(self, place: _Place, machine: str) -> None:
        its = self._cluster
        place.token, place.machine, place.started = secrets.token_hex(8), machine, time.monotonic()
        before = None if place.end is None else (place.end.member, place.end.books)
        task = NodeTask(
            self._terms,
            place.slot,
            place.token,
            self._model.learn_calls,
            self._model.problem,
            its.sync_ms / 1000,
            its.sync_updates,
            its.patience,
            before,
            its.added_delay_ms / 1000,
        )
        place.end = None
        place.deliveries = self._deliveries(place)
        name = f"fastac {self._id} {place.name} {place.token[:4]}"
        place.actor, place.ref = actors.start_node(name, machine, self._cpus, task, self._id, self._parts)

    def _hear_end(self, place: _Place) -> None:
        ref, place.ref = place.ref, None
        try:
            place.end = actors.result(ref, 30.0)
            actors.kill(place.actor)
        except (ServerLostError, CallLostError) as error:  # the actor, its process or its machine is gone
            self._answer_death(place, error)
        except Exception as error:
            self._give_up(place)
            if isinstance(error, Refused):
                raise ConfigError(f"{place.name} was refused: {error}") from error
            raise

    def _answer_death(self, place: _Place, error: Exception) -> None:
        self._deaths += 1
        in_vain = self._deliveries(place) == place.deliveries
        place.deaths_in_a_row = place.deaths_in_a_row + 1 if in_vain else 0
        lost = self._give_up(place)
        words = f"{place.name} died ({_first_line(error)})"
        if self._done():
            done = "the work is done all the same"
        elif place.deaths_in_a_row >= _MAX_DEATHS_IN_A_ROW:
            raise WorkerDiedError(f"{words}, like {_MAX_DEATHS_IN_A_ROW - 1} before it, and none delivered anything")
        else:
            others = sum(other.ref is not None for other in self._places)
            done = f"{others} of {counted(len(self._places), 'nodes')} go on; a free machine takes its place"
        told = f"at least {counted(lost, 'gradients')} of it were not sent" if lost else "what it had not sent is lost"
        warnings.warn(WorkerDeathWarning(f"{words}: {told}; {done}"), stacklevel=2)

    def _give_up(self, place: _Place) -> int:
        """Its agent is dead, or shall be: the server takes nothing from it any more. How many gradients of it are known
        to be lost."""
        if place.actor is not None:
            actors.kill(place.actor)
        self._to_give_up.add(place.token)
        return self._give_up_the_dead()

    def _give_up_the_dead(self) -> int:
        """Tells the server, and each one after it; where it does not answer, again at the next look."""
        lost = 0
        for token in list(self._to_give_up):
            with contextlib.suppress(ServerLostError):
                lost += self._ask("give_up", token)
                self._to_give_up.discard(token)
                self._given_up.add(token)
        return lost

    def _end_the_silent(self) -> None:
        """A place whose agent says nothing for `outage_s`, or for 10 s once the work is done, is given up: Ray has no
        CPUs for it, it is stopped, or its env hangs."""
        report = self._report
        if report is None:
            return
        patience_s = _STOP_S if self._done() else self._cluster.outage_s
        for place in self._places:
            since_start = time.monotonic() - place.started
            silent_s = min(report.silent_s.get(place.name, math.inf), since_start)
            if place.ref is None or silent_s < patience_s or (not self._began and place.name in report.silent_s):
                continue
            place.ref = None
            self._answer_death(place, TimeoutError(f"no word for {silent_s:.0f} s"))

    def _deliveries(self, place: _Place) -> int:
        shares = () if self._report is None else self._report.nodes
        return next((share.deliveries for share in shares if share.name == place.name), 0)

    def _begin_if_ready(self, run: Run) -> None:
        """All begin together, once the last is ready; those that are there after `outage_s`."""
        if self._began or self._report is None:
            return
        ready = self._report.n_ready
        late = time.monotonic() > self._began_at + self._cluster.outage_s
        if late and ready == 0:
            raise WorkerDiedError(
                f"no node was ready within {self._cluster.outage_s:g} s: are there CPUs that are free?"
            )
        if ready == len(self._places) or (late and ready > 0):
            if ready < len(self._places):
                words = f"{ready} of {counted(len(self._places), 'nodes')} begin: no machine for more"
                warnings.warn(WorkerStuckWarning(words), stacklevel=2)
            with contextlib.suppress(ServerLostError):  # the next one is told
                self._ask("begin")
                run.start()
                self._began = True

    # ---- the end ----------------------------------------------------------------------------------------------

    def _hear_last(self, run: Run) -> None:
        self._follow_server()
        self._count_deaths(run)
        self.fetch()
        run.tick(now=True)

    def _see_off(self, run: Run) -> None:
        """However the run ends: nodes that are still at work are told to stop, and ended where they do not."""
        if self._server is None:
            return
        try:
            self._tell_stop()
            until = time.monotonic() + _STOP_S
            for place in self._places:
                if place.ref is not None and not self._left_in_order(place, max(0.0, until - time.monotonic())):
                    self._give_up(place)  # what it had published is lost, and the books say so
            self._follow_server()
            self.fetch()
        finally:
            for place in self._places:
                if place.actor is not None:
                    actors.kill(place.actor)
            for actor in (self._server, *self._shards):
                actors.kill(actor)
            self._server = None

    def _left_in_order(self, place: _Place, wait_s: float) -> bool:
        ref, place.ref = place.ref, None
        try:
            return actors.ended(ref, wait_s) and isinstance(actors.result(ref, 30.0), NodeEnd)
        except Exception:  # one that failed, or died, while the run is already being taken down
            return False


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
