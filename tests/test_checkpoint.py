"""A saved model is the model; a file that is not one says so."""

import numpy as np
import pytest

import fastac

SMALL = {"n_steps": 8, "hidden_sizes": (16,), "seed": 11}


@pytest.mark.parametrize("optimizer", ["rmsprop", "adam", "sgd"])
def test_save_and_load(tmp_path, optimizer):
    model = fastac.A3C(workers=2, backend="thread", optimizer=optimizer, **SMALL).learn(500)
    path = model.save(tmp_path / "deep" / "model.safetensors")
    loaded = fastac.A3C.load(path)
    assert loaded.config == model.config
    assert loaded.policy.params.tobytes() == model.policy.params.tobytes()
    assert loaded.state.tobytes() == model.state.tobytes() and loaded.state.shape == model.state.shape
    assert (loaded.version, loaded.num_timesteps, loaded.learn_calls) == (model.version, model.num_timesteps, 1)
    obs = np.random.default_rng(0).normal(size=(9, 4))
    assert loaded.predict(obs, True)[0].tolist() == model.predict(obs, True)[0].tolist()


def test_training_goes_on_from_a_checkpoint_as_if_never_interrupted(tmp_path):
    model = fastac.A2C(optimizer="adam", **SMALL).learn(640)
    loaded = fastac.A2C.load(model.save(tmp_path / "model"))
    assert loaded.learn(640).policy.params.tobytes() == model.learn(640).policy.params.tobytes()


def test_what_is_no_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        fastac.A2C.load(tmp_path / "missing")
    path = fastac.A2C(**SMALL).save(tmp_path / "model")
    with pytest.raises(fastac.CheckpointError, match=r"expected an A3C model, got A2C: use fastac\.A2C\.load"):
        fastac.A3C.load(path)
    whole = path.read_bytes()
    for damaged in (b"", b"hello", whole[:40], whole[:-7]):
        path.write_bytes(damaged)
        with pytest.raises(fastac.CheckpointError, match="not a whole checkpoint"):
            fastac.A2C.load(path)


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    model = fastac.A2C(**SMALL)
    path = model.save(tmp_path / "model")
    before = path.read_bytes()

    def full_disk(fd):
        raise OSError("no space left on device")

    monkeypatch.setattr("fastac.checkpoint.os.fsync", full_disk)
    with pytest.raises(OSError, match="no space left"):
        model.save(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
