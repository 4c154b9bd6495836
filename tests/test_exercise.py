"""The classroom exercise: exactly the rows that were asked for, true to the history; answers that the runs carry."""

import csv
import importlib
import json
import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import fastac
from fastac.cli import main
from fastac.cli.exercise import exercise
from fastac.compare.experiment import ARMS
from fastac.exercise import plots, runs, tables
from fastac.exercise.answers import answers, compared
from fastac.exercise.figures import counts, of_first, of_later, reached
from fastac.exercise.runs import LATER_ARMS, Exercise, Runs, first_runs, later_runs, log
from fastac.metrics import EPISODE, UPDATE, HistoryBuilder, row

SMALL = Exercise(2, 300, 5, (0, 1), 2_000, "thread")
PAGE = Path(__file__).resolve().parents[1] / "docs" / "exercise.md"


@pytest.fixture(scope="session")
def done():
    return Runs(list(first_runs(SMALL)), list(later_runs(SMALL)))


def history_of(updates, episodes=()):
    """By one worker, 5 env steps and a second an update; `episodes`: {update that an episode ends in: its return}."""
    builder = HistoryBuilder(0.0)
    rows = []
    for i in range(1, updates + 1):
        rows.append(row(UPDATE, i, 0, 5, 1, i - 1, *[0.0] * 11, 1))
        rows += [row(EPISODE, i, 0, 0, 0, result, 9) for at, result in episodes if at == i]
    builder.add_rows(np.stack(rows))
    return builder.build()


def test_a_log_by_hand():
    history = history_of(203, [(100, 10.0), (101, 20.0), (200, 60.0), (201, 500.0)])
    assert log(history, 200) == [
        {"updates": 0, "env_steps": 0, "wall_s": 0.0, "return_mean": None, "episodes": 0},
        {"updates": 100, "env_steps": 500, "wall_s": 100.0, "return_mean": 10.0, "episodes": 1},
        {"updates": 200, "env_steps": 1000, "wall_s": 200.0, "return_mean": 30.0, "episodes": 3},
    ]
    assert [its["return_mean"] for its in log(history_of(100), 100)] == [None, None]


def test_the_mean_is_over_the_latest_100_episodes():
    history = history_of(100, [(1, 1000.0)] + [(2, 7.0)] * 99 + [(3, 9.0)])
    assert log(history, 100)[-1] == {
        "updates": 100,
        "env_steps": 500,
        "wall_s": 100.0,
        "return_mean": round((99 * 7 + 9) / 100, 2),
        "episodes": 101,
    }


def test_a_log_that_lacks_rows_is_refused():
    with pytest.raises(fastac.FastacError, match="update 200 is missing in the log"):
        log(history_of(199), 200)


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_2000_updates_are_20_rows_and_row_0(backend):
    result = Exercise(backend=backend).run("A3C", 0, Exercise().env_steps("A3C"))
    rows = log(result.history, 2_000)
    assert [its["updates"] for its in rows] == list(range(0, 2_001, 100))
    assert [its["env_steps"] for its in rows] == list(range(0, 10_001, 500))
    assert 2_000 <= result.ledger.applied <= 2_003  # what three workers had in flight is cut off
    assert set(result.history.updates["worker"]) <= {0, 1, 2, 3}


def test_the_log_says_what_the_history_says(done):
    for result in done.first:
        for its in log(result.history, 300):
            ended = result.history.episodes["updates"] <= its["updates"]
            returns = result.history.episodes["episode_return"][ended][-100:]
            assert its["episodes"] == ended.sum()
            # A float of Python: NumPy's round a hundredfold, which makes other ties.
            mean = round(float(returns.mean()), 2) if its["episodes"] else None
            assert its["return_mean"] == mean
            assert its["env_steps"] == its["updates"] * (10 if result.arm == "A2C" else 5)
        seconds = [its["wall_s"] for its in log(result.history, 300)]
        assert seconds == sorted(seconds)


def test_arms_and_seeds(done):
    assert [(its.arm, its.seed) for its in done.first] == [(arm, seed) for seed in (0, 1) for arm in ARMS]
    assert [(its.arm, its.seed) for its in done.later] == [(arm, seed) for seed in (0, 1) for arm in LATER_ARMS]
    assert len(done.first) + len(done.later) == runs.jobs(SMALL)
    updates = [its.config["update"] for its in done.later if "update" in its.config]
    assert updates == ["lockfree", "lock", "queue", "hogwild"] * 2
    assert all(its.history.updates["env_steps"][-1] >= 2_000 for its in done.later)


