"""The command line, run as a user runs it: what it writes, what it says, and how it ends."""

import errno
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
from click.testing import CliRunner

import fastac
from fastac import rundir
from fastac.cli import main, runs
from fastac.cli.endings import as_typed
from fastac.cli.train import train_a2c

SMALL = ["--n-steps", "8", "--hidden-sizes", "16", "--total-timesteps", "600", "--seed", "3"]


def invoke(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.mark.parametrize(
    "kind",
    [
        ["a2c", "--n-envs", "2"],
        ["a3c", "--workers", "2", "--backend", "thread"],
        ["a3c", "--workers", "2", "--backend", "process", "--update", "queue"],
    ],
)
def test_train_leaves_a_run_folder(kind, tmp_path):
    result = invoke("train", *kind, *SMALL, "--runs", tmp_path, "--name", "first")
    assert result.exit_code == 0, result.output
    folder = tmp_path / "first"
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.toml",
        "episodes.csv",
        "model.previous.safetensors",
        "model.safetensors",
        "moments.csv",
        "progress.csv",
        "progress.json",
        "run.json",
        "updates.csv",
    ]
    record = json.loads((folder / "run.json").read_text())
    assert (
        record["config"]["n_steps"] == 8 and record["config"]["hidden_sizes"] == [16] and record["num_timesteps"] >= 600
    )
    assert record["ledger"]["pending"] == 0 and record["machine"]["torch"]
    assert f"saved: {folder}/model.safetensors" in result.output and "ledger: " in result.output
    model = {"a2c": fastac.A2C, "a3c": fastac.A3C}[kind[0]].load(folder)
    assert model.version == record["version"]


def test_numbers_that_may_be_missing_are_options(tmp_path):
    limit = ["--max-staleness", "0", "--staleness-lr", "inverse", "--on-worker-death", "fail"]
    result = invoke("train", "a3c", "--backend", "thread", *SMALL, *limit, "--runs", tmp_path, "--name", "first")
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "first" / "run.json").read_text())
    assert [record["config"][name] for name in ("max_staleness", "staleness_lr", "on_worker_death")] == [
        0,
        "inverse",
        "fail",
    ]
    assert record["ledger"]["staleness_max"] == 0 and record["ledger"]["deaths"] == 0


def test_a_folder_is_never_mixed(tmp_path):
    (tmp_path / "taken").mkdir()
    result = invoke("train", "a2c", *SMALL, "--runs", tmp_path, "--name", "taken")
    assert result.exit_code == 2 and "choose another --name" in result.output
    assert list((tmp_path / "taken").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "a3c", "--workers", "0"], "--workers: expected >= 1 and <= 64, got 0"),
        (["train", "a2c", "--gamma", "2"], "--gamma: expected >= 0 and <= 1, got 2.0"),
        (["train", "a2c", "--split", "3"], "--split: expected a divisor of --n-envs=4, got 3"),
        (["train", "a2c", "--hidden-sizes", "64,x"], "expected whole numbers between commas"),
        (["train", "a3c", "--solve", "501"], "--solve: expected a mean return from 0 to 500, as each of"),
        (["train", "a2c", "--solve", "nan"], "of an episode is rewarded with 1, got nan"),
        (["train", "a2c", "--n-steps", "0"], "--n-steps: expected >= 1 and <= 100000, got 0"),
        (["train", "a2c", "--total-timesteps", "0"], "0 is not in the range x>=1"),
        (["compare", "--learning-rate", "-1"], "--learning-rate: expected > 0, got -1.0"),
        (["staleness", "--tau", "-1"], "--tau: expected a number >= 0, got -1.0"),
        (["stragglers", "--workers", "9999"], "--workers: expected 1 to 1,024, got 9999"),
        (["bench", "env", "--name", "a/b"], "--name: expected the name of a folder in "),
        (["bench", "env", "--envs", "8,x"], "expected whole numbers between commas"),
        (["bench", "env", "--envs", "8,0"], "expected at least one number, each >= 1, got '8,0'"),
        (["bench", "updates", "--workers", "2,65"], "--workers: expected 1 to 64, got 65"),
        (["bench", "updates", "--n-updates", "9999999"], "expected <= 16,777,216, so that sums stay exact"),
    ],
)
def test_a_wrong_value_is_a_usage_error_before_anything_starts(words, message, tmp_path):
    result = invoke(*words, "--runs", tmp_path)
    assert result.exit_code == 2 and message in " ".join(result.output.split())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("message", "typed"),
    [
        ("n_steps: expected >= 1, got 0", "--n-steps: expected >= 1, got 0"),
        ("split: expected a divisor of n_envs=4, got 3", "--split: expected a divisor of --n-envs=4, got 3"),
        ("take longer rollouts (n_steps, n_envs)", "take longer rollouts (--n-steps, --n-envs)"),
        ("workers: expected 1 with engine=torch", "--workers: expected 1 with --engine=torch"),
        ("name: no env of that name: x", "--name: no env of that name: x"),  # the word, not the option
        ("runs/n_steps.txt: expected one number", "runs/n_steps.txt: expected one number"),
        ("expected a known field, got hidden_size", "expected a known field, got hidden_size"),
    ],
)
def test_errors_name_options_as_they_are_typed(message, typed):
    assert as_typed(message, train_a2c) == typed


