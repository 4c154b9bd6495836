"""How a command ends: in order, whatever happened, with an exit code that scripts can use.

A command has two parts. As long as it only imports and checks, signals end it at once (fastac_command.py): it says
nothing. Once it has a folder or workers, it puts them in order and says what became of them: `signals_raised`.
"""

from __future__ import annotations

import contextlib
import math
import re
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn, TextIO

import click

import fastac_command
from fastac.cli.configuration import file_that_set
from fastac.errors import ConfigError, FastacError, ReportError

_REPEATED_S = 3.0  # an order that is given again within that time is being carried out


class Terminated(KeyboardInterrupt):
    """SIGTERM: handled where Ctrl-C is, told apart by the exit code."""


@contextlib.contextmanager
def ends_in_order() -> Iterator[None]:
    """Bad values are usage errors (2); a failed run is one message (1); Ctrl-C (130) and SIGTERM (143) one line."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _one_line
            yield
    except ConfigError as error:
        raise click.UsageError(_as_given(str(error), click.get_current_context())) from None
    except ReportError as error:  # a folder that is no run's: as much a bad value
        raise click.UsageError(str(error)) from None
    except KeyboardInterrupt as stop:
        stopped("no run was under way", stop)
    except (FastacError, OSError) as error:
        click.echo(f"fastac: {type(error).__name__}: {error}", err=True)
        sys.exit(1)


def _as_given(message: str, context: click.Context) -> str:
    """A ConfigError's words, with the file where the value in question is from there."""
    file = file_that_set(message.partition(":")[0], context)
    return f"{file}: {message}" if file is not None else as_typed(message, context.command)


def as_typed(message: str, command: click.Command) -> str:
    """A ConfigError's words, in which fields are called as the options of the command that set them.

    A field is a name at the beginning, before a colon, or before an equals sign; with an underscore it is one anywhere.
    """
    flags: dict[str, str] = {}
    for option in command.params:
        flag = next((flag for flag in option.opts if flag.startswith("--")), None)
        if flag is not None and option.name is not None:
            flags |= dict.fromkeys((option.name, flag[2:].replace("-", "_")), flag)

    def flag_of(found: re.Match[str]) -> str:
        name = found[0]
        is_field = "_" in name or found.string[found.end() :].startswith("=" if found.start() else (":", "="))
        return flags.get(name, name) if is_field else name

    return re.sub(r"(?<![\w./'\"-])\w+(?![\w./'\"-])", flag_of, message)


def _one_line(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Where in our code a warning comes from is not for who runs a command."""
    click.echo(f"notice: {message}", err=True)


@contextlib.contextmanager
def signals_raised() -> Iterator[None]:
    """Inside, Ctrl-C raises KeyboardInterrupt, SIGTERM raises Terminated; impatient repetitions do nothing.

    Neither do they afterwards, where the process is our own: it says what became of its work, and leaves.
    """
    raised = -math.inf

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal raised
        if time.monotonic() - raised > _REPEATED_S:
            raised = time.monotonic()
            raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # a shell has jobs in its background ignore Ctrl-C
            signal.signal(number, stop)
    try:
        yield
    finally:
        if raised == -math.inf or not fastac_command.process_is_ours:
            for number, handler in before.items():
                signal.signal(number, handler)


def stopped(what: str, stop: KeyboardInterrupt) -> NoReturn:
    """One line, and the exit code of the signal."""
    # A terminal has just written ^C at the beginning of the line.
    click.echo(("\r" if sys.stderr.isatty() else "") + f"stopped: {what}", err=True)
    sys.exit(128 + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT))
