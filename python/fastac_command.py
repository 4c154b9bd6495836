"""The first of our code that a command runs: `fastac` comes in here, and `python -m fastac` too.

Until there is something to put in order, Ctrl-C ends the process at once, as it ends other programs. Python's own
answer would be a traceback from the midst of some import. This stands outside the package because importing the
package already imports libraries. Whoever imports fastac as a library keeps their signal handlers.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys

process_is_ours = False  # True: a command runs, and the process ends with it


def end_at_once_on_ctrl_c() -> None:
    """As SIGTERM does by default. A SIGINT that the shell has us ignore (a job in its background) stays ignored."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def main() -> None:
    """The command line. Leaves without taking the libraries apart, which costs up to a second after all is done."""
    global process_is_ours
    process_is_ours = True
    code = 1

    def leave() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    end_at_once_on_ctrl_c()
    atexit.register(leave)  # the first registered is called last: what others have to do at the end is done then
    from fastac.cli import main as command_line

    try:
        command_line(prog_name="fastac")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        raise