def test_a_failed_run_is_one_message_and_exit_code_1(tmp_path):
    result = invoke(
        "train",
        "a2c",
        *SMALL,
        "--learning-rate",
        "1e30",
        "--max-grad-norm",
        "0",
        "--total-timesteps",
        "90000",
        "--runs",
        tmp_path,
        "--name",
        "x",
    )
    assert result.exit_code == 1
    assert "fastac: NonFiniteGradientError: worker 0, update" in result.output and "Traceback" not in result.output
    assert (tmp_path / "x" / "updates.csv").exists()
    assert f"notice: saved in {tmp_path}/x/model.safetensors after " in result.output
    assert f"; `fastac resume {tmp_path}/x` goes on\n" in result.output


def test_compare(tmp_path):
    result = invoke(
        "compare",
        "--seeds",
        2,
        "--total-timesteps",
        1500,
        "--n-envs",
        2,
        "--backend",
        "thread",
        "--n-steps",
        8,
        "--hidden-sizes",
        16,
        "--runs",
        tmp_path,
        "--name",
        "c",
    )
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == [
        "compare.csv",
        "compare.json",
        "compare.png",
        "time_to_solve.png",
    ]
    assert "A2C split" in result.output and "Measured on" in result.output
    plan = json.loads((tmp_path / "c" / "compare.json").read_text())["plan"]
    assert plan["seeds"] == [0, 1] and plan["options"]["n_steps"] == 8


@pytest.mark.parametrize(("after", "kept"), [(0, []), (2, ["c"])])
def test_a_comparison_that_fails_keeps_what_ended(after, kept, tmp_path, monkeypatch):
    from fastac.compare import experiment

    run = experiment.run

    def failing(plan, *, progress_bar):
        yield from itertools.islice(run(plan), after)
        raise RuntimeError("no more")

    monkeypatch.setattr(experiment, "run", failing)
    small = ["--seeds", 1, "--total-timesteps", 600, "--n-envs", 2, "--backend", "thread", "--n-steps", 8]
    result = invoke("compare", *small, "--hidden-sizes", 16, "--runs", tmp_path, "--name", "c")
    assert str(result.exception) == "no more" and [path.name for path in tmp_path.iterdir()] == kept
    if kept:
        assert len(json.loads((tmp_path / "c" / "compare.json").read_text())["runs"]) == after
        assert f"{after} of 3 runs done, tables in {tmp_path}/c" in result.output


def test_a_measurement_that_fails_leaves_nothing(tmp_path, monkeypatch):
    from fastac.bench import env

    def fail(*_):
        raise RuntimeError("no more")

    monkeypatch.setattr(env, "measure", fail)
    result = invoke("bench", "env", "--runs", tmp_path)
    assert str(result.exception) == "no more" and list(tmp_path.iterdir()) == []


def test_bench(tmp_path):
    result = invoke(
        "bench",
        "env",
        "--no-peers",
        "--envs",
        "1,2",
        "--rounds",
        1,
        "--round-s",
        0.001,
        "--runs",
        tmp_path,
        "--name",
        "e",
    )
    assert result.exit_code == 0, result.output
    figures = json.loads((tmp_path / "e" / "bench-env.json").read_text())["figures"]
    assert set(figures) == {"1", "2"} and "\n1 round of seed 0, measured on " in result.output
    raw, native = figures["2"]["fastac, buffers reused"], figures["2"]["fastac/CartPole-v1"]
    assert raw["times_slower_than_buffers_reused"]["median"] == native["times_slower_than_fastac"]["median"] == 1.0
    both = native["times_slower_than_buffers_reused"]["median"] * raw["times_slower_than_fastac"]["median"]
    assert both == pytest.approx(1.0)  # of the same two figures
    result = invoke(
        "bench",
        "updates",
        "--workers",
        "2",
        "--n-params",
        64,
        "--rounds",
        1,
        "--n-updates",
        20,
        "--runs",
        tmp_path,
        "--name",
        "u",
    )
    assert result.exit_code == 0, result.output
    assert "\nA push of 64 floats that nobody contends for: " in result.output
    figures = json.loads((tmp_path / "u" / "bench-updates.json").read_text())["figures"]
    assert figures["uncontended_push"]["times_copy_and_add"]["median"] > 0
    assert set(figures["2"]) == {
        "lockfree",
        "lock",
        "queue",
        "hogwild",
    }


