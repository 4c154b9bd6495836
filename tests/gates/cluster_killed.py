"""SIGKILL to whatever a cluster is made of, while it trains: the run goes on, and its books balance.

    python tests/gates/cluster_killed.py each=20 seed=0

On one machine stand several Ray nodes, each with processes of its own: two for nodes of A3C and one spare, and two that
may hold the server. While a run trains, worker processes, agents, whole Ray nodes and the server's Ray node are killed,
each kind as often as told, in random order and at random times; a Ray node that was killed is followed by another, so
that nodes leave and join all the time. Each kill is waited for: until all places are taken again and every node
delivers. Then the run is stopped and must end in order: nothing hangs, every published gradient is applied or counted
as lost, and no process is left.
"""

from __future__ import annotations

import contextlib
import os
import random
import sys
import threading
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import ray
from whole_runs import adopt_orphans, arguments, kill, processes

import fastac
from fastac.cluster import driver
from fastac.errors import LedgerError

KINDS = ("worker", "agent", "node", "server")
WORKERS = 2
RECOVERY_S = 120.0  # of a busy machine; it takes a few seconds


def titled(title: bytes) -> list[int]:
    """Those of our processes whose title, which Ray sets, begins so."""
    found = []
    for pid in descendants(os.getpid()):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(title):
                found.append(pid)
    return found


def descendants(pid: int) -> list[int]:
    below, todo = [], [pid]
    everybody = list(processes())
    while todo:
        parent = todo.pop()
        born = [process.pid for process in everybody if process.parent == parent and not process.dead]
        below += born
        todo += born
    return below


def workers() -> list[int]:
    """A3C's worker processes: what the agents' forkservers have forked."""
    found = []
    for agent in titled(b"ray::"):
        for pid in descendants(agent):
            with contextlib.suppress(OSError):
                if b"forkserver" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(pid)
    forkservers = {process.parent for process in processes() if process.pid in found} & set(found)
    return [pid for pid in found if pid not in forkservers]


