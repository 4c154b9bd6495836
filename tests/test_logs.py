"""Loggers: what each format holds is what the run told, read back by the readers that people use."""

import csv
import dataclasses
import errno
import json
import math
import subprocess
import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import fastac
from fastac import logs, updates
from fastac.metrics import UPDATE_COLUMNS, Recent
from fastac.metrics import row as log_row

FILES = ("csv", "json", "tensorboard")
SMALL = {"n_steps": 8, "hidden_sizes": (16,), "seed": 3}
STEP = "time/total_timesteps"


def rows_of_csv(folder):
    with (folder / "progress.csv").open(newline="") as file:
        return [{name: float(text) for name, text in row.items()} for row in csv.DictReader(file)]


def rows_of_json(folder):
    lines = (folder / "progress.json").read_text().splitlines()
    return [json.loads(line, parse_constant=pytest.fail) for line in lines]


def rows_of_tensorboard(folder):
    """{step: {tag: value}}"""
    read = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    rows = {}
    for tag in read.Tags()["scalars"]:
        for event in read.Scalars(tag):
            rows.setdefault(event.step, {})[tag] = event.value
    return rows


def model_of(kind, engine="native"):
    if kind == "a2c":
        return fastac.A2C(n_envs=4, engine=engine, **SMALL)
    return fastac.A3C(workers=2, backend=kind, engine=engine, **SMALL)


def every_10_updates(folder, formats=FILES):
    return fastac.EveryNUpdates(10, fastac.Logger(folder, formats))


@pytest.mark.parametrize("engine", ["native", "torch"])
@pytest.mark.parametrize("kind", ["a2c", "thread", "process"])
def test_files_hold_what_the_run_told(kind, engine, tmp_path):
    told = []

    class Noted(fastac.Logger):
        def on_step(self, training):
            super().on_step(training)
            told.append(training.num_timesteps)

    model = model_of(kind, engine)
    model.learn(4000, callback=fastac.EveryNUpdates(10, Noted(tmp_path / "new" / "folder", FILES)))
    folder = tmp_path / "new" / "folder"
    of_csv, of_json, of_tensorboard = rows_of_csv(folder), rows_of_json(folder), rows_of_tensorboard(folder)
    assert len(of_csv) == len(told) >= (10 if kind == "a2c" else 1)
    assert [row[STEP] for row in of_csv] == told and told[-1] == model.num_timesteps
    assert [dict(row) for row in of_json] == [
        {name: value if math.isfinite(value) else None for name, value in row.items()} for row in of_csv
    ]
    for row in of_csv:
        known = {name: value for name, value in row.items() if not math.isnan(value)}
        assert of_tensorboard[row[STEP]] == pytest.approx(known, rel=1e-6, abs=1e-30)
    last, history = of_csv[-1], model.history
    if kind == "a2c":  # of several workers, those that are told last need not be those that ended last
        assert last["rollout/ep_rew_mean"] == history.final_return()
    assert last["train/n_updates"] == model.version and last["async/deaths"] == 0
    assert {name.partition("/")[0] for name in last} == {"rollout", "time", "train", "async"}


@pytest.mark.parametrize("kind", ["a2c", "thread"])
def test_a_run_that_is_over_at_once_has_a_row(kind, tmp_path):
    model = model_of(kind).learn(8, callback=fastac.Logger(tmp_path))
    assert [row[STEP] for row in rows_of_csv(tmp_path)] == [model.num_timesteps]


def test_a_next_learn_goes_on_in_the_files(tmp_path):
    model = model_of("a2c")
    for total in (640, 640):
        model.learn(total, callback=every_10_updates(tmp_path))
    steps = [320, 640, 960, 1280]
    assert [row[STEP] for row in rows_of_csv(tmp_path)] == steps == [row[STEP] for row in rows_of_json(tmp_path)]
    assert sorted(rows_of_tensorboard(tmp_path)) == steps and len(list(tmp_path.glob("events.*"))) == 2


class AtTheStart(fastac.BaseCallback):
    """Means of the last 100 episodes as a training begins."""

    def on_training_start(self, training):
        self.means = training.ep_rew_mean, training.ep_len_mean


@pytest.mark.parametrize("engine", ["native", "torch"])
@pytest.mark.parametrize("kind", ["a2c", "thread"])
def test_the_last_hundred_episodes_are_those_of_the_model(kind, engine):
    """Also in a next learn()."""
    one, next_one = AtTheStart(), AtTheStart()
    model = model_of(kind, engine).learn(1000, callback=one)
    episodes = model.history.episodes
    assert 10 < len(episodes["worker"]) < 100 and all(map(math.isnan, one.means))
    model.learn(8, callback=next_one)
    means = [episodes[name].mean() for name in ("episode_return", "episode_length")]
    assert next_one.means == pytest.approx(means, rel=1e-12)


