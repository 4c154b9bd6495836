"""Nothing waits for ever: every wait of the package is listed here, with the test that reaches its deadline.

The waits of the core (wait.hpp) are reached in cpp/tests/test_updates_threads.cpp: `lock` and `queue` in lock_is_held,
queue_without_learner and stop_while_waiting, the learner's in heartbeats of test_updates.cpp. The pauses of slow envs
(worker.hpp) end when the run is stopped: a_pause_ends_with_the_run in test_worker.cpp. The threads of a team
(team.hpp) wait for each other without a deadline: they are of one call, cannot die alone, and one that ends or fails
dismisses the others (one_that_ends_or_fails_leaves_nobody_waiting in test_team.cpp).
"""

import ast
import os
import signal
import threading
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from crews import children, my_forkserver, run

import fastac
from fastac import WorkerError, WorkerStuckWarning, _core, a3c, forking, launch, updates, worker
from fastac.lifeline import forks_held_up
from fastac.objective import GradientStats
from fastac.rollout import Rollout
from fastac.shared import observer_of
from fastac.updates import Recorder

PACKAGE = Path(fastac.__file__).parent
TESTS = Path(__file__).parent
CORE = "the core's: cpp/tests/test_updates_threads.cpp"
AT_ONCE = "returns at once"

# (room, function): what reaches its deadline, or why it needs none.
WAITS = {
    ("a3c", "work"): "the pause between two tries of flush_log",
    ("a3c", "wait_while_held"): "test_cluster_nodes.py::test_workers_wait_for_a_server_that_does_not_answer",
    ("a3c", "wait_for_go"): "test_waits.py::test_a_worker_waits_for_go_no_longer_than_that",
    ("bench.envpool_env", "_step_of.step"): "its racer's deadline: test_bench.py::test_a_racer_that_does_not_answer",
    ("bench.cluster", "SlowCartPole.step"): "a millisecond",
    ("bench.racer", "Racer.receive"): "test_bench.py::test_a_racer_that_does_not_answer",
    ("bench.racer", "Racer.close"): "its process was killed",  # and a deadline
    ("bench.racer", "serve"): "test_bench.py::test_a_racer_ends_with_its_parent",
    ("bench.solve", "_train_command"): "test_bench.py::test_a_whole_command_that_does_not_end",
    ("bench.updates", "one_round"): "its threads do a given number of updates, and each wait of theirs is the core's",
    ("bench.updates", "one_round.work"): CORE,  # and a barrier with a deadline
    ("check", "Crew._pause"): "test_check.py::test_a_worker_that_is_never_ready",  # later: until the budget is spent
    ("check", "Crew.stop"): "test_check.py::test_a_thread_that_does_not_leave",
    ("check", "submit_until_stopped"): CORE,
    ("cli.resume", "resume"): AT_ONCE,  # a lock that is taken or refused
    ("cli.train", "_train"): AT_ONCE,
    ("cluster.actors", "ServerActor"): "test_cluster_nodes.py::test_rounds_over_a_bad_link_end_with_the_same_bits",
    ("cluster.actors", "_Call.done"): "its caller's deadline: test_cluster_nodes.py::test_a_courier_gives_up",
    ("cluster.actors", "_results"): "a shard that is silent for 30 s ends its server, which is begun again",
    ("cluster.actors", "ended"): "its caller says how long",
    ("cluster.courier", "Courier.ask"): "test_cluster_nodes.py::test_a_courier_gives_up_after_its_retries",
    ("cluster.courier", "Courier.poll"): "test_cluster_nodes.py::test_a_courier_gives_up_after_its_retries",
    ("cluster.courier", "joined"): "test_cluster_nodes.py::test_a_courier_gives_up_after_its_retries",
    ("cluster.driver", "Driver._ask"): "test_cluster.py::test_sigkill_of_everything_a_cluster_is_made_of",
    ("cluster.driver", "Driver._hear_end"): AT_ONCE,  # what has ended
    ("cluster.driver", "Driver._left_in_order"): AT_ONCE,  # what has ended
    ("cluster.driver", "Driver._look"): "until the run ends, is stopped or fails; no machine: outage_s",
    ("cluster.driver", "Driver._restore"): "test_cluster.py::test_sigkill_of_everything_a_cluster_is_made_of",
    ("cluster.measure", "_deliver_s"): AT_ONCE,  # a server in this process
    ("cluster.node", "Node._heard"): "test_cluster_nodes.py::test_a_courier_gives_up_after_its_retries",
    ("cluster.node", "Node._wait_until_all_are_ready"): "until the driver says go, or the server is lost: Courier.ask",
    ("cluster.round", "RoundNode.run"): "until the driver says go, or the server is lost, as Courier.ask tells",
    ("cluster.server", "Server.join"): AT_ONCE,  # no thread's
    ("cluster.shards", "Shard.step"): AT_ONCE,  # lockfree, in a region of its own
    ("doctor", "report_need"): "test_launch.py::test_a_process_that_does_not_leave_is_killed",
    ("engines", "_NativeLoop.run"): CORE,
    ("torch_engine", "_TorchLoop.run"): CORE,
    ("exclusive", "exclusive.guarded"): AT_ONCE,
    ("forking", "_start_within"): "test_waits.py::test_a_silent_forkserver_is_replaced",
    ("forking", "_give_up"): "test_waits.py::test_ctrl_c_while_the_forkserver_is_silent",
    ("forking", "Forkserver.kill"): "test_waits.py::test_a_forkserver_that_does_not_die_is_not_waited_for",
    ("lab.replay", "_Walk._submit"): AT_ONCE,  # lockfree, in a region of its own
    ("lab.crew", "_results"): "comes back ten times a second; a run has its env steps, and ends",
    ("lab.player", "Player.update"): CORE,
    ("logs", "_Stdout.write"): AT_ONCE,  # what a console has captured
    ("launch", "Crew._wait"): "test_waits.py::test_a_worker_that_is_never_ready",  # once ready: test_stuck.py
    ("launch", "Crew._see_off"): "test_waits.py::test_a_thread_that_does_not_leave",
    ("lifeline", "_before_fork"): "test_forking.py::test_a_fork_waits_until_writers_are_known_but_not_for_ever",
    ("lifeline", "end_with_writer"): AT_ONCE,
    ("lifeline", "forks_held_up"): "test_waits.py::test_another_thread_that_never_ends_its_start",
    ("pictures", "Window.add"): AT_ONCE,  # the events that there are
    ("shared", "serve_until_stopped"): "test_waits.py::test_a_learner_that_does_not_leave",
    ("updates", "flush_log"): "test_waits.py::test_log_rows_that_nobody_reads",
    ("worker", "ProcessWorker._listen"): "test_launch.py::test_a_message_is_short_enough_to_arrive_in_one_piece",
    ("worker", "ProcessWorker.alive"): AT_ONCE,
    ("worker", "ProcessWorker._exit_code"): "test_death.py::test_workers_outlive_their_forkserver",
    ("worker", "ProcessWorker.end"): "test_waits.py::test_a_process_that_does_not_die",
}


