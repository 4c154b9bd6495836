"""All gates, one line each as they end; two at a time, since many wait or use one core.

A command that missed a time and did nothing else wrong (exit status 3) is run once more, alone, when all others have
ended: what it said first stays on the page.

python tests/gates/run.py                    the short form, as after every change
python tests/gates/run.py --long             the long form, hours
python tests/gates/run.py --long --report docs/gates.md    each gate's lines take the place of its last ones there
python tests/gates/run.py kills stops        only these
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import date
from pathlib import Path
from typing import NamedTuple

import toolchain
from toolchain import ROOT

HERE = Path(__file__).resolve().parent
Command = list[str]
AT_A_TIME = 2
TOO_SLOW = 3


class Gate(NamedTuple):
    name: str
    builds: tuple[str, ...]  # which native builds it needs: plain, tsan, clang-tsan
    short: Callable[[Path], list[Command]]  # given the folder of the builds
    long: Callable[[Path], list[Command]]


def native(program: str, *arguments: str, build: str = "plain") -> Callable[[Path], Command]:
    return lambda builds: [str(next((builds / build).rglob(program))), *arguments]


def script(name: str, *arguments: str) -> Callable[[Path], Command]:
    return lambda _: [sys.executable, str(HERE / f"{name}.py"), *arguments]


def gate(
    name: str,
    short: list[Callable[[Path], Command]],
    long: list[Callable[[Path], Command]] | None = None,
    builds: tuple[str, ...] = (),
) -> Gate:
    """`long`: where it differs."""
    return Gate(
        name, builds, lambda at: [make(at) for make in short], lambda at: [make(at) for make in (long or short)]
    )


def conservation(pushes: int, floats: int, scheme: str = "lockfree") -> Callable[[Path], Command]:
    return native("gate_conservation", f"pushes={pushes}", f"floats={floats}", f"scheme={scheme}")


def kills(n: int, scheme: str = "lockfree") -> Callable[[Path], Command]:
    return native("gate_kills", f"kills={n}", f"scheme={scheme}", "control=1")


def spin(*arguments: str) -> Callable[[Path], Command]:
    return lambda _: ["bash", str(ROOT / "cpp" / "model" / "check.sh"), *arguments]


RACES = [native("gate_races", "pushes=1000100", build=build) for build in ("tsan", "clang-tsan")]

GATES = [  # the longest first: what is left at the end is short
    gate("mutants", [script("mutants")], [script("mutants", "--report", str(ROOT / "docs" / "mutants.md"))]),
    gate("signals", [script("signals")]),
    gate("parents", [script("parents_killed")]),
    gate("workers", [script("workers_killed")]),
    gate("boundary", [script("boundary")]),
    gate("spin", [spin()], [spin(), spin("--long")]),
    gate(
        "schedules",
        [native("gate_schedules", "100000")],
        [native("gate_schedules", "1000000", "100000")],
        builds=("plain",),
    ),
    gate(
        "conservation",
        [conservation(10_000_000, 1024), conservation(1_000_000, 1024, "lock"), conservation(200_000, 1024, "queue")],
        [conservation(1_000_000_000, 4), conservation(10_000_000, 1024)],
        builds=("plain",),
    ),
    gate(
        "kills",
        [kills(10_000), kills(500, "lock"), kills(500, "queue")],
        [kills(200_000), kills(10_000, "lock"), kills(10_000, "queue")],
        builds=("plain",),
    ),
    gate("stops", [native("gate_stops", "stops=500")], builds=("plain",)),
    gate("nonfinite", [native("gate_nonfinite", "pushes=1000")], builds=("plain",)),
    gate("races", RACES, builds=("tsan", "clang-tsan")),
    gate("checkpoint", [script("checkpoints")]),
]
LONG_ONLY = [
    gate("suite", [script("suite", "times=20")]),
    gate("cluster", [script("cluster_killed", "each=20")]),
    gate("soak", [script("soak", "seconds=3600")]),
]


NAMES = [one.name for one in [*GATES, *LONG_ONLY]]


def build(kind: str, folder: Path) -> None:
    preset, compiler = ("tsan", "clang++") if kind == "clang-tsan" else (kind, toolchain.COMPILER)
    toolchain.build(preset, folder, compiler, target="all" if kind == "plain" else "gate_races")


class Outcome(NamedTuple):
    """What a gate's commands said, in lines, and the commands that missed a time."""

    held: bool
    lines: list[str]
    too_slow: list[Command]