def test_bench_scaling_leaves_a_picture(tmp_path):
    words = ("--workers", 1, "--rounds", 1, "--round-s", 0.001, "--runs", tmp_path, "--name", "s")
    result = invoke("bench", "scaling", *words)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == ["bench-scaling.json", "bench-scaling.png"]
    record = json.loads((tmp_path / "s" / "bench-scaling.json").read_text())
    assert record["rounds"] == 1 and record["machine"]["cores"] >= 1 and "W runs apart" in record["figures"]
    assert "\nOne more worker thread (8 envs, T = 5), trained a little and idle: " in result.output
    assert record["figures"]["bytes_of_one_more_worker_thread"]["slots"]["median"] == 4 * 4675 * 4


def test_bench_solve_says_what_is_censored(tmp_path, monkeypatch):
    from fastac.bench import solve

    monkeypatch.setattr(solve, "_TIMES", 1)
    words = ("--no-peers", "--seeds", 1, "--total-timesteps", 300, "--runs", tmp_path, "--name", "v")
    result = invoke("bench", "solve", *words)
    assert result.exit_code == 0, result.output
    assert "fastac A2C, native: 1 of 1 run unsolved after " in result.output
    figures = json.loads((tmp_path / "v" / "bench-solve.json").read_text())["figures"]
    assert figures["fastac A2C, native"]["runs"][0]["wall_s"] is None  # never


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize(
    "command",
    [
        ["train", "a2c"],
        ["train", "a3c", "--backend", "process"],
        ["train", "a3c", "--backend", "thread", "--update", "queue"],
    ],
)
def test_a_signal_stops_the_run_in_order(command, number, code, tmp_path):
    words = [
        sys.executable,
        "-m",
        "fastac",
        *command,
        "--total-timesteps",
        "50000000",
        "--runs",
        str(tmp_path),
        "--name",
        "s",
    ]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    for line in process.stderr:
        if " return " in line:  # it trains
            break
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    sent = time.monotonic()
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    lines = [line for line in err.splitlines() if "per s, return" not in line]
    assert len(lines) == 1 and lines[0].startswith("stopped: ") and lines[0].endswith("s/model.safetensors")
    assert out == "" and time.monotonic() - sent < 60
    assert (Path(tmp_path) / "s" / "model.safetensors").exists()


