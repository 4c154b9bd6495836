"""A node of A3C: workers on a region of this machine, and the agent that carries what they have done to the server, and
what the others have done back to them.

In: a NodeTask and a link. Out: the workers have trained until the env steps of all nodes are done, or the run is over.
The agent has a seat of its own on the region, the one after the workers'. What the server tells it pushes there like a
gradient (Session.amend), so it is applied once, whatever the workers do, and neither side waits for the other.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fastac import _core, a3c
from fastac.cluster.books import Books, books_of
from fastac.cluster.courier import Courier, Link, Patience, ServerLostError, joined
from fastac.cluster.messages import Answer, Delivery, Float32, Hello, Unknown, Welcome, fingerprint
from fastac.cluster.server import Terms
from fastac.config import A3CConfig
from fastac.engines import preload
from fastac.errors import NonFiniteGradientError
from fastac.launch import Crew, launch
from fastac.normalization import Statistics
from fastac.problem import Problem
from fastac.shared import Toll, create_region, observer_of

POLL_S = 0.002
_STATE_S = 1.0  # between two deliveries with the optimizer's state
_LOG_ROWS = 8192
_INCARNATIONS = 1 << 20  # of the workers in one seat, before its node joins anew


def most_lag(sync_s: float) -> float:
    """Seconds without an answer, after which the workers wait for it: ten times the usual, and not for a hiccup."""
    return max(10 * sync_s, 0.25)


@dataclass(frozen=True)
class NodeTask:
    """What a node needs to know.

    Attributes:
        slot: its place, from 0 on: which envs and random streams are its.
        call: the model's learn() calls before this one.
        sync_s: seconds between two deliveries.
        sync_updates: updates between two, instead; None where the time decides.
        added_delay_s: by which each call and each answer come later.
        before: member number and books of one whose place it takes, where no server may know of them.
    """

    terms: Terms
    slot: int
    token: str
    call: int
    problem: Problem
    sync_s: float
    sync_updates: int | None = None
    patience: Patience = field(default_factory=Patience)
    before: tuple[int, Books] | None = None
    added_delay_s: float = 0.0

    @property
    def name(self) -> str:
        return f"node {self.slot}"


@dataclass(frozen=True)
class NodeEnd:
    """A node has come to its end: its member number, and its books."""

    member: int
    books: Books


class Membership(Protocol):
    """A node as the member of a server: Node, or RoundNode (round.py)."""

    books: Books

    def run(self) -> NodeEnd:
        """Raises ServerLostError or Unknown where it has to join again."""

    def close(self) -> None: ...


Kind = Callable[["NodeTask", Courier, Welcome, list[str]], Membership]


def take_part(task: NodeTask, link: Link, kind: Kind, notes: list[str] | None = None) -> NodeEnd:
    """A node from its joining to its end; it joins again where the server was lost. `notes`: what is put there is told
    with the next delivery.

    Raises Refused, ServerLostError after the patience's `outage_s`, and what ended a worker.
    """
    notes = [] if notes is None else notes
    courier = Courier(link, task.patience)
    before = task.before
    expected = fingerprint(task.terms.config, task.terms.parameters)
    for attempt in itertools.count():
        number, books = before if before is not None else (None, None)
        hello = Hello(task.name, task.token, expected, attempt, number, books)
        welcome = joined(courier, link, hello, task.patience)
        node = kind(task, courier, welcome, notes)
        try:
            return node.run()
        except (ServerLostError, Unknown):
            before = welcome.member, node.books
        finally:
            node.close()
    raise AssertionError("unreachable")


class Agent:
    """What nodes of A2C and A3C have in common: a region, on which the agent has the observer's seat and one of its
    own, and the exchange with the server.

    Attributes:
        books: of all that was delivered, or is known at the end.
    """

    def __init__(
        self,
        task: NodeTask,
        courier: Courier,
        welcome: Welcome,
        notes: list[str],
        workers: int,
        optimizer: str | None = None,
    ) -> None:
        self.task = task
        self.welcome = welcome
        self.books = Books()
        self.toll = Toll()
        self.workers = workers
        self.stopped = False
        self._courier = courier
        config, params = task.terms.config, welcome.params
        self.before = Statistics.unpack(np.zeros(len(welcome.statistics)), config)
        self.region = create_region(
            config,
            workers=workers + 1,
            update=getattr(config, "update", "lockfree"),
            n_params=len(params),
            statistics=len(welcome.statistics),
            log_rows=_LOG_ROWS,
            optimizer=optimizer,
        )
        self.observer = observer_of(self.region)
        self._sums = optimizer == "sum"
        self._state = np.zeros((self.region.state_vectors, len(params)), np.float32)
        state = self._state if self._sums else welcome.state
        params, state = np.ascontiguousarray(params), np.ascontiguousarray(state)
        self.observer.initialize(params, state, welcome.version, welcome.env_steps)
        self.seat = _core.Session(self.region, workers)
        if len(welcome.statistics):
            self.seat.write_statistics(welcome.statistics)
        self._sent = np.empty(len(params), np.float32)  # what the server knows of us
        self._others = welcome.env_steps  # of the env steps in the region
        self._offset = welcome.clock - time.monotonic()
        self._seq = 0
        self._rows: list[npt.NDArray[np.float64]] = []
        self._notes = notes
        self._next_state = time.monotonic()

    def read_logs(self, share: float = 1.0) -> None:
        """Takes what the workers logged; of each update it tells as of that share of one."""
        for worker in range(self.workers):
            rows = self.observer.read_log(worker)
            if len(rows):
                rows[:, 1] += self._offset
                rows[:, 2] += self.task.slot * self.workers
                rows[:, 4] *= share
                self._rows.append(rows)

    def delivery(self, *, last: bool = False) -> Delivery:
        """What has been done since the one before. Until it is answered there is no other."""
        record = self.observer.copy_record(self._sent, self._state)
        self._expect_finite(self._sent, "its parameters")
        self.books = books_of(self.observer, self.workers, record, self.welcome.env_steps, self.toll)
        rows = np.concatenate(self._rows) if self._rows else np.zeros((0, _core.LOG_COLUMNS))
        notes = tuple(self._notes)
        self._rows.clear()
        self._notes.clear()
        self._seq += 1
        state = None
        if not self._sums and (last or time.monotonic() >= self._next_state):
            self._next_state = time.monotonic() + _STATE_S
            state = self._state.copy()
        values = self._state[0].copy() if self._sums else self._sent.copy()
        return Delivery(self.welcome.member, self._seq, values, self.books, rows, state, self._seen(), notes, last)

    def _seen(self) -> npt.NDArray[np.float64] | None:
        if not self.before.wanted:
            return None
        config = self.task.terms.config
        its = self.before
        for worker in range(self.workers):
            its = its + Statistics.unpack(self.observer.statistics(worker), config)
        return its.pack()

    def take(self, answer: Answer) -> None:
        """What the others have done, into the region."""
        new_steps = answer.others_env_steps - self._others
        self._others = answer.others_env_steps
        params: Float32 = answer.values
        if self._sums:
            self._amend(-self._state[0], "add_state", 0)
            self._amend(np.ascontiguousarray(params), "set_params", new_steps)
        else:
            change = params - self._sent
            if new_steps or change.any():
                self._amend(change, "add_params", new_steps)
        if len(answer.statistics):
            self.seat.write_statistics(answer.statistics)
        self.stopped = self.stopped or answer.stop
        if answer.stop:
            self.observer.request_stop()

    def _amend(self, values: Float32, target: str, env_steps: int) -> None:
        self._expect_finite(values, "the server's parameters")
        self.seat.amend(values, target=target, env_steps=env_steps)

    def _expect_finite(self, values: Float32, whose: str) -> None:
        if not np.isfinite(values).all():
            raise NonFiniteGradientError(
                f"{self.task.name}: {whose} hold NaN or infinity; a smaller learning_rate or a max_grad_norm usually "
                "helps"
            )

    def close(self) -> None:
        """Gives back what it holds."""
        self.seat.close()
        self.observer.close()


class Node(Agent):
    """One membership of a node of A3C."""

    task: NodeTask

    def __init__(self, task: NodeTask, courier: Courier, welcome: Welcome, notes: list[str]) -> None:
        config = task.terms.config
        assert isinstance(config, A3CConfig)
        sums = task.terms.send == "gradients"
        super().__init__(task, courier, welcome, notes, config.workers, "sum" if sums else None)
        self._config = config
        self._next = 0.0
        self._updates_sent = 0
        self._lost = False

    def run(self) -> NodeEnd:
        """Raises ServerLostError or Unknown where it has to join again."""
        config = self._config
        tasks = [
            a3c.Task(
                config,
                worker,
                self.task.call,
                self.task.terms.total_timesteps,
                self.task.problem,
                self.before,
                first_worker=self.task.slot * config.workers,
                incarnation=self.welcome.joined * _INCARNATIONS,
                others=1,
            )
            for worker in range(config.workers)
        ]
        with launch(
            config.backend,
            self.region,
            self.observer,
            a3c.work,
            tasks,
            self._tick,
            on_death=config.on_worker_death,
            finished=self._finished,
            toll=self.toll,
            poll_s=POLL_S,
            preload=preload(config),
        ) as crew:
            crew.wait_ready()
            self._wait_until_all_are_ready(crew)
            self._next = time.monotonic() + self._most_s
            self.observer.give_go()
            crew.wait_done()
        self._leave()
        return NodeEnd(self.welcome.member, self.books)

    def _wait_until_all_are_ready(self, crew: Crew) -> None:
        try:
            while not self._courier.ask("ready", self.welcome.member):
                crew.check()
                time.sleep(POLL_S)
        except (ServerLostError, Unknown):
            self._lost = True
            raise

    def _finished(self) -> bool:
        return self.stopped or self.observer.snapshot()["env_steps"] >= self.task.terms.total_timesteps

    def _tick(self) -> None:
        """Between two looks at the workers: delivers what is due, takes what was answered."""
        self.read_logs()
        if self._lost:  # only the workers are still to be seen off
            return
        if self._courier.since is not None:
            if self._heard():
                self.observer.hold(False)
            elif time.monotonic() > self._courier.since + most_lag(self.task.sync_s):
                self.observer.hold(True)
        elif self.observer.go and not self.observer.stop_requested and self._is_due():
            self._next = time.monotonic() + self._most_s
            delivery = self.delivery()
            self._updates_sent = delivery.books.applied
            self._courier.begin("deliver", delivery)

    def _heard(self, wait_s: float = 0.0) -> bool:
        """Whether the call under way was answered."""
        try:
            answer = self._courier.poll(wait_s)
        except (ServerLostError, Unknown):
            self._lost = True
            raise
        if answer is not None:
            self.take(answer)
        return answer is not None

    @property
    def _most_s(self) -> float:
        """Between two deliveries."""
        return self.task.sync_s if self.task.sync_updates is None else 1.0

    def _is_due(self) -> bool:
        if self.task.sync_updates is None:
            return time.monotonic() >= self._next
        applied: int = self.observer.snapshot()["applied"]
        # Once a second in any case: the server's answer tells when the run is over.
        return applied - self._updates_sent >= self.task.sync_updates or time.monotonic() >= self._next

    def _leave(self) -> None:
        """All workers have left: what they published is applied, and delivered."""
        while self._courier.since is not None:
            self._heard(POLL_S)
        self.observer.drain()
        self.read_logs()
        self._courier.ask("deliver", self.delivery(last=True))