def run(one: Gate, commands: list[Command]) -> Outcome:
    """Runs a gate's commands and prints what they say."""
    held, lines, too_slow = True, [], []
    for command in commands:
        started = time.monotonic()
        done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True)
        spent = f"({time.monotonic() - started:.0f} s)"
        said = [line for line in done.stdout.splitlines() if line.strip()]
        if done.returncode == 0 and said:
            lines += [*said[:-1], f"{said[-1]} {spent}"]
            continue
        print(done.stdout[-5000:], done.stderr[-5000:], sep="\n", file=sys.stderr, flush=True)
        if done.returncode == TOO_SLOW and said:
            too_slow.append(command)
            lines += [*said[:-1], f"TOO SLOW {said[-1]} {spent}"]
        else:
            held = False
            lines += [f"FAILED {one.name}, exit status {done.returncode} {spent}: {' '.join(command)}"]
    print("\n".join(lines), flush=True)
    return Outcome(held, lines, too_slow)


def run_all(chosen: list[tuple[Gate, list[Command]]], kept: Report | None) -> int:
    """How many held."""
    held = 0
    again: list[tuple[Gate, Outcome]] = []

    def end(one: Gate, outcome: Outcome) -> None:
        nonlocal held
        held += outcome.held and not outcome.too_slow
        if kept is not None:
            kept.keep(one, outcome.held and not outcome.too_slow, outcome.lines)

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        runs = {pool.submit(run, one, commands): one for one, commands in chosen}
        for done in as_completed(runs):
            one, outcome = runs[done], done.result()
            if outcome.held and outcome.too_slow:
                again.append((one, outcome))
            else:
                end(one, outcome)
    for one, first in again:
        second = run(one, first.too_slow)
        end(one, Outcome(second.held, first.lines + second.lines, second.too_slow))
    return held


class Report:
    """A page with the last result of each gate. Written after each: a run that is cut off keeps what it has."""

    def __init__(self, path: Path) -> None:
        from fastac import machine

        self._path = path
        self._where = machine.summary(machine.describe())
        self._lock = threading.Lock()

    def keep(self, one: Gate, held: bool, lines: list[str]) -> None:
        with self._lock:
            before = self._path.read_text() if self._path.exists() else ""
            sections = dict(re.findall(r"^## (\w+)\n\n(.*?)(?=^## |\Z)", before, re.MULTILINE | re.DOTALL))
            told = [
                f"{date.today()}, {'held' if held else 'FAILED'}. {self._where}.",
                "",
                *(f"- {line}" for line in lines),
            ]
            sections[one.name] = "\n".join(told) + "\n"
            page = [PAGE, *(f"## {name}\n\n{sections[name].strip()}\n" for name in NAMES if name in sections)]
            self._path.write_text("\n".join(page))


PAGE = """# The gates, long form

What each gate printed when it last ran in its long form, by
`python tests/gates/run.py --long --report docs/gates.md [NAME ...]`.
What they are for: [guarantees.md](guarantees.md).
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", action="store_true", help="the long form")
    parser.add_argument("--report", type=Path, help="write the lines here")
    parser.add_argument("names", nargs="*", help="gates to run; all by default")
    arguments = parser.parse_args()
    known = [*GATES, *LONG_ONLY]
    for name in arguments.names:
        if name not in NAMES:
            parser.error(f"expected names of {', '.join(NAMES)}, got {name}")
    kept = Report(arguments.report) if arguments.report else None
    everything = known if arguments.long else GATES
    chosen = [one for one in known if one.name in arguments.names] if arguments.names else everything
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for kind in sorted({kind for one in chosen for kind in one.builds}):
            build(kind, Path(folder, kind))
        commands = [(one.long if arguments.long else one.short)(Path(folder)) for one in chosen]
        held = run_all(list(zip(chosen, commands, strict=True)), kept)
    print(f"gates: {held} of {len(chosen)} held, {time.monotonic() - started:.0f} s")
    return int(held < len(chosen))


if __name__ == "__main__":
    sys.exit(main())