def test_figures(done):
    a3c, a2c = of_first(done, SMALL, "A3C"), of_first(done, SMALL, "A2C")
    assert SMALL.env_steps("A3C") == 1_500 and SMALL.env_steps("A2C") == 3_000
    for result, mean, norm in zip(done.first[1::3], a2c["return_matched"], a2c["grad_norm_matched"], strict=True):
        history = result.history
        assert mean == history.episodes["episode_return"][history.episodes["env_steps"] <= 1_500][-100:].mean()
        assert norm == pytest.approx(history.updates["grad_norm"][:150].mean())
    assert reached(a3c["env_steps_to_target"]) == 0
    later = of_later(done, "A3C")
    assert later["updates_per_s"] == pytest.approx([x / 5 for x in later["env_steps_per_s"]])
    its = counts(done.later)
    assert its["pushed"] == its["applied"] >= 12 * 200 and its["merged"] == its["rejected"] == 0


def test_what_was_reached_after_the_last_update_does_not_count():
    result = Exercise(1, 100, 5, (0,), 5, "thread").run("A2C", 0, 5)
    late = replace(result, history=history_of(200, [(i, 200.0) for i in range(1, 101)]))
    assert of_first(Runs([late]), Exercise(1, 100, 5), "A2C")["env_steps_to_target"] == [500.0]
    late = replace(result, history=history_of(200, [(i, 200.0) for i in range(2, 102)]))
    assert of_first(Runs([late]), Exercise(1, 100, 5), "A2C")["env_steps_to_target"] == [math.inf]


def test_sentences_say_no_more_than_the_runs_carry():
    low, high = [1.0, 2.0, 3.0, 4.0, 5.0], [6.0, 7.0, math.inf, math.inf, math.inf]
    assert compared("Env steps", low, high, ("a", "b"), 0) == "Env steps: a 3, b unsolved (p = 0.008)."
    assert "too few to tell" in compared("Env steps", low[:3], high[:3], ("a", "b"), 0)
    assert "no difference that 5 seeds could show" in compared("Env steps", low, low, ("a", "b"), 0)


def test_an_advantage_that_was_not_measured_is_not_claimed(done):
    for train_s, shown in ((1e6, False), (1e-6, True)):
        paced = [replace(r, history=replace(r.history, train_s=train_s)) if r.arm == "A3C" else r for r in done.later]
        told = answers(Runs(done.first, paced), SMALL)["The main advantage of A3C?"]
        assert ("do not show the advantage" in told) is not shown
    assert "2 seeds: too few to tell the schemes apart" in answers(done, SMALL)["Lock, queue, hogwild or lock-free?"]


def test_answers(done):
    answered = answers(done, SMALL)
    assert list(answered)[:2] == ["The main advantage of A3C?", "Its main disadvantage?"]
    assert "1,500 env steps for A3C" in answered["What do 300 updates reach?"]
    assert "A3C on 0, A2C on 0, A2C split on 0 of 2 seeds" in answered["What do 300 updates reach?"]
    assert not any("nan" in answer for answer in answered.values())


def test_files_and_tables(done, tmp_path):
    names = tables.write(tmp_path, done, SMALL, {"cores": 2}, answers(done, SMALL))
    assert sorted(names) == sorted(path.name for path in tmp_path.iterdir())
    assert names == ["a3c.csv", "a2c.csv", "a2c_split.csv", "exercise.json"]
    with (tmp_path / "a3c.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [its["updates"] for its in rows] == ["0", "100", "200", "300"] and rows[0]["return_mean"] == ""
    report = json.loads((tmp_path / "exercise.json").read_text())
    assert len(report["first"]) == 6 and len(report["later"]) == 12
    assert report["first"][0]["log"][3]["env_steps"] == 1_500
    assert tables.log_table(done, SMALL).row_count == 4
    for table in (tables.challenge_table(done, SMALL), tables.schemes_table(done, SMALL)):
        assert table.row_count > 10


@pytest.mark.filterwarnings("error")
def test_pictures(done, tmp_path):
    plots.draw_log(tmp_path / "exercise.png", done, SMALL)
    plots.draw_challenge(tmp_path / "challenge.png", done, SMALL)
    for name in ("exercise.png", "challenge.png"):
        with Image.open(tmp_path / name) as image:
            assert image.width > 1000 and len(image.convert("L").getcolors()) > 20


def invoke(*words):
    return CliRunner().invoke(main, ["exercise", *(str(word) for word in words)])


COMMAND = ["--workers", 2, "--updates", 100, "--seeds", 1, "--limit", 500]


def test_the_command(tmp_path):
    result = invoke(*COMMAND, "--first-seed", 7, "--out", tmp_path / "x")
    assert result.exit_code == 0, result.output
    assert "The main advantage of A3C?" in result.output and "seed 7" in result.output
    written = {"a3c.csv", "a2c.csv", "a2c_split.csv", "exercise.json", "exercise.png", "exercise_challenge.png"}
    assert {path.name for path in (tmp_path / "x").iterdir()} == written
    for words in (["--out", tmp_path / "x"], ["--runs", tmp_path, "--name", "x"]):
        again = invoke(*COMMAND, *words)
        assert again.exit_code == 2 and f"{tmp_path}/x exists already" in again.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--updates", 150], "expected a multiple of 100 up to 10,000, got 150"),
        (["--updates", 0], "expected a multiple of 100 up to 10,000, got 0"),
        (["--updates", 10_100], "expected a multiple of 100 up to 10,000, got 10100"),
        (["--n-steps", 0], "--n-steps: expected >= 1"),
        (["--workers", 0], "0 is not in the range"),
        (["--name", "y"], "--out: expected without --runs and --name"),
        (["--runs", "runs"], "--out: expected without --runs and --name"),
    ],
)
def test_bad_options(words, message, tmp_path):
    result = invoke(*words, "--out", tmp_path / "x")
    assert result.exit_code == 2 and message in " ".join(result.output.split())
    assert not (tmp_path / "x").exists()


