"""What the gates on whole runs see of a run from outside: its processes, its shared segments, its terminal."""

from __future__ import annotations

import codecs
import contextlib
import ctypes
import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMAND = Path(sys.executable).with_name("fastac")
_PR_SET_CHILD_SUBREAPER = 36
_SEGMENT = "memfd:fastac"
ENOUGH_TRIALS = 20

if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # a shell's job in the background: what it starts would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


def arguments(**defaults: Any) -> Any:
    """`name=value` on the command line, each of its default's type. Ends the program where a name is unknown."""
    given = dict(word.partition("=")[::2] for word in sys.argv[1:])
    if unknown := given.keys() - defaults.keys():
        sys.exit(f"expected {', '.join(f'{k}={v}' for k, v in defaults.items())}, got {', '.join(sorted(unknown))}")
    return type("Arguments", (), {k: type(v)(given.get(k, v)) for k, v in defaults.items()})


def exit_status(faults: bool, missed: bool) -> int:
    """Of a gate: 1 with faults, 3 where only a time or a phase was missed, which the load of a machine may do."""
    return 1 if faults else 3 if missed else 0


def not_reached(phases: Iterable[str], reached: Iterable[str], trials: int) -> list[str]:
    """Phases that no trial met, where there were enough of them to meet each."""
    met = set(reached)
    return [phase for phase in phases if phase not in met] if trials >= ENOUGH_TRIALS else []


# ---- processes ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Process:
    pid: int
    parent: int
    session: int
    state: str  # one letter, as in /proc/PID/stat

    @property
    def dead(self) -> bool:
        return self.state in "ZX"


def processes() -> Iterator[Process]:
    """All of this machine, zombies included."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # gone meanwhile
            state, parent, _, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            yield Process(int(entry.name), int(parent), int(session), state)


def members(session: int) -> list[Process]:
    """The living of a session: what a command started, whoever is its parent now."""
    return [process for process in processes() if process.session == session and not process.dead]


def children(*parents: int) -> list[Process]:
    return [process for process in processes() if process.parent in parents]


def adopt_orphans() -> None:
    """Makes this process the parent of its orphaned descendants, as process 1 would be: it can see and reap them."""
    if ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError("prctl(PR_SET_CHILD_SUBREAPER)")


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def catches(pid: int, number: int) -> bool:
    """Whether a process has a handler of its own for a signal. False once it is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


def wait_until(condition: Callable[[], bool], deadline_s: float, every_s: float = 0.005) -> bool:
    """Whether it came true in time."""
    deadline = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every_s)
    return True


# ---- segments -------------------------------------------------------------------------------------------------


def segments(of: Iterable[Process] | None = None) -> dict[int, set[int]]:
    """{inode: processes that hold it} of fastac's shared segments, mapped or open; on the whole machine by default."""
    held: dict[int, set[int]] = {}
    for process in processes() if of is None else of:
        entry = Path(f"/proc/{process.pid}")
        with contextlib.suppress(OSError):
            for line in (entry / "maps").read_text().splitlines():
                if _SEGMENT in line:
                    held.setdefault(int(line.split()[4]), set()).add(process.pid)
            for fd in (entry / "fd").iterdir():
                with contextlib.suppress(OSError):
                    if _SEGMENT in os.readlink(fd):
                        held.setdefault(fd.stat().st_ino, set()).add(process.pid)
    return held


def shm_files() -> set[str]:
    return set(os.listdir("/dev/shm"))


# ---- a terminal -----------------------------------------------------------------------------------------------


