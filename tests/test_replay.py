"""A recorded A3C run is made again to the last bit, whatever happened in it; what a recording is good for besides."""

import dataclasses
import errno
import os
import signal
import warnings
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from crews import children

import fastac
from fastac import ConfigError, NonFiniteGradientError, ReplayError
from fastac.cli import main
from fastac.cli.replay import _tell_whole
from fastac.config import BACKENDS
from fastac.lab.replay import expect_equal, load_recording, replay
from fastac.recording import ENTRY, Recording, room_for

ORDERED = ("lockfree", "lock", "queue")
SMALL = {"workers": 3, "n_steps": 8, "hidden_sizes": (16,), "seed": 11, "record": True}


def check(model, recording=None):
    replayed = replay(recording or model.recording)
    expect_equal(replayed, model.params, model.state)
    assert replayed.version == replayed.updates == model.version
    assert replayed.env_steps == model.num_timesteps
    return replayed


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("update", ORDERED)
def test_replay_is_the_run_to_the_last_bit(update, backend):
    options = {"lr_schedule": "linear", "ent_schedule": "linear", "staleness_lr": "inverse", "max_staleness": 2}
    model = fastac.A3C(update=update, backend=backend, **SMALL, **options).learn(16_000)
    replayed = check(model)
    assert replayed.rejected == model.ledger.rejected_stale
    assert len(model.recording.parts[0].entries) == model.ledger.published
    assert sorted(replayed.episodes[:, 1]) == sorted(model.history.episodes["episode_return"])
    model.learn(4_000)  # other streams, and schedules that begin anew
    assert [part.call for part in model.recording.parts] == [0, 1]
    check(model)


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "adam", "clip_at": "apply", "n_envs": 2},
        {"optimizer": "sgd", "shared_trunk": False, "activation": "relu", "gae_lambda": 1.0},
        {"workers": 8, "max_staleness": 0},
    ],
)
def test_with_every_kind_of_config(options):
    model = fastac.A3C(backend="thread", **{**SMALL, **options}).learn(8_000)
    check(model)


def test_every_entry_is_what_the_region_says_of_one_worker():
    model = fastac.A3C(**{**SMALL, "workers": 1}).learn(80)
    entries = model.recording.parts[0].entries
    assert entries.dtype == ENTRY and entries.itemsize == 16
    assert entries.tolist() == [(k, 0, 0, 0) for k in range(10)]


class Enough(Exception):
    """Ends a run that is long enough for what a test does to it on a busy machine."""


LONG = 20_000_000


@pytest.mark.parametrize("update", ORDERED)
def test_workers_that_were_killed(update):
    model = fastac.A3C(backend="process", update=update, **SMALL)
    killed = []

    def kill_one(history):
        if not killed and len(history.updates["wall_s"]) > 0:
            os.kill(children()[0], signal.SIGKILL)
            killed.append(1)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fastac.WorkerDeathWarning)
        model.learn(2_000_000, on_checkpoint=kill_one, checkpoint_every_s=0.01)
    assert model.ledger.deaths == len(killed) == 1
    assert model.recording.parts[0].entries["incarnation"].max() == 1
    check(model)


def test_interrupted_and_resumed_from_its_file(tmp_path):
    def stop(history):
        if len(history.updates["wall_s"]) > 0:
            raise Enough

    model = fastac.A3C(backend="thread", lr_schedule="linear", **SMALL)
    with pytest.raises(Enough):
        model.learn(LONG, checkpoint=tmp_path, checkpoint_every_s=0.05, on_checkpoint=stop)
    assert 0 < model.num_timesteps < LONG
    loaded = fastac.A3C.load(tmp_path)
    loaded._standing = dataclasses.replace(
        loaded._standing,
        unfinished=dataclasses.replace(loaded.unfinished, total_timesteps=loaded.num_timesteps + 2_000),
    )  # a shorter rest
    loaded.resume(checkpoint=tmp_path)
    assert len(loaded.recording.parts) == 2 and loaded.unfinished is None
    check(loaded)
    check(loaded, load_recording(tmp_path))


def test_a_recording_is_cut_to_the_model_that_is_there(tmp_path):
    """A command that is killed may leave a recording that goes further than its model."""
    model = fastac.A3C(**SMALL).learn(800)
    model.save(tmp_path / "early.safetensors")
    longer = fastac.A3C.load(tmp_path / "early.safetensors").learn(800)
    longer.recording.save(tmp_path / "early.recording.safetensors")
    early = fastac.A3C.load(tmp_path / "early.safetensors")
    assert len(early.recording.parts) == 1
    check(early)
    (tmp_path / "early.recording.safetensors").write_bytes(b"damaged")
    check(fastac.A3C.load(tmp_path / "early.safetensors"))  # the one before it goes as far as the model
    (tmp_path / "early.recording.previous.safetensors").unlink()
    with pytest.warns(UserWarning, match="the recording is lost, and begins anew"):
        early = fastac.A3C.load(tmp_path / "early.safetensors")
    early.learn(400)  # what is recorded from here on begins here
    replayed = replay(early.recording)
    expect_equal(replayed, early.params, early.state)
    assert replayed.version == early.version > replayed.updates


