"""A saved model is the model and trains on as if it had never been away; a file that is damaged says so."""

import copy
import errno
import pickle
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import fastac
from fastac import torch_engine, updates
from fastac.checkpoint import load_checkpoint, previous_of
from fastac.config import ENGINES

SMALL = {"n_steps": 8, "hidden_sizes": (16,), "seed": 11}
SLOW = {**SMALL, "engine": "torch"}  # of which something is left when it is interrupted
GATE = Path(__file__).parent / "gates" / "checkpoints.py"


def bits(model):
    """All that decides the future of an A2C model."""
    standing = (model.version, model.num_timesteps, model.unfinished)
    envs = {name: array.tobytes() for name, array in model._envs_state().items()}
    return model.params.tobytes(), model.state.tobytes(), envs, standing


# ---- what is saved is what is loaded --------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["rmsprop", "adam", "sgd"])
def test_save_and_load(tmp_path, optimizer):
    model = fastac.A3C(workers=2, backend="thread", optimizer=optimizer, **SMALL).learn(500)
    model.predict(np.zeros((3, 4)))
    path = model.save(tmp_path / "deep" / "model.safetensors")
    loaded = fastac.A3C.load(path)
    assert loaded.config == model.config
    assert loaded.params.tobytes() == model.params.tobytes()
    assert loaded.state.tobytes() == model.state.tobytes() and loaded.state.shape == model.state.shape
    assert (loaded.version, loaded.num_timesteps, loaded.learn_calls) == (model.version, model.num_timesteps, 1)
    assert loaded.unfinished is None
    obs = np.random.default_rng(0).normal(size=(99, 4))
    assert loaded.predict(obs)[0].tolist() == model.predict(obs)[0].tolist()  # sampled from the same stream


def test_a_copy_goes_on_like_the_model():
    model = fastac.A2C(n_envs=2, split=2, **SMALL).learn(200)
    twins = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    assert [bits(twin.learn(200)) for twin in twins] == [bits(model.learn(200))] * 2


def test_two_are_kept(tmp_path):
    model = fastac.A2C(**SMALL)
    for _ in range(3):
        model.learn(64).save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.previous.safetensors", "model.safetensors"]
    assert fastac.A2C.load(tmp_path).version == model.version
    assert fastac.A2C.load(tmp_path / "model.previous.safetensors").num_timesteps == model.num_timesteps - 64


# ---- training goes on -----------------------------------------------------------------------------------------


def interrupt(monkeypatch, n_updates):
    """Ctrl-C in the midst of the n-th update from now."""
    compute, calls = torch_engine.compute_gradient, []

    def interrupted(*args):
        calls.append(None)
        if len(calls) == n_updates:
            signal.raise_signal(signal.SIGINT)
        return compute(*args)

    monkeypatch.setattr(torch_engine, "compute_gradient", interrupted)


LINEAR = {"lr_schedule": "linear", "ent_schedule": "linear"}


@pytest.mark.parametrize(
    "options", [{}, LINEAR, {"optimizer": "adam"}, {"n_envs": 6, "split": 2, "max_episode_steps": 9, **LINEAR}]
)
def test_an_interrupted_a2c_ends_with_the_same_bits(options, tmp_path, monkeypatch):
    whole = fastac.A2C(**SLOW | options).learn(1500)
    for n_updates in (1, 2, 7, whole.version - 1):
        model = fastac.A2C(**SLOW | options)
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            interrupt(patch, n_updates)
            model.learn(1500)
        assert model.version == n_updates and model.unfinished.updates == n_updates
        resumed = fastac.A2C.load(model.save(tmp_path)).resume()
        assert bits(resumed) == bits(whole)
        ends = (*model.history.episodes["episode_return"], *resumed.history.episodes["episode_return"])
        assert ends == tuple(whole.history.episodes["episode_return"])
        for column in ("learning_rate", "ent_coef", "env_steps"):
            parts = np.concatenate([model.history.updates[column], resumed.history.updates[column]])
            assert parts.tolist() == whole.history.updates[column].tolist()
        assert resumed.history.moments["updates"][-1] == whole.version
        assert resumed.history.updates["wall_s"][0] >= model.history.updates["wall_s"][-1]


