"""Workers that raise, die, hang or are interrupted: noticed, named, and nothing of them is left (see test_death.py)."""

import gc
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from crews import children, gone, my_forkserver, run

from fastac import WorkerDiedError, WorkerError, _core, launch, worker
from fastac.watch import is_stopped


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
    outcome = run("process", "work", what)
    assert isinstance(outcome["error"], WorkerDiedError)
    assert str(outcome["error"]).startswith("worker 1 (process ") and words in str(outcome["error"])
    assert outcome["ledger"].applied >= 3  # what it published before it died is not lost
    assert children() == []


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_an_exception_of_any_length_arrives_with_the_end_of_its_traceback(backend):
    assert "a very tall pole " * 100 in str(run(backend, "raise at length", "work")["error"])


def test_a_message_is_short_enough_to_arrive_in_one_piece():
    expected = f"report: expected a message of at most {worker._MESSAGE_BYTES:,} bytes"
    assert expected in str(run("process", "report at length")["error"])


def test_the_seat_of_the_dead_is_free_again():
    outcome = run("process", "die")
    _core.Session(outcome["region"], 0).close()


@pytest.mark.parametrize("how", ["hang", "hang with the GIL", "stop once"])
def test_a_process_that_does_not_leave_is_killed(how):
    outcome = run("process", how, "raise")
    assert isinstance(outcome["error"], WorkerError)
    assert outcome["ledger"].deaths == 1
    assert children() == []


def test_all_that_are_stopped_are_not_waited_for_and_have_one_deadline(monkeypatch):
    """Where the forkserver is stopped, nobody tells how they ended."""
    stopped = []

    def tick():
        if not stopped and all(is_stopped(str(pid)) for pid in children()) and len(children()) == 2:
            stopped.append(my_forkserver())
            os.kill(stopped[0], signal.SIGSTOP)
            raise TimeoutError

    monkeypatch.setattr(launch, "STOP_DEADLINE_S", 60.0)
    monkeypatch.setattr(worker, "STOP_DEADLINE_S", 60.0)  # of each by itself
    began = time.monotonic()
    outcome = run("process", "stop once", "stop once", tick=tick)
    assert isinstance(outcome["error"], TimeoutError) and outcome["ledger"].deaths == 2
    assert time.monotonic() - began < 60.0
    assert children() == []


@pytest.mark.parametrize("how", ["end", "die", "raise"])
def test_nothing_stays_open(how):
    def open_after_a_run():
        run("process", how, "hang") if how != "end" else run("process", "end", "end")
        gc.collect()  # the error's frames hold the region
        return len(os.listdir("/proc/self/fd"))

    assert open_after_a_run() == open_after_a_run()


TIED = """
    import os, sys
    cpus = sorted(os.sched_getaffinity(0))
    import torch
    sys.path.insert(0, {tests!r})
    from crews import run

    print(f"cpus {{cpus}}" in str(run("{backend}", "raise its cpus")["error"]))
"""


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_openmp_does_not_tie_all_workers_to_one_core(backend):
    script = textwrap.dedent(TIED.format(backend=backend, tests=str(Path(__file__).parent)))
    tied = {**os.environ, "OMP_PROC_BIND": "true"}
    result = subprocess.run([sys.executable, "-c", script], env=tied, capture_output=True, text=True, timeout=120)
    assert (result.stdout, result.stderr) == ("True\n", "")


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


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_ctrl_c_stops_the_run_and_keeps_what_was_learned(backend, tmp_path):
    process = start(backend, tmp_path)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to everyone in the foreground
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert out == "started\nkept True\n"
    assert "Traceback" not in err
    assert gone(process.pid)
