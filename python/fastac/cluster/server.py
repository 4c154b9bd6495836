"""The server: who is a member, in which order their deliveries count, and the books of all. It knows neither Ray nor
clocks but its own, and never waits: what it cannot answer yet it says so.

In: messages of nodes (messages.py). Out: answers, and reports for the program that started it.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fastac import _core
from fastac.cluster.books import Books, Spread, add_tallies, empty_tally, total
from fastac.cluster.messages import (
    SYNCHRONOUS,
    Answer,
    Delivery,
    Float32,
    Floats,
    Hello,
    Refused,
    Unknown,
    Welcome,
    differences,
    fingerprint,
)
from fastac.config import A3CConfig, Config, scheduled
from fastac.normalization import Statistics, all_of
from fastac.shared import NodeShare


class Vectors(Protocol):
    """Where the server's vectors are: one Shard in its own process, or several in others (actors.py)."""

    def join(self, member: int) -> tuple[Float32, Float32]: ...
    def leave(self, member: int) -> None: ...
    def stage(self, member: int, values: Any, state: Float32 | None) -> None: ...
    def add(self, member: int) -> None: ...
    def reduce(self, weights: Sequence[tuple[int, float]]) -> float: ...
    def step(self, factor: float, learning_rate: float) -> None: ...
    def give(self, member: int) -> Any: ...
    def whole(self) -> tuple[Float32, Float32]:
        """Parameters and state."""


@dataclass(frozen=True)
class Terms:
    """What a run on a cluster is: the same for its server and all its nodes.

    Attributes:
        config: of one node.
        send: "steps", "gradients" or, of A2C, "round".
        nodes: how many there shall be.
    """

    config: Config
    send: str
    nodes: int
    parameters: int
    total_timesteps: int


@dataclass
class State:
    """All that a server must not lose: what a checkpoint of it is.

    Attributes:
        books: what became of all gradients that it knows of, by place ("node 0").
        acknowledged: books of each member, by its number: what is told later is lost, if another server is asked.
    """

    params: Float32
    state: Float32
    version: int
    env_steps: int
    statistics: Floats
    books: dict[str, Books] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    joined: dict[str, int] = field(default_factory=dict)
    acknowledged: dict[int, Books] = field(default_factory=dict)
    members: int = 0  # that there ever were
    merged: int = 0  # gradients that went into a step of the server's with another one


@dataclass
class Member:
    """A node, from its joining on. `base`: version of the parameters that it was given last."""

    number: int
    name: str
    token: str
    attempt: int
    welcome: Welcome | None  # until its first delivery
    base: int
    seq: int = 0
    answer: Answer | None = None
    books: Books = field(default_factory=Books)
    statistics: Floats = field(default_factory=lambda: np.zeros(0))
    ready: bool = False
    heard: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class Report:
    """What the driver asks for many times a second."""

    version: int
    env_steps: int
    books: Books
    lost: dict[str, int]
    tallies: tuple[dict[str, Any], ...]
    rows: Floats
    notes: tuple[str, ...]
    nodes: tuple[NodeShare, ...]
    silent_s: dict[str, float]  # of each member: since its last delivery
    n_ready: int
    clock: float
    number: int


