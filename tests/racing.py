"""What the racers of test_bench.py run in their processes."""

import os
import signal
import time

CORES_AT_IMPORT = os.sched_getaffinity(0)


def adder(offset):
    return lambda *numbers: sum(numbers, offset)


def teller():
    """The cores that it had when this was imported, and its XLA_FLAGS."""
    return lambda: (CORES_AT_IMPORT, os.environ.get("XLA_FLAGS", ""))


def failing():
    raise RuntimeError("no such peer")


def troubled():
    def do(what):
        if what == "raise":
            raise ValueError("a bad round")
        if what == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(600)

    return do