def test_a_new_process_resumes_with_the_same_bits(tmp_path, monkeypatch):
    options = {**SLOW, **LINEAR, "n_envs": 4, "split": 2, "optimizer": "adam"}
    whole = fastac.A2C(**options).learn(2000)
    model = fastac.A2C(**options)
    interrupt(monkeypatch, 41)
    with pytest.raises(KeyboardInterrupt):
        model.learn(2000)
    model.save(tmp_path)
    code = "import fastac, sys; fastac.A2C.load(sys.argv[1]).resume().save(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert bits(fastac.A2C.load(tmp_path)) == bits(whole)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("split", [1, 2])
def test_two_calls_are_one(split, engine):
    options = {**SMALL, "n_envs": 2, "split": split, "engine": engine}
    once, twice = fastac.A2C(**options).learn(1280), fastac.A2C(**options).learn(720).learn(560)
    assert bits(once) == bits(twice)


def test_every_checkpoint_on_the_way_leads_to_the_same_end(tmp_path, monkeypatch):
    monkeypatch.setattr(updates, "_REST", 0)
    monkeypatch.setattr(updates, "_TICK_S", 0.0)
    path, copies = tmp_path / "model.safetensors", []

    def take(history):
        copies.append(shutil.copy(path, tmp_path / f"{len(copies)}"))
        assert len(history.updates["wall_s"]) == load_checkpoint(path).standing["version"] + 1

    options = {**SMALL, **LINEAR, "n_envs": 2, "split": 2}
    model = fastac.A2C(**options).learn(400, checkpoint=path, checkpoint_every_s=1e-9, on_checkpoint=take)
    assert bits(fastac.A2C.load(path)) == bits(model) == bits(fastac.A2C(**options).learn(400))
    assert len(copies) == model.version  # from the beginning to the last update but one
    for copied in copies[:: len(copies) // 5]:
        assert bits(fastac.A2C.load(copied).resume()) == bits(model)


@pytest.mark.parametrize(
    ("engine", "total", "update"),
    [
        ("torch", 8_000, "lockfree"),
        ("torch", 8_000, "queue"),
        ("torch", 8_000, "hogwild"),
        ("native", 4_000_000, "lockfree"),
    ],
)
@pytest.mark.parametrize("backend", ["thread", "process"])
def test_a3c_is_resumed_with_what_is_left(engine, total, update, backend, tmp_path, monkeypatch):
    monkeypatch.setattr(updates, "_REST", 0)
    options = {**SMALL, **LINEAR, "workers": 2, "update": update, "backend": backend, "engine": engine}
    model = fastac.A3C(**options)
    seen = []

    def stop(history):
        seen.append(len(history.updates["wall_s"]))
        if len([rows for rows in seen if rows > 20]) == 2:  # so that the previous one has seen updates, too
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.learn(total, checkpoint=tmp_path, checkpoint_every_s=0.01, on_checkpoint=stop)
    done = model.unfinished
    assert 0 < done.env_steps == model.num_timesteps < total and done.updates == model.version
    on_the_way = fastac.A3C.load(tmp_path / "model.previous.safetensors")
    assert 0 < on_the_way.unfinished.env_steps <= done.env_steps and on_the_way.learn_calls == 1
    resumed = fastac.A3C.load(tmp_path).resume()
    assert total <= resumed.num_timesteps < total + 2 * 8 and resumed.unfinished is None
    assert resumed.version == done.updates + resumed.ledger.applied and resumed.learn_calls == 2
    assert resumed.history.updates["env_steps"][0] == done.env_steps + 8
    rates = resumed.history.updates["learning_rate"]
    assert rates.max() == pytest.approx(2.2e-3 * (1 - done.env_steps / total), rel=0.01)


def test_what_is_told_reaches_as_far_as_what_is_saved(tmp_path, monkeypatch):
    """But for a row that a worker is just writing."""
    monkeypatch.setattr(updates, "_REST", 0)
    told, saved = [], []

    def tell(history):
        told.append(len(history.updates["wall_s"]))
        time.sleep(0.05)  # in which the workers go on

    model = fastac.A3C(workers=2, backend="thread", **SLOW)
    save = model._save
    model._save = lambda path, params, state, standing, statistics: (
        saved.append(standing.version) or save(path, params, state, standing, statistics)
    )
    model.learn(8_000, checkpoint=tmp_path, checkpoint_every_s=0.01, on_checkpoint=tell)
    on_the_way = saved[1:-1]  # without the first and the last, which nobody is told of
    assert len(on_the_way) == len(told) > 2
    assert all(version - rows <= 2 for version, rows in zip(on_the_way, told, strict=True))


def test_saving_on_the_way(tmp_path, monkeypatch):
    monkeypatch.setattr(updates, "_REST", 0)
    model, copies = fastac.A2C(n_envs=2, **SLOW), []
    model.learn(
        40_000,
        checkpoint_every_s=0.01,
        on_checkpoint=lambda _: copies.append(model.save(tmp_path / f"{len(copies)}.safetensors")),
    )
    copy = fastac.A2C.load(copies[len(copies) // 2])
    assert 0 < copy.unfinished.env_steps < 40_000 and copy.version > 0
    assert bits(copy.resume()) == bits(model)


class Told(Exception):
    """Ends a learn() from its on_checkpoint, so that it is called in a run of any speed."""


def test_saving_from_another_thread_while_it_learns(tmp_path):
    model, said = fastac.A2C(**SLOW), []

    def save():
        try:
            model.save(tmp_path)
        except RuntimeError as error:
            said.append(str(error))

    def tell(_):
        thread = threading.Thread(target=save)
        thread.start()
        thread.join()
        raise Told

    with pytest.raises(Told):
        model.learn(10**9, checkpoint_every_s=0.01, on_checkpoint=tell)
    assert said and said[0].startswith("save: another thread is inside learn()") and not list(tmp_path.iterdir())


def test_learning_while_it_learns():
    model, said = fastac.A2C(**SLOW), []

    def tell(_):
        with pytest.raises(RuntimeError, match=r"inside learn\(\) already") as caught:
            model.learn(64)
        said.append(caught)
        raise Told

    with pytest.raises(Told):
        model.learn(10**9, checkpoint_every_s=0.01, on_checkpoint=tell)
    assert said and model.num_timesteps == model.version * 8 * model.config.n_envs
    model.learn(64)  # once it is over


def test_another_algorithms_model_is_not_called_damaged(tmp_path):
    fastac.A3C(**SMALL).save(tmp_path)
    fastac.A3C(**SMALL).save(tmp_path)
    with pytest.raises(fastac.CheckpointError, match=r"expected an A2C model, got A3C: use fastac\.A3C\.load$"):
        fastac.A2C.load(tmp_path)


def test_both_are_damaged(tmp_path):
    model = fastac.A2C(**SMALL)
    for _ in range(2):
        path = model.save(tmp_path)
    path.write_bytes(b"")
    previous_of(path).write_bytes(b"x")
    words = f"the file is empty; the previous one, {previous_of(path)}, is damaged, too"
    with pytest.raises(fastac.CheckpointError, match=re.escape(words)):
        fastac.A2C.load(tmp_path)


def test_nothing_to_resume():
    model = fastac.A2C(**SMALL)
    with pytest.raises(fastac.NothingToResumeError, match=r"use learn\(total_timesteps\) to train on"):
        model.resume()
    with pytest.raises(fastac.NothingToResumeError):
        model.learn(64).resume()


@pytest.mark.parametrize("every_s", [-1, float("nan"), float("inf"), "often"])
def test_bad_intervals_are_refused(every_s):
    with pytest.raises(fastac.ConfigError, match="checkpoint_every_s: expected a number of seconds >= 0"):
        fastac.A2C(**SMALL).learn(64, checkpoint_every_s=every_s)


# ---- damage ---------------------------------------------------------------------------------------------------


def test_what_is_no_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        fastac.A2C.load(tmp_path / "missing")
    path = fastac.A2C(**SMALL).save(tmp_path / "model")
    with pytest.raises(fastac.CheckpointError, match=r"expected an A3C model, got A2C: use fastac\.A2C\.load"):
        fastac.A3C.load(path)
    whole = path.read_bytes()
    for damaged in (b"", b"hello", whole[:40], pickle.dumps("model")):
        path.write_bytes(damaged)
        with pytest.raises(fastac.CheckpointError, match=r"no checkpoint of fastac, or its header is|file is empty"):
            fastac.A2C.load(path)
    path.write_bytes(whole[:-7])
    with pytest.raises(fastac.CheckpointError, match="damaged: it is cut"):
        fastac.A2C.load(path)
    path.write_bytes(whole.replace(b"fastac checkpoint 3", b"fastac checkpoint 2"))
    with pytest.raises(fastac.CheckpointError, match="expected the format 'fastac checkpoint 3', got 'fastac checkp"):
        fastac.A2C.load(path)
    assert not previous_of(path).exists()


def test_the_message_says_what_is_damaged_and_the_way_out(tmp_path):
    model = fastac.A2C(**SMALL)
    path = model.save(tmp_path / "model.safetensors")
    damaged = bytearray(path.read_bytes())
    at = bytes(damaged).index(model.params.tobytes())
    damaged[at + 5] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(fastac.CheckpointError, match=r"damaged: array 'params': not what was saved$"):
        fastac.A2C.load(path)
    model.save(path)  # the damaged file is not kept
    assert not previous_of(path).exists()
    model.save(path)
    path.write_bytes(damaged)
    words = f"the previous checkpoint is whole, load {re.escape(str(previous_of(path)))} instead"
    with pytest.raises(fastac.CheckpointError, match=words):
        fastac.A2C.load(path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=words):
        fastac.A2C.load(path)
    assert bits(fastac.A2C.load(previous_of(path))) == bits(model)


def test_a_model_of_another_configuration_does_not_fit(tmp_path):
    model = fastac.A2C(**SMALL)
    object.__setattr__(model.config, "hidden_sizes", (32,))
    with pytest.raises(fastac.CheckpointError, match="params: expected shape"):
        fastac.A2C.load(model.save(tmp_path))


def test_a_failed_save_leaves_what_was_there(tmp_path, monkeypatch):
    model = fastac.A2C(**SMALL)
    path = model.save(tmp_path / "model")
    before = path.read_bytes()

    def full_disk(fd):
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr("fastac.checkpoint.os.fsync", full_disk)
    with pytest.raises(OSError, match=rf"not saved: no space left on device: '{path}'"):
        model.save(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", ["a2c", "a3c"])
def test_a_disk_that_fills_up_during_training_ends_it_and_keeps_the_model(kind, tmp_path, monkeypatch):
    options = {**SMALL, "backend": "thread"} if kind == "a3c" else SMALL
    model = (fastac.A3C if kind == "a3c" else fastac.A2C)(**options)
    saves = []

    def full_disk(fd):
        saves.append(fd)
        if len(saves) > 6:
            raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr("fastac.checkpoint.os.fsync", full_disk)
    with pytest.raises(OSError, match="no space left"):
        model.learn(10_000_000, checkpoint=tmp_path, checkpoint_every_s=0.05)
    assert model.version > 0 and model.unfinished is not None
    model.ledger.check()
    assert 0 <= type(model).load(tmp_path).version <= model.version


# ---- the gate, in miniature -----------------------------------------------------------------------------------


def run_gate(before="", *words):
    code = f"import runpy, sys\n{before}\nsys.argv[1:] = {words}; runpy.run_path({str(GATE)!r}, run_name='__main__')"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_the_gate():
    done = run_gate("", "--flips", "300", "--kills", "10", "--n-params", "50")
    assert done.returncode == 0, done.stdout + done.stderr
    expected = (
        r"checkpoint: \d\d truncations, 300 bit flips \(\d+ without effect\), 10 kills while saving and one at each "
    )
    assert re.match(expected + r"of its \d+ lines, full disk \((tmpfs|RLIMIT_FSIZE)\): 0 silent", done.stdout)


SEEDED_BUGS = {
    "no digests": "c._manifest = lambda head, arrays: {}",
    "digests of the bytes alone": "c._manifest = lambda head, arrays: {n: c.hashlib.sha256(a.tobytes()).hexdigest() "
    "for n, a in arrays.items()}",
    "the head has no digest": "m = c._manifest; c._manifest = lambda head, arrays: m('', arrays)",
    "written in place": "c._write_temporary = lambda file, data: (file.write_bytes(data), file)[1]",
    "the old one is not kept": "c._whole = lambda file: None",
    "strays stay": "c._remove_temporaries = lambda file: None",
}


@pytest.mark.parametrize("bug", SEEDED_BUGS)
def test_the_gate_catches(bug):
    done = run_gate(
        f"import fastac.checkpoint as c; {SEEDED_BUGS[bug]}", "--flips", "4000", "--kills", "20", "--n-params", "50"
    )
    assert done.returncode == 1 and done.stdout.startswith("checkpoint: FAILED: "), done.stdout + done.stderr