def waits(tree):
    """The functions of a room in which something is called, or a lock held, that may wait."""
    names = {"join", "wait", "waitid", "waitpid", "sleep", "poll", "recv", "recv_bytes", "get", "acquire", "result"}
    names |= {"communicate", "select", "check_call", "check_output", "serve", "settle", "submit", "submit_many"}
    found = set()

    def may_wait(node):
        if isinstance(node, ast.With):
            return any("lock" in ast.unparse(item.context_expr).lower() for item in node.items)
        if not isinstance(node, ast.Call):
            return False
        of = getattr(node.func, "value", None)
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if isinstance(of, ast.Constant) or (name == "get" and node.args):  # "".join(...), dict.get(key)
            return False
        return name in names or ast.unparse(node.func) in ("subprocess.run", "worker.run")

    def visit(node, scope):
        for child in ast.iter_child_nodes(node):
            if may_wait(child):
                found.add(".".join(scope))
            inner = isinstance(child, (ast.FunctionDef, ast.ClassDef))
            visit(child, [*scope, child.name] if inner else scope)

    visit(tree, [])
    return found


def test_every_wait_is_listed():
    found = set()
    for path in PACKAGE.rglob("*.py"):
        room = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        found |= {(room, function) for function in waits(ast.parse(path.read_text()))}
    assert found == set(WAITS)


