"""SIGKILL to workers of an A3C run: the run goes on, its books balance, and it still learns.

    python tests/gates/workers_killed.py kills=200 seeds=3 every_s=0.5

First as many kills as told, half of them for each engine, one every 0.25 s: each is counted as a death and replaced,
nothing that was published is lost, nobody is left over. Then the forkservers are killed in the midst of a run, which
goes on as if nothing were: its workers live and train, none is counted as dead. Then each seed must solve CartPole (a
mean return of 475 over 100 episodes) within 400,000 env steps while a worker is killed every half second.

Kills begin once the workers train. Nine in ten victims have done so for a while (they have used processor time), one
in ten is whoever it hits: three deaths in a row in one seat, no gradient in between, would end the run, and should.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from whole_runs import arguments, children, kill, processes, wait_until

import fastac
from fastac import algorithm, updates
from fastac.config import ENGINES
from fastac.errors import FastacError, WorkerDeathWarning

ENDLESS = 10**12
BUDGET = 400_000  # env steps
WORKERS = 4
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def forkservers() -> list[int]:
    """One for each engine that was used so far."""

    def is_one(pid: int) -> bool:
        return b"multiprocessing.forkserver" in Path(f"/proc/{pid}/cmdline").read_bytes()

    return [process.pid for process in children(os.getpid()) if is_one(process.pid)]


def workers() -> list[int]:
    """The living."""
    return [process.pid for server in forkservers() for process in children(server) if not process.dead]


def trained(pid: int) -> bool:
    """Whether a worker has used more processor time than its start takes."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return int(fields[11]) + int(fields[12]) > 0.3 * TICKS_PER_S


class WatchedRun(updates.LocalRun):
    """Remembers the run that is under way, so that it can be asked whether the workers train."""

    latest: updates.Run | None = None

    def start(self) -> None:
        super().start()
        WatchedRun.latest = self

    def close(self) -> updates.Outcome:
        WatchedRun.latest = None
        return super().close()


def watch_runs() -> None:
    algorithm.LocalRun = WatchedRun


def under_way() -> bool:
    run = WatchedRun.latest
    return run is not None and run.session.go


class Killer:
    """Kills one worker every so many seconds, in a thread, until it has killed enough; then does what comes after."""

    def __init__(self, seed: int, every_s: float, kills: int | None = None) -> None:
        self.killed = 0
        self._random = random.Random(seed)
        self._every_s = every_s
        self._kills = kills
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> Killer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._over.wait(self._every_s):
            if self.killed == self._kills:
                if len(workers()) < WORKERS:
                    continue  # Ctrl-C in the midst of a start would take the forkserver along
                os.kill(os.getpid(), signal.SIGINT)  # the run is to end
                return
            victims = workers() if under_way() else []
            if self._random.random() > 0.1:
                victims = list(filter(trained, victims))
            if victims:
                kill(self._random.choice(victims))
                self.killed += 1


def killed_at_random(engine: str, kills: int) -> list[str]:
    """What is wrong after that many kills, one soon after the other."""
    model = fastac.A3C(workers=WORKERS, backend="process", seed=0, engine=engine)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", WorkerDeathWarning)
        with Killer(0, 0.25, kills) as killer:
            error = until_stopped(lambda: model.learn(ENDLESS))
    faults = faults_of(model) + ([f"the run ended with {error!r}"] if error else [])
    assert model.ledger is not None
    deaths = sum(issubclass(warning.category, WorkerDeathWarning) for warning in told)
    # Whoever died when the run was already being stopped is counted, and not told of.
    if not (killer.killed == model.ledger.deaths == kills and kills - 4 <= deaths <= kills):
        faults.append(f"{killer.killed} of {kills} killed, {model.ledger.deaths} deaths counted, {deaths} warned of")
    return faults


