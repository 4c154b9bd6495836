"""What the tests of workers share: a run of failing_work.py from start to end, and who is alive."""

import os
import time
from pathlib import Path

import numpy as np
from failing_work import behave

from fastac import _core, forking
from fastac.launch import launch
from fastac.shared import Ledger, Toll, observer_of

P = 8


def run(backend, *tasks, scheme="lockfree", tick=lambda: None, **policy):
    """Runs the crew to its end, and checks its books and parameters: {"ledger", "observer", "region", "error"}."""
    region = _core.Region.create(workers=len(tasks), parameters=P, scheme=scheme, optimizer="sgd")
    observer = observer_of(region)
    observer.initialize(np.zeros(P, np.float32))
    outcome, toll = {"region": region, "observer": observer}, Toll()
    try:
        with launch(
            backend, region, observer, behave, [(what, P) for what in tasks], tick, toll=toll, **policy
        ) as crew:
            crew.wait_ready()
            observer.give_go()
            crew.wait_done()
    except Exception as error:
        outcome["error"] = error
    observer.drain()
    params = np.empty(P, np.float32)
    observer.read(params)
    ledger = Ledger.of(observer, scheme, toll)
    ledger.check()
    if scheme != "hogwild":
        assert params.tolist() == [-ledger.applied] * P
    outcome["ledger"] = ledger
    return outcome


def _processes():
    """{process id: (parent, session)} of all, the dead and unreaped included."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            _, parent, _, session = stat.read_text().rsplit(")", 1)[1].split()[:4]
        except OSError:
            continue
        found[int(stat.parent.name)] = (int(parent), int(session))
    return found


def _is_forkserver(pid):
    try:
        return b"multiprocessing.forkserver" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def forkservers_of(pid):
    """Process ids: one for each engine that was used, and that of `run`."""
    return [child for child, (parent, _) in _processes().items() if parent == pid and _is_forkserver(child)]


def forkserver_of(pid):
    """The only one of another process, or None."""
    servers = forkservers_of(pid)
    assert len(servers) < 2
    return servers[0] if servers else None


def my_forkserver():
    """That of `run`."""
    pid = forking.forkserver_with("").pid
    return pid if pid in forkservers_of(os.getpid()) else None


def children(pid=None):
    """Process ids of all workers of a process, this one if none is given."""
    servers = forkservers_of(pid or os.getpid())
    return [child for child, (parent, _) in _processes().items() if parent in servers]


def members(session):
    """Processes of a session."""
    return [pid for pid, (_, its) in _processes().items() if its == session]


def gone(session, within_s=10.0):
    deadline = time.monotonic() + within_s
    while members(session) and time.monotonic() < deadline:
        time.sleep(0.02)
    return members(session) == []
