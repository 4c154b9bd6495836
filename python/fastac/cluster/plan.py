"""How many nodes are worth it: what a cluster would do, reckoned from what one node and one exchange cost.

In: Figures, measured (measure.py) or given. Out: an Outcome for each number of nodes. The model is a handful of maxima,
for the long run; simulate.py plays the same protocol in virtual time, and the tests hold one to the other.

What it takes for granted: all machines are alike, with links as fast in both directions at once; a worker has a core of
its own, and all are equally fast; one server process takes exchanges one after the other; nothing dies. Left out are
the optimizer's state, which a node sends once a second, and all that the program that started the run does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fastac import _core
from fastac.cluster.messages import SENDS, SYNCHRONOUS
from fastac.cluster.node import POLL_S, most_lag
from fastac.errors import ConfigError

ROW_BYTES = 8 * _core.LOG_COLUMNS  # of a worker's log, for each update
OVERHEAD_BYTES = 4096  # books and the like, in each message
_LOOKS_S = 1.5 * POLL_S  # an answer is seen half a look later, and the next exchange begins at the look after
_POSITIVE = (
    "parameters",
    "workers",
    "update_s",
    "env_steps_per_update",
    "bandwidth_bytes_per_s",
    "server_fixed_s",
    "sync_s",
)
_NOT_NEGATIVE = ("latency_s", "server_byte_s")


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What a node, a link and a server do.

    Args:
        parameters: P, so that an exchange carries 4P bytes each way.
        workers: of a node.
        update_s: seconds of one worker's update; of rounds: of a node's rollout and gradient.
        env_steps_per_update: of one worker's update; of rounds: of a node's.
        latency_s: seconds from a node to the server, one way.
        bandwidth_bytes_per_s: of each machine's link, in each direction.
        server_fixed_s: seconds of the server's processor for an exchange, whatever it carries.
        server_byte_s: more of them for each byte of the parameters.
        sync_s: A3C: seconds between two exchanges of a node.
        send: A3C: "steps" or "gradients"; A2C: "round".

    Raises ConfigError for a value outside its range.
    """

    parameters: int
    workers: int
    update_s: float
    env_steps_per_update: int
    latency_s: float
    bandwidth_bytes_per_s: float
    server_fixed_s: float
    server_byte_s: float = 0.0
    sync_s: float = 0.02
    send: str = "steps"

    def __post_init__(self) -> None:
        for name in (*_POSITIVE, *_NOT_NEGATIVE):
            value = getattr(self, name)
            if not (0 < value < math.inf or (value == 0 and name in _NOT_NEGATIVE)):
                raise ConfigError(
                    f"{name}: expected a number {'>=' if name in _NOT_NEGATIVE else '>'} 0, got {value!r}"
                )
        if self.send not in (*SENDS, SYNCHRONOUS):
            raise ConfigError(f"send: expected one of {', '.join((*SENDS, SYNCHRONOUS))}, got {self.send!r}")

    @property
    def in_rounds(self) -> bool:
        return self.send == SYNCHRONOUS

    @property
    def updates_per_s(self) -> float:
        """Of one node, while its workers are at work."""
        return (1 if self.in_rounds else self.workers) / self.update_s

    @property
    def server_s(self) -> float:
        """Of the server's processor, for one exchange."""
        return self.server_fixed_s + self.server_byte_s * 4 * self.parameters

    def link_s(self, updates: float = 0.0) -> float:
        """A message's time on a link, with the log of so many updates."""
        return (4 * self.parameters + OVERHEAD_BYTES + ROW_BYTES * updates) / self.bandwidth_bytes_per_s

    @property
    def lag_s(self) -> float:
        """A node without an answer for so long holds its workers."""
        return most_lag(self.sync_s)

    def updates_in(self, period_s: float) -> float:
        """Of a node, between two of its exchanges: those of its workers until they are held, and of each, on average,
        half of the one that it is in then."""
        return self.updates_per_s * min(period_s, self.lag_s + self.update_s / 2)


@dataclass(frozen=True)
class Outcome:
    """What all nodes together do, in the long run.

    Attributes:
        period_s: seconds from one exchange of a node to its next.
        at_work: share of the time in which workers are at work: not held, nor waiting for the others' round.
        server_use, link_use: share of the time in which the server's processor, and its link, are busy.
        staleness_inside: mean, in updates, among the workers of a node.
        staleness_between: mean number of updates by others between what a node was given and its next delivery.
        bottleneck: what sets the period: "latency", "network" or "server"; "workers": they set the pace. Empty where
            that was not asked for.
    """

    nodes: int
    env_steps_per_s: float
    exchanges_per_s: float
    period_s: float
    at_work: float
    server_use: float
    link_use: float
    staleness_inside: float
    staleness_between: float
    bottleneck: str = ""


def plan(figures: Figures, nodes: Sequence[int]) -> list[Outcome]:
    """An outcome for each number of nodes."""
    forecast = _rounds if figures.in_rounds else _asynchronous
    return [forecast(figures, n) for n in nodes]


