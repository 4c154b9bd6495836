"""`fastac check`: all is exact here, and what is planted, a loss, a doubling or a death, is noticed."""

import json
import os
import signal
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from fastac import check
from fastac.cli import main
from fastac.shared import Ledger

EXACT = Ledger(
    begun=101,
    published=100,
    aborted=1,
    applied=98,
    merged=0,
    rejected_nonfinite=1,
    rejected_stale=1,
    pending=0,
    retries=0,
    staleness_mean=0.0,
    staleness_max=0,
    lost_fraction=None,
)
PARAMS = -check.sum_of_first(check.gradients(0), 98)


def faults_of(scheme="lockfree", kills=1, ledger=EXACT, params=PARAMS):
    return check.find_faults(scheme, kills, ledger, params.astype(np.float32), PARAMS)


def run_case(scheme, backend, workers=2):
    return check.run_case(scheme, backend, workers, time.monotonic() + 0.3, lambda: None)


# ---- all is exact ---------------------------------------------------------------------------------------------


def test_every_case_on_this_machine():
    result = CliRunner().invoke(main, ["check", "--seconds", "4", "--workers", "2", "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["exact"] is True and report["workers"] == 2 and report["machine"]["cores"] >= 1
    assert [(case["scheme"], case["backend"]) for case in report["cases"]] == check.cases()
    for case in report["cases"]:
        assert case["faults"] == [] and case["ledger"]["published"] == case["ledger"]["applied"] > 0
        assert case["moved"] == 0 or case["scheme"] == "hogwild"
        assert (case["kills"] > 0) == (case["backend"] == "killed")


def test_the_sum_is_that_of_the_obvious_loop():
    rows = np.array([[1, -2], [3, 0], [-1, 2]], np.float32)
    total = np.zeros(2)
    for n in range(8):
        assert check.sum_of_first(rows, n).tolist() == total.tolist()
        total += rows[n % 3]


def test_gradients_differ_from_worker_to_worker_and_from_one_to_the_next():
    rows = np.concatenate([check.gradients(0), check.gradients(1)])
    assert len(np.unique(rows, axis=0)) == 2 * check.N_ROWS
    assert rows.dtype == np.float32 and set(np.unique(rows)) == set(range(-check.LARGEST, check.LARGEST + 1))
    assert (check.gradients(1) == rows[check.N_ROWS :]).all()  # the same in every process


def test_workers_end_where_sums_would_no_longer_be_exact(monkeypatch):
    monkeypatch.setattr(check, "EXACT", 2 * check.LARGEST * 50)
    for backend in check.BACKENDS:
        result = run_case("lockfree", backend)
        assert result.faults == () and result.ledger.published <= 100
        # Whoever takes the place of the killed may not have begun before the time was over.
        assert result.ledger.published == 100 or backend == "killed"


# ---- what is planted is noticed -------------------------------------------------------------------------------


def test_exact_books_have_no_faults():
    assert faults_of("lock") == []


def test_one_float_changed():
    params = PARAMS.copy()
    params[7] += 1
    (fault,) = faults_of(params=params)
    assert f"1 of 4,675 parameters are not the sum of the published gradients: params[7] is {params[7]}" in fault
    assert faults_of("hogwild", params=params) == []  # which promises its counts alone


def test_one_gradient_lost_and_another_one_doubled():
    rows = check.gradients(0).astype(np.int64)
    (fault,) = faults_of(params=PARAMS + rows[3] - rows[4])
    assert "parameters are not the sum" in fault


@pytest.mark.parametrize("field", ["begun", "published", "aborted", "applied", "rejected_stale", "pending"])
@pytest.mark.parametrize("by", [-1, 1])
@pytest.mark.parametrize("scheme", ["queue", "hogwild"])
def test_a_ledger_that_is_off_by_one(field, by, scheme):
    wrong = replace(EXACT, **{field: getattr(EXACT, field) + by})
    assert any("!=" in fault for fault in faults_of(scheme, ledger=wrong))


def test_more_unfinished_pushes_than_kills():
    (fault,) = faults_of(kills=0)
    assert "1 push was aborted, expected at most one for each of 0 kills" in fault


def silent(task, session, report):
    report(check.READY)
    while not session.stop_requested:
        time.sleep(0.001)
    return 0.0


def test_workers_that_publish_nothing(monkeypatch):
    monkeypatch.setattr(check, "submit_until_stopped", silent)
    monkeypatch.setattr(check, "_FIRST_DEADLINE_S", 0.1)
    assert run_case("lockfree", "threads").faults == ("no gradient was published: nothing was proved",)


def test_workers_that_are_slow_are_waited_for(monkeypatch):
    def slow(task, session, report):
        report(check.READY)
        time.sleep(1.0)
        session.submit_many(check.gradients(task.worker), 10, 1.0)
        return 0.0

    monkeypatch.setattr(check, "submit_until_stopped", slow)
    result = run_case("lockfree", "threads")
    assert result.faults == () and result.ledger.published > 0


def test_nobody_is_killed_before_somebody_has_published(monkeypatch):
    crew = check.Crew("lockfree", "killed", 2)
    monkeypatch.setattr(check, "submit_until_stopped", silent)
    crew._kind = check.ThreadWorker
    monkeypatch.setattr(check, "_FIRST_DEADLINE_S", 0.1)
    crew.start(lambda: None)
    crew.work(time.monotonic() + 0.1, lambda: None)
    assert crew.stop() == [] and crew.kills == 0


def test_a_worker_that_submits_something_else(monkeypatch):
    def doubling(task, session, report):
        report(check.READY)
        grads = check.gradients(task.worker)
        grads[5] *= 2
        session.submit_many(grads, 100, 1.0)
        return 0.0

    monkeypatch.setattr(check, "submit_until_stopped", doubling)
    result = run_case("lock", "threads")
    assert result.moved > 0 and len(result.faults) == 1 and "parameters are not the sum" in result.faults[0]


def test_a_worker_that_raises(monkeypatch):
    def raising(task, session, report):
        report(check.READY)
        raise ValueError("no more")

    monkeypatch.setattr(check, "submit_until_stopped", raising)
    assert any("ValueError: no more" in fault for fault in run_case("queue", "threads").faults)


def test_a_worker_that_is_killed_by_someone_else():
    crew = check.Crew("lockfree", "processes", 2)
    try:
        crew.start(lambda: None)
        os.kill(int(crew._at[1].name.partition("process ")[2].rstrip(")")), signal.SIGKILL)
        with pytest.raises(check.WorkerDiedError, match=r"worker 1 .* was killed by SIGKILL"):
            crew.work(time.monotonic() + 30, lambda: None)
    finally:
        assert crew.stop() == []


def test_a_worker_that_is_never_ready(monkeypatch):
    let_go = threading.Event()

    def silent(task, session, report):
        let_go.wait(60)
        return 0.0

    monkeypatch.setattr(check, "submit_until_stopped", silent)
    monkeypatch.setattr(check, "START_DEADLINE_S", 0.1)
    crew = check.Crew("lockfree", "threads", 2)
    try:
        with pytest.raises(TimeoutError, match=r"2 workers were not ready within 0\.1 s"):
            crew.start(lambda: None)
    finally:
        let_go.set()
        crew.stop()


def test_a_thread_that_does_not_leave(monkeypatch):
    let_go = threading.Event()

    def hanging(task, session, report):
        report(check.READY)
        let_go.wait(60)
        return 0.0

    monkeypatch.setattr(check, "submit_until_stopped", hanging)
    monkeypatch.setattr(check, "_STOP_DEADLINE_S", 0.1)
    monkeypatch.setattr(check, "_FIRST_DEADLINE_S", 0.1)
    try:
        faults = run_case("lockfree", "threads", 1).faults
    finally:
        let_go.set()
    assert [fault for fault in faults if fault.startswith("worker 0 (") and "did not leave" in fault]


# ---- the command ----------------------------------------------------------------------------------------------


def results_with(**changes):
    made = [check.Result(scheme, backend, 3, EXACT, 0, ()) for scheme, backend in check.cases()]
    racy = replace(EXACT, lost_fraction=0.00123)
    made = [replace(one, ledger=racy, moved=4000) if one.scheme == "hogwild" else one for one in made]
    return [replace(made[0], **changes), *made[1:]]


def test_a_fault_is_shown_and_is_exit_code_1(monkeypatch):
    monkeypatch.setattr(check, "run_all", lambda *_: iter(results_with(faults=("params[7] is 3, expected 4",))))
    result = CliRunner(env={"COLUMNS": "80"}).invoke(main, ["check"])
    assert result.exit_code == 1
    assert "lockfree, threads: params[7] is 3, expected 4" in result.output and "FAILED" in result.output


@pytest.mark.parametrize(
    ("moved", "words"),
    [(4000, "under hogwild 0.123% to 0.123% of the additions were overwritten"), (0, "it lost nothing this time")],
)
def test_the_table_fits_into_80_columns_and_tells_of_hogwild(moved, words, monkeypatch):
    rows = [replace(one, moved=min(one.moved, moved)) for one in results_with()]
    monkeypatch.setattr(check, "run_all", lambda *_: iter(rows))
    result = CliRunner(env={"COLUMNS": "80"}).invoke(main, ["check"])
    assert result.exit_code == 0 and max(map(len, result.output.splitlines())) <= 80
    assert words in " ".join(result.output.split()) and "…" not in result.output
    assert "gradients was applied exactly once." in result.output
