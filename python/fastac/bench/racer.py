"""A process of its own for each thing that is measured: what one library does to a process disturbs no other.

It is tied to its cores before it imports anything, so that thread pools are made for as many, and spoken to by pipe.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from fastac.errors import FastacError
from fastac.lifeline import end_with_starter

DEADLINE_S = 900.0  # of a start, and of one answer
_GONE_S = 10.0  # a killed process is gone by then
# What runs before anything is imported. Ctrl-C is for the command, which ends its racers.
_BOOT = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
os.sched_setaffinity(0, map(int, sys.argv[1].split(",")))
from fastac.bench.racer import serve
serve(int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
"""
# XLA keeps threads of its own beside those that it sizes by the cores.
_ONE_THREAD = {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"}


class RacerError(FastacError):
    """A process that was to be measured failed, ended or did not answer. Says which, and carries its traceback."""


def cores(most: int | None = None) -> tuple[int, ...]:
    """The last `most` of the cores that this process may use (others' interrupts gather on the first), or all."""
    usable = tuple(sorted(os.sched_getaffinity(0)))
    return usable if most is None else usable[-most:]


class Racer:
    """What `target`, "module:function", makes of `arguments` in a process of its own: a callable, called from here.

    Args:
        target, arguments: the function returns the callable; imports and compilation belong into it.
        on: the cores to which the process is tied.

    Attributes:
        ready_s: from the start of the process until the callable was there.

    Raises:
        RacerError: the target failed, or the process did.
    """

    def __init__(self, target: str, *arguments: Any, on: tuple[int, ...]) -> None:
        self.target = target
        self._pipe, theirs = Pipe()
        own_fd = theirs.fileno()
        boot = [sys.executable, "-c", _BOOT, ",".join(map(str, on)), str(own_fd), str(os.getpid()), *sys.path]
        environment = os.environ | {"JAX_PLATFORMS": "cpu"} | (_ONE_THREAD if len(on) == 1 else {})
        started = time.monotonic()
        # Its standard output would come between the lines of the table.
        self._process = subprocess.Popen(boot, pass_fds=(own_fd,), env=environment, stdout=subprocess.DEVNULL)
        theirs.close()
        try:
            self.send(target, arguments)
            self.receive()
        except BaseException:
            self.close()
            raise
        self.ready_s = time.monotonic() - started

    def __call__(self, *arguments: Any, within_s: float = DEADLINE_S) -> Any:
        """The callable's result. Raises RacerError where it raises, or does not return `within_s`."""
        self.send(*arguments)
        return self.receive(within_s)

    def send(self, *arguments: Any) -> None:
        """Begins a call, for `receive` to end: several racers run at once so."""
        with contextlib.suppress(BrokenPipeError):  # receive says so
            self._pipe.send(arguments)

    def receive(self, within_s: float = DEADLINE_S) -> Any:
        try:
            if not self._pipe.poll(within_s):
                raise RacerError(f"{self.target} gave no answer within {within_s:g} s")
            succeeded, answer = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            code = self._process.wait(_GONE_S)
            raise RacerError(f"{self.target}: its process ended, exit code {code}") from None
        if not succeeded:
            raise RacerError(f"{self.target} failed:\n{answer}")
        return answer

    def close(self) -> None:
        """Ends the process, whatever it does."""
        self._process.kill()
        self._process.wait(_GONE_S)
        self._pipe.close()


@contextlib.contextmanager
def closing(racers: Mapping[Any, Racer]) -> Iterator[None]:
    """Closes them at the end, those too that were added meanwhile."""
    try:
        yield
    finally:
        for racer in racers.values():
            racer.close()


def enter(racers: dict[Any, Racer], name: Any, target: str, *arguments: Any, on: tuple[int, ...]) -> None:
    """Adds one to those that race; where it cannot start, a warning says why, and the others race without it."""
    try:
        racers[name] = Racer(target, *arguments, on=on)
    except RacerError as error:
        warnings.warn(f"{name} does not race: {error}", stacklevel=2)


def serve(fd: int, parent: int, *path: str) -> None:
    """The whole life of a racer's process."""
    end_with_starter(parent)
    sys.path[:] = path
    pipe = Connection(fd)

    def answer(call: Any, *arguments: Any) -> Any:
        try:
            result = call(*arguments)
        except Exception:
            pipe.send((False, traceback.format_exc()))
            sys.exit(1)
        return result

    with contextlib.suppress(EOFError, BrokenPipeError):
        target, arguments = pipe.recv()
        case = answer(_made, target, arguments)
        pipe.send((True, None))
        while True:
            pipe.send((True, answer(case, *pipe.recv())))


def _made(target: str, arguments: tuple[Any, ...]) -> Any:
    module, _, function = target.partition(":")
    return getattr(importlib.import_module(module), function)(*arguments)