def _asynchronous(its: Figures, nodes: int) -> Outcome:
    """A3C. A node's period is the longest of: what it was told; its way to the server and back, alone; and the time
    that all nodes' exchanges take at the server, or on its link. In the latter cases nodes queue there, which slows
    nobody's workers until an answer is later than the lag limit: then they are held for the rest of the period.
    """
    period_s = _period_s(its, nodes)
    updates = its.updates_in(period_s)
    # Each other node delivers once in a period; of summed gradients, the server makes one update of a delivery.
    of_each_other = updates if its.send == "steps" else min(1.0, updates)
    return Outcome(
        nodes=nodes,
        env_steps_per_s=nodes * updates * its.env_steps_per_update / period_s,
        exchanges_per_s=nodes / period_s,
        period_s=period_s,
        at_work=min(1.0, its.lag_s / period_s),
        server_use=nodes * its.server_s / period_s,
        link_use=nodes * its.link_s(updates) / period_s,
        staleness_inside=its.workers - 1,
        staleness_between=(nodes - 1) * of_each_other,
        bottleneck=_bottleneck(its, nodes, updates),
    )


def _bottleneck(its: Figures, nodes: int, updates: float) -> str:
    way = {
        "latency": 2 * its.latency_s + _LOOKS_S,
        "network": its.link_s(updates) + its.link_s(),
        "server": its.server_s,
    }
    return max(
        (told_s(its), "workers"),
        (sum(way.values()), _longest(way)),
        (nodes * its.server_s, "server"),
        (nodes * its.link_s(updates), "network"),
        key=lambda term: term[0],
    )[1]


def _longest(terms: dict[str, float]) -> str:
    return max(terms, key=lambda name: terms[name])


def _period_s(its: Figures, nodes: int) -> float:
    """The fixed point of: the longer a period, the more log rows go with an exchange. Each of its terms grows with the
    period, and none by as much, so that it is found by halving."""

    def needed(period_s: float) -> float:
        updates = its.updates_in(period_s)
        alone_s = max(told_s(its), way_s(its, updates))
        return max(alone_s, nodes * its.server_s, nodes * its.link_s(updates))

    low, high = told_s(its), needed(math.inf)
    if needed(low) <= low:
        return low
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if needed(middle) > middle else (low, middle)
    return high


def told_s(its: Figures) -> float:
    """A node's period where nothing delays it: sync_s, and half of the time between two looks at the clock."""
    return its.sync_s + POLL_S / 2


def way_s(its: Figures, updates: float = 0.0) -> float:
    """To the server and back, with nobody else there."""
    return 2 * its.latency_s + its.link_s(updates) + its.server_s + its.link_s() + _LOOKS_S


def _rounds(its: Figures, nodes: int) -> Outcome:
    """A2C. Answers go out one after the other, so that nodes begin, and deliver, as far apart as these: only one of the
    two ways is waited for. What is slower, link or processor, sets their distance; half of the server's time is for
    each way. With so many nodes that the first delivers before the last is answered, the processor is all that counts.
    """
    parts = {
        "workers": its.update_s,
        "latency": 2 * its.latency_s,
        "network": 2 * its.link_s(),
        "server": its.server_s,
    }
    parts["network" if its.link_s() > its.server_s / 2 else "server"] += (nodes - 1) * turn_s(its)
    at_server_s = nodes * its.server_s
    period_s = max(sum(parts.values()), at_server_s)
    return Outcome(
        nodes=nodes,
        env_steps_per_s=nodes * its.env_steps_per_update / period_s,
        exchanges_per_s=nodes / period_s,
        period_s=period_s,
        at_work=its.update_s / period_s,
        server_use=at_server_s / period_s,
        link_use=nodes * its.link_s() / period_s,
        staleness_inside=0.0,
        staleness_between=0.0,
        bottleneck="server" if at_server_s == period_s else _longest(parts),
    )


def turn_s(its: Figures) -> float:
    """By how much each further node makes a round longer."""
    return max(its.link_s(), its.server_s / 2)


def saturated_from(its: Figures) -> int:
    """A3C: nodes from which on exchanges queue at the server or on its link. A2C: from which on more than half of a
    round is not work."""
    if its.in_rounds:
        left_s = its.update_s - 2 * its.latency_s - 2 * its.link_s() - its.server_s
        return max(1, min(math.floor(left_s / turn_s(its)) + 2, math.floor(2 * its.update_s / its.server_s) + 1))
    alone_s = _period_s(its, 1)
    return math.floor(alone_s / station_s(its, alone_s)) + 1


def held_from(its: Figures) -> int:
    """A3C: nodes from which on workers are held."""
    if _period_s(its, 1) > its.lag_s:
        return 1
    return math.floor(its.lag_s / station_s(its, its.lag_s)) + 1


def station_s(its: Figures, period_s: float) -> float:
    """A3C: by how much each further node makes the queue longer, at the server or on its link."""
    return max(its.server_s, its.link_s(its.updates_in(period_s)))
