"""Figures of this machine, for plan.py: what an update costs a worker, and what an exchange costs a server.

In: what a cluster shall train. Out: Figures. Ray is not needed: the server's own work is timed in this process, and
what calls through Ray cost its process beside that is a constant here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np

from fastac import _core
from fastac.a2c import A2C
from fastac.a3c import A3C
from fastac.algorithm import Algorithm
from fastac.cluster.books import Books, empty_tally
from fastac.cluster.messages import SYNCHRONOUS, Delivery, Float32, Hello, Welcome, fingerprint
from fastac.cluster.plan import Figures
from fastac.cluster.server import Server, State, Terms
from fastac.cluster.shards import OneShard
from fastac.config import A2CConfig, A3CConfig, Config
from fastac.errors import ConfigError

# Of the server's process: receiving a delivery and sending its answer through Ray 2.60. Measured on one core of an AMD
# EPYC (Zen 4) with 139, 4,675 and 1,009,003 parameters; with 92,703 a byte cost three times as much.
RAY_CALL_S = 0.7e-3
RAY_BYTE_S = 1.1e-9

LATENCY_S = 0.25e-3  # one way, between machines of one room
BANDWIDTH_BYTES_PER_S = 125e6  # 1 Gbit/s
PARAMETERS = 4675  # of the policy that A2C and A3C have by default, on CartPole
MOST_MEASURED = 4096 * (4096 + 9) + 3  # two hidden layers of as many units as a config may have

_MEMBERS = 3
_SHORTEST_S = 0.05  # of what is timed
_TRAINING_S = 0.3


def measure(
    *,
    parameters: int = PARAMETERS,
    workers: int = A3CConfig.workers,
    env_steps_per_update: int = Config.n_steps,
    sync_s: float = 0.02,
    send: str = "steps",
    latency_s: float = LATENCY_S,
    bandwidth_bytes_per_s: float = BANDWIDTH_BYTES_PER_S,
    update_s: float | None = None,
    server_s: float | None = None,
) -> Figures:
    """Figures as `Figures` explains them; `update_s` and `server_s` are measured if not given, in about a second.

    Raises ConfigError for a value outside its range.
    """
    byte_s = 0.0
    if server_s is None:
        server_s, byte_s = server_cost(parameters, workers, send)
    if update_s is None:
        update_s = update_cost(parameters, workers, env_steps_per_update, send)
    return Figures(
        parameters=parameters,
        workers=workers,
        update_s=update_s,
        env_steps_per_update=env_steps_per_update,
        latency_s=latency_s,
        bandwidth_bytes_per_s=bandwidth_bytes_per_s,
        server_fixed_s=server_s,
        server_byte_s=byte_s,
        sync_s=sync_s,
        send=send,
    )


def update_cost(parameters: int, workers: int, env_steps_per_update: int, send: str) -> float:
    """Seconds of an update of one worker, which has a core of its own; of rounds, of a node's whose threads share it.

    The native CartPole is played, with two equal hidden layers that have about as many parameters.
    """
    if parameters > MOST_MEASURED:
        raise ConfigError(
            f"update_ms: expected a number with more than {MOST_MEASURED:,} parameters, whose updates are not "
            "measured, got None"
        )
    units = max(1, round(math.sqrt(max(0, parameters - 3) + 4.5**2) - 4.5))  # units * (units + 9) + 3 parameters
    hidden_sizes, n_steps = (units, units), env_steps_per_update
    if send == SYNCHRONOUS:
        n_envs = math.gcd(n_steps, A2CConfig.n_envs)
        model: Algorithm = A2C(n_envs=n_envs, n_steps=n_steps // n_envs, hidden_sizes=hidden_sizes, seed=0)
    else:
        model = A3C(workers=1, n_steps=n_steps, hidden_sizes=hidden_sizes, backend="thread", seed=0)
    update_s = _each_s(lambda n: model.learn(n * env_steps_per_update), _TRAINING_S)
    return update_s / workers if send == SYNCHRONOUS else update_s


def server_cost(parameters: int, workers: int, send: str) -> tuple[float, float]:
    """Seconds of the server's processor for an exchange of so many parameters: a part that none of them counts for, and
    what each of their bytes costs. Its own work is timed; for Ray's calls, RAY_CALL_S and RAY_BYTE_S are added."""
    fixed_s = _deliver_s(1, workers, send)
    byte_s = max(0.0, _deliver_s(parameters, workers, send) - fixed_s) / (4 * parameters)
    return fixed_s + RAY_CALL_S, byte_s + RAY_BYTE_S


def _deliver_s(parameters: int, workers: int, send: str) -> float:
    """Of Server.deliver, with what members take turns to deliver; and of the driver's report, which is asked for more
    rarely than here."""
    config: Config = A2CConfig() if send == SYNCHRONOUS else A3CConfig(workers=workers)
    terms = Terms(config, send, _MEMBERS, parameters, total_timesteps=10**18)
    state = np.zeros((_core.state_vectors(config.optimizer), parameters), np.float32)
    begin = State(np.zeros(parameters, np.float32), state, 0, 0, np.zeros(0))
    server = Server(terms, OneShard(config, begin.params, begin.state), begin)
    expected = fingerprint(config, parameters)
    members = [server.join(Hello(f"node {k}", str(k), expected)) for k in range(_MEMBERS)]
    values = [welcome.params for welcome in members]
    seq = 0

    def deliver(n: int) -> None:
        nonlocal seq
        for _ in range(math.ceil(n / _MEMBERS)):
            seq += 1
            for k, welcome in enumerate(members):
                answer = server.deliver(_delivery(welcome, seq, values[k], workers))
                values[k] = values[k] if answer is None else answer.values  # of a round, only the last is answered
        server.report()

    return _each_s(deliver, _SHORTEST_S)


def _delivery(welcome: Welcome, seq: int, values: Float32, workers: int) -> Delivery:
    n = seq * workers
    counts = {"begun": n, "published": n, "applied": n, "aborted": 0, "rejected_nonfinite": 0, "rejected_stale": 0}
    books = Books({**counts, "env_steps": n, "merged": 0, "staleness_sum": 0, "retries": 0}, (empty_tally(),) * workers)
    return Delivery(welcome.member, seq, values, books, np.zeros((workers, _core.LOG_COLUMNS)))


def _each_s(do: Callable[[int], object], shortest_s: float) -> float:
    """Seconds of processor for each of ever more, until all take so long; what others do here is not in it."""
    n = _MEMBERS
    while True:
        began_s = time.process_time()
        do(n)
        spent_s = time.process_time() - began_s
        if spent_s >= shortest_s:
            return spent_s / n
        n *= 2
