"""The first of our code that a command runs: `fastac` comes in here, and `python -m fastac` too.

Until there is something to put in order, Ctrl-C ends the process at once, as it ends other programs. Python's own
answer would be a traceback from the midst of some import. This stands outside the package because importing the
package already imports libraries. Whoever imports fastac as a library keeps their signal handlers.
"""

from __future__ import annotations

import signal


def end_at_once_on_ctrl_c() -> None:
    """As SIGTERM does by default. A SIGINT that the shell has us ignore (a job in its background) stays ignored."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def main() -> None:
    end_at_once_on_ctrl_c()
    from fastac.cli import main as command_line

    command_line(prog_name="fastac")
