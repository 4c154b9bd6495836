"""When the parent is gone, so are its workers and the forkserver, whatever each of them was doing."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from crews import children, forkserver_of, gone, members

TESTS = Path(__file__).parent
CREW = """
    import sys
    sys.path.insert(0, {tests!r})
    import numpy as np
    from failing_work import behave
    from fastac import _core
    from fastac.launch import launch
    from fastac.shared import observer_of

    region = _core.Region.create(workers=2, parameters=8)
    observer = observer_of(region)
    observer.initialize(np.zeros(8, np.float32))
    print("open", flush=True)
    with launch("process", region, observer, behave, [({how!r}, 8)] * 2, lambda: None) as crew:
        crew.wait_ready()
        print("ready", flush=True)
        {go} and observer.give_go()
        crew.check = lambda: None  # this parent notices nothing
        while observer.ledger()["published"] < 6 * {go}:
            pass
        {then}
        print("under way", flush=True)
        while True:
            crew._wait()
"""
TRAIN = """
    import fastac
    from fastac import updates

    tick = updates.Run.tick
    def telling(run, **options):
        tick(run, **options)
        if run.session.ledger()["applied"] > 20:
            print("under way", flush=True)
    updates.Run.tick = telling
    fastac.A3C(workers=3, update={update!r}, n_steps=2, seed=0).learn(50_000_000)
"""


def start(script, until):
    """In a session of its own, as a terminal would start it; until it says so."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    for line in process.stdout:
        if line.strip() == until:
            return process
    raise AssertionError(f"ended before it was {until}")


def kill(process, within_s=10.0):
    """And sees that nothing is left."""
    process.kill()
    process.wait(30)
    process.stdout.close()
    process.stdin.close()
    assert gone(process.pid, within_s), members(process.pid)


def crew(how, until="under way", go=True, then=""):
    return start(CREW.format(tests=str(TESTS), how=how, go=go, then=then), until)


def test_while_the_forkserver_starts():
    process = crew("work", until="open")
    deadline = time.monotonic() + 60
    while forkserver_of(process.pid) is None and time.monotonic() < deadline:
        time.sleep(0.001)
    kill(process, within_s=60.0)  # it has yet to import what ends it, which takes its time on a loaded machine


def test_while_workers_get_ready():
    process = crew("never ready", until="open")
    deadline = time.monotonic() + 60
    while not children(process.pid) and time.monotonic() < deadline:
        time.sleep(0.001)
    kill(process)


def test_while_workers_wait_for_go():
    kill(crew("work", until="ready", go=False))


@pytest.mark.parametrize("how", ["work", "hang", "hang with the GIL", "stop once"])
def test_in_the_midst_of_work(how):
    """In Python, in a system call, in a native call that keeps the GIL, and stopped."""
    process = crew(how)
    assert len(children(process.pid)) == 2
    kill(process)


def test_when_the_forkserver_died_first():
    process = crew("work")
    workers, server = children(process.pid), forkserver_of(process.pid)
    os.kill(server, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while server in members(process.pid) and forkserver_of(process.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert set(workers) < set(members(process.pid))  # which costs them nothing
    kill(process)


def test_when_the_forkserver_is_stopped():
    process = crew("work")
    os.kill(forkserver_of(process.pid), signal.SIGSTOP)
    kill(process)


def test_when_a_fork_of_the_parent_lives_on():
    """As one of a DataLoader's, or of Gymnasium's AsyncVectorEnv. It inherits what the parent held open."""
    process = crew("work", then="import os; os.fork() or (os.setsid(), sys.stdin.read(), os._exit(0))")
    ours = {forkserver_of(process.pid), *children(process.pid)}
    assert len(ours) == 3
    process.kill()
    process.wait(30)
    deadline = time.monotonic() + 10
    while (left := ours & set(members(process.pid))) and time.monotonic() < deadline:
        time.sleep(0.01)
    kill(process)  # and with it the fork's stdin
    assert left == set()


@pytest.mark.parametrize("update", ["lockfree", "lock", "queue", "hogwild"])
def test_when_the_parent_is_stopped_and_then_killed(update):
    """Under `queue` its learner stands still with it, so that all workers wait for it."""
    process = start(TRAIN.format(update=update), "under way")
    process.send_signal(signal.SIGSTOP)
    time.sleep(0.3)
    assert len(children(process.pid)) == 3
    kill(process)
