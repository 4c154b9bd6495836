"""What `fastac train` and `fastac resume` log and show besides the tables of a run."""

import csv
import json
import signal
import sys

import pytest
from click.testing import CliRunner
from test_logs import STEP, rows_of_csv, rows_of_json, rows_of_tensorboard
from test_resume import start

import fastac
from fastac.cli import main
from fastac.cli.watching import Watching

SMALL = ["--n-steps", "8", "--hidden-sizes", "16", "--total-timesteps", "600", "--seed", "3"]


def invoke(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.mark.parametrize("kind", [["a2c"], ["a3c", "--workers", "2", "--backend", "thread"]])
@pytest.mark.parametrize("flags", [[], ["--tensorboard"], ["-v"], ["--tensorboard", "--verbose"]])
def test_train_logs_into_its_folder(kind, flags, tmp_path):
    result = invoke("train", *kind, *SMALL, *flags, "--runs", tmp_path, "--name", "x")
    assert result.exit_code == 0, result.output
    steps = json.loads((tmp_path / "x" / "run.json").read_text())["num_timesteps"]
    assert [row[STEP] for row in rows_of_csv(tmp_path / "x")][-1] == steps == rows_of_json(tmp_path / "x")[-1][STEP]
    events = list(tmp_path.glob("x/events.*"))
    assert len(events) == ("--tensorboard" in flags)
    if events:
        assert list(rows_of_tensorboard(tmp_path / "x"))[-1] == steps
    assert ("total_timesteps" in result.stdout) == any(flag in ("-v", "--verbose") for flag in flags)


def test_without_tensorboard_nothing_is_begun(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.summary.writer.record_writer", None)
    result = invoke("train", "a2c", *SMALL, "--tensorboard", "--runs", tmp_path)
    assert result.exit_code == 2 and "--tensorboard: expected the tensorboard package" in result.output
    assert "pip install 'fastac[tensorboard]'" in result.output and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ended_by", [signal.SIGKILL, signal.SIGTERM])
def test_a_resumed_run_goes_on_in_its_logs(ended_by, tmp_path):
    """What a killed run logged after its last checkpoint is dropped; event files go on without being asked for."""
    folder, total = tmp_path / "run", 400_000
    process = start(folder, ["a2c"], total, "--checkpoint-every-s", 0.05, "--tensorboard")
    process.send_signal(ended_by)
    process.communicate()
    # As if it had logged for longer than it was saved.
    saved = fastac.A2C.load(folder).num_timesteps
    assert saved < total
    columns = (folder / "progress.csv").read_text().splitlines()[0].split(",")
    later = dict.fromkeys(columns, 0.0) | {STEP: saved + 32.0}
    with (folder / "progress.csv").open("a", newline="") as file:
        csv.DictWriter(file, columns).writerow(later)
    with (folder / "progress.json").open("a") as file:
        file.write(json.dumps(later) + "\n")
    before = [row[STEP] for row in rows_of_csv(folder) if row[STEP] <= saved]
    result = invoke("resume", folder)
    assert result.exit_code == 0, result.output
    steps = [row[STEP] for row in rows_of_csv(folder)]
    assert steps[: len(before)] == before and saved + 32.0 not in steps and steps == sorted(set(steps))
    assert steps == [row[STEP] for row in rows_of_json(folder)] == sorted(rows_of_tensorboard(folder))
    assert steps[-1] == fastac.A2C.load(folder).num_timesteps >= total


def test_what_never_trained_leaves_no_logs(tmp_path, monkeypatch):
    def stop(self, *_):
        raise KeyboardInterrupt

    monkeypatch.setattr(fastac.A2C, "_train", stop)
    result = invoke("train", "a2c", *SMALL, "--tensorboard", "--runs", tmp_path, "--name", "x")
    assert result.exit_code == 130 and list(tmp_path.iterdir()) == []


def test_options_before_the_algorithm_are_of_resume():
    result = invoke("train", "--tensorboard", "a2c")
    assert result.exit_code == 2 and "--tensorboard: expected after a2c, or with --resume" in result.output


def test_a_bar_is_shown_unless_something_else_is():
    assert Watching(tensorboard=True, verbose=False, live=False).progress_bar
    assert not Watching(tensorboard=False, verbose=True, live=False).progress_bar
    assert not Watching(tensorboard=False, verbose=False, live=True).progress_bar