def test_what_is_listed_exists():
    for how in WAITS.values():
        if how.startswith("test_"):
            file, name = how.split("::")
            assert f"def {name}(" in (TESTS / file).read_text(), how


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("def f(t):\n    t.join()", {"f"}),
        ("class C:\n    def f(self):\n        with self._lock:\n            pass", {"C.f"}),
        ("def f(q):\n    return q.get()", {"f"}),
        ("def f(d):\n    return ', '.join(d.get(0))", set()),
        ("import time\ntime.sleep(1)", {""}),
        ("def f():\n    subprocess.run(['true'])", {"f"}),
    ],
)
def test_the_list_would_notice(code, expected):
    assert waits(ast.parse(code)) == expected


# ---- the parent's ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_a_worker_that_is_never_ready(backend, monkeypatch):
    let_go = threading.Event()
    monkeypatch.setattr("failing_work.time.sleep", let_go.wait)
    monkeypatch.setattr(launch, "START_DEADLINE_S", 3.0)
    left = {"thread": pytest.warns(WorkerStuckWarning, match="did not leave within 1 s"), "process": nullcontext()}
    try:
        with left[backend]:
            error = run(backend, "never ready", "end")["error"]
    finally:
        let_go.set()
    assert isinstance(error, TimeoutError)
    assert str(error).startswith("worker 0 (") and str(error).endswith(") was not ready within 3 s")
    assert children() == []


def test_a_thread_that_does_not_leave(monkeypatch):
    let_go = threading.Event()
    monkeypatch.setattr(signal, "pause", let_go.wait)  # what "hang" calls
    monkeypatch.setattr(launch, "STOP_DEADLINE_S", 0.1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch.Crew, "wait_done", lambda crew: None)
        error = run("thread", "hang")["error"]
        let_go.set()
    assert isinstance(error, WorkerError)
    assert str(error).startswith("worker 0 (thread ") and str(error).endswith("did not leave within 0.1 s")


def test_a_learner_that_does_not_leave(monkeypatch):
    let_go = threading.Event()
    monkeypatch.setattr(launch, "STOP_DEADLINE_S", 0.1)
    monkeypatch.setattr(launch, "serve_until_stopped", lambda session: let_go.wait())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch.Crew, "wait_done", lambda crew: None)
        error = run("thread", "end", scheme="queue")["error"]
        let_go.set()
    assert isinstance(error, WorkerError)
    assert "the learner (thread " in str(error) and str(error).endswith("did not leave within 0.1 s")


def test_a_process_that_does_not_die(monkeypatch):
    """As one in an uninterruptible system call: it is named, and nothing of it is taken back."""
    monkeypatch.setattr(worker, "STOP_DEADLINE_S", 0.1)
    monkeypatch.setattr(launch, "STOP_DEADLINE_S", 0.1)
    immortal = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch.Crew, "wait_done", lambda crew: immortal.extend(s.worker for s in crew._workers))
        patch.setattr(worker.ProcessWorker, "kill", lambda worker: False)
        outcome = run("process", "hang")
    assert str(outcome["error"]) == f"{immortal[0].name} did not leave within 0.1 s"
    assert outcome["observer"].incarnation(0) == 0 and outcome["ledger"].deaths == 0
    monkeypatch.setattr(worker, "STOP_DEADLINE_S", 10.0)
    assert immortal[0].end()


