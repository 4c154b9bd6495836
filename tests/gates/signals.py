"""Ctrl-C and SIGTERM at random moments of commands at a terminal: back at the prompt within 2 s, with one line.

    python tests/gates/signals.py signals=100 seed=0

A shell at a pseudo-terminal runs the command; Ctrl-C is typed at that terminal, SIGTERM goes to the command. Half of
the signals are sent a second time within 0.3 s, as impatient people do; some find a worker that is stopped. Afterwards
the screen shows what it showed and
- one line more, `stopped: ...`, where the command had begun its work, and what it says of the folder is true: the
  model is whole and run.json fits, or the tables are there, or nothing is; or
- nothing more where it was still importing and is simply killed: for SIGTERM the shell's own word, "Terminated".
A command that was done before its signal came is tried again with half the time.
No traceback and no rest of a progress bar; the cursor can be seen; the exit code is 130 or 143; nothing is left of it.

Half of the moments count from our first line on, half from the beginning of the work. What Python does before our first
line is not ours to mend. /proc tells when it is over: that line takes away the handler of SIGINT that Python has just
set. The handlers that come with the work are seen in the same way. A command that took too long, on a machine with
other work to do, is tried once more, alone; the figures say how many. Of 20 signals or more, each phase of a command
must have met one.
"""

from __future__ import annotations

import contextlib
import random
import re
import shlex
import signal
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from whole_runs import COMMAND, Terminal, arguments, catches, exit_status, kill, members, not_reached, wait_until

from fastac import rundir
from fastac.checkpoint import load_checkpoint
from fastac.config import ENGINES
from fastac.errors import CheckpointError

LIMIT_S = 2.0
AT_A_TIME = 2
LATEST_S = 2.0
FIRST_LINE, WORK, PICTURES = "our first line", "the beginning of its work", "the beginning of its pictures"
LONG = "--total-timesteps 1000000000000"
KINDS = {
    "a2c": f"train a2c {LONG}",
    "a3c thread": f"train a3c --backend thread {LONG}",
    "a3c process": f"train a3c --backend process {LONG}",
    "compare": f"compare --quick {LONG}",
    PICTURES: "compare --quick --seeds 1 --total-timesteps 2000",
}
_SHOWN_BEFORE = re.compile(r"A[23]C .*seed \d+ +return|CartPole-v1, |[┏┃┡│├└ ]|Measured on ")  # by a comparison
_DONE = re.compile("Written: ")  # its last line
_SAVED = re.compile(r"stopped: ([\d,]+) of [\d,]+ env steps done(; `fastac resume \S+` does the rest)?; saved in (\S+)")
_TABLES = re.compile(r"stopped: (\d+) of \d+ runs? done, tables in (\S+)")
PHASES = IMPORTING, AT_WORK, DRAWING = "importing", "at work", "drawing"


@dataclass(frozen=True)
class Trial:
    kind: str
    engine: str
    number: signal.Signals
    since: str  # FIRST_LINE, WORK or PICTURES
    after_s: float
    again_s: float | None
    stop_worker: bool  # a worker process stands still (SIGSTOP) when the signal comes


@dataclass(frozen=True)
class Outcome:
    trial: Trial
    working: bool  # when the signal came
    prompt_s: float
    gone_s: float
    faults: tuple[str, ...]

    @property
    def phase(self) -> str:
        return IMPORTING if not self.working else DRAWING if self.trial.since == PICTURES else AT_WORK

    @property
    def late(self) -> bool:
        return max(self.prompt_s, self.gone_s) > LIMIT_S


