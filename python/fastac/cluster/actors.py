"""Server, shards and nodes as actors of Ray, and the calls between them. The only module that knows Ray.

Names are for Ray's dashboard: "fastac 3f2a server 0", "fastac 3f2a server 0 shard 1", "fastac 3f2a node 0".
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import ray
from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fastac.cluster.courier import CallLostError, ServerLostError
from fastac.cluster.messages import SYNCHRONOUS, Answer, Delivery, Float32, Hello, Refused, Unknown, Welcome
from fastac.cluster.node import Node, NodeEnd, NodeTask, take_part
from fastac.cluster.round import RoundNode
from fastac.cluster.server import Report, Server, State, Terms
from fastac.cluster.shards import OneShard, Shard, cut, whole
from fastac.errors import FastacError, WorkerError

NAMESPACE = "fastac"
SERVER_RESOURCE = "fastac_server"  # where a machine offers it, servers go there
_WAIT_S = 1.0  # a node that waits for the others is told so as often
_SHARD_DEADLINE_S = 30.0


class ServerActor:
    """The server of a run. A call that must wait for others gives way to them."""

    def __init__(self, terms: Terms, state: State, shards: Sequence[Any]) -> None:
        if shards:
            vectors: Any = _Shards(shards, state, terms.parameters)
        else:
            vectors = OneShard(terms.config, state.params, state.state, state.version)
        self._server = Server(terms, vectors, state)
        self._changed = asyncio.Event()

    async def join(self, hello: Hello) -> Welcome:
        welcome = self._server.join(hello)
        self._tell()
        return welcome

    async def ready(self, member: int) -> bool:
        return self._server.ready(member)

    async def deliver(self, delivery: Delivery) -> Answer:
        until = asyncio.get_running_loop().time() + _WAIT_S
        while (answer := self._server.deliver(delivery)) is None:
            try:
                await asyncio.wait_for(self._changed.wait(), until - asyncio.get_running_loop().time())
            except asyncio.TimeoutError:
                return Answer(delivery.seq, waiting=True)
        self._tell()
        return answer

    async def begin(self) -> None:
        self._server.begin()

    async def stop(self) -> None:
        self._server.stop()
        self._tell()

    async def give_up(self, token: str) -> int:
        lost = self._server.give_up(token)
        self._tell()
        return lost

    async def report(self, heard: int) -> Report:
        return self._server.report(heard)

    async def checkpoint(self) -> State:
        return self._server.checkpoint()

    def _tell(self) -> None:
        """Those who wait look again."""
        self._changed.set()
        self._changed = asyncio.Event()


class ShardActor:
    """A part of the vectors. A repeated call is answered again, and changes nothing."""

    def __init__(self, terms: Terms, params: Float32, state: Float32, version: int) -> None:
        self._shard = Shard(terms.config, params, state, version)
        self._seq: dict[int, int] = {}
        self._last: tuple[int, Any] = (0, None)

    def stage(self, member: int, seq: int, values: Float32, state: Float32 | None) -> None:
        """A member's delivery; one that comes late, after the next, is none."""
        if seq >= self._seq.get(member, 0):
            self._seq[member] = seq
            self._shard.stage(member, values, state)

    def do(self, number: int, verb: str, *args: Any) -> Any:
        """A call of the server, which numbers them."""
        if number != self._last[0]:
            self._last = number, getattr(self._shard, verb)(*args)
        return self._last[1]

    def whole(self) -> tuple[Float32, Float32]:
        return self._shard.params, self._shard.state()


class _Shards:
    """The server's side of several shards: all do the same, in the same order."""

    def __init__(self, shards: Sequence[Any], state: State, parameters: int) -> None:
        self._shards = shards
        self._number = 0

    def join(self, member: int) -> tuple[Float32, Float32]:
        parts = self._all("join", member)
        return whole([params for params, _ in parts]), np.concatenate([state for _, state in parts], axis=1)

    def leave(self, member: int) -> None:
        self._all("leave", member)

    def stage(self, member: int, values: Any, state: Float32 | None) -> None:
        """The member has done that itself."""

    def add(self, member: int) -> None:
        self._all("add", member)

    def reduce(self, weights: Sequence[tuple[int, float]]) -> float:
        return float(np.sqrt(sum(norm * norm for norm in self._all("reduce", weights))))

    def step(self, factor: float, learning_rate: float) -> None:
        self._all("step", factor, learning_rate)

    def give(self, member: int) -> Any:
        """References: the member gets its parts from the shards."""
        self._number += 1
        return [shard.do.remote(self._number, "give", member) for shard in self._shards]

    def whole(self) -> tuple[Float32, Float32]:
        parts = _results([shard.whole.remote() for shard in self._shards])
        return whole([params for params, _ in parts]), np.concatenate([state for _, state in parts], axis=1)

    def _all(self, verb: str, *args: Any) -> list[Any]:
        self._number += 1
        return _results([shard.do.remote(self._number, verb, *args) for shard in self._shards])


