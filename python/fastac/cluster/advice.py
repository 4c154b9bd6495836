"""In words: where a cluster is saturated, and what to change."""

from __future__ import annotations

import math

from fastac.cluster.plan import ROW_BYTES, Figures, held_from, plan, saturated_from
from fastac.words import counted

_NAMES = {"server": "the server's processor", "network": "the server's link"}
_SHARDS = 4


def advice(figures: Figures, most: int) -> str:
    """One sentence, for up to so many nodes."""
    return _of_rounds(figures, most) if figures.in_rounds else _of_a3c(figures, most)


def _of_a3c(its: Figures, most: int) -> str:
    (one,) = plan(its, [1])
    if one.period_s > its.lag_s:
        return (
            f"Workers are held, however few nodes there are: an exchange takes {_ms(one.period_s)} ms, and they wait "
            f"for an answer after {_ms(its.lag_s)} ms; with sync_ms={_ms_up(one.period_s / 10)} they do not."
        )
    knee, held = saturated_from(its), held_from(its)
    where = _NAMES[_bottleneck(its, knee)]
    if most < knee:
        return f"All workers stay at work; from {knee:,} nodes on exchanges would queue for {where}."
    begin = f"From {knee:,} nodes on exchanges queue for {where}"
    if most < held:
        then = f"workers stay at work with fewer than {held:,}, but what they send is staler"
    elif held > knee:
        then = f"from {held:,} on workers are held, so that more nodes bring no more env steps"
    else:
        then = "then workers are held, so that more nodes bring no more env steps"
    return f"{begin}; {then}. What helps: {_remedies(its, most)}."


def _remedies(its: Figures, most: int) -> str:
    remedies = []
    on_link, parameters_bytes = _bottleneck(its, most) == "network", 4 * its.parameters
    sync_s = _sync_for(its, most)
    if sync_s is not None:
        remedies.append(f"sync_ms={_ms_up(sync_s)} for {most:,} nodes")
    if on_link and (sync_s is None or ROW_BYTES * its.updates_in(its.sync_s) > parameters_bytes):
        remedies.append(f"longer rollouts, as {ROW_BYTES} bytes of log go with each update")
    elif parameters_bytes > 2**20 and (on_link or its.server_byte_s * parameters_bytes > its.server_s / 2):
        shard_mb = parameters_bytes / 2**20 / _SHARDS
        remedies.append(f"most_shard_mb={shard_mb:.2g}, for {_SHARDS} shards on machines of their own")
    remedies.append(f"at most {counted(saturated_from(its) - 1, 'nodes')}")
    return ", or ".join(remedies)


def _sync_for(its: Figures, nodes: int) -> float | None:
    """The shortest time between exchanges at which so many nodes do not queue; None where the log alone fills the
    link."""
    log_s = its.link_s(its.updates_per_s) - its.link_s()  # of a second's updates of one node
    if nodes * log_s >= 1:
        return None
    return nodes * max(its.server_s, its.link_s() / (1 - nodes * log_s))


def _of_rounds(its: Figures, most: int) -> str:
    knee = saturated_from(its)
    if most < knee:
        return f"More than half of a round is work; with {knee:,} nodes it would be less."
    limit = its.env_steps_per_update / max(its.server_s, its.link_s())
    longest = _bottleneck(its, most)
    where = _NAMES.get(longest, "the way to the server" if longest == "latency" else "the work itself")
    return (
        f"With {counted(knee, 'nodes')} or more, half of a round or less is work; with {most:,} it is {where} that "
        f"takes longest, and however many there are, they do not get beyond {limit:,.0f} env steps per second. What "
        "helps: more env steps per update, or A3C, whose nodes do not wait for each other."
    )


def _bottleneck(its: Figures, nodes: int) -> str:
    return plan(its, [nodes])[0].bottleneck


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:,.3g}"


def _ms_up(seconds: float) -> str:
    """Rounded up to two digits."""
    digits = 10.0 ** (math.floor(math.log10(1000 * seconds)) - 1)
    return f"{math.ceil(1000 * seconds / digits) * digits:g}"