class Machines:
    """Ray nodes on this machine, those for A3C's nodes and those for the server."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        # Ray takes a machine for dead after a quarter of a minute of silence; here after two seconds.
        quick = {"health_check_period_ms": 500, "health_check_failure_threshold": 3, "health_check_timeout_ms": 1000}
        head = {"num_cpus": 0, "include_dashboard": False, "_system_config": quick}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.nodes = [self.add("node") for _ in range(3)]
        self.servers = [self.add("server") for _ in range(2)]

    def add(self, kind: str) -> Any:
        if kind == "node":
            return self.cluster.add_node(num_cpus=WORKERS)
        return self.cluster.add_node(num_cpus=0, resources={"fastac_server": 1})

    def replace(self, kind: str, chance: random.Random) -> str:
        """Kills one, and adds another."""
        its = self.nodes if kind == "node" else self.servers
        server = fastac_server_node() if kind == "server" else None
        victim = next((one for one in its if one.node_id == server), None) or chance.choice(its)
        its.remove(victim)
        self.cluster.remove_node(victim, allow_graceful=False)
        its.append(self.add(kind))
        return str(victim.node_id)[:6]


def fastac_server_node() -> str | None:
    """Where the server is."""
    run = Watched.latest
    if run is None or run.driver._server is None:
        return None
    from fastac.cluster import actors

    machines = actors.server_machines()
    return machines[0] if machines else None


class Watched(driver.ClusterRun):
    """The run that is under way."""

    latest: driver.ClusterRun | None = None

    def start(self) -> None:
        super().start()
        Watched.latest = self

    def everybody_delivers(self, before: dict[str, int]) -> bool:
        """All places are taken, and each has delivered since."""
        places = self.driver._places
        now = {share.name: share.deliveries for share in self.session.ledger()["nodes"]}
        return all(
            place.ref is not None and now.get(place.name, 0) >= before.get(place.name, 0) + 3 for place in places
        )

    def deliveries(self) -> dict[str, int]:
        return {share.name: share.deliveries for share in self.session.ledger()["nodes"]}


def recovered(run: Watched, deadline_s: float) -> bool:
    until = time.monotonic() + deadline_s
    before = run.deliveries()
    while time.monotonic() < until:
        time.sleep(0.1)
        with contextlib.suppress(Exception):  # in the midst of the driver's own look
            if run.everybody_delivers(before):
                return True
    return False


class Killer:
    """Does as told, one after the other."""

    def __init__(self, machines: Machines, each: int, seed: int) -> None:
        self.machines = machines
        self.chance = random.Random(seed)
        self.todo = [kind for kind in KINDS for _ in range(each)]
        self.chance.shuffle(self.todo)
        self.done: dict[str, int] = dict.fromkeys(KINDS, 0)
        self.slowest_s = 0.0

    def work(self, learning: threading.Thread) -> str | None:
        """What went wrong."""
        while Watched.latest is None or not Watched.latest.driver._began:
            time.sleep(0.1)
            if not learning.is_alive():
                return "the run did not begin"
        run = Watched.latest
        assert isinstance(run, Watched)
        for kind in self.todo:
            if not recovered(run, RECOVERY_S):
                return f"not all nodes delivered within {RECOVERY_S:g} s, before killing a {kind}"
            time.sleep(self.chance.random())
            started = time.monotonic()
            if not self.kill_one(kind):
                return f"no {kind} to kill"
            self.done[kind] += 1
            time.sleep(0.3)  # until its death can be seen
            if not recovered(run, RECOVERY_S):
                return f"not all nodes delivered within {RECOVERY_S:g} s of killing a {kind}"
            self.slowest_s = max(self.slowest_s, time.monotonic() - started)
        return None

    def kill_one(self, kind: str) -> bool:
        if kind in ("node", "server"):
            self.machines.replace(kind, self.chance)
            return True
        victims = workers() if kind == "worker" else titled(b"ray::NodeActor") or titled(b"ray::fastac")
        if victims:
            kill(self.chance.choice(victims))
        return bool(victims)


def main() -> int:
    given = arguments(each=1, seed=0)
    adopt_orphans()  # of a Ray node that was killed
    driver.ClusterRun = Watched  # type: ignore[misc]
    machines = Machines()
    ray.init(address=machines.cluster.address, namespace="fastac", log_to_driver=False, logging_level="ERROR")
    started = time.monotonic()
    model = fastac.A3C(workers=WORKERS, seed=given.seed, learning_rate=3e-4, on_worker_death="restart")
    cluster = fastac.RayCluster(
        address=machines.cluster.address, nodes=2, checkpoint_every_s=0.5, call_deadline_s=2.0, outage_s=60.0
    )
    killer = Killer(machines, given.each, given.seed)
    faults: list[str] = []

    def learn() -> None:
        try:
            model.learn(10**12, cluster=cluster)
        except LedgerError as error:
            faults.append(f"the books do not balance: {error}")
        except BaseException:
            faults.append(f"the run failed: {traceback.format_exc()}")

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        learning = threading.Thread(target=learn, daemon=True)
        learning.start()
        if fault := killer.work(learning):
            faults.append(fault)
        if Watched.latest is not None:
            Watched.latest.end()
        learning.join(RECOVERY_S)
        if learning.is_alive():
            faults.append("the run did not end")
            print("\n".join(f"FAULT: {fault}" for fault in faults))
            return 1
    its = model.ledger
    assert its is not None
    until = time.monotonic() + 20
    while (left := titled(b"ray::NodeActor") + titled(b"ray::ServerActor")) and time.monotonic() < until:
        time.sleep(0.1)
    if left:
        faults.append(f"{len(left)} processes are left")
    ray.shutdown()
    machines.cluster.shutdown()
    kinds = ", ".join(f"{n} {kind}{'s' if n != 1 else ''}" for kind, n in killer.done.items())
    print(
        f"cluster: {kinds} killed of a run of 2 nodes with {WORKERS} workers each: {its.applied:,} gradients applied, "
        f"{its.lost:,} lost with those who died, {its.pending} pending, {its.deaths} deaths, {len(told)} warnings; "
        f"back at work after {killer.slowest_s:.1f} s at most ({time.monotonic() - started:.0f} s)"
    )
    for fault in faults:
        print(f"FAULT: {fault}")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