def test_the_last_hundred_episodes_go_on_in_a_resumed_run(tmp_path):
    def fail(training):
        if training.env_steps > 2000:
            raise RuntimeError("no more")

    model = model_of("a2c")
    with pytest.raises(RuntimeError, match="no more"):
        model.learn(10**9, callback=fastac.EveryNUpdates(1, fail))
    episodes = model.history.episodes
    assert len(episodes["worker"]) > 60
    start, loaded = AtTheStart(), fastac.A2C.load(model.save(tmp_path / "model.safetensors"))
    loaded.resume(callback=[start, lambda training: False])
    means = [episodes[name][-100:].mean() for name in ("episode_return", "episode_length")]
    assert start.means == pytest.approx(means, rel=1e-12)


@pytest.mark.parametrize(("until", "kept"), [(0, []), (640, [320, 640])])
def test_rows_later_than_the_model_are_dropped(until, kept, tmp_path):
    """As of a run that is resumed from a checkpoint, or of a new model in an old folder: nothing is there twice."""
    earlier = model_of("a2c")
    if until:
        earlier.learn(until, callback=every_10_updates(tmp_path))
    earlier.save(tmp_path / "model.safetensors")
    earlier.learn(1280, callback=every_10_updates(tmp_path))
    before = rows_of_csv(tmp_path)
    later = fastac.A2C.load(tmp_path).learn(480, callback=every_10_updates(tmp_path))
    of_csv, of_tensorboard = rows_of_csv(tmp_path), rows_of_tensorboard(tmp_path)
    steps = [*kept, until + 320, until + 480]
    assert later.num_timesteps == until + 480
    assert [row[STEP] for row in of_csv] == steps == [row[STEP] for row in rows_of_json(tmp_path)]
    assert sorted(of_tensorboard) == steps
    assert repr(of_csv[: len(kept)]) == repr(before[: len(kept)])


def test_a_damaged_file_is_set_aside(tmp_path):
    model_of("a2c").learn(640, callback=every_10_updates(tmp_path))
    for name in ("progress.csv", "progress.json"):
        with (tmp_path / name).open("r+") as file:
            file.truncate((tmp_path / name).stat().st_size - 5)
    with pytest.warns(UserWarning, match=r"progress\.(csv|json) is damaged \(.*cut in the midst .*begun anew") as told:
        model_of("a2c").learn(320, callback=every_10_updates(tmp_path, ("csv", "json")))
    assert len(told) == 2 and (tmp_path / "progress.csv.damaged").exists()
    assert [row[STEP] for row in rows_of_csv(tmp_path)] == [320] == [row[STEP] for row in rows_of_json(tmp_path)]


@pytest.mark.parametrize("text", ["[1]\n", '{"time/total_timesteps": null}\n', "nothing\n", "\xff\n"])
def test_lines_of_something_else_are_set_aside(text, tmp_path):
    (tmp_path / "progress.json").write_bytes(text.encode("latin-1"))
    with pytest.warns(UserWarning, match=r"progress\.json is damaged"):
        model_of("a2c").learn(320, callback=fastac.Logger(tmp_path, ["json"]))
    assert (tmp_path / "progress.json.damaged").read_bytes() == text.encode("latin-1")


def chain(error):
    """An error, and those that it came after."""
    while error is not None:
        yield error
        error = error.__context__


class FillTheDisk(fastac.BaseCallback):
    """What a Logger opens at the next row refuses to be written."""

    def __init__(self, folder, pattern):
        self.folder, self.pattern = folder, pattern

    def on_training_start(self, training):
        (file,) = self.folder.glob(self.pattern)
        file.unlink()
        file.symlink_to("/dev/full")


@pytest.mark.parametrize(("name", "pattern"), [("csv", "*.csv"), ("json", "*.json"), ("tensorboard", "events.*")])
@pytest.mark.parametrize("kind", ["a2c", "thread"])
def test_a_full_disk_ends_the_training(kind, name, pattern, tmp_path):
    model = model_of(kind)
    with pytest.raises(OSError, match="No space left on device") as told:
        model.learn(10_000_000, callback=[fastac.Logger(tmp_path, [name], 0), FillTheDisk(tmp_path, pattern)])
    assert told.value.errno == errno.ENOSPC and told.value.filename.startswith(str(tmp_path))
    assert [error.filename for error in chain(told.value)] == [told.value.filename, None]  # it is tried once
    model.ledger.check()
    assert 0 < model.num_timesteps < 10_000_000


