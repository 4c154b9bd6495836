"""`fastac resume`: whatever ended a run, its folder has what is needed to finish it, and the tables of all parts."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

import fastac
from fastac import rundir
from fastac.checkpoint import previous_of
from fastac.cli import main
from fastac.standing import Standing

SMALL = ["--n-steps", "8", "--hidden-sizes", "16", "--seed", "3"]
SLOW = [*SMALL, "--engine", "torch"]  # of which something is left when it is stopped


def invoke(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


def start(folder, kind, total, *words):
    """A training of its own, once it has written checkpoint and tables in the midst of it."""
    command = [
        "train",
        *kind,
        *SLOW,
        "--total-timesteps",
        total,
        "--runs",
        folder.parent,
        "--name",
        folder.name,
        *words,
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "fastac", *map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not (previous_of(folder).exists() and len(rows(folder, "updates")) > 20):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    return process


def rows(folder, name):
    path = folder / f"{name}.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def record(folder):
    return json.loads((folder / "run.json").read_text())


def untimed(table):
    return [{name: value for name, value in row.items() if name not in ("wall_s", "part")} for row in table]


def test_a_killed_a2c_is_finished_with_the_same_bits_and_the_same_tables(tmp_path):
    total = 120_000
    assert (
        invoke("train", "a2c", *SLOW, "--total-timesteps", total, "--runs", tmp_path, "--name", "whole").exit_code == 0
    )
    folder, whole = tmp_path / "killed", tmp_path / "whole"
    process = start(folder, ["a2c"], total, "--checkpoint-every-s", 0.05)
    process.kill()
    process.communicate()
    assert record(folder)["status"] == "running"
    result = invoke("resume", folder, "--checkpoint-every-s", 0.05)
    assert result.exit_code == 0, result.output
    for name in ("model.safetensors", "episodes.csv", "updates.csv", "moments.csv", "run.json"):
        assert (folder / name).exists()
    resumed, never_killed = fastac.A2C.load(folder), fastac.A2C.load(whole)
    assert resumed.params.tobytes() == never_killed.params.tobytes()
    assert resumed.state.tobytes() == never_killed.state.tobytes() and resumed.version == never_killed.version
    told = record(folder)
    (earlier,) = told["earlier_parts"]
    assert told["status"] == "done" and earlier["status"] == "killed" and 0 < earlier["num_timesteps"] < total
    # The rows of the killed part that the checkpoint does not hold were played again; nothing is there twice.
    updates, expected = rows(folder, "updates"), rows(whole, "updates")
    assert {row["part"] for row in updates} == {"1", "2"}
    missing = len(expected) - len(updates)
    assert 8 * 4 * missing == earlier["num_timesteps"] - earlier["tables_until_env_steps"]
    first = next(i for i, row in enumerate(updates) if row["part"] == "2")
    assert untimed(updates[:first]) == untimed(expected[:first])
    assert untimed(updates[first:]) == untimed(expected[first + missing :])
    assert (missing > 0) == ("notice: the tables have no rows between" in result.output)
    walls = [float(row["wall_s"]) for row in updates]
    assert walls == sorted(walls)


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_a_stopped_a3c_is_finished(backend, tmp_path):
    folder = tmp_path / "run"
    kind = ["a3c", "--workers", "2", "--backend", backend]
    process = start(folder, kind, 10_000_000, "--checkpoint-every-s", 0.05)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143 and f"`fastac resume {folder}` does the rest" in err
    assert record(folder)["status"] == "stopped"
    model = fastac.A3C.load(folder)
    assert len(rows(folder, "updates")) == model.version
    shorter(folder, model, model.num_timesteps + 500)
    result = invoke("resume", folder)
    assert result.exit_code == 0 and "notice" not in result.output, result.output
    finished = fastac.A3C.load(folder)
    assert model.num_timesteps + 500 <= finished.num_timesteps < model.num_timesteps + 516
    told = record(folder)
    assert told["num_timesteps"] == finished.num_timesteps and told["version"] == finished.version
    updates = rows(folder, "updates")
    assert len(updates) == finished.version and float(updates[-1]["env_steps"]) == finished.num_timesteps
    assert told["earlier_parts"][0]["ledger"]["applied"] + told["ledger"]["applied"] == finished.version


def shorter(folder, model, total):
    """The same model with less to do."""
    model._standing = Standing(
        model.version, model.num_timesteps, 1, fastac.metrics.Position(total, model.num_timesteps, model.version, 1.0)
    )
    model.save(folder)


def test_a_finished_run_says_so(tmp_path):
    folder = tmp_path / "run"
    assert invoke("train", "a2c", *SMALL, "--total-timesteps", 600, "--runs", tmp_path, "--name", "run").exit_code == 0
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    result = invoke("resume", folder)
    assert result.exit_code == 0 and "finished, with 608 env steps; nothing is left to do" in result.output
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    rundir.write_json(folder / "run.json", {**record(folder), "status": "running"})  # killed just before the end
    assert invoke("resume", folder).exit_code == 0 and record(folder)["status"] == "done"


def interrupted(folder):
    """A folder with two checkpoints of an unfinished run."""
    model = fastac.A2C(n_steps=8, hidden_sizes=(16,), seed=3)
    stop = iter([False, False, True])

    def on_checkpoint(history):
        if next(stop):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.learn(10**9, checkpoint=folder, checkpoint_every_s=0.01, on_checkpoint=on_checkpoint)
    shorter(folder, model, model.num_timesteps + 64)
    shorter(folder, model, model.num_timesteps + 96)
    return model


def test_train_resume_is_the_same(tmp_path):
    folders = tmp_path / "one", tmp_path / "other"
    folders[0].mkdir()
    interrupted(folders[0])
    shutil.copytree(*folders)
    one = invoke("train", "--resume", folders[0], "--checkpoint-every-s", 0)
    other = invoke("resume", folders[1], "--checkpoint-every-s", 0)
    assert one.exit_code == other.exit_code == 0 and one.stderr == other.stderr
    models = [fastac.A2C.load(folder) for folder in folders]
    assert models[0].unfinished is None and models[0].params.tobytes() == models[1].params.tobytes()


@pytest.mark.parametrize(
    ("words", "every_s"),
    [([], 7.0), (["--checkpoint-every-s", 5], 5.0), (None, 30.0)],
    ids=["told", "given", "unknown"],
)
def test_checkpoints_are_as_far_apart_as_the_run_was_told(words, every_s, tmp_path, monkeypatch):
    interrupted(tmp_path)
    if words is not None:
        (tmp_path / "config.toml").write_text("checkpoint_every_s = 7.0\n")
    seen = []
    resume = fastac.A2C.resume
    monkeypatch.setattr(
        fastac.A2C, "resume", lambda model, **its: seen.append(its["checkpoint_every_s"]) or resume(model, **its)
    )
    result = invoke("resume", tmp_path, *(words or []))
    assert result.exit_code == 0 and seen == [every_s], result.output


def test_a_damaged_config_is_set_aside(tmp_path):
    interrupted(tmp_path)
    (tmp_path / "config.toml").write_text("checkpoint_every_s = \n")
    result = invoke("resume", tmp_path)
    assert result.exit_code == 0 and f"{tmp_path}/config.toml is damaged" in result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--resume", ".", "a2c"], "--resume: expected without a2c, as the run has its configuration"),
        (["--checkpoint-every-s", 5, "a3c"], "--checkpoint-every-s: expected after a3c, or with --resume"),
        (["--checkpoint-every-s", 5], "expected a2c, a3c or --resume"),
        (["--resume", "nowhere"], "'nowhere' does not exist"),
        (["--resume", "."], "expected the folder of a run (runs/<name>), got one without run.json"),
    ],
)
def test_what_does_not_go_with_resume(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = invoke("train", *words)
    assert result.exit_code == 2 and message in " ".join(result.output.split())
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_checkpoint_gives_way_to_the_previous_one(tmp_path):
    model = interrupted(tmp_path)
    path = tmp_path / "model.safetensors"
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    result = invoke("resume", tmp_path)
    assert result.exit_code == 0, result.output
    assert result.output.count("notice: ") == 2  # the tables are missing here, too
    assert "damaged: array" in result.output and f"load {previous_of(path)} instead: this is done now" in result.output
    assert fastac.A2C.load(path).num_timesteps == model.num_timesteps + 64


def test_a_folder_of_the_users_own_is_never_removed(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    model = fastac.A2C(n_steps=8, hidden_sizes=(16,), seed=3)
    monkeypatch.setattr(fastac.A2C, "_open", stop)
    with pytest.raises(KeyboardInterrupt):
        model.learn(600, checkpoint=tmp_path)
    (tmp_path / "thesis.txt").touch()
    result = invoke("resume", tmp_path)
    assert result.exit_code == 130 and result.output.startswith("stopped: 0 of 600 env steps done; `fastac resume")
    assert {"thesis.txt", "model.safetensors"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize("damage", ["", "env_steps\r\n1", "\0\r\n", "[]"])
def test_damaged_tables_and_records_are_set_aside(damage, tmp_path):
    folder = tmp_path / "run"
    process = start(folder, ["a2c"], 10**9, "--checkpoint-every-s", 0.05)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    model = fastac.A2C.load(folder)
    shorter(folder, model, model.num_timesteps + 64)
    names = ["run.json", "updates.csv", "episodes.csv"]
    for name in names:
        (folder / name).write_text(damage)
    result = invoke("resume", folder)
    assert result.exit_code == 0, result.output
    for name in names:
        assert result.output.count(f"notice: {folder / name} is damaged (") == 1
        assert (folder / f"{name}.damaged").read_bytes() == damage.encode()
    assert {row["part"] for row in rows(folder, "updates")} == {"2"} and record(folder)["status"] == "done"
    assert {row["part"] for row in rows(folder, "moments")} == {"1", "2"}


def test_damaged_files_do_not_take_each_others_place(tmp_path):
    for text in ("first", "second", "third"):
        (tmp_path / "run.json").write_text(text)
        rundir.set_aside(tmp_path / "run.json")
    kept = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert kept == {"run.json.damaged": "first", "run.json.damaged-2": "second", "run.json.damaged-3": "third"}


def test_a_file_is_on_the_disk_before_it_takes_its_name(tmp_path, monkeypatch):
    steps = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor):
        steps.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    def replaced(old, new):
        steps.append("renamed")
        replace(old, new)

    monkeypatch.setattr(rundir.os, "fsync", synced)
    monkeypatch.setattr(rundir.os, "replace", replaced)
    rundir.write_json(tmp_path / "run.json", {})
    assert steps == [f"{tmp_path}/run.json.writing", "renamed", str(tmp_path)]


def test_a_run_that_failed_at_its_end_stays_failed(tmp_path):
    assert invoke("train", "a2c", *SMALL, "--total-timesteps", 600, "--runs", tmp_path, "--name", "x").exit_code == 0
    failed = {**record(tmp_path / "x"), "status": "failed: LedgerError"}
    rundir.write_json(tmp_path / "x" / "run.json", failed)
    assert invoke("resume", tmp_path / "x").exit_code == 0 and record(tmp_path / "x") == failed


def test_a_failed_run_can_be_tried_again(tmp_path):
    words = [
        "--learning-rate",
        "1e30",
        "--max-grad-norm",
        0,
        "--total-timesteps",
        90_000,
        "--runs",
        tmp_path,
        "--name",
        "x",
    ]
    assert invoke("train", "a2c", *SMALL, *words).exit_code == 1
    result = invoke("resume", tmp_path / "x")
    assert result.exit_code == 1 and "fastac: NonFiniteGradientError: worker 0, update 10" in result.output
    told = record(tmp_path / "x")
    assert [told["status"], told["earlier_parts"][0]["status"]] == ["failed: NonFiniteGradientError"] * 2


def test_nothing_whole_is_one_message(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    result = invoke("resume", tmp_path)
    assert result.exit_code == 1 and "fastac: CheckpointError: " in result.output


def test_killed_between_the_last_checkpoint_and_its_tables(tmp_path):
    """The rows that were not written are told, not made up; the model is done."""
    assert invoke("train", "a2c", *SMALL, "--total-timesteps", 600, "--runs", tmp_path, "--name", "run").exit_code == 0
    folder = tmp_path / "run"
    table = rundir.read_table(folder / "updates.csv")  # 19 updates of 4 envs and 8 steps
    rundir.write_table(folder / "updates.csv", {name: column[:-3] for name, column in table.items()})
    rundir.write_json(folder / "run.json", {**record(folder), "status": "running"})
    result = invoke("resume", folder)
    assert result.exit_code == 0 and "notice: the tables have no rows between 512 and 608 env steps" in result.output
    assert record(folder)["status"] == "done" and len(rows(folder, "updates")) == 16


def test_a_folder_that_is_no_run_is_a_wrong_command(tmp_path):
    result = invoke("resume", tmp_path)
    words = " ".join(result.output.split())
    assert result.exit_code == 2 and "got one without run.json and model.safetensors" in words
    rundir.write_json(tmp_path / "run.json", {"status": "running"})
    result = invoke("resume", tmp_path)
    words = " ".join(result.output.split())
    assert result.exit_code == 2 and "this run ended before anything was saved; start it again" in words
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_folder_belongs_to_one_process(tmp_path):
    interrupted(tmp_path)
    with rundir.locked(tmp_path):
        result = invoke("resume", tmp_path)
    assert result.exit_code == 1 and "another process is training in this folder" in result.output
    assert invoke("resume", tmp_path).exit_code == 0


def test_only_at_the_end(tmp_path):
    words = ["--total-timesteps", 600, "--checkpoint-every-s", 0, "--runs", tmp_path, "--name", "run"]
    assert invoke("train", "a2c", *SMALL, *words).exit_code == 0
    assert not previous_of(tmp_path / "run").exists() and os.path.exists(tmp_path / "run" / "model.safetensors")
