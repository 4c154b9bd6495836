"""The protocol of nodes and server in virtual time: what plan.py reckons, played and counted.

In: the same Figures. Out: the same Outcome. Nothing here waits: a second of the cluster takes as long as its events
take to be played, about a million of them in a second.
"""

from __future__ import annotations

import functools
import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass

from fastac.cluster.node import POLL_S
from fastac.cluster.plan import Figures, Outcome


def simulate(
    figures: Figures, nodes: int, *, duration_s: float, seed: int = 0, constant_updates: bool = False
) -> Outcome:
    """Plays so many seconds, and counts over the latter two thirds of them.

    constant_updates: each takes `update_s`; else the time of each is drawn, exponentially distributed with that mean.
    """
    chance = random.Random(seed)

    def update_s() -> float:
        return figures.update_s if constant_updates else chance.expovariate(1 / figures.update_s)

    if figures.in_rounds:
        return _play_rounds(figures, nodes, duration_s, update_s)
    return _Cluster(figures, nodes, chance, update_s).play(duration_s)


class _Station:
    """What serves one after the other, in the order of their coming."""

    def __init__(self) -> None:
        self.free = 0.0
        self._taken_s = 0.0

    def take(self, now: float, work_s: float) -> float:
        """When this one is served."""
        self.free = max(self.free, now) + work_s
        self._taken_s += work_s
        return self.free

    def done_s(self, now: float) -> float:
        """How long it has worked so far."""
        return self._taken_s - max(0.0, self.free - now)


@dataclass
class _Node:
    applied: int = 0
    sent: int = 0  # of them, with the latest delivery
    deliveries: int = 0
    answers: int = 0
    due: float = 0.0
    base: int = 0  # version that it was given last
    held_since: float | None = None
    waiting: int = 0  # workers that are held


@dataclass
class _Counts:
    updates: int = 0
    staleness_inside: int = 0
    delivered: int = 0
    staleness_between: int = 0
    exchanges: int = 0
    held_s: float = 0.0