def test_gradients_that_are_no_numbers():
    model = fastac.A3C(backend="thread", optimizer="sgd", max_grad_norm=0, learning_rate=1e30, **SMALL)
    with pytest.raises(NonFiniteGradientError):
        model.learn(100_000)
    replayed = replay(model.recording)
    assert replayed.rejected >= 10 and replayed.rejected == model.ledger.rejected_nonfinite
    expect_equal(replayed, model.params, model.state)


def test_any_moment():
    model = fastac.A3C(**SMALL).learn(1600)
    beginning, middle = replay(model.recording, at=0), replay(model.recording, at=100)
    assert beginning.params.tobytes() == fastac.A3C(**SMALL).params.tobytes() and beginning.version == 0
    assert middle.version == middle.updates == 100 and middle.params.tobytes() != model.params.tobytes()
    expect_equal(replay(model.recording, at=model.version), model.params, model.state)
    with pytest.raises(ConfigError, match=rf"at: expected 0 to {model.version}, the updates recorded, got 5,000"):
        replay(model.recording, at=5000)


def test_other_staleness():
    """One worker has none: with 0 the same bits, with 1 others, and these as if the worker had read one update late."""
    model = fastac.A3C(**{**SMALL, "workers": 1}).learn(1600)
    expect_equal(replay(model.recording, staleness=0), model.params, model.state)
    late = replay(model.recording, staleness=1)
    assert late.params.tobytes() != model.params.tobytes()
    entries = model.recording.parts[0].entries.copy()
    entries["read_at"][1:] -= 1
    by_hand = Recording(model.config, (dataclasses.replace(model.recording.parts[0], entries=entries),))
    expect_equal(replay(by_hand), late.params, late.state)


def test_what_differs_is_told():
    model = fastac.A3C(**{**SMALL, "max_staleness": 0}).learn(1600)
    other = model.params.copy()
    other[7] += 1.0
    with pytest.raises(ReplayError, match=r"params: 1 of .* differ, first number 7: .* in the model"):
        expect_equal(replay(model.recording), other, model.state)
    (part,) = model.recording.parts
    entries = part.entries.copy()
    entries["outcome"][3] = 1
    wrong = Recording(model.config, (dataclasses.replace(part, entries=entries),))
    with pytest.raises(ReplayError, match=r"gradient 3, of worker \d: rejected_nonfinite when recorded, now"):
        replay(wrong)
    entries = part.entries.copy()
    entries["read_at"][3] = 5
    with pytest.raises(ReplayError, match="parameters that came after it"):
        replay(Recording(model.config, (dataclasses.replace(part, entries=entries),)))
    with pytest.raises(ReplayError, match=r"learn\(\) number 2 began elsewhere"):
        replay(Recording(model.config, (part, dataclasses.replace(part, call=1))))


def test_what_cannot_be_recorded():
    with pytest.raises(ConfigError, match="record: expected lockfree, lock or queue, got hogwild"):
        fastac.A3C(record=True, update="hogwild")
    with pytest.raises(ConfigError, match="record: expected the native engine, which is what replays, got torch"):
        fastac.A3C(record=True, engine="torch")
    config = fastac.A3CConfig(record=True, n_steps=1, workers=2)
    assert room_for(config, 40, 140) == 100 + 32
    with pytest.raises(ConfigError, match="record: expected a run of at most 67,108,864 updates"):
        room_for(config, 0, 2**26)
    assert fastac.A3C(**{**SMALL, "record": False}).learn(100).recording is None


def test_the_command(tmp_path):
    def run(*arguments):
        return CliRunner().invoke(main, [str(argument) for argument in arguments])

    train = ("train", "a3c", "--n-steps", 8, "--hidden-sizes", 16, "--seed", 1, "--total-timesteps", 4000)
    assert run(*train, "--record", "--runs", tmp_path, "--name", "run").exit_code == 0
    folder = tmp_path / "run"
    model = fastac.A3C.load(folder)
    told = run("replay", folder)
    assert told.exit_code == 0, told.output
    assert f"{model.version:,} updates of" in told.output and "equal to the last bit" in told.output
    told = run("replay", folder, "--at", 200, "--save", tmp_path / "at200.safetensors")
    assert (
        told.exit_code == 0
        and "greedy return" in told.output
        and "sampled actions" in told.output
        and "P(push left)" in told.output
    )
    kept = fastac.A3C.load(tmp_path / "at200.safetensors")
    assert kept.params.tobytes() == replay(model.recording, at=200).params.tobytes()
    told = run("replay", folder, "--at", 200, "--save", tmp_path / "at200.safetensors")
    assert told.exit_code == 2 and "exists already; --force overwrites it" in told.output
    assert run("replay", folder, "--save", tmp_path / "at200.safetensors", "--force").exit_code == 0
    told = run("replay", folder, "--at", 100_000)
    assert told.exit_code == 2 and f"expected 0 to {model.version:,}, the updates recorded" in told.output
    told = run("replay", folder, "--staleness", 0)
    assert told.exit_code == 0 and "as it was: " in told.output and "staleness 0: " in told.output
    model.params[0] += 1.0
    model.save(folder)
    told = run("replay", folder)
    assert told.exit_code == 1 and "ReplayError: params: 1 of" in told.output
    assert run(*train, "--runs", tmp_path, "--name", "none").exit_code == 0
    told = run("replay", tmp_path / "none")
    assert told.exit_code == 2 and "no recording at" in told.output and "--record" in told.output


