"""How a command ends: in order, whatever happened, with an exit code that scripts can use."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from typing import NoReturn

import click

from fastac.errors import ConfigError, FastacError

_SIGNAL_OF_STOP = {"received": signal.SIGINT}


@contextlib.contextmanager
def ends_in_order() -> Iterator[None]:
    """Bad values are usage errors; a failed run is one message and exit code 1; SIGTERM is handled like Ctrl-C."""

    def terminate(*_: object) -> NoReturn:
        _SIGNAL_OF_STOP["received"] = signal.SIGTERM
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except ConfigError as error:
        raise click.UsageError(str(error)) from None
    except KeyboardInterrupt:
        stopped("nothing was under way yet")
    except (FastacError, TimeoutError) as error:
        click.echo(f"fastac: {type(error).__name__}: {error}", err=True)
        sys.exit(1)
    finally:
        signal.signal(signal.SIGTERM, before)


def stopped(what: str) -> NoReturn:
    # A terminal has just written ^C at the beginning of the line.
    click.echo(("\r" if sys.stderr.isatty() else "") + f"stopped: {what}", err=True)
    sys.exit(128 + _SIGNAL_OF_STOP["received"])