def test_a_row_that_does_not_fit_leaves_nothing(tmp_path, monkeypatch):
    """A write may take a part of what it is given, and only then find the disk full."""
    path = tmp_path / "file"
    path.write_bytes(b"before\n")
    code = (
        "import resource, sys; from pathlib import Path; from fastac.logs import _append\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
        "try:\n    _append(Path(sys.argv[1]), b'more\\n')\nexcept OSError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == f"[Errno 27] File too large: '{path}'\n" and path.read_bytes() == b"before\n"


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        model_of("a2c").learn(320, callback=fastac.Logger(tmp_path / "file" / "x"))


def test_the_table(capsys):
    model_of("a2c").learn(320, callback=fastac.Logger(formats=["stdout"]))
    lines = [line.strip("│ ").split("│") for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    cells = {name.strip(): value.strip() for name, value in (line for line in lines if len(line) == 2)}
    groups = [line[0].strip() for line in lines if line[-1].strip() == "" or len(line) == 1]
    assert groups == ["rollout/", "time/", "train/", "async/"]
    assert cells["total_timesteps"] == "320" and cells["n_updates"] == "10" and cells["learning_rate"] == "0.0022"


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (12_345.0, "12,345"), (12_345.6, "12,346"), (0.01234, "0.0123")]
)
def test_numbers_for_people(value, text):
    assert logs._for_people(value) == text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"folder": "x", "formats": ["xml"]},
            r"formats: expected some of csv, json, stdout, tensorboard, got \['xml'\]",
        ),
        ({"folder": "x", "formats": "csv"}, "formats: expected some of .*, got 'csv'"),
        ({"folder": "x", "formats": []}, r"formats: expected some of .*, got \[\]"),
        ({"formats": ["csv", "stdout"]}, "folder: expected one for csv, got None"),
        ({"folder": "x", "every_s": -1}, "every_s: expected a number of seconds >= 0, got -1"),
        ({"folder": "x", "every_s": math.nan}, "every_s: expected a number"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(fastac.ConfigError, match=message):
        fastac.Logger(**arguments)


def test_without_tensorboard_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.summary.writer.record_writer", None)
    with pytest.raises(fastac.ConfigError, match=r"tensorboard: expected .*pip install 'fastac\[tensorboard\]'"):
        fastac.Logger(tmp_path, FILES)


def test_writing_takes_a_twentieth_of_the_time(tmp_path, monkeypatch):
    seconds = iter([10.0, 10.5, 20.0, 20.01])
    monkeypatch.setattr(logs.time, "monotonic", lambda: next(seconds))
    logger = fastac.Logger(tmp_path, every_s=1.0)

    class Told:
        num_timesteps = 8

        def scalars(self, asker):
            return {STEP: 8.0}

    for expected in (updates._REST * 0.5, 1.0):
        logger.on_step(Told())
        assert logger.every_s == pytest.approx(expected)


def test_neither_torch_nor_tensorflow_is_imported(tmp_path):
    code = (
        "import fastac, sys; fastac.A3C(workers=2).learn(2000, callback=fastac.Logger(sys.argv[1], ['tensorboard']))\n"
        "sys.exit(bool({'torch', 'tensorflow'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert rows_of_tensorboard(tmp_path)


# ---- what callbacks are told ----------------------------------------------------------------------------------


def test_each_asker_has_means_of_its_own(tmp_path):
    told = {"first": [], "second": []}

    def ask(name):
        return lambda training: told[name].append(training.scalars(name)["train/policy_loss"])

    model = model_of("a2c").learn(
        1280, callback=[fastac.EveryNUpdates(10, ask("first")), fastac.EveryNUpdates(20, ask("second"))]
    )
    losses = model.history.updates["policy_loss"]
    assert told["first"] == pytest.approx([losses[i : i + 10].mean() for i in range(0, 40, 10)])
    assert told["second"] == pytest.approx([losses[i : i + 20].mean() for i in range(0, 40, 20)])


def test_means_of_updates_leave_out_what_is_not_finite():
    def told(recent, loss):
        values = dict.fromkeys(UPDATE_COLUMNS, 1.0) | {"policy_loss": loss}
        recent.add_rows(log_row(1.0, 0.0, 0, 8, 1, *values.values())[None])

    recent = Recent()
    assert math.isnan(recent.updates().means_since(None)["policy_loss"])
    for loss in (math.inf, 2.0, math.nan, 4.0):
        told(recent, loss)
    before = recent.updates()
    assert before.means_since(None)["policy_loss"] == 3.0
    told(recent, 7.0)
    assert recent.updates().means_since(before)["policy_loss"] == 7.0


def test_each_callback_is_told_of_the_end():
    ended = []

    class Failing(fastac.BaseCallback):
        def __init__(self, name):
            self.name = name

        def on_training_end(self, training):
            ended.append(self.name)
            raise RuntimeError(self.name)

    with pytest.raises(RuntimeError, match="first") as told:
        model_of("a2c").learn(320, callback=[Failing("first"), Failing("second")])
    assert ended == ["second", "first"] and str(told.value.__context__) == "second"


@pytest.mark.parametrize("kind", ["a2c", "thread"])
def test_a_callback_that_failed_is_not_called_again(kind):
    calls = []

    def fail(training):
        calls.append(training.env_steps)
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        model_of(kind).learn(10_000_000, callback=fail)
    assert len(calls) == 1


def test_the_pace_of_a_worker_is_that_of_this_part():
    """What an earlier part took does not count."""
    told = []

    def stop(training):
        raise KeyboardInterrupt

    model = model_of("a2c")
    with pytest.raises(KeyboardInterrupt):
        model.learn(6400, callback=fastac.EveryNUpdates(10, stop))
    long_ago = dataclasses.replace(model.unfinished, wall_s=1e9)
    model._standing = dataclasses.replace(model._standing, unfinished=long_ago)
    model.resume(callback=lambda training: told.append(training.ledger().workers[0].env_steps_per_s))
    assert told[-1] > 1.0
