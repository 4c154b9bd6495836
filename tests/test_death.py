"""Workers that die while the run goes on: replaced, missed or mourned, as the policy says, and the books stay right."""

import errno
import os
import signal
import threading
import time

import numpy as np
import pytest
from crews import children, my_forkserver, run

import fastac
from fastac import A3C, WorkerDeathWarning, WorkerDiedError, WorkerError, _core, a3c, engines, forking, launch, seeding
from fastac._core import UPDATE_SCHEMES
from fastac.config import Config
from fastac.normalization import Statistics
from fastac.problem import CARTPOLE_PROBLEM
from fastac.rollout import Collector
from fastac.spaces import CARTPOLE

DIED = r"worker 0 \(process \d+\) was killed by SIGKILL; "
REPLACED = DIED + r"worker 0 \(process \d+\) takes its place"


@pytest.mark.parametrize("scheme", UPDATE_SCHEMES)
def test_restart_puts_another_in_its_place(scheme):
    with pytest.warns(WorkerDeathWarning, match=REPLACED) as told:
        outcome = run("process", "die once", "end", scheme=scheme, on_death="restart")
    assert len(told) == 1
    assert "error" not in outcome
    assert outcome["ledger"].published == 3 + 3 + 3
    assert (outcome["ledger"].deaths, outcome["ledger"].restarts) == (1, 1)
    assert "1 death, 1 restart" in outcome["ledger"].text()
    assert children() == []


def test_who_dies_before_its_last_word_dies_in_its_seat():
    """All its work is done, and nobody was told: the next one there is of another incarnation."""
    with pytest.warns(WorkerDeathWarning, match=REPLACED):
        outcome = run("process", "die at its last word", "end", on_death="restart")
    assert "error" not in outcome and outcome["ledger"].published == 3 + 3 + 3
    assert (outcome["ledger"].deaths, outcome["ledger"].restarts) == (1, 1)
    assert outcome["observer"].incarnation(0) >= 1


def test_a_worker_may_die_again_and_again_as_long_as_it_works():
    class Enough(Exception):
        pass

    def tick():
        if observer_of_deaths and len(observer_of_deaths) >= 5:
            raise Enough

    observer_of_deaths = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch.warnings, "warn", lambda message, stacklevel: observer_of_deaths.append(message))
        outcome = run("process", "die", "work", tick=tick, on_death="restart")
    assert isinstance(outcome["error"], Enough)
    assert outcome["ledger"].deaths >= 5 and outcome["ledger"].published >= 15


@pytest.mark.parametrize("when", ["die unready", "die in vain"])
def test_a_crash_loop_ends_the_run(when):
    with pytest.warns(WorkerDeathWarning, match=REPLACED) as told:
        outcome = run("process", when, "work", on_death="restart")
    assert len(told) == 2
    assert isinstance(outcome["error"], WorkerDiedError)
    assert "was killed by SIGKILL, like 2 before it, and none published a gradient" in str(outcome["error"])
    assert (outcome["ledger"].deaths, outcome["ledger"].restarts) == (3, 2)
    assert children() == []


@pytest.mark.parametrize("when", ["die unready", "die"])
def test_continue_goes_on_without_it(when):
    with pytest.warns(WorkerDeathWarning, match=DIED + "the run goes on with 2 of 3 workers"):
        outcome = run("process", when, "end", "end", on_death="continue")
    assert "error" not in outcome
    assert outcome["ledger"].published == (0 if when == "die unready" else 3) + 3 + 3
    assert (outcome["ledger"].deaths, outcome["ledger"].restarts) == (1, 0)


def test_continue_ends_with_the_last_worker():
    outcome = run("process", "die", on_death="continue")
    assert isinstance(outcome["error"], WorkerDiedError)
    assert str(outcome["error"]).endswith("was killed by SIGKILL; it was the last worker")


def test_fail_ends_the_run():
    outcome = run("process", "die", "work", on_death="fail")
    assert isinstance(outcome["error"], WorkerDiedError)
    assert (outcome["ledger"].deaths, outcome["ledger"].restarts) == (1, 0)


def test_an_exception_ends_the_run_under_every_policy():
    for policy in fastac.config.ON_WORKER_DEATH:
        assert isinstance(run("process", "raise", "work", on_death=policy)["error"], WorkerError)


def test_a_death_after_the_work_is_done_is_not_answered():
    with pytest.warns(WorkerDeathWarning, match="the work is done all the same"):
        outcome = run("process", "die", "end", on_death="restart", finished=lambda: True)
    assert "error" not in outcome
    assert (outcome["ledger"].deaths, outcome["ledger"].restarts) == (1, 0)


def test_a_kernel_without_pidfds(monkeypatch):
    def pidfd_open(pid, flags=0):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", pidfd_open)
    with pytest.warns(WorkerDeathWarning, match=REPLACED):
        assert "error" not in run("process", "die once", "end", on_death="restart")
    assert run("process", "hang", "raise")["ledger"].deaths == 1
    assert children() == []


# ---- random streams -------------------------------------------------------------------------------------------


