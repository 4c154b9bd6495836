"""The flat optimizers through the shared region, step for step against torch.optim and plain numpy."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from fastac import _core

SCHEMES = ("lockfree", "lock", "queue", "hogwild")
P = 1003  # odd, and no multiple of any vector width
UPDATES = 200
STATE_VECTORS = {"sgd": 0, "rmsprop": 1, "adam": 2}

# torch's vectorised kernels contract a multiply and an add into one rounding where the core rounds twice, and
# its square root (MKL's) now and then rounds the other way. After 200 steps that comes to three units in the
# last place of the largest entry. test_bits_of_torch_without_its_two_liberties: nothing else differs.
LAST_PLACES = 6


def learning_rate(update: int) -> float:
    """A rate that changes at every update, as under annealing."""
    return 7e-3 * (1.0 - update / (2 * UPDATES))


def gradients(seed: int, updates: int = UPDATES) -> Iterator[np.ndarray]:
    """Random gradients whose size runs over six orders of magnitude, some entries exactly zero."""
    rng = np.random.default_rng(seed)
    for update in range(updates):
        grad = rng.standard_normal(P).astype(np.float32) * np.float32(10.0 ** (update % 7 - 4))
        grad[rng.random(P) < 0.05] = 0.0
        yield grad


def start(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(P).astype(np.float32)


def native(
    scheme: str, optimizer: str, seed: int, updates: int = UPDATES, **options: float | bool
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Parameters float32[P] and state float32[S, P] after each update by one worker."""
    region = _core.Region.create(workers=1, parameters=P, scheme=scheme, optimizer=optimizer, **options)
    worker, learner = _core.Session(region, 0), _core.Session(region, 2)
    worker.initialize(start(seed))
    params, state = np.empty(P, np.float32), np.empty((STATE_VECTORS[optimizer], P), np.float32)
    for update, grad in enumerate(gradients(seed, updates)):
        version, _ = worker.read(params)
        assert version == update
        tag = {"version_read": version, "env_steps": 5, "learning_rate": learning_rate(update)}
        if scheme == "queue":
            sequence = worker.push(grad, **tag)
            assert learner.drain() == 1
            assert worker.settle(sequence)
        else:
            assert worker.submit(grad, **tag) == "applied"
        worker.copy_record(params, state)
        yield params.copy(), state.copy()
    worker.close()
    learner.close()