def plan(signals: int, seed: int) -> list[Trial]:
    """Every kind gets both signals, engines are drawn; the pictures, which take long to come to, only every tenth
    trial."""
    draw = random.Random(seed)
    trials = []
    for index in range(signals):
        kind = PICTURES if index % 10 == 9 else list(KINDS)[index % 4]
        number = (signal.SIGINT, signal.SIGTERM)[index // 4 % 2]
        since = PICTURES if kind == PICTURES else (FIRST_LINE, WORK)[index // 8 % 2]
        after_s = draw.uniform(0.0, LATEST_S if since == FIRST_LINE else 0.5 * LATEST_S)
        again_s = draw.uniform(0.0, 0.3) if draw.random() < 0.5 else None
        stop_worker = kind == "a3c process" and since == WORK and draw.random() < 0.3
        trials.append(Trial(kind, draw.choice(ENGINES), number, since, after_s, again_s, stop_worker))
    return trials


def attempt(trial: Trial) -> Outcome:
    while True:
        with tempfile.TemporaryDirectory() as folder:
            terminal = Terminal(200, Path(folder))
            try:
                outcome = _attempt(trial, terminal, Path(folder) / "runs")
            finally:
                terminal.close()
        if outcome is not None:
            return outcome
        trial = replace(trial, after_s=trial.after_s / 2)


def _attempt(trial: Trial, terminal: Terminal, runs: Path) -> Outcome | None:
    """None: the command was done before its signal came."""
    terminal.type(f"{shlex.quote(str(COMMAND))} {KINDS[trial.kind]} --engine {trial.engine}\n")
    pid = _our_first_line(terminal)
    if trial.since == WORK:
        wait_until(lambda: catches(pid, signal.SIGTERM), 120.0)
    elif trial.since == PICTURES:
        wait_until(lambda: any(runs.glob("*/compare.csv")), 300.0)
    end = time.monotonic() + trial.after_s
    while time.monotonic() < end:
        terminal.read(min(0.05, trial.after_s))
    if trial.stop_worker:
        _stop_a_worker(terminal, pid)
    working = catches(pid, signal.SIGTERM)
    if terminal.at_prompt():
        return None

    _send(trial, terminal, pid)
    sent = time.monotonic()
    if trial.again_s is not None and not wait_until(terminal.at_prompt, trial.again_s):
        _send(trial, terminal, pid)
    back = terminal.wait_for_prompt(30.0)
    prompt_s = time.monotonic() - sent
    gone = wait_until(lambda: not terminal.started(), 30.0)
    gone_s = time.monotonic() - sent
    faults = [] if back else [f"no prompt within 30 s: {terminal.screen.lines()}"]
    faults += [] if gone else [f"still there after 30 s: {members(terminal.session)}"]
    faults += _faults(trial, terminal, working, runs) if back else []
    return Outcome(trial, working, prompt_s, gone_s, tuple(faults))


def _our_first_line(terminal: Terminal) -> int:
    """The command's pid, once Python has run its first line of ours; a second later at the latest."""
    pid: int | None = None

    def caught() -> bool:
        nonlocal pid
        pid = terminal.foreground()
        return pid is not None and _is_python(pid) and catches(pid, signal.SIGINT)

    wait_until(caught, 60.0, every_s=0.001)
    terminal.read(0.05)
    assert pid is not None, terminal.screen.lines()
    wait_until(lambda: not catches(pid, signal.SIGINT), 1.0, every_s=0.001)
    return pid


def _is_python(pid: int) -> bool:
    """Not yet, while it is the shell's own fork, which catches SIGINT as the shell does."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/exe").resolve().name.startswith("python")
    return False


def _stop_a_worker(terminal: Terminal, pid: int) -> None:
    """One of the command's grandchildren, if it has any yet."""
    parents = {process.pid for process in terminal.started() if process.parent == pid}
    workers = [process.pid for process in terminal.started() if process.parent in parents]
    if workers:
        kill(workers[0], signal.SIGSTOP)


def _send(trial: Trial, terminal: Terminal, pid: int) -> None:
    if trial.number == signal.SIGINT:
        terminal.type("\x03")
    else:
        kill(pid, signal.SIGTERM)


def _faults(trial: Trial, terminal: Terminal, working: bool, runs: Path) -> list[str]:
    terminal.read(0.05)
    said = [line for line in terminal.said() if not _SHOWN_BEFORE.match(line)]
    done = bool(said) and bool(_DONE.match(said[0]))
    said = said[done:]
    in_order = len(said) == 1 and said[0].startswith("stopped: ")
    at_once = said == (["Terminated"] if trial.number == signal.SIGTERM else [])
    faults = [] if in_order or (at_once and (done or not working)) else [f"the screen shows {said}"]
    if in_order:
        faults += faults_of_folder(said[0], runs)
    if not terminal.in_order():
        faults.append("the terminal is not as it was before")
    # The empty line first: a second Ctrl-C that reaches the shell at its prompt may take the next character along.
    terminal.type("\necho code=$?\n")
    codes = {f"code={128 + trial.number}"} | ({"code=0"} if done else set())  # done, and on its way out
    if not wait_until(lambda: terminal.at_prompt() and codes & set(terminal.screen.lines()), 5.0):
        faults.append(f"expected {codes}, got {terminal.screen.lines()[-2]}")
    return faults


def faults_of_folder(line: str, runs: Path) -> list[str]:
    """What the last line of a command says of its folder, and is not so. Paths in it begin beside `runs`."""
    if saved := _SAVED.fullmatch(line):
        env_steps, unfinished, path = int(saved[1].replace(",", "")), saved[2] is not None, runs.parent / saved[3]
        try:
            standing = load_checkpoint(path).standing
            record = rundir.read_json(path.with_name("run.json"))
        except (OSError, ValueError, CheckpointError) as error:
            return [f"{line}: {error}"]
        found = standing["num_timesteps"], standing["unfinished"] is not None, record.get("status")
        expected = env_steps, unfinished, "stopped" if unfinished else "done"
        return [] if found == expected else [f"{line}: expected {expected}, the folder has {found}"]
    if tables := _TABLES.fullmatch(line):
        report = rundir.read_json(runs.parent / tables[2] / "compare.json")
        found_runs = len(report.get("runs", []))
        return [] if found_runs == int(tables[1]) else [f"{line}: the tables hold {found_runs}"]
    left = sorted(path.name for path in runs.glob("*"))
    return [f"{line}: there is {', '.join(left)}"] if left else []


def main() -> int:
    given = arguments(signals=100, seed=0)
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        outcomes = list(pool.map(attempt, plan(given.signals, given.seed)))
    repeated = [attempt(outcome.trial) for outcome in outcomes if outcome.late]
    final = [outcome for outcome in outcomes if not outcome.late] + repeated
    for outcome in outcomes + repeated:
        if outcome.late or outcome.faults:
            print(outcome, file=sys.stderr)
    faulty = sum(bool(outcome.faults) for outcome in outcomes + repeated)
    late = sum(outcome.late for outcome in final)
    working = sum(outcome.working for outcome in outcomes)
    missed = not_reached(PHASES, (outcome.phase for outcome in outcomes), len(outcomes))
    for phase in missed:
        print(f"no signal met a command that was {phase}", file=sys.stderr)
    print(
        f"signals: {len(outcomes)} at random moments of {len(KINDS)} commands ({working} at work, "
        f"{len(outcomes) - working} importing): {faulty} not in order, {late} later than {LIMIT_S:g} s; slowest at the "
        f"prompt after {max(outcome.prompt_s for outcome in final):.2f} s, gone after "
        f"{max(outcome.gone_s for outcome in final):.2f} s; {len(repeated)} tried again alone"
    )
    return exit_status(faulty > 0, late > 0 or bool(missed))


if __name__ == "__main__":
    sys.exit(main())