# ---- the forkserver's -----------------------------------------------------------------------------------------


@pytest.fixture
def silent_forkserver(monkeypatch):
    """One that is stopped, and is not seen to be."""
    run("process", "end")
    server = my_forkserver()
    os.kill(server, signal.SIGSTOP)
    monkeypatch.setattr(forking, "is_stopped", lambda task: False)
    return server


def test_a_silent_forkserver_is_replaced(silent_forkserver, monkeypatch):
    kill = forking.Forkserver.kill

    def kill_and_be_patient(self):
        kill(self)
        monkeypatch.setattr(forking, "START_DEADLINE_S", 120.0)

    monkeypatch.setattr(forking, "START_DEADLINE_S", 0.5)
    monkeypatch.setattr(forking.Forkserver, "kill", kill_and_be_patient)
    assert "error" not in run("process", "end")
    assert my_forkserver() not in (None, silent_forkserver)


def test_forkservers_that_stay_silent_are_an_error(silent_forkserver, monkeypatch):
    monkeypatch.setattr(forking, "START_DEADLINE_S", 0.001)
    error = run("process", "end")["error"]
    assert isinstance(error, WorkerError)
    assert str(error) == "the forkserver did not start worker 0: no answer within 0.001 s"


def test_ctrl_c_while_the_forkserver_is_silent(silent_forkserver):
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        run("process", "end")
    assert children() == []


def test_a_forkserver_that_does_not_die_is_not_waited_for(monkeypatch):
    run("process", "end")
    server = my_forkserver()
    monkeypatch.setattr(forking, "STOP_DEADLINE_S", 0.1)
    monkeypatch.setattr(forking.os, "kill", lambda pid, number: None)
    forking.forkserver_with("").kill()
    assert my_forkserver() == server


def test_another_thread_that_never_ends_its_start(monkeypatch):
    monkeypatch.setattr(forking, "START_DEADLINE_S", 0.05)
    started, let_go = threading.Event(), threading.Event()

    def start():
        with forks_held_up(1.0):
            started.set()
            let_go.wait(60)

    thread = threading.Thread(target=start)
    thread.start()
    started.wait(60)
    try:
        error = run("process", "end")["error"]
    finally:
        let_go.set()
        thread.join()
    assert isinstance(error, TimeoutError)
    assert str(error) == "another thread has been starting a process for 0.05 s"


# ---- a worker's -----------------------------------------------------------------------------------------------


def test_a_worker_waits_for_go_no_longer_than_that(monkeypatch):
    monkeypatch.setattr(a3c, "START_DEADLINE_S", 0.05)
    session = _core.Session(_core.Region.create(workers=1, parameters=1), 0)
    with pytest.raises(TimeoutError, match=r"the parent did not start the run within 0\.05 s"):
        a3c.wait_for_go(session)


@pytest.mark.parametrize(("stopped", "constant"), [(False, "_FLUSH_DEADLINE_S"), (True, "_STOPPED_FLUSH_S")])
def test_log_rows_that_nobody_reads(stopped, constant, monkeypatch):
    monkeypatch.setattr(updates, constant, 0.05)
    region = _core.Region.create(workers=1, parameters=1, log_rows=2)
    observer, session = observer_of(region), _core.Session(region, 0)
    recorder = Recorder(session, 0)
    rollout = Rollout(*[np.zeros((1, 1))] * 5, episodes=[(1.0, 1)] * 5)
    recorder.record(rollout, GradientStats(*[0.0] * 8), 0, 0.1, 0.0, "applied")
    if stopped:
        observer.request_stop()
    before = observer.heartbeat(0)
    with pytest.raises(TimeoutError, match=r"worker 0: \d log rows were not read in time"):
        recorder.flush(lambda: None)
    assert observer.heartbeat(0) > before  # it waits, and says so