def test_a_comparison_that_is_stopped_before_its_first_result_leaves_nothing(tmp_path):
    words = ["compare", "--total-timesteps", "50000000", "--runs", str(tmp_path), "--name", "s"]
    process = subprocess.Popen([sys.executable, "-m", "fastac", *words], stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if " return " in line:
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert [line for line in err.splitlines() if "per s" not in line] == ["stopped: 0 of 30 runs done"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [["-m", "fastac"], ["-c", "import fastac_command as f; f.main()"]])
def test_ctrl_c_during_the_imports_is_quiet(command, tmp_path):
    words = [sys.executable, *command, "train", "a2c", "--runs", str(tmp_path)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for_handler(process, present=True)  # Python's own
    wait_for_handler(process, present=False)  # our first line
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60) == ("", "") and process.returncode == -signal.SIGINT
    assert list(tmp_path.iterdir()) == []


def wait_for_handler(process, present):
    """Until Python has a handler of SIGINT, or none any more."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        caught = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{process.pid}/status").read_text())[1]
        if bool(int(caught, 16) >> (signal.SIGINT - 1) & 1) == present:
            return
    raise AssertionError("the handler of SIGINT stayed as it was")


def test_a_library_keeps_its_users_handlers():
    code = "import signal as s, fastac; assert s.getsignal(s.SIGINT) is s.default_int_handler"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_ctrl_c_that_the_shell_ignores_stays_ignored():
    code = (
        "import signal as s, fastac_command as f; f.end_at_once_on_ctrl_c(); assert s.getsignal(s.SIGINT) is s.SIG_IGN"
    )
    ignoring = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", sys.executable, "-c", code]
    assert subprocess.run(ignoring).returncode == 0


def test_a_comparison_that_is_stopped_at_its_pictures_keeps_its_tables(tmp_path, monkeypatch):
    from fastac.compare import plots

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(plots, "draw_curves", stop)
    small = ["--seeds", 1, "--total-timesteps", 600, "--n-envs", 2, "--backend", "thread", "--n-steps", 8]
    result = invoke("compare", *small, "--hidden-sizes", 16, "--runs", tmp_path, "--name", "c")
    assert result.exit_code == 130
    assert result.output.splitlines()[-1] == f"stopped: 3 of 3 runs done, tables in {tmp_path}/c"
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["compare.csv", "compare.json"]


def test_ctrl_c_while_the_finished_run_is_written(tmp_path, monkeypatch):
    write_tables = runs.RunFolder.write_tables

    def interrupted(folder, history):
        write_tables(folder, history)
        if folder._model.unfinished is None:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(runs.RunFolder, "write_tables", interrupted)
    result = invoke("train", "a2c", *SMALL, "--runs", tmp_path, "--name", "x")
    assert result.exit_code == 130
    assert result.output.splitlines()[-1] == (
        f"stopped: 608 of 600 env steps done; saved in {tmp_path}/x/model.safetensors"
    )
    assert json.loads((tmp_path / "x" / "run.json").read_text())["status"] == "done"


@pytest.mark.parametrize("foreign", [[], ["notes.txt"]])
def test_what_was_stopped_before_it_began_is_taken_away(foreign, tmp_path, monkeypatch):
    def stop(self, *_):
        for name in foreign:
            (tmp_path / "x" / name).touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(fastac.A2C, "_open", stop)
    result = invoke("train", "a2c", *SMALL, "--runs", tmp_path, "--name", "x")
    assert result.exit_code == 130 and result.output.splitlines()[-1] == "stopped: nothing was trained yet"
    assert [path.name for path in tmp_path.glob("x/*")] == foreign and (tmp_path / "x").exists() == bool(foreign)


def test_a_full_disk_under_the_tables(tmp_path, monkeypatch):
    def full(path, table):
        if path.name != "progress.csv":
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(rundir, "write_table", full)
    result = invoke("train", "a2c", *SMALL, "--runs", tmp_path, "--name", "x")
    assert result.exit_code == 1 and "fastac: OSError: [Errno 28] No space left" in result.output
    left = sorted(path.name for path in (tmp_path / "x").iterdir())
    models = ["model.previous.safetensors", "model.safetensors"]
    assert left == ["config.toml", *models, "progress.csv", "progress.json", "run.json"]
    assert json.loads((tmp_path / "x" / "run.json").read_text())["status"] == "failed: OSError"


def test_a_full_disk_at_the_start_leaves_nothing(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(rundir.os, "fsync", full)
    result = invoke("train", "a2c", *SMALL, "--runs", tmp_path, "--name", "x")
    assert result.exit_code == 1 and f"No space left on device: '{tmp_path}/x/run.json'" in result.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../x", "a/b", "..", "", "/x"])
def test_names_that_lead_elsewhere_are_refused(name, tmp_path):
    result = invoke("train", "a2c", *SMALL, "--runs", tmp_path / "runs", "--name", name)
    assert result.exit_code == 2 and "name: expected the name of a folder" in result.output
    assert list(tmp_path.rglob("*")) == []


def test_warnings_are_one_line_without_our_code(capsys):
    from fastac.cli.endings import ends_in_order

    with ends_in_order():
        warnings.simplefilter("always")
        warnings.warn("worker 1 does not move", fastac.WorkerStuckWarning, stacklevel=1)
    assert capsys.readouterr().err == "notice: worker 1 does not move\n"


def test_a_learn_that_came_back_too_early_is_not_done(tmp_path, monkeypatch):
    monkeypatch.setattr(fastac.A2C, "_train", lambda *_: None)
    result = invoke("train", "a2c", *SMALL, "--runs", tmp_path, "--name", "x")
    assert result.exit_code == 0 and "A2C: 0 env steps and 0 updates, return of" in result.output  # no row survived
    assert json.loads((tmp_path / "x" / "run.json").read_text())["status"] == "stopped"


def test_an_order_that_is_repeated_is_being_obeyed():
    from fastac.cli.endings import signals_raised

    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with signals_raised():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_two_runs_in_one_second_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(rundir.time, "strftime", lambda _: "now")
    names = [rundir.make_folder(tmp_path, None, "a3c").name for _ in range(3)]
    assert names == ["a3c-now", "a3c-now-2", "a3c-now-3"]
    with pytest.raises(FileExistsError):
        rundir.make_folder(tmp_path, "a3c-now", "a3c")