def test_a_recording_of_another_model_is_left_where_it_lies(tmp_path):
    """A model that has not been trained yet is saved over one that has: the recording beside it is not its own."""
    fastac.A3C(**SMALL, backend="thread").learn(500, checkpoint=tmp_path / "model.safetensors")
    fastac.A3C(**{**SMALL, "seed": 12}, backend="thread").save(tmp_path / "model.safetensors")
    loaded = fastac.A3C.load(tmp_path / "model.safetensors")
    assert loaded.recording is None
    check(loaded.learn(500))


def test_a_model_finds_the_recording_of_its_own_training(tmp_path):
    """Two trainings of one beginning, saved to one path: the previous model has the previous recording."""
    path = tmp_path / "it.safetensors"
    begun = fastac.A3C(**{**SMALL, "backend": "thread"}).learn(400)
    begun.save(path)
    one, other = (fastac.A3C.load(path).learn(400) for _ in range(2))
    assert one.recording.parts[0].id == other.recording.parts[0].id == begun.recording.id
    assert one.recording.id != other.recording.id
    one.save(path)
    other.save(path)
    for saved, model in ((path, other), (tmp_path / "it.previous.safetensors", one)):
        loaded = fastac.A3C.load(saved)
        assert loaded.params.tobytes() == model.params.tobytes() and loaded.recording.id == model.recording.id
        check(loaded)
    (tmp_path / "it.recording.previous.safetensors").unlink()
    with pytest.warns(UserWarning, match="is of another training, or ends before the model: its recording begins anew"):
        loaded = fastac.A3C.load(tmp_path / "it.previous.safetensors")
    assert loaded.recording is None


def test_a_recording_that_ends_before_the_model_is_not_its_own(tmp_path):
    path = tmp_path / "it.safetensors"
    model = fastac.A3C(**{**SMALL, "backend": "thread"}).learn(400)
    model.save(path)
    (part,) = model.recording.parts
    short = Recording(model.config, (dataclasses.replace(part, entries=part.entries[:-1]),))
    for _ in range(2):  # the previous one, too
        short.save(tmp_path / "it.recording.safetensors")
    with pytest.warns(UserWarning, match="or ends before the model"):
        assert fastac.A3C.load(path).recording is None


def test_a_recording_that_cannot_be_written_costs_no_model(tmp_path, monkeypatch):
    def full(self, path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    model = fastac.A3C(**{**SMALL, "backend": "thread"}).learn(400)
    model.save(tmp_path / "it.safetensors")
    monkeypatch.setattr(Recording, "save", full)
    with pytest.raises(OSError, match=r"No space left on device; the model is saved, .*it\.safetensors, its record"):
        model.learn(400, checkpoint=tmp_path / "it.safetensors", checkpoint_every_s=0)
    assert model.num_timesteps >= 800
    with pytest.warns(UserWarning, match="or ends before the model"):  # that of the first 400 steps
        loaded = fastac.A3C.load(tmp_path / "it.safetensors")
    assert loaded.params.tobytes() == model.params.tobytes() and loaded.num_timesteps == model.num_timesteps


def test_who_took_part(capsys):
    """A run so short that it may be over before all workers begin."""
    model = fastac.A3C(**{**SMALL, "workers": 3, "backend": "thread"}).learn(800)
    (part,) = model.recording.parts
    for seats, incarnation, told in (
        ([0, 1, 2], 0, "of 3 workers and 0 rejected"),
        ([0, 2], 0, "of 2 of 3 workers and 0 rejected"),
        ([0, 1, 2], 1, "of 3 workers and 1 that replaced one and 0 rejected"),
    ):
        entries = part.entries.copy()
        entries["worker"] = np.resize(seats, len(entries))
        entries["incarnation"][-1] = incarnation
        recording = Recording(model.config, (dataclasses.replace(part, entries=entries),))
        _tell_whole(Path("run"), recording, replay(recording))
        assert told in capsys.readouterr().out


def test_a_run_too_long_to_record_changes_nothing(tmp_path):
    model = fastac.A3C(**SMALL, backend="thread")
    with pytest.raises(ConfigError, match="record: expected a run of at most"):
        model.learn(10**11, checkpoint=tmp_path / "model.safetensors")
    assert model.unfinished is None and not list(tmp_path.iterdir())
