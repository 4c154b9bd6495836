"""Clusters without Ray: nodes in threads, and a link that loses, repeats and delays calls as it is told."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass, field

import numpy as np

import fastac
from fastac.cluster.courier import CallLostError, Patience, ServerLostError
from fastac.cluster.messages import SYNCHRONOUS, Answer
from fastac.cluster.node import Node, NodeTask, take_part
from fastac.cluster.round import RoundNode
from fastac.cluster.server import Server, State, Terms
from fastac.cluster.shards import OneShard

PATIENCE = Patience(deadline_s=0.1, retries=200, outage_s=20.0)


FATES = ("lost", "unanswered", "repeated", "broken")


def server_of(terms, model, state=None):
    """The server of a model's run, or one restored from a state."""
    state = state or State(model.params.copy(), model.state.copy(), model.version, 0, model.statistics.pack())
    return Server(terms, OneShard(terms.config, state.params, state.state, state.version), state)


@dataclass
class Chaos:
    """What happens to a call, each with its probability."""

    lost: float = 0.0  # it never arrives
    unanswered: float = 0.0  # it arrives, its answer does not
    repeated: float = 0.0  # it arrives twice, the second time maybe much later
    broken: float = 0.0  # it arrives or not, and the caller is told that it is lost
    delay_s: float = 0.0  # at most
    seed: int = 0
    seen: dict[str, int] = field(default_factory=dict)


@dataclass
class Place:
    """Where the server is: another one may take its place."""

    server: Server | None
    lock: threading.RLock = field(default_factory=threading.RLock)

    def do(self, verb, message):
        with self.lock:
            if self.server is None:
                raise ServerLostError("dead")
            return getattr(self.server, verb)(message)


class Pending:
    def __init__(self, at, do, answered=True, broken=False):
        self.at, self.do, self.answered, self.broken = at, do, answered, broken

    def done(self, wait_s):
        if not self.answered:
            time.sleep(wait_s)
            return False
        left = self.at - time.monotonic()
        time.sleep(max(0.0, min(left, wait_s)))
        return left <= wait_s

    def take(self):
        if self.broken:
            raise CallLostError("told to")
        return self.do()


class ChaosLink:
    """One node's link."""

    def __init__(self, place, chaos=None):
        self.place, self.chaos = place, chaos or Chaos()
        self.random = np.random.default_rng(self.chaos.seed)
        self.known = None
        first = [fate for fate in FATES if getattr(self.chaos, fate)]
        self.first = iter(self.random.permutation(first).tolist())  # each of them happens, however short the run

    def chances(self):
        return [getattr(self.chaos, fate) for fate in FATES]

    def reconnect(self):
        with self.place.lock:
            if self.place.server is None:
                raise ServerLostError("dead")
            self.known = self.place.server

    def do(self, verb, message):
        with self.place.lock:
            if self.place.server is not self.known:
                raise ServerLostError("another one")
            answer = self.place.do(verb, message)
            return Answer(message.seq, waiting=True) if answer is None else answer

    def call(self, verb, message):
        its, chances = self.chaos, self.chances()
        fate = next(self.first, None) if verb == "deliver" else None
        fate = fate or self.random.choice([*FATES, "well"], p=[*chances, 1 - sum(chances)])
        its.seen[fate] = its.seen.get(fate, 0) + 1
        at = time.monotonic() + self.random.random() * its.delay_s

        def again():
            with contextlib.suppress(Exception):  # nobody hears what comes of it
                self.do(verb, message)

        if fate == "lost":
            return Pending(at, None, answered=False)
        if fate == "unanswered" or (fate == "broken" and self.random.random() < 0.5):
            again()
            return Pending(at, None, answered=False) if fate == "unanswered" else Pending(at, None, broken=True)
        if fate == "broken":
            return Pending(at, None, broken=True)
        if fate == "repeated":
            threading.Timer(self.random.random() * 0.3, again).start()
        return Pending(at, lambda: self.do(verb, message))


def task_of(terms, model, slot, token=None, sync_s=0.005, sync_updates=None, before=None):
    return NodeTask(terms, slot, token or f"token {slot}", 0, model.problem, sync_s, sync_updates, PATIENCE, before)


def run_nodes(place, terms, model, chaos=(), **more):
    """All nodes, in threads; what they end with, in their order. Raises what one of them raised."""
    ends = [None] * terms.nodes
    errors = []
    kind = RoundNode if terms.send == SYNCHRONOUS else Node

    def run(slot):
        link = ChaosLink(place, chaos[slot] if slot < len(chaos) else None)
        try:
            ends[slot] = take_part(task_of(terms, model, slot, **more), link, kind)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(slot,)) for slot in range(terms.nodes)]
    for thread in threads:
        thread.start()
    begin_when_ready(place, terms.nodes)
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    if errors:
        raise errors[0]
    return ends


def begin_when_ready(place, nodes):
    for _ in range(4000):
        with place.lock:
            if place.server.report().n_ready >= nodes:
                place.server.begin()
                return
        time.sleep(0.005)
    raise AssertionError("the nodes were never ready")


def small_a3c(**options):
    """A model whose nodes run in threads of this program."""
    return fastac.A3C(**{"workers": 1, "backend": "thread", "hidden_sizes": (8,), "seed": 3, **options})


def terms_of(model, nodes=2, send="steps", total_timesteps=20_000):
    cluster = fastac.RayCluster(nodes=nodes)
    config = cluster.node_config(model.config)
    send = SYNCHRONOUS if isinstance(model, fastac.A2C) else send
    return Terms(config, send, nodes, len(model.params), total_timesteps)
