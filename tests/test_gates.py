"""The gates on whole runs, in parts: what they must not let through. What they catch in a run is theirs to show."""

import os
import subprocess
import sys

import mutants
import pytest
import run
import signals
import soak
import workers_killed
from whole_runs import not_reached

import fastac
from fastac.errors import LedgerError, WorkerDiedError


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """The folder of one finished run, runs/x, whose model is the reference."""
    runs = tmp_path_factory.mktemp("beside") / "runs"
    (runs / "x").mkdir(parents=True)
    model = fastac.A2C(n_steps=8, hidden_sizes=(4,), seed=0).learn(32)
    model.save(runs / "x")
    (runs / "x" / "run.json").write_text('{"status": "done"}')
    (runs / "x" / "compare.json").write_text('{"runs": [1, 2]}')
    return runs


SAVED = "stopped: {} of 32 env steps done{}; saved in runs/x/model.safetensors"
REST = "; `fastac resume runs/x` does the rest"


def test_a_true_last_line(runs, tmp_path):
    assert signals.faults_of_folder(SAVED.format(32, ""), runs) == []
    assert signals.faults_of_folder("stopped: 2 of 3 runs done, tables in runs/x", runs) == []
    assert signals.faults_of_folder("stopped: nothing was trained yet", tmp_path / "runs") == []


@pytest.mark.parametrize(
    "line",
    [
        SAVED.format(31, ""),
        SAVED.format(32, REST),
        SAVED.format(32, "").replace("/x/", "/y/"),
        SAVED.format(32, "").replace("model.", "run.").replace("safetensors", "json"),
        "stopped: 3 of 3 runs done, tables in runs/x",
        "stopped: nothing was trained yet",
        "stopped: no run was under way",
    ],
)
def test_a_last_line_that_is_not_true(line, runs):
    (fault,) = signals.faults_of_folder(line, runs)
    assert fault.startswith(line)


@pytest.mark.parametrize("record", ['{"status": "running"}', ""])
def test_a_last_line_with_another_record(record, runs, tmp_path):
    os.symlink(runs / "x" / "model.safetensors", tmp_path / "model.safetensors")
    (tmp_path / "run.json").write_text(record)
    line = SAVED.format(32, "").replace("runs/x", str(tmp_path))
    assert len(signals.faults_of_folder(line, runs)) == 1


def test_every_phase_must_be_met_by_so_many_trials():
    assert not_reached(["a", "b"], ["a"] * 20, 20) == ["b"]
    assert not_reached(["a", "b"], ["a"] * 19, 19) == not_reached(["a", "b"], ["a", "b"], 20) == []


def test_a_mutant_that_was_skipped_was_not_caught():
    caught = mutants.Verdict(mutants.MUTANTS[0], True, "CHECK failed")
    assert mutants.conclusion(2, [caught, caught])[0] is True
    held, line = mutants.conclusion(3, [caught, caught])
    assert held is False and line.startswith("mutants: 2 of 3 wrong versions of the core caught, 1 skipped")


def test_a_soak_that_killed_nobody_or_ended_early():
    died = WorkerDiedError("three times")
    assert soak.faults_of_all(40, 300, [died, died]) == []
    assert soak.faults_of_all(40, 300, [died] * 3) == ["3 of 40 runs ended in an error, expected 5% at most"]
    assert soak.faults_of_all(40, 300, [LedgerError("off by one")]) == ["LedgerError('off by one')"]
    assert soak.faults_of_all(40, 0, []) == ["nobody was killed"]


def test_what_is_left_by_a_forkserver_that_is_gone(monkeypatch):
    model = fastac.A2C(n_steps=8, hidden_sizes=(4,), seed=0).learn(32)
    monkeypatch.setattr(workers_killed, "forkservers", list)
    assert workers_killed.faults_of(model) == ["the forkserver is gone"]
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as orphan:
        assert workers_killed.faults_of(model, [orphan.pid]) == [f"left over: {[orphan.pid]}"]
    assert workers_killed.faults_of(model, [orphan.pid]) == []


def script(folder, *statuses):
    """A command that ends with these exit statuses, one after the other."""
    code = (
        "import pathlib, sys; turns = pathlib.Path(sys.argv[1]); n = len(turns.read_text()) if turns.exists() else 0; "
        f"turns.write_text('x' * (n + 1)); print('turn', n); sys.exit({list(statuses)}[n])"
    )
    return [sys.executable, "-c", code, str(folder / f"turns{len(list(folder.iterdir()))}{statuses}")]


@pytest.mark.parametrize(
    ("statuses", "held", "words"),
    [
        ([0], 1, ["turn 0"]),
        ([3, 0], 1, ["TOO SLOW turn 0", "turn 1"]),
        ([3, 3], 0, ["TOO SLOW turn 0", "TOO SLOW turn 1"]),
        ([3, 1], 0, ["TOO SLOW turn 0", "FAILED one"]),
        ([1, 0], 0, ["FAILED one"]),
        ([2, 0], 0, ["FAILED one"]),
    ],
)
def test_only_a_missed_time_is_tried_again(statuses, held, words, tmp_path, capsys):
    one = run.gate("one", [])
    assert run.run_all([(one, [script(tmp_path, *statuses)])], None) == held
    said = capsys.readouterr().out.splitlines()
    assert [line.startswith(word) for line, word in zip(said, words, strict=True)] == [True] * len(words)


def test_a_mutant_that_was_not_tried_keeps_its_row():
    first, second, third = mutants.MUTANTS[:3]
    page = mutants.report([mutants.Verdict(first, True, "seed 1: old"), mutants.Verdict(second, True, "seed 2: old")])
    page = mutants.report([mutants.Verdict(second, True, "seed 3: new"), mutants.Verdict(third, False, "")], page)
    rows = [line for line in page.splitlines() if line.startswith("| ")][2:]
    assert [row.split(" | ")[0][2:] for row in rows] == [first.name, second.name, third.name]
    assert [row.split(" | ")[-1] for row in rows] == ["seed 1: old |", "seed 3: new |", "**not caught** |"]
