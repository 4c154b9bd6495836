"""The policy in torch: observations in, logits and a value out; parameters and gradients are views of two flat vectors.

Before it: shared.py, which copies float32[P] into `params`. After it: rollout.py (acting) and objective.py (gradient).
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fastac.config import Config
from fastac.mlp import N_ACTIONS, OBS_DIM, initial_params

Float32 = npt.NDArray[np.float32]

_ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"tanh": torch.tanh, "relu": torch.relu}


class ActorCritic(nn.Module):
    """An MLP with a categorical policy and a value: forward(obs float32[B, 4]) -> (logits [B, A], values [B]).

    Made without weights: FlatPolicy gives it those of a flat vector.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self._activation = _ACTIVATIONS[config.activation]
        self.policy_trunk = _trunk(config)
        self.value_trunk = None if config.shared_trunk else _trunk(config)
        self.policy_head = _Linear(config.hidden_sizes[-1], N_ACTIONS)
        self.value_head = _Linear(config.hidden_sizes[-1], 1)

    def forward(self, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self._through(self.policy_trunk, obs)
        value_features = features if self.value_trunk is None else self._through(self.value_trunk, obs)
        return _apply(self.policy_head, features), _apply(self.value_head, value_features).squeeze(-1)

    def _through(self, trunk: nn.ModuleList, x: torch.Tensor) -> torch.Tensor:
        for layer in trunk:
            x = self._activation(torch.addmm(layer.bias, x, layer.weight))  # type: ignore[arg-type]  # a _Layer's are tensors
        return x


def _apply(layer: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    # Not layer(x): for nets of this size calling the modules costs more than what they compute.
    return nn.functional.linear(x, layer.weight, layer.bias)


class FlatPolicy:
    """A module whose parameters live in `params` float32[P] and whose gradients live in `grad` float32[P].

    Both are numpy arrays that share memory with the module's tensors, for good: writing `params` changes the policy,
    backward() fills `grad`. Gradients are never handed over by replacing a tensor, and never set to None.
    """

    def __init__(self, module: nn.Module, params: Float32 | None = None) -> None:
        """`params`: the parameters, to be shared from now on; if not given, those of the module, copied."""
        self.module = module
        parameters = list(module.parameters())
        if any(p.dtype != torch.float32 for p in parameters):
            raise TypeError("expected a policy with float32 parameters")
        n = sum(p.numel() for p in parameters)
        if params is None:
            params = torch.cat([p.detach().flatten() for p in parameters]).numpy()
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

    def __reduce__(self) -> tuple[type[FlatPolicy], tuple[nn.Module]]:
        """A copy, a pickled one too, flattens its own module: copied arrays would no longer be the module's tensors."""
        return FlatPolicy, (self.module,)

    @property
    def n_params(self) -> int:
        """P."""
        return len(self.params)

    def zero_grad(self) -> None:
        self._flat_grad.zero_()

    def warm_up(self) -> None:
        """Torch sets itself up at its first forward and backward pass: done here, before a run's clock starts."""
        logits, values = self.module(torch.zeros(1, OBS_DIM))
        (logits.sum() + values.sum()).backward()
        self.zero_grad()

    @torch.inference_mode()
    def act(self, obs: Float32) -> tuple[Float32, Float32]:
        """obs float32[N, 4] -> action probabilities float32[N, A] and values float32[N]; new arrays."""
        logits, values = self.module(torch.from_numpy(obs))
        return torch.softmax(logits, -1).numpy(), values.numpy()

    @torch.inference_mode()
    def values(self, obs: Float32) -> Float32:
        """obs float32[B, 4] -> values float32[B]."""
        values: Float32 = self.module(torch.from_numpy(obs))[1].numpy()
        return values


def make_policy(config: Config, params: Float32 | None = None) -> FlatPolicy:
    """The policy of a config, over `params` or over its initial weights."""
    return FlatPolicy(ActorCritic(config), initial_params(config) if params is None else params)


def _trunk(config: Config) -> nn.ModuleList:
    sizes = (OBS_DIM, *config.hidden_sizes)
    return nn.ModuleList(_Layer(n_in, n_out) for n_in, n_out in itertools.pairwise(sizes))


class _Layer(nn.Module):
    """Weights [in, out] and biases [out]: so they lie in the flat vector, for the native engine's sake (mlp.hpp)."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_in, n_out))
        self.bias = nn.Parameter(torch.empty(n_out))


class _Linear(nn.Linear):
    """Left as it is allocated: what nn.Linear draws comes from torch's global stream, which is the user's.

    nn.utils.skip_init does the same by way of the meta device, whose first use imports for half a second.
    """

    def reset_parameters(self) -> None:
        pass


@contextlib.contextmanager
def one_torch_thread() -> Iterator[None]:
    """These nets are too small to split: a pool of threads only makes each worker wait for the others' cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