class Terminal:
    """A shell at a pseudo-terminal, as a person has it: type at it, send it Ctrl-C, read its screen."""

    PROMPT = "@prompt@"

    def __init__(self, columns: int, folder: Path) -> None:
        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        # A session leader that opens a terminal gets it as its controlling one: Ctrl-C then reaches what it runs.
        words = [
            "bash",
            "-c",
            'PS1="$1" exec bash --norc --noprofile -i <"$0" >"$0" 2>&1',
            os.ttyname(slave),
            self.PROMPT + " ",
        ]
        environment = {**os.environ, "TERM": "xterm", "LC_ALL": "C.UTF-8"}
        environment.pop("COLUMNS", None)
        self._shell = subprocess.Popen(words, env=environment, cwd=folder, start_new_session=True)
        os.close(slave)
        self.screen = Screen(columns)
        if not self.wait_for_prompt(10.0):
            raise RuntimeError(f"no prompt from bash: {self.screen.lines()}")
        self._settings = termios.tcgetattr(self._master)

    @property
    def session(self) -> int:
        return self._shell.pid

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def read(self, wait_s: float = 0.0) -> None:
        """Takes over what was written, waiting for something at most that long."""
        while select.select([self._master], [], [], wait_s)[0]:
            wait_s = 0.0
            try:
                self.screen.write(os.read(self._master, 1 << 16))
            except OSError:  # the shell is gone
                return

    def at_prompt(self) -> bool:
        self.read()
        return _without_echo(self.screen.lines()[-1]) == self.PROMPT

    def wait_for_prompt(self, deadline_s: float) -> bool:
        return wait_until(self.at_prompt, deadline_s)

    def started(self) -> list[Process]:
        """What the shell started and what that started, as long as it lives."""
        return [process for process in members(self.session) if process.pid != self.session]

    def foreground(self) -> int | None:
        """The command that the shell waits for."""
        return next((process.pid for process in self.started() if process.parent == self.session), None)

    def said(self) -> list[str]:
        """The lines below the first command line, without what the shell and the terminal wrote."""
        return [line for line in self.screen.lines()[1:] if _without_echo(line) not in ("", self.PROMPT)]

    def in_order(self) -> bool:
        """The cursor can be seen and the settings are those from before the command."""
        return self.screen.cursor_visible and termios.tcgetattr(self._master) == self._settings

    def close(self) -> None:
        for process in members(self.session):
            kill(process.pid)
        self._shell.wait()
        os.close(self._master)


def _without_echo(line: str) -> str:
    """A terminal writes ^C where the cursor is, before a line or after it."""
    return line.replace("^C", "").strip()


class Screen:
    """What a terminal of so many columns shows; only what bash and rich send is understood."""

    _SEQUENCE = re.compile(r"\x1b\[(\??)([\d;]*)([A-Za-z])")

    def __init__(self, columns: int) -> None:
        self.cursor_visible = True
        self._columns = columns
        self._cells: list[list[str]] = [[]]
        self._row = self._column = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    def lines(self) -> list[str]:
        """What is on it, from the top; never empty. Empty lines are left out."""
        texts = ["".join(row).rstrip() for row in self._cells]
        return [text for text in texts if text] or [""]

    def write(self, data: bytes) -> None:
        text, self._rest = self._rest + self._decoder.decode(data), ""
        while text:
            if text[0] != "\x1b":
                self._put(text[0])
                text = text[1:]
            elif match := self._SEQUENCE.match(text):
                self._obey(*match.groups())
                text = text[match.end() :]
            elif len(text) > 20:
                raise ValueError(f"no sequence that this screen knows: {text[:20]!r}")
            else:
                self._rest, text = text, ""

    def _put(self, character: str) -> None:
        if character == "\r":
            self._column = 0
        elif character == "\n":
            self._down()
        elif character == "\b":
            self._column = max(self._column - 1, 0)
        elif character >= " ":
            if self._column == self._columns:  # wraps with the first character that has no room
                self._column = 0
                self._down()
            row = self._cells[self._row]
            row.extend(" " * (self._column + 1 - len(row)))
            row[self._column] = character
            self._column += 1

    def _down(self) -> None:
        self._row += 1
        if self._row == len(self._cells):
            self._cells.append([])

    def _obey(self, private: str, numbers: str, letter: str) -> None:
        if private:
            if numbers == "25":
                self.cursor_visible = letter == "h"
        elif letter == "A":
            self._row = max(self._row - int(numbers or 1), 0)
        elif letter == "K":
            row = self._cells[self._row]
            if numbers == "2":
                row.clear()
            elif numbers in ("", "0"):
                del row[self._column :]
        elif letter != "m":
            raise ValueError(f"no sequence that this screen knows: {numbers}{letter}")
