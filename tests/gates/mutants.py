"""Seeded mutants: wrong versions of the core, each of which some gate must catch. A gate is worth what it catches.

python tests/gates/mutants.py [--report docs/mutants.md] [NAME ...]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import mutant_list
import mutants_schedules
from mutant import Mutant
from toolchain import compile_program, copy_headers, precompile, unusable

MUTANTS = [*mutant_list.MUTANTS, *mutants_schedules.MUTANTS]
_ATTEMPTS = 5  # a race shows itself in nearly every run, not in every one
_DEADLINE_S = 120.0
_HANG_S = 10.0  # what a gate takes at most that is caught by never ending


class Verdict(NamedTuple):
    mutant: Mutant
    caught: bool
    words: str  # what the gate said


def judge(mutant: Mutant, precompiled: Path | None = None) -> Verdict:
    """Builds the mutant's gate on the changed headers and runs it until it fails."""
    with tempfile.TemporaryDirectory() as folder:
        headers = copy_headers(Path(folder))
        for header, old, new in mutant.changes:
            text = (headers / header).read_text()
            if text.count(old) != 1:
                return Verdict(mutant, False, f"{header} holds this {text.count(old)} times, expected once: {old}")
            (headers / header).write_text(text.replace(old, new))
        program = Path(folder, mutant.gate)
        compile_program(mutant.gate, mutant.build, Path(folder), program, precompiled)
        deadline_s = _DEADLINE_S if mutant.says else _HANG_S
        for _ in range(_ATTEMPTS):
            said, printed, status = _watch([program, *mutant.arguments], mutant.says, deadline_s)
            if said:
                return Verdict(mutant, True, said)
            if status is None:
                return Verdict(mutant, not mutant.says, "does not come to an end")
            if status != 0:
                return Verdict(mutant, False, printed)
    return Verdict(mutant, False, f"{mutant.gate} passed {_ATTEMPTS} times")


def _watch(command: Sequence[str | Path], says: str, deadline_s: float) -> tuple[str, str, int | None]:
    """The line in which a gate says it, what else it printed, and its exit status, None if it had to be killed.

    The line is the verdict, whatever follows: a wrong core may well hang once it has been found wrong.
    """
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
    printed, late = "", threading.Event()
    with subprocess.Popen(command, **piped) as gate:
        deadline = threading.Timer(deadline_s, lambda: (late.set(), gate.kill()))
        deadline.start()
        try:
            for line in gate.stdout:
                if says and says in line:
                    return line.strip(), printed, None
                printed = (printed + line)[-2000:]
            status = gate.wait()
            return "", printed, None if late.is_set() else status
        finally:
            deadline.cancel()
            gate.kill()


def judge_all(mutants: Sequence[Mutant]) -> list[Verdict]:
    usable = [mutant for mutant in mutants if not unusable(mutant.build)]
    for mutant in set(mutants) - set(usable):
        print(f"skipped: {mutant.name}: {unusable(mutant.build)}", file=sys.stderr)
    verdicts = []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        builds = {build: precompile(build, Path(folder)) for build in {mutant.build for mutant in usable}}
        for verdict in pool.map(judge, usable, [builds[mutant.build] for mutant in usable]):
            verdicts.append(verdict)
            if not verdict.caught:
                print(f"NOT CAUGHT: {verdict.mutant.name}: {verdict.words}", file=sys.stderr, flush=True)
    return verdicts


def report(verdicts: Sequence[Verdict], before: str = "") -> str:
    """The page. Who was not tried keeps its row of the page `before`."""
    kept = {line.split(" | ")[0]: line for line in before.splitlines() if line.startswith("| ")}
    rows = {f"| {verdict.mutant.name}": _row(verdict) for verdict in verdicts}
    known = kept | rows
    lines = [
        "# Seeded mutants",
        "",
        "Wrong versions of the core, and the gate that catches each. This page is written by",
        "`python tests/gates/mutants.py --report docs/mutants.md`, which builds them and runs their gates; a row is of",
        "the last time that its mutant was tried. The changes themselves are in `tests/gates/mutant_list.py` and",
        "`tests/gates/mutants_schedules.py`.",
        "",
        "| mutant | header | caught by | build | it says |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [known[name] for mutant in MUTANTS if (name := f"| {mutant.name}") in known]
    lines += ["", "## Weaker code that is right all the same", "", "The gates pass these, and why they may:", ""]
    lines += [f"- {mutant.name} (`{mutant.changes[0][0]}`): {why}" for mutant, why in mutants_schedules.WEAKER_WOULD_DO]
    return "\n".join(lines) + "\n"


def _row(verdict: Verdict) -> str:
    mutant, caught, words = verdict
    said = words.split("/")[-1][:100].replace("|", "\\|").replace("<", "&lt;") if caught else "**not caught**"
    headers = ", ".join(dict.fromkeys(f"`{header}`" for header, _, _ in mutant.changes))
    return f"| {mutant.name} | {headers} | `{mutant.gate}` | {mutant.build} | {said} |"


def conclusion(chosen: int, verdicts: Sequence[Verdict]) -> tuple[bool, str]:
    """Whether every one was caught, and the last line. One that was not tried was not caught."""
    caught = sum(verdict.caught for verdict in verdicts)
    gates = len({(verdict.mutant.gate, verdict.mutant.build) for verdict in verdicts})
    skipped = chosen - len(verdicts)
    line = f"mutants: {caught} of {chosen} wrong versions of the core caught, {skipped} skipped, by {gates} gates"
    return caught == chosen > 0, line


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", type=Path, help="write the table here")
    parser.add_argument("names", nargs="*", help="parts of names; all by default")
    arguments = parser.parse_args()
    chosen = [m for m in MUTANTS if not arguments.names or any(part in m.name for part in arguments.names)]
    verdicts = judge_all(chosen)
    if arguments.report:
        before = arguments.report.read_text() if arguments.report.exists() else ""
        arguments.report.write_text(report(verdicts, before))
    held, line = conclusion(len(chosen), verdicts)
    print(line)
    return int(not held)


if __name__ == "__main__":
    sys.exit(main())