def _results(refs: Sequence[Any]) -> list[Any]:
    """In the server, whose loop is to stand still meanwhile: ray.get would warn of that.

    Where a shard is dead or silent, some may have done what others have not: this server is of no use any more, and
    ends, so that all of them are begun again from the last checkpoint.
    """
    try:
        return [ref.future().result(_SHARD_DEADLINE_S) for ref in refs]
    except Exception:
        os._exit(1)


class NodeActor:
    """One node, for as long as it takes part."""

    def run(self, task: NodeTask, run: str, parts: int) -> NodeEnd:
        kind = RoundNode if task.terms.send == SYNCHRONOUS else Node
        notes: list[str] = []
        with _telling(notes.append):
            return take_part(task, RayLink(run, task.terms.parameters, parts, task.added_delay_s), kind, notes)


@contextlib.contextmanager
def _telling(tell: Callable[[str], None]) -> Iterator[None]:
    """While it lasts, warnings are told by this instead of shown on this machine."""

    def told(message: Warning | str, category: type[Warning], *where: Any) -> None:
        tell(f"{category.__name__}: {message}")

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = told  # type: ignore[assignment]  # the rest of its arguments is not told
        yield


class _Call:
    """A call under way: what is to be staged first, then the call, then what its answer refers to."""

    def __init__(self, stages: Sequence[Any], call: Any, delay_s: float) -> None:
        self._refs = list(stages)
        self._delay_s = delay_s
        self._until = time.monotonic() + delay_s  # nothing is called before, and then nothing heard
        self._heard = False
        self._call = call
        self._answer: Any = None
        self._parts: list[Any] | None = None
        if not self._refs and not delay_s:
            self._begin()

    def _begin(self) -> None:
        self._refs, self._call = [self._call()], None

    def done(self, wait_s: float) -> bool:
        if (left := self._until - time.monotonic()) > 0:
            time.sleep(min(left, wait_s))
            return False
        if not self._refs:
            self._begin()
        ready, _ = ray.wait(self._refs, num_returns=len(self._refs), timeout=wait_s)
        if len(ready) < len(self._refs):
            return False
        if self._call is not None:
            _get(self._refs)
            self._begin()
            return self.done(wait_s)
        if self._parts is None:
            (self._answer,) = _get(self._refs)
            if isinstance(self._answer, Answer) and isinstance(self._answer.values, list):
                self._parts = self._refs = self._answer.values
                return self.done(wait_s)
        if self._delay_s and not self._heard:
            self._heard, self._until = True, time.monotonic() + self._delay_s
            return False
        return True

    def take(self) -> Any:
        if self._parts is None:
            return self._answer
        return dataclasses.replace(self._answer, values=whole(_get(self._parts)))


def _get(refs: list[Any], deadline_s: float | None = None) -> list[Any]:
    """Raises what an actor raised; CallLostError where it does not answer in time, ServerLostError where it is dead."""
    try:
        values: list[Any] = ray.get(refs, timeout=deadline_s)
    except (ActorUnavailableError, GetTimeoutError) as error:
        raise CallLostError(str(error)) from error
    except RayTaskError as error:
        if isinstance(error.cause, (FastacError, Refused, Unknown, ServerLostError)):
            raise error.cause from None
        raise WorkerError(str(error)) from None
    except RayError as error:  # the actor is dead, or its machine, or what it gave out went with it
        raise ServerLostError(str(error)) from error
    return values


class RayLink:
    """A node's calls, by Ray."""

    def __init__(self, run: str, parameters: int, parts: int, delay_s: float = 0.0) -> None:
        self._run = run
        self._delay_s = delay_s
        self._cuts = cut(parameters, parts)
        self._server: Any = None
        self._shards: list[Any] = []

    def reconnect(self) -> None:
        try:
            name = _latest_server(self._run)
            self._server = ray.get_actor(name, NAMESPACE)
            if len(self._cuts) > 1:
                self._shards = [ray.get_actor(shard_name(name, k), NAMESPACE) for k in range(len(self._cuts))]
        except ValueError as error:  # there is none of that name
            raise ServerLostError(str(error)) from error

    def call(self, verb: str, message: Any) -> _Call:
        stages: list[Any] = []
        if self._shards and isinstance(message, Delivery):
            its = message
            for shard, part in zip(self._shards, self._cuts, strict=True):
                state = None if its.state is None else its.state[:, part]
                stages.append(shard.stage.remote(its.member, its.seq, its.values[part], state))
            message = dataclasses.replace(its, values=None, state=None)
        server = self._server
        return _Call(stages, lambda: getattr(server, verb).remote(message), self._delay_s)


