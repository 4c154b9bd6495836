"""Exported policies do elsewhere what they do here: in plain torch from a state_dict, and in the ONNX runtime."""

import logging

import gymnasium
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from gymnasium import spaces as gym_spaces
from test_any_env import SMALL, Own, Tape

import fastac
from fastac.interop.export import export_onnx, export_torch
from fastac.normalization import Moments

CASES = {
    "native": (("CartPole-v1",), {}),
    "normalised": (("Pendulum-v1",), {"normalize_observation": True, "normalize_reward": True}),
    "lstm": (("MlpLstmPolicy", "CartPole-v1"), {"normalize_observation": True}),
    "images": (("CnnPolicy", lambda: Tape(shape=(12, 10, 3), dtype=np.uint8)), {}),
    "own": ((Own(), Tape), {}),
}


@pytest.fixture(params=CASES, ids=str)
def model(request):
    arguments, options = CASES[request.param]
    return fastac.A2C(*arguments, **SMALL, **options).learn(200)


def seen_by(model, n=5):
    spaces = model.problem.spaces
    obs = np.random.default_rng(0).integers(0, 200, (n, *spaces.obs_shape))
    return obs.astype(np.uint8) if spaces.obs_dtype == "uint8" else np.float32(obs / 100 - 1)


def expected_of(model, obs, memory):
    policy = model.policy
    shown = torch.from_numpy(model.statistics.normalized_obs(obs))
    with torch.inference_mode():
        return [tensor.numpy() for tensor in policy.module(shown, *map(torch.from_numpy, memory))]


def memory_of(model, n=5):
    size = model.policy.memory_size
    return [np.random.default_rng(1).normal(0, 0.1, (n, size)).astype(np.float32)] if size else []


def test_plain_torch(model, tmp_path):
    exported = export_torch(model)
    obs, memory = seen_by(model), memory_of(model)
    expected = expected_of(model, obs, memory)
    path = tmp_path / "policy.pt"
    torch.save(exported.state_dict(), path)
    model.params[:] = 0.0  # it is a copy
    fresh = export_torch(model)
    fresh.load_state_dict(torch.load(path, weights_only=True))
    for module in (exported, fresh):
        with torch.inference_mode():
            got = module(torch.from_numpy(obs), *map(torch.from_numpy, memory))
        for one, other in zip(got, expected, strict=True):
            np.testing.assert_allclose(one.numpy(), other, rtol=1e-5, atol=1e-6)


def test_onnx(model, tmp_path):
    """Checked by ONNX, run by its runtime with another batch than it was written with."""
    path = export_onnx(model, tmp_path / "policy.onnx")
    onnx.checker.check_model(path)
    assert "batch" in onnx.load(path).doc_string
    session = onnxruntime.InferenceSession(path)
    for n in (1, 5):
        obs, memory = seen_by(model, n), memory_of(model, n)
        got = session.run(None, {"obs": obs, **({"memory": memory[0]} if memory else {})})
        for one, other in zip(got, expected_of(model, obs, memory), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_observations_far_from_zero(tmp_path):
    """Of mean 1e5 and standard deviation 0.1: float32 has steps of 0.008 there."""
    model = fastac.A2C("MlpPolicy", Tape, normalize_observation=True, **SMALL).learn(50)
    model.statistics.obs = Moments.of(1e5 + 0.1 * np.random.default_rng(0).normal(size=(1000, 2)))
    model.params[:] = np.random.default_rng(1).normal(0, 0.3, len(model.params))
    obs = (1e5 + np.linspace(-0.2, 0.2, 10).reshape(5, 2)).astype(np.float32)
    expected = expected_of(model, obs, [])
    with torch.inference_mode():
        for one, other in zip(export_torch(model)(torch.from_numpy(obs)), expected, strict=True):
            np.testing.assert_allclose(one.numpy(), other, rtol=1e-5, atol=1e-6)
    session = onnxruntime.InferenceSession(export_onnx(model, tmp_path / "policy.onnx"))
    for one, other in zip(session.run(None, {"obs": obs}), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("actions", "words"),
    [
        (gym_spaces.Discrete(3, start=-1), "outputs: logits of 3 actions, from -1 on"),
        (gym_spaces.MultiDiscrete([2, 5]), "outputs: logits of the first choice, of the second, ...: of [2, 5], each"),
        (gym_spaces.Box(-2, 2, (1,)), "standard deviations; shape [1], bounded to low [-2.0] and high [2.0]"),
    ],
)
def test_the_description_tells_what_the_outputs_are_of(actions, words, tmp_path):
    model = fastac.A2C("MlpPolicy", lambda: Tape(actions=actions), **SMALL)
    told = onnx.load(export_onnx(model, tmp_path / "policy.onnx")).doc_string
    assert words in told and told.startswith("obs: float32[batch, 2]; ")


def test_numbers_are_described_and_taken_one_hot(tmp_path):
    model = fastac.A2C("MlpPolicy", "FrozenLake-v1", **SMALL)
    path = export_onnx(model, tmp_path / "policy.onnx")
    assert onnx.load(path).doc_string.startswith("obs: float32[batch, 16], one-hot, of whole numbers from 0 on; ")
    logits, _ = onnxruntime.InferenceSession(path).run(None, {"obs": np.eye(16, dtype=np.float32)})
    assert logits.argmax(axis=1).tolist() == model.predict(np.arange(16), True)[0].tolist()


def test_torch_tells_nothing_of_its_own(tmp_path, caplog, capfd):
    export_onnx(fastac.A2C(**SMALL), tmp_path / "policy.onnx")
    warned = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert capfd.readouterr() == ("", "") and warned == []


def test_it_plays_as_the_model_does(tmp_path):
    model = fastac.A2C(seed=0).learn(50_000)
    session = onnxruntime.InferenceSession(export_onnx(model, tmp_path / "policy.onnx"))
    env = gymnasium.make("CartPole-v1")
    obs, _ = env.reset(seed=0)
    for _ in range(100):
        logits, _ = session.run(None, {"obs": obs[None]})
        action = int(logits.argmax())
        assert action == model.predict(obs, True)[0]
        obs, _, over, _, _ = env.step(action)
        if over:
            obs, _ = env.reset()


def test_without_onnx(monkeypatch, tmp_path):
    import sys

    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"export_onnx needs onnx and onnxscript: pip install 'fastac\[onnx\]'"):
        export_onnx(fastac.A2C(), tmp_path / "x.onnx")
