"""How a command ends: in order, whatever happened, with an exit code that scripts can use."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from typing import NoReturn

import click

from fastac.errors import ConfigError, FastacError


class Terminated(KeyboardInterrupt):
    """SIGTERM: handled where Ctrl-C is, told apart by the exit code."""


@contextlib.contextmanager
def ends_in_order() -> Iterator[None]:
    """Bad values are usage errors (2); a failed run is one message (1); SIGTERM (143) is handled like Ctrl-C (130)."""

    def terminate(*_: object) -> NoReturn:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except ConfigError as error:
        raise click.UsageError(str(error)) from None
    except KeyboardInterrupt as stop:
        stopped("no run was under way", stop)
    except (FastacError, OSError) as error:
        click.echo(f"fastac: {type(error).__name__}: {error}", err=True)
        sys.exit(1)
    finally:
        signal.signal(signal.SIGTERM, before)


def stopped(what: str, stop: KeyboardInterrupt) -> NoReturn:
    """One line, and the exit code of the signal."""
    # A terminal has just written ^C at the beginning of the line.
    click.echo(("\r" if sys.stderr.isatty() else "") + f"stopped: {what}", err=True)
    sys.exit(128 + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT))