def test_nobody_replays_what_the_dead_has_lived_through():
    first, second, third = (
        np.concatenate([words(7, 0, 2, 3, incarnation) for words in (seeding.env_words, seeding.action_words)])
        for incarnation in range(3)
    )
    assert np.array_equal(first[:3], seeding.env_words(7, 0, 2, 3))
    everything = np.concatenate([first, second, third])
    assert len(np.unique(everything, axis=0)) == len(everything) == 18
    obs = [Collector(Config(seed=7), 0, 2, incarnation=incarnation).envs.obs.copy() for incarnation in (0, 1)]
    assert not np.isin(obs[0], obs[1]).any()


def test_a_worker_takes_the_streams_of_its_incarnation(monkeypatch):
    class Asked(Exception):
        pass

    def native_worker(config, first, n_envs, call, incarnation, *others):
        raise Asked(first, call, incarnation)

    monkeypatch.setattr(engines, "native_worker", native_worker)
    config = fastac.A3CConfig(workers=2, n_envs=3, seed=0)
    region = _core.Region.create(workers=2, parameters=4)
    observer = _core.Session(region, 2)
    dead = _core.Session(region, 1)
    observer.reap(1)
    with pytest.raises(Asked) as asked:
        a3c.work(
            a3c.Task(config, 1, 5, 1, CARTPOLE_PROBLEM, Statistics.empty(config, CARTPOLE)),
            _core.Session(region, 1),
            lambda message: None,
        )
    assert asked.value.args == (3, 5, 1)
    with pytest.raises(_core.SeatLost):
        dead.beat()


# ---- the forkserver and the learner ---------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_workers_outlive_their_forkserver(number):
    """A death of the forkserver is none of its children's; a silent one is replaced when it is needed."""
    hit = []

    def tick():
        if not hit:
            hit.append(my_forkserver())
            os.kill(hit[0], number)

    with pytest.warns(
        WorkerDeathWarning, match=r"worker 0 \(process \d+\) ended in a way that its forkserver did not"
    ) as told:
        outcome = run("process", "work a while and die once", "work a while", tick=tick, on_death="restart")
    assert len(told) == 1
    assert "error" not in outcome
    assert (outcome["ledger"].deaths, outcome["ledger"].restarts) == (1, 1)
    assert my_forkserver() not in (None, hit[0])


def test_a_forkserver_that_keeps_dying_is_an_error(monkeypatch):
    ensure = forking.Forkserver.ensure_running

    def ensure_and_kill(self):
        ensure(self)
        self.kill()

    monkeypatch.setattr(forking.Forkserver, "ensure_running", ensure_and_kill)
    assert "the forkserver did not start worker 0: " in str(run("process", "end")["error"])


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_a_learner_that_raises_ends_the_run(backend, monkeypatch):
    def serve(session):
        session.serve(20)
        raise RuntimeError("the learner fell over")

    monkeypatch.setattr(launch, "serve_until_stopped", serve)
    error = run(backend, "work", "work", scheme="queue")["error"]
    assert isinstance(error, WorkerError)
    assert str(error).startswith("the learner failed:") and "RuntimeError: the learner fell over" in str(error)


def test_a_learner_that_raises_in_the_end_is_heard(monkeypatch):
    def serve(session):
        while not session.stop_requested:
            session.serve(20)
        raise RuntimeError("the learner fell over")

    monkeypatch.setattr(launch, "serve_until_stopped", serve)
    assert "the learner fell over" in str(run("thread", "end", scheme="queue")["error"])


# ---- whole runs -----------------------------------------------------------------------------------------------


def kill_some(n, seconds_between):
    """Kills one worker of this process after another, in a thread."""

    def kill():
        random = np.random.default_rng(0)
        deadline = time.monotonic() + 120
        for _ in range(n):
            while not (alive := children()) and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(seconds_between)
            if alive := children():
                os.kill(int(random.choice(alive)), signal.SIGKILL)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("update", UPDATE_SCHEMES)
def test_a_run_with_deaths_learns_and_keeps_its_books(update):
    model = A3C(workers=3, update=update, seed=0, max_episode_steps=200, engine="torch")
    killer = kill_some(3, 0.2)  # all of them within the run, which takes a second or more
    with pytest.warns(WorkerDeathWarning):
        model.learn(120_000)
    killer.join(60)
    ledger, history = model.ledger, model.history
    assert 1 <= ledger.restarts <= ledger.deaths <= 3
    assert 120_000 <= model.num_timesteps == 32 * ledger.applied  # every applied gradient counts its env steps
    # A worker may die after its gradient was applied and before its row was logged: nothing else is missing.
    rows = history.updates["env_steps"]
    assert ledger.applied - ledger.deaths <= len(rows) <= ledger.applied
    assert rows[-1] == 32 * len(rows) and (np.diff(rows) > 0).all()
    assert history.time_to(150.0) is not None


def test_staleness_limit_reaches_the_region_and_the_history():
    model = A3C(workers=4, backend="thread", seed=0, max_staleness=0, staleness_lr="inverse", n_steps=4).learn(40_000)
    assert model.ledger.staleness_max == 0
    assert model.ledger.rejected_stale == (model.history.updates["applied"] == 0).sum() > 0
    assert model.history.updates["applied"].sum() == model.ledger.applied == model.version
