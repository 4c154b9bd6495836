"""Workers that stand still: told once for each standstill, and not waited for once the work is done."""

import os
import signal
import threading
import time
import warnings

import numpy as np
import pytest
from crews import children, run

from fastac import WorkerDeathWarning, WorkerStuckWarning, _core, launch, watch
from fastac.shared import observer_of


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(watch, "STUCK_AFTER_S", 1.5)  # a loaded machine may hold up a healthy worker for a while
    monkeypatch.setattr(watch, "LOOK_EVERY_S", 0.05)


def stopped_children():
    return [pid for pid in children() if watch.is_stopped(str(pid))]


@pytest.mark.parametrize(("how", "standstills"), [("stop once", 1), ("stop twice", 2)])
def test_each_standstill_is_told_once(how, standstills):
    told, seen = [], {}

    def tick():
        """Lets a stopped worker go on, a while after it was told."""
        for pid in stopped_children() if len(told) > len(seen) else []:
            if len(told) - 1 not in seen and time.monotonic() > told[-1][0] + 1.0:
                seen[len(told) - 1] = pid
                os.kill(pid, signal.SIGCONT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(warnings, "warn", lambda message, stacklevel: told.append((time.monotonic(), message)))
        outcome = run("process", how, "end", tick=tick, on_death="restart")
    assert "error" not in outcome and outcome["ledger"].deaths == 0
    assert len(told) == standstills
    for k, (_, message) in enumerate(told):
        assert isinstance(message, WorkerStuckWarning)
        words = str(message)
        assert words.startswith(f"worker 0 (process {seen[k]}) has given no sign of life for ")
        assert words.endswith(f"; it is stopped (SIGSTOP); `kill -CONT {seen[k]}` lets it go on")


def test_what_hangs_is_told_to_be_asleep():
    with pytest.warns() as told:
        run("process", "hang", "end", finished=lambda: True)
    assert "; it is sleeping" in str(told[0].message)


def test_who_stands_still_when_the_work_is_done_is_killed():
    with pytest.warns() as told:
        outcome = run("process", "stop once", "end", on_death="restart", finished=lambda: True)
    assert [warning.category for warning in told] == [WorkerStuckWarning, WorkerDeathWarning]
    assert "was killed by SIGKILL; the work is done all the same" in str(told[1].message)
    assert "error" not in outcome
    assert (outcome["ledger"].deaths, outcome["ledger"].restarts) == (1, 0)
    assert children() == []


def test_nobody_is_killed_while_the_work_goes_on():
    alive = []

    def tick():
        if len(told) == 1 and len(alive) < 20:
            alive.append(len(stopped_children()))
            if len(alive) == 20:
                os.kill(stopped_children()[0], signal.SIGCONT)

    with pytest.warns(WorkerStuckWarning) as told:
        outcome = run("process", "stop once", "end", tick=tick, finished=lambda: False)
    assert alive == [1] * 20 and outcome["ledger"].deaths == 0


def test_one_that_is_never_ready_is_followed_too_and_not_waited_for_in_the_end(monkeypatch):
    monkeypatch.setattr(launch, "START_DEADLINE_S", 20.0)
    with pytest.warns() as told:
        outcome = run(
            "process",
            "die once, then never ready",
            "end",
            on_death="restart",
            finished=lambda: any(warning.category is WorkerStuckWarning for warning in told),
        )
    assert [warning.category for warning in told] == [WorkerDeathWarning, WorkerStuckWarning, WorkerDeathWarning]
    assert str(told[2].message).endswith("was killed by SIGKILL; the work is done all the same")
    assert "error" not in outcome
    assert (outcome["ledger"].deaths, outcome["ledger"].restarts) == (2, 1)


@pytest.fixture
def hanging(monkeypatch):
    """What is set as soon as a thread that does "hang" hangs, until the end of the test."""
    hanging, let_go = threading.Event(), threading.Event()
    monkeypatch.setattr(signal, "pause", lambda: hanging.set() or let_go.wait(60))
    monkeypatch.setattr(launch, "STOP_DEADLINE_S", 0.1)
    yield hanging
    let_go.set()


def test_a_thread_that_stands_still_does_not_hide_that_the_work_is_done(hanging):
    with pytest.warns(WorkerStuckWarning) as told:
        outcome = run("thread", "hang", "end", finished=lambda: True)
    assert "error" not in outcome and outcome["ledger"].applied == 6
    name = str(told[0].message).partition(" has given no sign of life ")[0]
    assert name.startswith("worker 0 (thread ")
    assert str(told[1].message) == f"{name} did not leave within 0.1 s; the run ends all the same"


def test_a_thread_that_ctrl_c_leaves_behind_is_named(hanging):
    def tick():
        if hanging.is_set():
            hanging.clear()
            raise KeyboardInterrupt

    with (
        pytest.warns(WorkerStuckWarning, match=r"^worker 0 \(thread \d+\) did not leave within 0.1 s"),
        pytest.raises(KeyboardInterrupt),
    ):
        run("thread", "hang", "end", tick=tick)


# ---- the watch by itself --------------------------------------------------------------------------------------


class Clock:
    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now


def watched(monkeypatch):  # no fixture: pytest would hold the region until the caretaker has looked
    clock = Clock()
    monkeypatch.setattr(watch, "time", clock)
    monkeypatch.setattr(watch, "STUCK_AFTER_S", 10.0)
    monkeypatch.setattr(watch, "LOOK_EVERY_S", 1.0)
    region = _core.Region.create(workers=1, parameters=2)
    observer = observer_of(region)
    observer.initialize(np.zeros(2, np.float32))
    its = watch.Watch(observer)
    its.follow(0)

    def look(seconds):
        clock.now += seconds
        return its.news()

    return its, look, _core.Session(region, 0)


def test_news_come_after_ten_seconds_and_again_after_it_moved(monkeypatch):
    its, look, worker = watched(monkeypatch)
    assert [look(1.0) for _ in range(9)] == [{}] * 9 and not its.stuck(0)
    assert look(1.0) == {0: 10.0} and its.stuck(0)
    assert [look(1.0) for _ in range(20)] == [{}] * 20
    worker.beat()
    assert look(1.0) == {} and not its.stuck(0)
    assert [look(1.0) for _ in range(9)] == [{}] * 9
    assert look(1.0) == {0: 10.0}


def test_who_is_forgotten_is_no_news(monkeypatch):
    its, look, _ = watched(monkeypatch)
    its.forget(0)
    assert [look(1.0) for _ in range(30)] == [{}] * 30 and not its.stuck(0)


def test_a_pause_of_the_watcher_is_no_standstill(monkeypatch):
    _, look, _ = watched(monkeypatch)
    assert look(3600.0) == {}
    assert [look(1.0) for _ in range(7)] == [{}] * 7  # the pause counts for 2 s
    assert look(1.0) == {0: 10.0}