def in_torch(
    make: Callable[[list[torch.Tensor]], torch.optim.Optimizer], names: tuple[str, ...], seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    param = torch.from_numpy(start(seed)).requires_grad_()
    optimizer = make([param])
    for update, grad in enumerate(gradients(seed)):
        optimizer.param_groups[0]["lr"] = learning_rate(update)
        param.grad = torch.from_numpy(grad)
        optimizer.step()
        state = optimizer.state[param]
        yield param.detach().numpy().copy(), np.stack([state[name].numpy() for name in names])


def worst_last_places(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference in units in the last place of the largest entry."""
    return float(np.max(np.abs(a.astype(np.float64) - b)) / np.spacing(np.max(np.abs(b))))


CASES = {
    "rmsprop": (
        {"alpha": 0.99, "eps": 1e-5},
        lambda p: torch.optim.RMSprop(p, alpha=0.99, eps=1e-5),
        ("square_avg",),
    ),
    "adam": (
        {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8},
        lambda p: torch.optim.Adam(p, betas=(0.9, 0.999), eps=1e-8),
        ("exp_avg", "exp_avg_sq"),
    ),
}


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("optimizer", list(CASES))
def test_equals_torch(optimizer: str, seed: int) -> None:
    options, make, names = CASES[optimizer]
    pairs = zip(native("lockfree", optimizer, seed, **options), in_torch(make, names, seed), strict=True)
    worst = 0.0
    for (params, state), (torch_params, torch_state) in pairs:
        worst = max(worst, worst_last_places(params, torch_params))
        for ours, theirs in zip(state, torch_state, strict=True):
            worst = max(worst, worst_last_places(ours, theirs))
    print(f"{optimizer}, seed {seed}: {worst} units in the last place")
    assert worst <= LAST_PLACES


def check_bits() -> None:
    """Runs in a process of its own, whose torch kernels are the ones without fused multiply-add."""
    assert torch.backends.cpu.get_cpu_capability() == "DEFAULT"
    torch.Tensor.sqrt = lambda self: torch.from_numpy(np.sqrt(self.numpy()))  # correctly rounded
    for optimizer, (options, make, names) in CASES.items():
        pairs = zip(native("lockfree", optimizer, 0, **options), in_torch(make, names, 0), strict=True)
        for (params, state), (torch_params, torch_state) in pairs:
            np.testing.assert_array_equal(params, torch_params)
            np.testing.assert_array_equal(state, torch_state)


@pytest.mark.skipif(
    platform.machine() != "x86_64", reason="torch has kernels without fused multiply-add on x86-64 only"
)
def test_bits_of_torch_without_its_two_liberties() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import test_optimizers; test_optimizers.check_bits()"],
        cwd=Path(__file__).parent,
        env={**os.environ, "ATEN_CPU_CAPABILITY": "default"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_rmsprop_with_eps_inside_the_root() -> None:
    alpha, eps = np.float32(0.99), np.float32(0.1)
    fresh = np.float32(1.0 - 0.99)
    p, v = start(5), np.zeros(P, np.float32)
    updates = native("lockfree", "rmsprop", 5, alpha=0.99, eps=0.1, eps_inside_root=True)
    for update, (grad, (params, state)) in enumerate(zip(gradients(5), updates, strict=True)):
        v = v * alpha + fresh * grad * grad
        p = p + np.float32(-learning_rate(update)) * grad / np.sqrt(v + eps)
        np.testing.assert_array_equal(state[0], v)
        np.testing.assert_array_equal(params, p)


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("n", [1, 7, 8, 1003])
def test_clip_equals_torch(size: float, n: int) -> None:
    grad = (np.random.default_rng(n).standard_normal(n) * size).astype(np.float32)
    for max_norm in (0.5, 1e-8, 1e9):
        theirs = torch.zeros(n, requires_grad=True)
        theirs.grad = torch.from_numpy(grad.copy())
        torch_norm = torch.nn.utils.clip_grad_norm_([theirs], max_norm).item()
        ours = grad.copy()
        norm = _core.clip_grad_norm(ours, max_norm)
        # torch sums the squares in float32, the core in float64.
        assert norm == pytest.approx(torch_norm, rel=1e-6)
        np.testing.assert_allclose(ours, theirs.grad.numpy(), rtol=1e-6)
        if max_norm > norm + 1e-6:
            np.testing.assert_array_equal(ours, grad)


def test_clipping_on_the_way_is_clip_grad_norm() -> None:
    """max_grad_norm of the region clips each gradient as it is applied, and leaves the caller's alone."""
    clipped = _core.Region.create(workers=1, parameters=P, optimizer="sgd", max_grad_norm=0.5)
    worker = _core.Session(clipped, 0)
    grad = next(gradients(3)) * np.float32(1000)
    before = grad.copy()
    worker.submit(grad, version_read=0, env_steps=1, learning_rate=1.0)
    np.testing.assert_array_equal(grad, before)
    assert _core.clip_grad_norm(before, 0.5) > 0.5
    params = np.empty(P, np.float32)
    worker.read(params)
    np.testing.assert_array_equal(params, -before)


@pytest.mark.parametrize("optimizer", list(STATE_VECTORS))
def test_one_worker_is_the_same_under_every_scheme(optimizer: str) -> None:
    results = {scheme: list(native(scheme, optimizer, 7, 100, max_grad_norm=0.5)) for scheme in SCHEMES}
    for scheme in SCHEMES[1:]:
        for here, there in zip(results[scheme], results["lockfree"], strict=True):
            np.testing.assert_array_equal(here[0], there[0])
            np.testing.assert_array_equal(here[1], there[1])
    assert np.any(results["lockfree"][-1][0] != results["lockfree"][0][0])


def test_a_run_goes_on_from_its_state() -> None:
    """Parameters, state and version of update 50 put into a new region: the rest is the same bits."""
    whole = list(native("lockfree", "adam", 9, 100))
    region = _core.Region.create(workers=1, parameters=P, optimizer="adam")
    worker = _core.Session(region, 0)
    worker.initialize(whole[49][0], whole[49][1], version=50)
    params, state = np.empty(P, np.float32), np.empty((2, P), np.float32)
    for update, grad in enumerate(gradients(9, 100)):
        if update < 50:
            continue
        worker.submit(grad, version_read=update, env_steps=5, learning_rate=learning_rate(update))
        worker.copy_record(params, state)
        np.testing.assert_array_equal(params, whole[update][0])
        np.testing.assert_array_equal(state, whole[update][1])