def test_its_folder_is_named_as_that_of_other_experiments(tmp_path, monkeypatch):
    asked = []
    command = importlib.import_module("fastac.cli.exercise")
    monkeypatch.setattr(command, "_do", lambda exercise, folder, where: asked.append(folder))
    for words in (["--runs", tmp_path, "--name", "x"], ["--runs", tmp_path / "of"], ["--out", tmp_path / "y"]):
        assert invoke(*COMMAND, *words).exit_code == 0
    assert asked[0] == tmp_path / "x" and asked[2] == tmp_path / "y"
    assert asked[1].parent == tmp_path / "of" and asked[1].name.startswith("exercise-")


@pytest.mark.parametrize(("ended", "left"), [(0, None), (2, 2)])
def test_ctrl_c_keeps_what_ended(ended, left, tmp_path, monkeypatch):
    run, calls = Exercise.run, []

    def interrupted(self, arm, seed, total_timesteps):
        if len(calls) == ended:
            raise KeyboardInterrupt
        calls.append(arm)
        return run(replace(self, backend="thread"), arm, seed, total_timesteps)

    monkeypatch.setattr(Exercise, "run", interrupted)
    result = invoke(*COMMAND, "--out", tmp_path / "x")
    assert result.exit_code == 130 and f"{ended} of 9 runs done" in result.output
    if left is None:
        assert not (tmp_path / "x").exists()
    else:
        assert {path.name for path in (tmp_path / "x").iterdir()} == {"a3c.csv", "a2c.csv", "exercise.json"}
        assert len(json.loads((tmp_path / "x" / "exercise.json").read_text())["first"]) == left


def test_a_run_without_a_complete_log_fails_and_the_others_are_kept(tmp_path, monkeypatch):
    run = Exercise.run

    def cut(self, arm, seed, total_timesteps):
        result = run(replace(self, backend="thread"), arm, seed, total_timesteps)
        return replace(result, history=history_of(99)) if arm == "A2C" else result

    monkeypatch.setattr(Exercise, "run", cut)
    result = invoke(*COMMAND, "--out", tmp_path / "x")
    assert result.exit_code == 1 and "update 100 is missing in the log" in result.output
    assert {path.name for path in (tmp_path / "x").iterdir()} == {"a3c.csv", "exercise.json"}


PAGE = Path(__file__).resolve().parents[1] / "docs" / "exercise.md"


def test_the_python_version_on_the_page(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    rows = np.array(
        [line.strip(" []").split() for line in done.stdout.splitlines() if line.startswith((" [", "[["))], float
    )
    assert rows[:, 0].tolist() == list(range(0, 2_001, 100)) * 2
    assert rows[:, 1].tolist() == [*range(0, 10_001, 500), *range(0, 40_001, 2_000)]
    assert (tmp_path / "exercise.png").exists()


def test_what_the_page_names_is_there():
    page = PAGE.read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", page):
        assert (PAGE.parent / target).exists(), target
    known = {option for param in exercise.params for option in param.opts}
    assert set(re.findall(r"--[a-z-]+", page)) <= known
    for name in re.findall(r"`(\w+\.(?:csv|json))`", page):
        assert name in ("a3c.csv", "a2c.csv", "a2c_split.csv", "exercise.json")
