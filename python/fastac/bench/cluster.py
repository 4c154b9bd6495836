"""`fastac bench cluster`: nodes over Ray on this machine, by what they send, how often, and how late it arrives."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
from rich.table import Table

from fastac.a2c import A2C
from fastac.a3c import A3C
from fastac.algorithm import Algorithm
from fastac.bench.rounds import Tick
from fastac.callbacks import EveryNUpdates
from fastac.cluster.actors import connect, disconnect
from fastac.cluster.measure import server_cost, update_cost
from fastac.cluster.messages import SYNCHRONOUS
from fastac.cluster.plan import Figures, Outcome, plan
from fastac.cluster.ray_cluster import RayCluster
from fastac.metrics import SOLVED
from fastac.training import Training

LEARNING_RATE = 7e-4  # of A3C: half a thousand updates of staleness bear no more (docs/cluster.md)
A2C_ENVS = 16
SLOW_NODES = (1, 2, 4)
_MEMORY_BYTES_PER_S = 1e9  # one machine's own: no link at all
_STEP_S = 1e-3
_SLOW_S = 4.0  # that a run of slow envs takes


@dataclass(frozen=True)
class Case:
    """One row."""

    algorithm: str
    nodes: int
    sync_ms: float
    send: str
    delay_ms: float
    slow: bool = False  # its env steps take time, and no processor's

    @property
    def words(self) -> str:
        what = "" if self.algorithm == "A2C" else f" {self.send} {self.sync_ms:g} ms"
        return f"{'slow ' * self.slow}{self.algorithm} x{self.nodes}{what} +{self.delay_ms:g} ms"


class SlowCartPole(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Each step takes a millisecond, in which nothing is computed: so four workers fit on two cores."""

    def __init__(self) -> None:
        super().__init__(gymnasium.make("CartPole-v1"))

    def step(self, action: Any) -> Any:
        time.sleep(_STEP_S)
        return self.env.step(action)


def cases(nodes: Sequence[int], delays_ms: Sequence[float]) -> list[Case]:
    """A3C by what is sent, A2C; each with the delays, on the largest number of nodes, and A3C on each number."""
    most = max(nodes)
    rows = [Case("A3C", n, 20.0, "steps", 0.0, slow=True) for n in SLOW_NODES]
    rows += [Case("A3C", n, 20.0, "steps", 0.0) for n in nodes if n < most]
    for delay in delays_ms:
        rows += [Case("A3C", most, sync, "steps", delay) for sync in (5.0, 20.0)]
        rows.append(Case("A3C", most, 5.0, "gradients", delay))
        rows.append(Case("A2C", most, 20.0, "", delay))
    return rows


def measure(rows: Sequence[Case], seeds: int, total_timesteps: int, tick: Tick) -> dict[str, Any]:
    """Each case trains to a mean return of 475, or for that many env steps, with every seed in turn; those of slow envs
    for some seconds."""
    ours = connect(None, max(case.nodes for case in rows))
    try:
        results: dict[str, Any] = {case.words: [] for case in rows}
        for seed in range(seeds):
            for case in rows:
                results[case.words].append(_one(case, seed, total_timesteps))
                tick()
    finally:
        if ours:
            disconnect()
    return results


def _one(case: Case, seed: int, total_timesteps: int) -> dict[str, Any]:
    cluster = RayCluster(
        nodes=case.nodes,
        workers_per_node=1,
        sync_ms=case.sync_ms,
        send=case.send or "steps",
        added_delay_ms=case.delay_ms,
    )
    model: Algorithm
    if case.slow:
        model = A3C(SlowCartPole, workers=1, n_steps=8, learning_rate=LEARNING_RATE, seed=seed)
        model.learn(total_timesteps, callback=EveryNUpdates(1, _for_a_while), cluster=cluster)
    elif case.algorithm == "A3C":
        model = A3C(workers=1, learning_rate=LEARNING_RATE, seed=seed)
        model.learn(total_timesteps, solve=SOLVED, cluster=cluster)
    else:
        model = A2C(n_envs=A2C_ENVS, seed=seed)
        model.learn(total_timesteps, solve=SOLVED, cluster=cluster)
    history, ledger = model.history, model.ledger
    assert history is not None and ledger is not None
    solved = history.time_to(SOLVED)
    planned = _planned(case, model, ledger.applied / history.train_s / case.nodes)
    return {
        "planned_exchanges_per_s": planned.exchanges_per_s,
        "planned_staleness": planned.staleness_between,
        "env_steps_per_s": model.num_timesteps / history.train_s,
        "exchanges_per_s": sum(node.deliveries for node in ledger.nodes) / history.train_s,
        "staleness_between": statistics.mean(node.staleness_mean for node in ledger.nodes),
        "staleness_inside": ledger.staleness_mean,
        "solved": None if solved is None else solved["env_steps"],
    }


def _for_a_while(training: Training) -> bool:
    return training.time_elapsed < _SLOW_S


def _planned(case: Case, model: Algorithm, updates_per_s: float) -> Outcome:
    """What `fastac plan` says of a node that makes so many updates. Of A2C a node's update is timed alone, since in a
    round it cannot be told from the waiting."""
    send = case.send or SYNCHRONOUS
    env_steps = model.config.n_steps * (A2C_ENVS // case.nodes if send == SYNCHRONOUS else 1)
    parameters = len(model.params)
    fixed_s, byte_s = server_cost(parameters, 1, send)
    figures = Figures(
        parameters=parameters,
        workers=1,
        update_s=update_cost(parameters, 1, env_steps, send) if send == SYNCHRONOUS else 1 / updates_per_s,
        env_steps_per_update=env_steps,
        latency_s=case.delay_ms / 1000,
        bandwidth_bytes_per_s=_MEMORY_BYTES_PER_S,
        server_fixed_s=fixed_s,
        server_byte_s=byte_s,
        sync_s=case.sync_ms / 1000,
        send=send,
    )
    return plan(figures, [case.nodes])[0]


def table(results: dict[str, Any]) -> Table:
    """As people read it: medians over the seeds."""
    out = Table(title="Nodes over Ray on one machine, to a mean return of 475: medians over the seeds")
    for heading in (
        "case",
        "env steps/s",
        "exchanges/s",
        "by plan",
        "staleness between",
        "by plan",
        "solved",
        "env steps to 475",
    ):
        out.add_column(heading, justify="left" if heading == "case" else "right")
    for words, runs in results.items():

        def median(name: str, digits: int, runs: list[dict[str, Any]] = runs) -> str:
            values = [run[name] for run in runs]
            middle = f"{statistics.median(values):,.{digits}f}"
            return f"{middle}\n[dim]{min(values):,.{digits}f}-{max(values):,.{digits}f}[/dim]"

        solved = [run["solved"] for run in runs if run["solved"] is not None]
        out.add_row(
            words,
            median("env_steps_per_s", 0),
            median("exchanges_per_s", 0),
            f"{statistics.median(run['planned_exchanges_per_s'] for run in runs):,.0f}",
            median("staleness_between", 0),
            f"{statistics.median(run['planned_staleness'] for run in runs):,.0f}",
            f"{len(solved)} of {len(runs)}",
            f"{statistics.median(solved):,.0f}" if 2 * len(solved) > len(runs) else "-",
        )
    return out
