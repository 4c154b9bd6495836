"""Worker processes start without a trace in the program that starts them, and forks of it keep nothing of theirs."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from crews import run

from fastac import forking

TESTS = Path(__file__).parent


def test_main_stays_what_it_is_while_a_process_starts(monkeypatch):
    """Others may pickle what is defined there, in a thread of their own."""
    main, seen = sys.modules["__main__"], {}

    def looked_at(owner, name):
        do = getattr(owner, name)

        def step(*args):
            seen[name] = sys.modules["__main__"] is main
            return do(*args)

        return step

    server = forking.Forkserver
    for owner, name in (
        (server, "ensure_running"),
        (server, "connect_to_new_process"),
        (forking.forkserver, "read_signed"),
    ):
        monkeypatch.setattr(owner, name, looked_at(owner, name))
    assert "error" not in run("process", "end")
    assert seen == {"ensure_running": True, "connect_to_new_process": True, "read_signed": True}


FORK = """
    import os, threading, time
    from fastac import lifeline

    lifeline._FORK_DEADLINE_S = {deadline_s}
    def fork():
        if (child := os.fork()) == 0:
            try:
                os.fstat(writer)
            except OSError:
                os._exit(0)
            os._exit(1)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)

    with lifeline.forks_held_up(1.0):
        _, writer = os.pipe()
        thread = threading.Thread(target=fork)
        thread.start()
        thread.join({known_after_s})
        lifeline.hold(writer)
    thread.join()
"""


@pytest.mark.parametrize(("deadline_s", "known_after_s", "kept"), [(60.0, 0.3, "0"), (0.1, 60.0, "1")])
def test_a_fork_waits_until_writers_are_known_but_not_for_ever(deadline_s, known_after_s, kept):
    script = textwrap.dedent(FORK.format(deadline_s=deadline_s, known_after_s=known_after_s))
    command = [sys.executable, "-W", "ignore", "-c", script]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (result.stdout.strip(), result.stderr) == (kept, "")


USE = """
    import os, sys
    sys.path.insert(0, {tests!r})
    from crews import run

    run("process", "end")
    if (child := os.fork()) == 0:
        os._exit("error" in run("process", "end"))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), "error" in run("process", "end"))
"""


def test_a_fork_may_start_processes_of_its_own():
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(USE.format(tests=str(TESTS)))]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (result.stdout.strip(), result.stderr) == ("0 False", "")
