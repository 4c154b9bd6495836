"""All gates, one line each as they end; two at a time, since many wait or use one core.

python tests/gates/run.py                    the short form, as after every change
python tests/gates/run.py --long             the long form, hours; --report docs/gates.md keeps its lines
python tests/gates/run.py kills stops        only these
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import toolchain
from toolchain import ROOT

HERE = Path(__file__).resolve().parent
Command = list[str]
AT_A_TIME = 2


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


RACES = [native("gate_races", "pushes=1000100", build=build) for build in ("tsan", "clang-tsan")]

GATES = [  # the longest first: what is left at the end is short
    gate("mutants", [script("mutants")]),
    gate("signals", [script("signals")]),
    gate("parents", [script("parents_killed")]),
    gate("workers", [script("workers_killed")]),
    gate("boundary", [script("boundary")]),
    gate("spin", [lambda _: ["bash", str(ROOT / "cpp" / "model" / "check.sh")]]),
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
    gate("soak", [script("soak", "seconds=3600")]),
]


def build(kind: str, folder: Path) -> None:
    preset, compiler = ("tsan", "clang++") if kind == "clang-tsan" else (kind, toolchain.COMPILER)
    toolchain.build(preset, folder, compiler, target="all" if kind == "plain" else "gate_races")


def run(one: Gate, commands: list[Command]) -> tuple[bool, list[str]]:
    """Runs a gate's commands; whether all held, and a line for each."""
    held, lines = True, []
    for command in commands:
        started = time.monotonic()
        done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True)
        spent = f"({time.monotonic() - started:.0f} s)"
        said = [line for line in done.stdout.splitlines() if line.strip()]
        if done.returncode == 0 and said:
            lines += [*said[:-1], f"{said[-1]} {spent}"]
        else:
            held = False
            lines += [f"FAILED {one.name}, exit status {done.returncode} {spent}: {' '.join(command)}"]
            print(done.stdout[-5000:], done.stderr[-5000:], sep="\n", file=sys.stderr, flush=True)
    print("\n".join(lines), flush=True)
    return held, lines


def report(lines: list[str], failed: int) -> str:
    from fastac import machine

    where = machine.summary(machine.describe())
    return "\n".join(
        [
            "# The gates, long form",
            "",
            f"Last result of `python tests/gates/run.py --long --report docs/gates.md`: {failed} failed. {where}.",
            "",
            *(f"- {line}" for line in lines),
            "",
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", action="store_true", help="the long form")
    parser.add_argument("--report", type=Path, help="write the lines here")
    parser.add_argument("names", nargs="*", help="gates to run; all by default")
    arguments = parser.parse_args()
    known = [*GATES, *LONG_ONLY]
    for name in arguments.names:
        if name not in {one.name for one in known}:
            parser.error(f"expected names of {', '.join(one.name for one in known)}, got {name}")
    everything = known if arguments.long else GATES
    chosen = [one for one in known if one.name in arguments.names] if arguments.names else everything
    started = time.monotonic()
    failed, lines = [], []
    with tempfile.TemporaryDirectory() as folder:
        for kind in sorted({kind for one in chosen for kind in one.builds}):
            build(kind, Path(folder, kind))
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            ends = [pool.submit(run, one, (one.long if arguments.long else one.short)(Path(folder))) for one in chosen]
        for one, (held, said) in zip(chosen, (end.result() for end in ends), strict=True):
            lines += said
            if not held:
                failed.append(one.name)
    if arguments.report:
        arguments.report.write_text(report(lines, len(failed)))
    print(f"gates: {len(chosen) - len(failed)} of {len(chosen)} held, {time.monotonic() - started:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