def forkserver_killed() -> list[str]:
    """What is wrong after the forkserver's death, with the workers living: the run goes on."""
    model = fastac.A3C(workers=WORKERS, backend="process", seed=0)
    orphans: list[int] = []
    applied: list[int] = []  # at the death, and in the end

    def count() -> None:
        run = WatchedRun.latest
        applied.append(0 if run is None else run.session.ledger()["applied"])

    def work() -> None:
        wait_until(lambda: under_way() and any(map(trained, workers())), 120.0)
        orphans.extend(workers())
        for server in forkservers():
            kill(server)
        wait_until(lambda: not forkservers(), 10.0)
        count()
        time.sleep(3.0)
        count()
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=work)
    thread.start()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", WorkerDeathWarning)
        error = until_stopped(lambda: model.learn(ENDLESS))
    thread.join()
    assert model.ledger is not None
    faults = faults_of(model, orphans)
    if error is not None or model.ledger.deaths or told or len(orphans) != WORKERS or applied[-1] <= applied[0]:
        faults.append(
            f"without its forkserver: {error!r}, {model.ledger.deaths} deaths, {len(told)} warnings, "
            f"{len(orphans)} workers before, {applied} gradients applied"
        )
    return faults


def until_stopped(learn: Callable[[], object]) -> FastacError | None:
    """What else than Ctrl-C ended it in order."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that starts us in the background has it ignored
    try:
        learn()
    except KeyboardInterrupt:
        return None
    except FastacError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error
    return None


def faults_of(model: fastac.A3C, orphans: Sequence[int] = (), version_before: int = 0) -> list[str]:
    """After a run that began at `version_before`: books that do not balance, and processes that are left: `orphans`
    had a forkserver that died."""
    ledger = model.ledger
    if ledger is None:
        return ["no run was under way"]
    faults = []
    try:
        ledger.check()
    except FastacError as error:
        faults.append(str(error))
    updates_made = model.version - version_before
    if ledger.applied == 0 or updates_made != ledger.applied:
        faults.append(f"{updates_made} updates, {ledger.applied} gradients applied")
    servers = forkservers()
    if not servers and not orphans:
        faults.append("the forkserver is gone")

    def left() -> list[int]:
        return [process.pid for server in servers for process in children(server)] + [
            process.pid for process in processes() if process.pid in orphans and not process.dead
        ]

    if not wait_until(lambda: not left(), 2.0):
        faults.append(f"left over: {left()}")
    return faults


def solve(seed: int, every_s: float) -> tuple[float | None, int, list[str]]:
    """Env steps until 475 or None, kills until the end of the run, and what is wrong."""
    # The native engine would be done before the first kill.
    model = fastac.A3C(workers=WORKERS, backend="process", seed=seed, engine="torch")
    before = kills = 0
    faults: list[str] = []
    for env_steps in (BUDGET // 4, BUDGET - BUDGET // 4):  # the second only where the first was not enough
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", WorkerDeathWarning)
            version_before = model.version
            with Killer(seed, every_s) as killer:
                model.learn(env_steps)
        kills += killer.killed
        faults += faults_of(model, version_before=version_before)
        assert model.history is not None
        solved = model.history.time_to(475.0)
        if solved is not None:
            return before + solved["env_steps"], kills, faults
        before = model.num_timesteps
    return None, kills, faults


def main() -> int:
    given = arguments(kills=200, seeds=3, every_s=0.5)
    watch_runs()
    shares = {engine: given.kills * (k + 1) // 2 - given.kills * k // 2 for k, engine in enumerate(ENGINES)}
    faults = [fault for engine, kills in shares.items() for fault in killed_at_random(engine, kills)]
    faults += forkserver_killed()
    runs = [solve(seed, given.every_s) for seed in range(given.seeds)]
    faults += [fault for _, _, its in runs for fault in its]
    solved = [f"{env_steps / 1000:.0f}k ({kills} kills)" for env_steps, kills, _ in runs if env_steps is not None]
    for fault in faults:
        print(fault, file=sys.stderr)
    print(
        f"workers killed: {given.kills} SIGKILLs of A3C workers, half of each engine's, and one of the forkserver: "
        f"{'0 lost, books balance' if not faults else f'{len(faults)} faults'}; with a kill every {given.every_s:g} s "
        f"solved 475 on {len(solved)} of {given.seeds} seeds, after {', '.join(solved) or 'no number of'} env steps"
    )
    return int(bool(faults) or len(solved) < given.seeds)


if __name__ == "__main__":
    sys.exit(main())
