"""A policy whose parameters and gradients are views of two flat vectors: the one door between torch and float32[P].

Before it: shared.py, which copies float32[P] into `params`. After it: rollout.py (acting) and objective.py (gradient).
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fastac.config import Config
from fastac.distributions import Distribution, distribution_of
from fastac.errors import ConfigError
from fastac.networks import initial_params_of, memory_size_of, network_of
from fastac.spaces import CARTPOLE, Spaces

Float32 = npt.NDArray[np.float32]


class Acted(NamedTuple):
    """What a policy makes of observations; new arrays."""

    parameters: Float32  # [N, K], of its distribution: probabilities, or means and logarithms of standard deviations
    values: Float32  # [N]
    memory: Float32 | None  # [N, S]; None where it has none


class FlatPolicy:
    """A module whose parameters live in `params` float32[P] and whose gradients live in `grad` float32[P].

    Both are numpy arrays that share memory with the module's tensors, for good: writing `params` changes the policy,
    backward() fills `grad`. Gradients are never handed over by replacing a tensor, and never set to None.

    The module is forward(obs [B, *obs_shape]) -> (outputs [B, K], values [B]), or, with an attribute `memory_size` S,
    forward(obs, memory [B, S]) -> (outputs, values, memory); `distribution` says what the outputs mean.
    """

    def __init__(self, module: nn.Module, params: Float32 | None = None, spaces: Spaces = CARTPOLE) -> None:
        """`params`: the parameters, to be shared from now on; if not given, those of the module, copied."""
        self.module = module
        self.spaces = spaces
        self.distribution: Distribution = distribution_of(spaces.actions)
        self.memory_size = _memory_size(module)
        parameters = list(module.parameters())
        if any(p.dtype != torch.float32 for p in parameters):
            raise TypeError("expected a policy with float32 parameters")
        n = sum(p.numel() for p in parameters)
        if params is None:
            params = params_of(module)
        if params.dtype != np.float32 or params.shape != (n,):
            raise ValueError(f"params: expected float32[{n}], got {params.dtype}{list(params.shape)}")
        flat, self._flat_grad = torch.from_numpy(params), torch.zeros(n)
        at = 0
        for p in parameters:
            piece = slice(at, at + p.numel())
            p.data = flat[piece].view(p.shape)
            p.grad = self._flat_grad[piece].view(p.shape)
            at = piece.stop
        self.params = params
        self.grad: Float32 = self._flat_grad.numpy()

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, a pickled one too, flattens its own module: copied arrays would no longer be the module's tensors."""
        return FlatPolicy, (self.module, None, self.spaces)

    @property
    def n_params(self) -> int:
        """P."""
        return len(self.params)

    def zero_grad(self) -> None:
        self._flat_grad.zero_()

    def no_memory(self, n: int) -> Float32 | None:
        """What n envs remember at the start of an episode: zeros float32[n, S], or None."""
        return _nothing(n, self.memory_size)

    def warm_up(self) -> None:
        """Torch sets itself up at its first forward and backward pass: done here, before a run's clock starts."""
        obs = np.zeros((1, *self.spaces.obs_shape), self.spaces.obs_dtype)
        outputs, values, _ = self._forward(obs, self.no_memory(1))
        (outputs.sum() + values.sum()).backward()  # type: ignore[no-untyped-call]
        self.zero_grad()

    @torch.inference_mode()
    def act(self, obs: npt.NDArray[Any], memory: Float32 | None = None) -> Acted:
        """obs [N, *obs_shape], and what is remembered [N, S], where the policy remembers."""
        outputs, values, after = self._forward(obs, memory)
        return Acted(self.distribution.parameters(outputs), values.numpy(), None if after is None else after.numpy())

    @torch.inference_mode()
    def values(self, obs: npt.NDArray[Any], memory: Float32 | None = None) -> Float32:
        """obs [B, *obs_shape] -> values float32[B]."""
        return cast(Float32, self._forward(obs, memory)[1].numpy())

    def _forward(
        self, obs: npt.NDArray[Any], memory: Float32 | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        seen = torch.from_numpy(obs)
        if memory is None:
            outputs, values = self.module(seen)
            return outputs, values, None
        outputs, values, after = self.module(seen, torch.from_numpy(memory))
        return outputs, values, after

    def over(
        self, obs: npt.NDArray[Any], memory: Float32 | None, done: npt.NDArray[np.bool_] | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A whole rollout, differentiably: obs [T, N, *obs_shape] -> outputs [T * N, K] and values [T * N].

        With a memory it goes step by step from what was remembered at the start, float32[N, S], and forgets where an
        episode is `done` [T, N]: backpropagation through time reaches back to the start of the rollout.
        """
        if memory is None:
            outputs, values = self.module(torch.from_numpy(obs).flatten(0, 1))
            return outputs, values
        assert done is not None
        seen, remembered = torch.from_numpy(obs), torch.from_numpy(memory)
        goes_on = torch.from_numpy(~done).float().unsqueeze(-1)
        every_outputs, every_values = [], []
        for t in range(len(obs)):
            outputs, values, remembered = self.module(seen[t], remembered)
            remembered = remembered * goes_on[t]
            every_outputs.append(outputs)
            every_values.append(values)
        return torch.cat(every_outputs), torch.cat(every_values)


def make_policy(
    config: Config, params: Float32 | None = None, spaces: Spaces = CARTPOLE, module: nn.Module | None = None
) -> FlatPolicy:
    """The policy of a config, or the user's `module`, over `params` or over its initial weights."""
    if module is not None:  # a copy: each policy binds the tensors of its own
        return FlatPolicy(copy.deepcopy(module), params, spaces)
    return FlatPolicy(
        network_of(config, spaces), initial_params_of(config, spaces) if params is None else params, spaces
    )


def no_memory(config: Config, module: nn.Module | None, n: int) -> Float32 | None:
    """FlatPolicy.no_memory of the policy of a config, or of the user's `module`, without making it."""
    return _nothing(n, memory_size_of(config) if module is None else _memory_size(module))


def _memory_size(module: nn.Module) -> int:
    return int(getattr(module, "memory_size", 0))


def _nothing(n: int, memory_size: int) -> Float32 | None:
    return np.zeros((n, memory_size), np.float32) if memory_size else None


def params_of(module: nn.Module) -> Float32:
    """The parameters of a module, copied, float32[P]."""
    return cast(Float32, torch.cat([p.detach().flatten() for p in module.parameters()]).numpy())


def expect_policy(module: nn.Module, spaces: Spaces) -> None:
    """Raises ConfigError where a module cannot be the policy: what it gives is tried with two observations."""
    parameters = list(module.parameters())
    if not parameters or any(p.dtype != torch.float32 or p.device.type != "cpu" for p in parameters):
        raise ConfigError("policy: expected a module with parameters, all of them float32 on the CPU")
    if any(isinstance(m, nn.modules.batchnorm._NormBase) and m.track_running_stats for m in module.modules()):
        raise ConfigError(
            "policy: expected no layer that keeps statistics of its own (BatchNorm), as each worker would have others; "
            "use LayerNorm or GroupNorm"
        )
    policy = FlatPolicy(copy.deepcopy(module), None, spaces)
    obs = np.zeros((2, *spaces.obs_shape), spaces.obs_dtype)
    k = policy.distribution.n_outputs
    says = f"(outputs float32[2, {k}], values float32[2]" + (
        f", memory float32[2, {policy.memory_size}])" if policy.memory_size else ")"
    )
    try:
        with torch.inference_mode():
            got = policy.module(torch.from_numpy(obs), *map(torch.from_numpy, _given(policy.no_memory(2))))
        shapes = [tuple(tensor.shape) for tensor in got]
    except Exception as error:
        raise ConfigError(
            f"policy: expected forward(obs {obs.dtype}{list(obs.shape)}) to give {says}, got {error!r}"
        ) from error
    wanted = [(2, k), (2,)] + [(2, policy.memory_size)] * bool(policy.memory_size)
    if shapes != wanted:
        raise ConfigError(f"policy: expected forward(obs {obs.dtype}{list(obs.shape)}) to give {says}, got {shapes}")


def _given(memory: Float32 | None) -> list[Float32]:
    return [] if memory is None else [memory]


@contextlib.contextmanager
def one_torch_thread() -> Iterator[None]:
    """These nets are too small to split: a pool of threads only makes each worker wait for the others' cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