class _Cluster:
    """One run of A3C."""

    def __init__(self, figures: Figures, nodes: int, chance: random.Random, update_s: Callable[[], float]) -> None:
        self._figures = figures
        self._chance = chance
        self._update_s = update_s
        self._now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._n_events = 0
        self._in, self._processor, self._out = _Station(), _Station(), _Station()
        self._version = 0
        self._counts = _Counts()
        self._nodes = [_Node(due=figures.sync_s) for _ in range(nodes)]

    def play(self, duration_s: float) -> Outcome:
        for node in self._nodes:
            for _ in range(self._figures.workers):
                self._begin_update(node)
            self._at(node.due + self._look(), functools.partial(self._send, node))
        begin_s = duration_s / 3
        self._play_until(begin_s)
        self._counts = _Counts()
        done = self._processor.done_s(begin_s), self._in.done_s(begin_s)
        for node in self._nodes:
            if node.held_since is not None:
                node.held_since = begin_s
        self._play_until(duration_s)
        return self._outcome(duration_s - begin_s, *done)

    def _at(self, when: float, do: Callable[[], None]) -> None:
        self._n_events += 1
        heapq.heappush(self._events, (when, self._n_events, do))

    def _play_until(self, end: float) -> None:
        while self._events[0][0] < end:
            self._now, _, do = heapq.heappop(self._events)
            do()
        self._now = end

    def _look(self) -> float:
        """Until the agent looks at the clock."""
        return self._chance.uniform(0.0, POLL_S)

    # ---- a worker -------------------------------------------------------------------------------------------------

    def _begin_update(self, node: _Node) -> None:
        read = node.applied
        self._at(self._now + self._update_s(), lambda: self._end_update(node, read))

    def _end_update(self, node: _Node, read: int) -> None:
        self._counts.updates += 1
        self._counts.staleness_inside += node.applied - read
        node.applied += 1
        if node.held_since is None:
            self._begin_update(node)
        else:
            node.waiting += 1

    # ---- an exchange ----------------------------------------------------------------------------------------------

    def _send(self, node: _Node) -> None:
        its = self._figures
        updates, node.sent = node.applied - node.sent, node.applied
        node.deliveries += 1
        number = node.deliveries
        node.due = self._now + its.sync_s
        self._at(self._now + its.lag_s, lambda: self._hold(node, number))
        arrival = self._in.take(self._now, its.link_s(updates)) + its.latency_s
        self._at(arrival, lambda: self._deliver(node, updates))

    def _hold(self, node: _Node, number: int) -> None:
        if node.answers < number:
            node.held_since = self._now

    def _deliver(self, node: _Node, updates: int) -> None:
        self._at(self._processor.take(self._now, self._figures.server_s), lambda: self._answer(node, updates))

    def _answer(self, node: _Node, updates: int) -> None:
        self._counts.exchanges += 1
        self._counts.delivered += updates
        self._counts.staleness_between += (self._version - node.base) * updates
        self._version += updates if self._figures.send == "steps" else min(1, updates)
        node.base = self._version
        arrival = self._out.take(self._now, self._figures.link_s()) + self._figures.latency_s
        self._at(arrival + self._look(), lambda: self._hear(node))

    def _hear(self, node: _Node) -> None:
        node.answers += 1
        if node.held_since is not None:
            self._counts.held_s += self._now - node.held_since
            node.held_since = None
            for _ in range(node.waiting):
                self._begin_update(node)
            node.waiting = 0
        self._at(max(self._now + POLL_S, node.due + self._look()), lambda: self._send(node))

    # ---- the end --------------------------------------------------------------------------------------------------

    def _outcome(self, seconds: float, processor_s: float, link_s: float) -> Outcome:
        its, counts, n = self._figures, self._counts, len(self._nodes)
        held_s = counts.held_s + sum(self._now - node.held_since for node in self._nodes if node.held_since is not None)
        return Outcome(
            nodes=n,
            env_steps_per_s=counts.updates * its.env_steps_per_update / seconds,
            exchanges_per_s=counts.exchanges / seconds,
            period_s=n * seconds / counts.exchanges,
            at_work=1.0 - held_s / (n * seconds),
            server_use=(self._processor.done_s(self._now) - processor_s) / seconds,
            link_use=(self._in.done_s(self._now) - link_s) / seconds,
            staleness_inside=counts.staleness_inside / counts.updates,
            staleness_between=counts.staleness_between / counts.delivered,
        )


def _play_rounds(its: Figures, nodes: int, duration_s: float, update_s: Callable[[], float]) -> Outcome:
    """A2C: rounds one after the other, until so many seconds have passed."""
    into, processor, out = _Station(), _Station(), _Station()
    begins = [0.0] * nodes
    rounds, at_work_s = 0, 0.0
    while max(begins) < duration_s:
        work = [update_s() for _ in begins]
        sent = sorted(begin + seconds for begin, seconds in zip(begins, work, strict=True))
        arrived = [into.take(when, its.link_s()) + its.latency_s for when in sent]
        complete = max(processor.take(when, its.server_s / 2) for when in arrived)
        answered = [processor.take(complete, its.server_s / 2) for _ in begins]
        begins = [out.take(when, its.link_s()) + its.latency_s for when in answered]
        rounds += 1
        at_work_s += sum(work)
    seconds = max(begins)
    return Outcome(
        nodes=nodes,
        env_steps_per_s=nodes * rounds * its.env_steps_per_update / seconds,
        exchanges_per_s=nodes * rounds / seconds,
        period_s=seconds / rounds,
        at_work=at_work_s / (nodes * seconds),
        server_use=processor.done_s(seconds) / seconds,
        link_use=into.done_s(seconds) / seconds,
        staleness_inside=0.0,
        staleness_between=0.0,
    )
