"""Workers that raise, die, hang or are interrupted: noticed, named, and nothing of them is left."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from failing_work import behave

from fastac import WorkerDiedError, WorkerError, _core
from fastac.launch import launch
from fastac.shared import Ledger, observer_of

P = 8


def run(backend, *tasks):
    """Runs the crew to its end; returns its ledger and the parameters."""
    region = _core.Region.create(workers=len(tasks), parameters=P, optimizer="sgd")
    observer = observer_of(region)
    observer.initialize(np.zeros(P, np.float32))
    outcome = {"region": region, "observer": observer}
    try:
        with launch(backend, region, observer, behave, [(what, P) for what in tasks], lambda: None) as crew:
            crew.wait_ready()
            observer.give_go()
            crew.wait_done()
    except Exception as error:
        outcome["error"] = error
    observer.drain()
    params = np.empty(P, np.float32)
    observer.read(params)
    ledger = Ledger.of(observer, "lockfree")
    ledger.check()
    assert params.tolist() == [-ledger.applied] * P
    outcome["ledger"] = ledger
    return outcome


def children():
    """Process ids of all workers of this process, the dead and unreaped included."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"multiprocessing" in stat.read_bytes() or not stat.read_bytes():
                parent = (stat.parent / "stat").read_text().rsplit(")", 1)[1].split()[1]
                found.append((int(stat.parent.name), int(parent)))
        except OSError:
            continue
    servers = {pid for pid, parent in found if parent == os.getpid()}
    return [pid for pid, parent in found if parent in servers]


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_everybody_comes_to_an_end(backend):
    outcome = run(backend, "end", "end", "end")
    assert "error" not in outcome and outcome["ledger"].applied == 9


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_an_exception_arrives_with_its_traceback_and_stops_the_run(backend):
    outcome = run(backend, "work", "raise", "work")
    assert isinstance(outcome["error"], WorkerError)
    message = str(outcome["error"])
    assert "worker 1" in message and "RuntimeError: the pole fell over" in message and "failing_work.py" in message
    assert children() == []


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_an_exception_that_does_not_pickle_arrives_too(backend):
    assert "RuntimeError: <unlocked _thread.lock" in str(run(backend, "raise unpicklable")["error"])


@pytest.mark.parametrize(("what", "words"), [("die", "was killed by SIGKILL"), ("exit", "with exit code 7")])
def test_a_dead_process_is_noticed_and_named(what, words):
    started = time.monotonic()
    outcome = run("process", "work", what)
    assert isinstance(outcome["error"], WorkerDiedError)
    assert str(outcome["error"]).startswith("worker 1 (process ") and words in str(outcome["error"])
    assert outcome["ledger"].applied >= 3  # what it published before it died is not lost
    assert time.monotonic() - started < 60
    assert children() == []


def test_the_seat_of_the_dead_is_free_again():
    outcome = run("process", "die")
    _core.Session(outcome["region"], 0).close()


def test_a_process_that_does_not_leave_is_killed():
    outcome = run("process", "hang", "raise")
    assert isinstance(outcome["error"], WorkerError)
    assert children() == []


# ---- a whole run, interrupted from outside ---------------------------------------------------------------------

SCRIPT = """
    import fastac, sys
    print("started", flush=True)
    model = fastac.A3C(workers=3, backend="{backend}", seed=0)
    try:
        model.learn(50_000_000, progress_bar=True)
    except KeyboardInterrupt:
        model.ledger.check()
        print("kept", model.num_timesteps > 0, flush=True)
        sys.exit(130)
"""


def start(backend, directory):
    """A user's script without a main guard, in a session of its own, as a terminal would start it."""
    script = directory / "script.py"
    script.write_text(textwrap.dedent(SCRIPT.format(backend=backend)))
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    # The first progress line appears once the workers train.
    for line in process.stderr:
        if " return " in line:
            break
    return process


def members(session):
    """Living processes of a session, zombies included."""
    alive = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rsplit(")", 1)[1].split()[3]) == session:
                alive.append(int(stat.parent.name))
        except OSError:
            continue
    return alive


def parent_of(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def gone(session, within_s=10.0):
    deadline = time.monotonic() + within_s
    while members(session) and time.monotonic() < deadline:
        time.sleep(0.02)
    return members(session) == []


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_ctrl_c_stops_the_run_and_keeps_what_was_learned(backend, tmp_path):
    before = sorted(os.listdir("/dev/shm"))
    process = start(backend, tmp_path)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to everyone in the foreground
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert out == "started\nkept True\n"
    assert "Traceback" not in err
    assert gone(process.pid)
    assert sorted(os.listdir("/dev/shm")) == before


def test_workers_leave_when_their_parent_is_killed(tmp_path):
    before = sorted(os.listdir("/dev/shm"))
    process = start("process", tmp_path)
    assert len(members(process.pid)) >= 4
    process.kill()
    process.communicate(timeout=30)
    assert gone(process.pid)
    assert sorted(os.listdir("/dev/shm")) == before


def test_a_killed_worker_ends_the_run_within_a_second(tmp_path):
    process = start("process", tmp_path)
    forked = [pid for pid in members(process.pid) if b"forkserver" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    victim = next(pid for pid in forked if parent_of(pid) in forked)  # a worker, not the server
    os.kill(victim, signal.SIGKILL)
    killed = time.monotonic()
    _, err = process.communicate(timeout=30)
    assert f"(process {victim}) was killed by SIGKILL" in err
    assert process.returncode == 1
    assert time.monotonic() - killed < 30
    assert gone(process.pid)