class Server:
    """One run's. Each call is whole or has not happened; a repeated one is answered again."""

    def __init__(self, terms: Terms, vectors: Vectors, state: State) -> None:
        self.terms = terms
        self.state = state
        self.began = False
        self.stopped = False
        self._vectors = vectors
        self._members: dict[int, Member] = {}
        self._revoked: set[str] = set()
        self._round: dict[int, Delivery] = {}
        self._left: set[int] = set()  # of the rounds: known only so that a repeated last delivery is answered
        self._rows: deque[Floats] = deque()
        self._notes: deque[str] = deque()
        self._reports = 0
        self._unheard: tuple[list[Floats], list[str]] = ([], [])  # rows and notes of the latest report
        self._past = {name: Books() for name in state.books} | dict(state.books)
        self._between: dict[str, Spread] = {}
        self._deliveries: dict[str, int] = {}
        self._expected = fingerprint(terms.config, terms.parameters)

    # ---- nodes ------------------------------------------------------------------------------------------------

    def join(self, hello: Hello) -> Welcome:
        """Raises Refused for another version or configuration, and for one that the driver has given up."""
        if hello.token in self._revoked:
            raise Refused(f"{hello.name}: it was taken for dead, and another has its place")
        if why := differences(self._expected, hello.fingerprint):
            raise Refused(f"{hello.name} does not fit: {why}")
        for member in [its for its in self._members.values() if its.token == hello.token]:
            if member.attempt == hello.attempt and member.welcome is not None:
                return member.welcome
            if member.attempt >= hello.attempt:
                raise Refused(f"{hello.name}: a call to join came late")
            member.books = _settled(member.books)  # what it tells of now is more than what was on its way
            self._remove(member)
        if hello.books is not None and hello.before is not None:
            self._count_lost(hello.name, hello.books, self.state.acknowledged.get(hello.before, Books()))
            self.state.acknowledged[hello.before] = hello.books  # once, whoever asks again
        its = self.state
        number, its.members = its.members, its.members + 1
        joined = its.joined.get(hello.name, 0)
        its.joined[hello.name] = joined + 1
        params, state = self._vectors.join(number)
        welcome = Welcome(
            number, joined, params, state, its.version, its.env_steps, self._statistics(), time.monotonic()
        )
        self._members[number] = Member(number, hello.name, hello.token, hello.attempt, welcome, its.version)
        return welcome

    def ready(self, member: int) -> bool:
        """It has started its workers. Whether all may begin."""
        self._member(member).ready = True
        return self.began or self.stopped

    def deliver(self, delivery: Delivery) -> Answer | None:
        """None: asked too early (see Answer.waiting); it is to be asked again. Raises Unknown or Refused."""
        member = self._member(delivery.member)
        member.heard = time.monotonic()
        if delivery.seq == member.seq and member.answer is not None:
            return member.answer
        if delivery.seq != member.seq + 1:
            raise Refused(f"{member.name}: expected delivery {member.seq + 1}, got {delivery.seq}")
        if self.terms.send != SYNCHRONOUS:
            self._take(member, delivery)
            return member.answer
        if member.number not in self._round:
            self._round[member.number] = delivery
            self._reduce_if_complete()
        return member.answer if member.seq == delivery.seq else None

    def _take(self, member: Member, delivery: Delivery) -> None:
        """A3C: it counts when it arrives."""
        self._vectors.stage(member.number, delivery.values, delivery.state)
        gradients = delivery.books.applied - member.books.applied
        staleness = self.state.version - member.base
        if self.terms.send == "steps":
            self._vectors.add(member.number)
            self.state.version += gradients
        elif gradients and self._step([(member.number, 1.0 / gradients)], _rate_factor(gradients), clip=False):
            self.state.version += 1
            self.state.merged += gradients - 1
        self._between.setdefault(member.name, Spread()).add(staleness, gradients)
        self._enter(member, delivery)
        self._answer(member)
        if delivery.last:  # it stays known, so that a repeated last delivery is answered
            self._to_the_past(member)
            member.books = Books()

    def _reduce_if_complete(self) -> None:
        """A2C: one step, once everybody has delivered: the mean over all env steps of the round."""
        delivered = self._round
        if not delivered or any(number not in delivered for number in self._members if number not in self._left):
            return
        before = {number: self._members[number].books for number in delivered}
        shares = {n: d.books.env_steps - before[n].env_steps for n, d in delivered.items()}
        applied = {n: d.books.applied - before[n].applied for n, d in delivered.items()}
        everything = sum(shares[n] for n in shares if applied[n])
        for number in sorted(delivered):
            self._vectors.stage(number, delivered[number].values, None)
        weights = [(n, shares[n] / everything) for n in sorted(delivered) if applied[n]]
        if weights and self._step(weights, 1.0, clip=True):
            self.state.version += 1
            self.state.merged += len(weights) - 1
        self._round = {}
        for number in sorted(delivered):
            self._enter(self._members[number], delivered[number])
        for number in delivered:
            self._answer(self._members[number])
        self._left |= {number for number, its in delivered.items() if its.last}

    def _step(self, weights: Sequence[tuple[int, float]], rate_factor: float, *, clip: bool) -> bool:
        config = self.terms.config
        norm = self._vectors.reduce(weights)
        if not math.isfinite(norm):
            return False
        factor = min(1.0, config.max_grad_norm / (norm + 1e-6)) if clip and config.max_grad_norm > 0 else 1.0
        progress = self.state.env_steps / self.terms.total_timesteps
        rate = scheduled(config.lr_schedule, config.learning_rate, progress)
        self._vectors.step(factor, rate * rate_factor)
        return True

    def _enter(self, member: Member, delivery: Delivery) -> None:
        """Into the books: from here on the delivery counts."""
        self.state.env_steps += delivery.books.env_steps - member.books.env_steps
        member.books = delivery.books
        member.seq = delivery.seq
        member.welcome = None
        if delivery.statistics is not None:
            member.statistics = delivery.statistics
        if len(delivery.rows):
            self._rows.append(delivery.rows)
        self._notes += [f"{member.name}: {note}" for note in delivery.notes]
        self._deliveries[member.name] = self._deliveries.get(member.name, 0) + 1
        member.base = self.state.version

    def _answer(self, member: Member) -> None:
        its = self.state
        done = self.stopped or its.env_steps >= self.terms.total_timesteps
        member.answer = Answer(
            member.seq,
            values=self._vectors.give(member.number),
            version=its.version,
            others_env_steps=its.env_steps - member.books.env_steps,
            members=len(self._members.keys() - self._left),
            statistics=self._statistics(besides=member),
            stop=done,
        )

    def _remove(self, member: Member) -> None:
        self._to_the_past(member)
        self._members.pop(member.number)
        self._round.pop(member.number, None)
        self._vectors.leave(member.number)

    def _to_the_past(self, member: Member) -> None:
        its = self.state
        its.acknowledged[member.number] = _after(its.acknowledged.get(member.number, Books()), member.books)
        self._past[member.name] = _after(self._past.get(member.name, Books()), member.books)
        if len(member.statistics):
            its.statistics = (self._unpack(its.statistics) + self._unpack(member.statistics)).pack()
            member.statistics = np.zeros(0)

    def _member(self, number: int) -> Member:
        if number not in self._members:
            raise Unknown(f"member {number}")
        return self._members[number]

    # ---- the driver -------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """All that are ready may begin; who joins later may at once."""
        self.began = True

    def stop(self) -> None:
        """All are told with their next answer."""
        self.stopped = True
        self._reduce_if_complete()

    def give_up(self, token: str) -> int:
        """The agent was seen dead: what its workers had published and it had not sent is lost. How many of these are
        known of."""
        self._revoked.add(token)
        lost = 0
        for member in [m for m in self._members.values() if m.token == token]:
            n = member.books.pending
            member.books = _published(_settled(member.books), n)
            self.state.lost[member.name] = self.state.lost.get(member.name, 0) + n
            lost += n
            self._remove(member)
        self._reduce_if_complete()
        return lost

    def report(self, heard: int = 0) -> Report:
        """How things stand; rows and notes since report `heard`, the latest that arrived."""
        its = self.state
        now = time.monotonic()
        unheard, notes = self._unheard
        if heard == self._reports:
            unheard.clear()
            notes.clear()
        unheard += self._rows
        notes += self._notes
        self._reports += 1
        rows = np.concatenate(unheard) if unheard else np.zeros((0, _core.LOG_COLUMNS))
        self._rows.clear()
        self._notes.clear()
        books = self._books()
        everything = total(books.values())
        everything.counts["merged"] = everything.counts.get("merged", 0) + its.merged
        return Report(
            its.version,
            its.env_steps,
            everything,
            dict(its.lost),
            self._tallies(books),
            rows,
            tuple(notes),
            tuple(self._share(name, its) for name, its in sorted(books.items())),
            {member.name: now - member.heard for member in self._members.values()},
            sum(member.ready for member in self._members.values()),
            now,
            self._reports,
        )

    def checkpoint(self) -> State:
        """A copy of all that another server needs to go on."""
        its = self.state
        params, state = self._vectors.whole()
        known = {member.number: member.books for member in self._members.values()}
        return dataclasses.replace(
            its,
            params=params.copy(),
            state=state.copy(),
            statistics=self._statistics(),
            books=self._books(settled=True),
            lost=dict(its.lost),
            joined=dict(its.joined),
            acknowledged={**known, **its.acknowledged},
        )

    def _books(self, *, settled: bool = False) -> dict[str, Books]:
        """By place, over all that have held it. `settled`: as if nothing were on its way."""
        books = dict(self._past)
        for member in self._members.values():
            its = _settled(member.books) if settled else member.books
            books[member.name] = _after(books.get(member.name, Books()), its)
        return books

    def _tallies(self, books: dict[str, Books]) -> tuple[dict[str, Any], ...]:
        """Of all workers, place after place."""
        workers = workers_of(self.terms.config)
        tallies: list[dict[str, Any]] = []
        for k in range(self.terms.nodes):
            its = books.get(f"node {k}", Books()).tallies
            tallies += its or [empty_tally() for _ in range(workers)]
        return tuple(tallies)

    def _share(self, name: str, books: Books) -> NodeShare:
        between = self._between.setdefault(name, Spread())
        return NodeShare(
            name,
            books.applied,
            books.env_steps,
            self._deliveries.get(name, 0),
            self.state.lost.get(name, 0),
            between.mean,
            between.p95,
            between.max,
        )

    def _count_lost(self, name: str, told: Books, known: Books) -> None:
        """Applied at a node, and not in the checkpoint that this server was restored from."""
        lost = told.applied - known.applied
        self.state.lost[name] = self.state.lost.get(name, 0) + lost
        self._past[name] = _published(self._past.get(name, Books()), lost)
        self._notes.append(
            f"{name}: {lost:,} of its updates, {told.env_steps - known.env_steps:,} env steps, were not in the "
            "checkpoint that the server was restored from, and are lost"
        )

    # ---- statistics -------------------------------------------------------------------------------------------

    def _statistics(self, besides: Member | None = None) -> Floats:
        """Packed: of all that was seen, but for a member's own."""
        known = [self._unpack(m.statistics) for m in self._members.values() if m is not besides and len(m.statistics)]
        return all_of(self._unpack(self.state.statistics), known).pack()

    def _unpack(self, packed: npt.NDArray[np.float64]) -> Statistics:
        return Statistics.unpack(packed, self.terms.config)


def workers_of(config: Config) -> int:
    """Of one node, as its books tell of them: A2C's threads are one."""
    return config.workers if isinstance(config, A3CConfig) else 1


def _after(earlier: Books, later: Books) -> Books:
    """Of one place, held by one after the other."""
    both = total([earlier, later])
    n = max(len(earlier.tallies), len(later.tallies))
    pairs = [[books.tallies[w] if w < len(books.tallies) else None for books in (earlier, later)] for w in range(n)]
    return dataclasses.replace(both, tallies=tuple(add_tallies(one, other) for one, other in pairs))


def _settled(books: Books) -> Books:
    """As if nothing were on its way."""
    its = books.counts
    published = its.get("published", 0) - books.pending
    return dataclasses.replace(
        books, counts={**its, "published": published, "begun": published + its.get("aborted", 0)}
    )


def _published(books: Books, more: int) -> Books:
    """With so many more published: those that are lost."""
    its = books.counts
    counts = {**its, "published": its.get("published", 0) + more, "begun": its.get("begun", 0) + more}
    return dataclasses.replace(books, counts=counts)


def _rate_factor(gradients: int) -> float:
    """A step with the mean of so many gradients is so much longer than one with a single one."""
    return math.sqrt(gradients)
