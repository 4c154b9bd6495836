"""A3C run after run, both engines and all update schemes in turn, workers killed at random: nothing grows.

    python tests/gates/soak.py seconds=3600

Between runs it counts what this process and the forkservers hold: memory, descriptors, processes, shared segments, and
files in the temporary folder. The first tenth is warm-up. Of the rest the last third is held against the first, by
medians: memory may differ by 2 % or 8 MiB, whichever is more, everything else not at all. Each run's books must
balance. One run in twenty may end early, with a WorkerDiedError: the kills can meet one seat three times in a row.
"""

from __future__ import annotations

import gc
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from multiprocessing import util
from pathlib import Path

from whole_runs import Process, arguments, children, processes, segments
from workers_killed import ENDLESS, WORKERS, Killer, faults_of, forkservers, until_stopped, watch_runs

import fastac
from fastac._core import UPDATE_SCHEMES
from fastac.config import ENGINES
from fastac.errors import FastacError, WorkerDeathWarning, WorkerDiedError

KILLS_A_RUN, EVERY_S = 12, 0.4
FEWEST_SAMPLES = 9
TOLERANCE, TOLERANCE_MIB = 0.02, 8.0
ENDED_EARLY = 0.05  # of the runs, at most


@dataclass(frozen=True)
class Sample:
    parent_mib: float
    forkservers_mib: float
    shared_mib: float  # of all
    parent_descriptors: int
    forkservers_descriptors: int
    processes: int
    segments: int
    files: int  # in the temporary folder


def sample() -> Sample | None:
    """Nothing if a run ended in the midst of a start, which takes the forkserver along; the next makes another."""
    gc.collect()
    servers = forkservers()
    if len(servers) < len(ENGINES):
        return None
    me = os.getpid()
    mine = list(family(me))
    return Sample(
        memory_mib(me, "VmRSS"),
        sum(memory_mib(server, "VmRSS") for server in servers),
        sum(memory_mib(pid, "RssShmem") for pid in (me, *servers)),
        descriptors(me),
        sum(map(descriptors, servers)),
        len(mine),
        len(segments(mine)),
        sum(1 for _ in Path(tempfile.gettempdir()).rglob("*")),
    )


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def family(pid: int) -> Iterator[Process]:
    """A process and all that descend from it, zombies included."""
    yield from (process for process in processes() if process.pid == pid)
    for child in children(pid):
        yield from family(child.pid)


def memory_mib(pid: int, what: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(what + ":"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"/proc/{pid}/status has no {what}")


def one_run(number: int) -> tuple[int, FastacError | None, list[str]]:
    """Kills, what ended it early, and what is wrong."""
    model = fastac.A3C(
        workers=WORKERS,
        backend="process",
        engine=ENGINES[number % len(ENGINES)],
        update=UPDATE_SCHEMES[number // len(ENGINES) % len(UPDATE_SCHEMES)],
        seed=number,
    )
    with Killer(number, EVERY_S, KILLS_A_RUN) as killer:
        error = until_stopped(lambda: model.learn(ENDLESS))
    return killer.killed, error, faults_of(model)


def faults_of_all(runs: int, kills: int, errors: Sequence[FastacError]) -> list[str]:
    """What is wrong with that many runs as a whole."""
    faults = [repr(error) for error in errors if not isinstance(error, WorkerDiedError)]
    if len(errors) > ENDED_EARLY * runs:
        faults.append(f"{len(errors)} of {runs} runs ended in an error, expected {ENDED_EARLY:.0%} at most")
    if kills == 0:
        faults.append("nobody was killed")
    return faults


def growth(samples: list[Sample]) -> tuple[list[str], list[str]]:
    """first -> last for each figure, and the names of those that grew."""
    third = len(samples) // 3
    words, grown = [], []
    for name in asdict(samples[0]):
        first = statistics.median(getattr(one, name) for one in samples[:third])
        last = statistics.median(getattr(one, name) for one in samples[-third:])
        room = max(TOLERANCE * first, TOLERANCE_MIB) if name.endswith("_mib") else 0
        words.append(f"{name} {first:.0f} -> {last:.0f}")
        if last - first > room:
            grown.append(name)
    return words, grown


def main() -> int:
    given = arguments(seconds=3600.0)
    watch_runs()
    warnings.simplefilter("ignore", WorkerDeathWarning)
    with tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = folder
        samples: list[Sample] = []
        faults: list[str] = []
        errors: list[FastacError] = []
        runs = kills = 0
        end = time.monotonic() + given.seconds
        while time.monotonic() < end:
            killed, error, its = one_run(runs)
            runs += 1
            kills += killed
            errors += [error] if error else []
            faults += its
            if (seen := sample()) is not None:
                samples.append(seen)
        util._run_finalizers()  # multiprocessing has a folder of its own in there
    steady = samples[-(-len(samples) // 10) :]
    if len(steady) < FEWEST_SAMPLES:
        print(f"soak: {len(samples)} looks in {given.seconds:g} s are too few to tell growth from noise")
        return 1
    faults += faults_of_all(runs, kills, errors)
    words, grown = growth(steady)
    for fault in faults:
        print(fault, file=sys.stderr)
    print(
        f"soak: {runs} runs in {given.seconds:g} s, {kills} workers killed, {len(errors)} ended early: "
        f"{len(faults)} faults, "
        f"{'nothing grew' if not grown else 'grew: ' + ', '.join(grown)} ({', '.join(words)})"
    )
    return int(bool(faults) or bool(grown))


if __name__ == "__main__":
    sys.exit(main())
