"""SIGKILL to the parent of a run, at random moments: after 2 s nothing of the run is left.

    python tests/gates/parents_killed.py kills=50 seed=0

Nothing: no process of its session alive, no zombie, no shared segment held by anybody, nothing new in /dev/shm. This
process adopts what is orphaned and reaps it, as process 1 does; a zombie is one that it cannot reap, because the parent
it has still lives. The moments count from the start of the command, from that of its first process or from that of its
first worker, and one kill in five meets a parent that was stopped before. What was late, on a machine with other work
to do, is tried once more, alone; the figures say how many. Of 20 kills or more, each phase of a run must have met one.
"""

from __future__ import annotations

import collections
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from whole_runs import (
    COMMAND,
    adopt_orphans,
    arguments,
    exit_status,
    kill,
    members,
    not_reached,
    processes,
    segments,
    shm_files,
    wait_until,
)

from fastac.config import ENGINES

LIMIT_S = 2.0
ENDLESS = ("--total-timesteps", "1000000000000")
START, PROCESS, WORKER = "start", "first process", "first worker"
PHASES = IMPORTING, ON_ITS_OWN, WITH_WORKERS = "importing", "on its own", "with workers"
AT_A_TIME = 2
KINDS = (
    "--backend process",
    "--backend process --update queue",
    "--backend process --update lock",
    "--backend process --update hogwild",
    "--backend thread",
)


@dataclass(frozen=True)
class Trial:
    kind: str
    engine: str
    since: str  # START, PROCESS or WORKER
    after_s: float
    stop_first: bool


@dataclass(frozen=True)
class Outcome:
    trial: Trial
    phase: str  # at the kill
    at_s: float  # after the start
    gone_s: (
        float  # until a look at all processes found none of its, from the moment when the parent was dead and reaped
    )
    orphans: int
    zombies: int
    segments: int

    @property
    def late(self) -> bool:
        return self.gone_s > LIMIT_S

    @property
    def left(self) -> bool:
        return self.orphans + self.zombies + self.segments > 0

    @property
    def in_time(self) -> bool:
        return not (self.late or self.left)


def plan(kills: int, seed: int) -> list[Trial]:
    draw = random.Random(seed)
    trials = []
    for index in range(kills):
        kind = KINDS[index % len(KINDS)]
        since = (START, PROCESS, START, WORKER)[index // len(KINDS) % 4] if "process" in kind else START
        engine = draw.choice(ENGINES)
        starting_s = 6.0 if engine == "torch" else 1.5
        after_s = draw.uniform(0.05, starting_s) if since == START else draw.uniform(0.0, 4.0)
        trials.append(Trial(kind, engine, since, after_s, draw.random() < 0.2))
    return trials


def attempt(trial: Trial) -> Outcome:
    with tempfile.TemporaryDirectory() as runs:
        words = [COMMAND, "train", "a3c", *trial.kind.split(), "--engine", trial.engine, *ENDLESS, "--runs", runs]
        # multiprocessing's own temporary folder is not ours to clear away after a SIGKILL
        environment = {**os.environ, "TMPDIR": runs}
        started = time.monotonic()
        parent = subprocess.Popen(words, stderr=subprocess.DEVNULL, env=environment, start_new_session=True)
        if trial.since == PROCESS:
            wait_until(lambda: len(members(parent.pid)) > 1, 120.0)
        elif trial.since == WORKER:
            wait_until(lambda: _phase(segments(members(parent.pid)), parent.pid) == WITH_WORKERS, 120.0, every_s=0.05)
        time.sleep(trial.after_s)
        return _kill(trial, parent, started)


def _kill(trial: Trial, parent: subprocess.Popen[bytes], started: float) -> Outcome:
    session = parent.pid
    if trial.stop_first:
        kill(session, signal.SIGSTOP)
        time.sleep(0.2)
    alive = members(session)
    held = segments(alive)
    phase = _phase(held, session)

    parent.kill()
    killed = time.monotonic()
    parent.wait()
    dead = time.monotonic()
    wait_until(lambda: not members(session), LIMIT_S)
    gone_s = time.monotonic() - dead
    orphans = len(members(session))
    _reap(session)
    zombies = sum(process.session == session for process in processes()) - orphans
    left = segments()
    outcome = (orphans, zombies, len(held.keys() & left.keys()))
    if orphans and wait_until(lambda: not members(session), 60.0):
        gone_s = time.monotonic() - dead
    for process in members(session):
        kill(process.pid)
    _reap(session)
    return Outcome(trial, phase, killed - started, gone_s, *outcome)


def _phase(held: dict[int, set[int]], parent: int) -> str:
    if not held:
        return IMPORTING
    others = any(holders - {parent} for holders in held.values())
    return WITH_WORKERS if others else ON_ITS_OWN


def _reap(session: int) -> None:
    """What this process has adopted of the session and has come to its end."""
    for process in processes():
        if process.session == session and process.parent == os.getpid():
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process.pid, os.WNOHANG)


def main() -> int:
    given = arguments(kills=50, seed=0)
    adopt_orphans()
    shm = shm_files()
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        outcomes = list(pool.map(attempt, plan(given.kills, given.seed)))
    again = [attempt(outcome.trial) for outcome in outcomes if not outcome.in_time]
    for outcome in outcomes + again:
        if not outcome.in_time:
            print(outcome, file=sys.stderr)
    final = [outcome for outcome in outcomes if outcome.in_time] + again
    new = [] if wait_until(lambda: not shm_files() - shm, LIMIT_S) else sorted(shm_files() - shm)
    phases = collections.Counter(outcome.phase for outcome in outcomes)
    missed = not_reached(PHASES, phases, len(outcomes))
    for phase in missed:
        print(f"no kill met a parent that was {phase}", file=sys.stderr)
    times = sorted(outcome.at_s for outcome in outcomes)
    print(
        f"parents killed: {len(outcomes)} SIGKILLs {times[0]:.1f} to {times[-1]:.1f} s after the start "
        f"({', '.join(f'{count} {phase}' for phase, count in sorted(phases.items()))}): after {LIMIT_S:g} s "
        f"{sum(outcome.orphans for outcome in final)} orphans, {sum(outcome.segments for outcome in final)} segments, "
        f"{sum(outcome.zombies for outcome in final)} zombies, {len(new)} files in /dev/shm (the slowest was gone "
        f"{max(outcome.gone_s for outcome in final):.2f} s after its parent's end); {len(again)} tried again alone"
    )
    return exit_status(not all(outcome.in_time for outcome in final) or bool(new), bool(missed))


if __name__ == "__main__":
    sys.exit(main())