def server_name(run: str, number: int) -> str:
    """Of a run's servers, one after the other."""
    return f"fastac {run} server {number}"


def shard_name(server: str, k: int) -> str:
    return f"{server} shard {k}"


def _latest_server(run: str) -> str:
    """Raises ValueError where there is none."""
    start = server_name(run, 0).removesuffix("0")
    named = [its["name"] for its in ray.util.list_named_actors(all_namespaces=True) if its["namespace"] == NAMESPACE]
    numbers = [name.removeprefix(start) for name in named if name.startswith(start)]
    return server_name(run, max(int(number) for number in numbers if number.isdigit()))


# ---- for the driver -------------------------------------------------------------------------------------------


def connect(address: str | None, cpus: int) -> bool:
    """Whether Ray was started or joined here, so that it is to be left at the end. Raises ConnectionError."""
    if ray.is_initialized():
        return False
    options: dict[str, Any] = {"namespace": NAMESPACE, "log_to_driver": False, "logging_level": "ERROR"}
    if address is not None and address != "auto":
        _expect_somebody(address)
    with _handlers_kept():
        _init(address, cpus, options)
    return True


def _init(address: str | None, cpus: int, options: dict[str, Any]) -> None:
    if address is None:
        # "local": with no address it would join whatever runs on this machine.
        ray.init("local", num_cpus=cpus, include_dashboard=False, **options)
    else:
        ray.init(address=address, **options)


@contextlib.contextmanager
def _handlers_kept() -> Iterator[None]:
    """Ray would end the program by SIGTERM in its own way; here a run is ended in order (signals.py)."""
    ours = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    if threading.current_thread() is threading.main_thread():
        for number, handler in ours.items():
            signal.signal(number, handler)


def _expect_somebody(address: str) -> None:
    """Where nobody listens Ray would end the process."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise ConnectionError("that is neither auto nor HOST:PORT")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise ConnectionError(str(error)) from error


def disconnect() -> None:
    ray.shutdown()


def machines(cpus: int) -> list[str]:
    """The ids of Ray's nodes that are alive and have so many CPUs, this program's own first."""
    here = ray.get_runtime_context().get_node_id()
    alive = [its for its in _machines() if its["Alive"] and its["Resources"].get("CPU", 0) >= cpus]
    return sorted((its["NodeID"] for its in alive), key=lambda node: (node != here, node))


def _machines() -> list[dict[str, Any]]:
    known: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]  # Ray's own
    return known


def server_machines() -> list[str]:
    """Those for servers: that offer the resource `fastac_server`, or else this program's, with which the run would end
    anyway."""
    offering = [its["NodeID"] for its in _machines() if its["Alive"] and its["Resources"].get(SERVER_RESOURCE, 0) > 0]
    return sorted(offering) or [ray.get_runtime_context().get_node_id()]


def _on(machine: str) -> dict[str, Any]:
    strategy = NodeAffinitySchedulingStrategy(machine, soft=False)
    return {"scheduling_strategy": strategy, "max_restarts": 0, "namespace": NAMESPACE}


def start_server(name: str, terms: Terms, state: State, parts: int) -> tuple[Any, list[Any]]:
    """The server and, where there are several, its shards."""
    places = server_machines()
    shards = []
    for k, part in enumerate(cut(terms.parameters, parts) if parts > 1 else []):
        options = {**_on(places[k % len(places)]), "name": shard_name(name, k), "num_cpus": 0}
        actor = ray.remote(ShardActor).options(**options)
        shards.append(actor.remote(terms, state.params[part], state.state[:, part], state.version))
    options = {**_on(places[0]), "name": name, "num_cpus": 0, "max_concurrency": 10_000}
    return ray.remote(ServerActor).options(**options).remote(terms, state, shards), shards


def start_node(name: str, machine: str, cpus: int, task: NodeTask, run: str, parts: int) -> tuple[Any, Any]:
    """An agent on a machine, and the reference to its NodeEnd."""
    options = {**_on(machine), "name": name, "num_cpus": cpus}
    actor: Any = ray.remote(NodeActor).options(**options).remote()
    return actor, actor.run.remote(task, run, parts)


def ended(ref: Any, wait_s: float = 0.0) -> bool:
    ready, _ = ray.wait([ref], timeout=wait_s)
    return bool(ready)


def result(ref: Any, deadline_s: float) -> Any:
    """Raises as `_get`."""
    return _get([ref], deadline_s)[0]


def kill(actor: Any) -> None:
    ray.kill(actor)
