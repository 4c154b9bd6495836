"""Exported policies do elsewhere what they do here: in plain torch from a state_dict, and in the ONNX runtime."""

import gymnasium
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from test_any_env import SMALL, Own, Tape

import fastac
from fastac.interop.export import export_onnx, export_torch

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
