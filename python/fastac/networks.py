"""The policies in torch: observations in, what their distribution takes (distributions.py) and values out.

Each is forward(obs [B, *obs_shape]) -> (outputs float32[B, K], values float32[B]) or, with a memory of S numbers,
forward(obs, memory float32[B, S]) -> (outputs, values, memory), where `memory_size` is S. A user's module is one of
these, too: policy.py lays it over the flat vector in the same way.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from fastac import seeding
from fastac.config import Config
from fastac.mlp import Float32, mlp_params, orthogonal
from fastac.spaces import Spaces

_ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"tanh": torch.tanh, "relu": torch.relu}
_PAPER_IMAGE = 36  # pixels that the convolutions of the paper need in height and in width


class ActorCritic(nn.Module):
    """An MLP. Made without weights: FlatPolicy gives it those of a flat vector, laid out as the C++ core wants them."""

    def __init__(self, config: Config, spaces: Spaces) -> None:
        super().__init__()
        self._activation = _ACTIVATIONS[config.activation]
        self.policy_trunk = _trunk(spaces.obs_size, config.hidden_sizes)
        self.value_trunk = None if config.shared_trunk else _trunk(spaces.obs_size, config.hidden_sizes)
        self.policy_head = _Linear(config.hidden_sizes[-1], head_size(spaces))
        self.value_head = _Linear(config.hidden_sizes[-1], 1)
        self.log_std = _log_std(config, spaces)

    def forward(self, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        obs = obs.flatten(1).float()
        features = self._through(self.policy_trunk, obs)
        value_features = features if self.value_trunk is None else self._through(self.value_trunk, obs)
        outputs = _with_std(_apply(self.policy_head, features), self.log_std)
        return outputs, _apply(self.value_head, value_features).squeeze(-1)

    def _through(self, trunk: nn.ModuleList, x: torch.Tensor) -> torch.Tensor:
        for layer in trunk:
            x = self._activation(torch.addmm(layer.bias, x, layer.weight))  # type: ignore[arg-type]  # a _Layer's are tensors
        return x


class Composed(nn.Module):
    """Features by an MLP or a CNN, a memory (an LSTM, a GRU) or none, and two heads.

    The memory of an LSTM is its hidden and its cell state, one after the other; that of a GRU its hidden state.
    """

    def __init__(self, config: Config, spaces: Spaces) -> None:
        super().__init__()
        images = config.policy.startswith("Cnn")
        self.features = _Cnn(spaces) if images else _Mlp(config, spaces)
        width = size = self.features.size
        self.cell: nn.LSTMCell | nn.GRUCell | None = None
        if "Lstm" in config.policy:
            size = config.hidden_sizes[-1]
            self.cell = nn.LSTMCell(width, size)
        elif "Gru" in config.policy:
            size = config.hidden_sizes[-1]
            self.cell = nn.GRUCell(width, size)
        self.memory_size = memory_size_of(config)
        self.policy_head = nn.Linear(size, head_size(spaces))
        self.value_head = nn.Linear(size, 1)
        self.log_std = _log_std(config, spaces)

    def forward(self, obs: torch.Tensor, memory: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        x = self.features(obs)
        if self.cell is None:
            return self._heads(x)
        assert memory is not None
        if isinstance(self.cell, nn.LSTMCell):
            hidden, cell = memory.chunk(2, -1)
            hidden, cell = self.cell(x, (hidden, cell))
            return *self._heads(hidden), torch.cat([hidden, cell], -1)
        hidden = self.cell(x, memory)
        return *self._heads(hidden), hidden

    def _heads(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return _with_std(self.policy_head(x), self.log_std), self.value_head(x).squeeze(-1)


class _Mlp(nn.Module):
    def __init__(self, config: Config, spaces: Spaces) -> None:
        super().__init__()
        self._activation = _ACTIVATIONS[config.activation]
        sizes = (spaces.obs_size, *config.hidden_sizes)
        self.layers = nn.ModuleList(nn.Linear(n_in, n_out) for n_in, n_out in itertools.pairwise(sizes))
        self.size = sizes[-1]

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        x = obs.flatten(1).float()
        for layer in self.layers:
            x = self._activation(layer(x))
        return x


class _Cnn(nn.Module):
    """The net of the A3C paper (Mnih et al. 2016, section 8): 16 filters 8x8 by 4, 32 filters 4x4 by 2, 256 units.

    Images of fewer than 36 pixels a side get two layers of 3x3 instead, by 1 and by 2. Bytes are divided by 255.
    """

    def __init__(self, spaces: Spaces) -> None:
        super().__init__()
        shape = spaces.obs_shape if len(spaces.obs_shape) == 3 else (1, *spaces.obs_shape)
        self._last = shape[0] > shape[2]  # channels last, as cameras and Gymnasium have them
        channels, *sides = (shape[2], *shape[:2]) if self._last else shape
        self._shape = shape
        self._scale = 255.0 if spaces.obs_dtype == "uint8" else 1.0
        if min(sides) >= _PAPER_IMAGE:
            self.convolutions = nn.Sequential(
                nn.Conv2d(channels, 16, 8, 4), nn.ReLU(), nn.Conv2d(16, 32, 4, 2), nn.ReLU()
            )
        else:
            self.convolutions = nn.Sequential(
                nn.Conv2d(channels, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU()
            )
        with torch.inference_mode():
            n = self.convolutions(torch.zeros(1, channels, *sides)).numel()
        self.size = 256
        self.linear = nn.Linear(n, self.size)

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        x = obs.reshape(-1, *self._shape).float() / self._scale
        if self._last:
            x = x.permute(0, 3, 1, 2)
        return torch.relu(self.linear(self.convolutions(x).flatten(1)))


def memory_size_of(config: Config) -> int:
    """Numbers that the policy of a config remembers; 0 where it remembers nothing."""
    states = 2 if "Lstm" in config.policy else 1 if "Gru" in config.policy else 0
    return states * config.hidden_sizes[-1]


def head_size(spaces: Spaces) -> int:
    """Outputs of the policy's head: logits, or means."""
    return spaces.actions.size if spaces.actions.kind == "box" else sum(spaces.actions.nvec)


def _log_std(config: Config, spaces: Spaces) -> nn.Parameter | None:
    """Of continuous actions: learned, and the same in every state."""
    if spaces.actions.kind != "box":
        return None
    return nn.Parameter(torch.full((spaces.actions.size,), config.log_std_init))


def _with_std(outputs: torch.Tensor, log_std: nn.Parameter | None) -> torch.Tensor:
    return outputs if log_std is None else torch.cat([outputs, log_std.expand(len(outputs), -1)], -1)


def network_of(config: Config, spaces: Spaces) -> nn.Module:
    """The module of a config, without the weights that training starts from. Touches no stream of the user's."""
    if config.policy == "MlpPolicy":
        return ActorCritic(config, spaces)
    with torch.random.fork_rng(devices=[]):
        return Composed(config, spaces)


def initial_params_of(config: Config, spaces: Spaces) -> Float32:
    """The weights that training starts from, float32[P], drawn from the config's seed: orthogonal, biases zero."""
    if config.policy == "MlpPolicy":
        params = mlp_params(config, spaces.obs_size, head_size(spaces))
        stds = spaces.actions.size if spaces.actions.kind == "box" else 0
        # First, where torch has them: a module's own parameters come before those of its parts.
        return np.concatenate([np.full(stds, config.log_std_init, np.float32), params])
    assert config.seed is not None
    random = np.random.default_rng(seeding.weights_words(config.seed))
    pieces = []
    for name, parameter in network_of(config, spaces).named_parameters():
        rows, columns = len(parameter), math.prod(parameter.shape[1:])
        if name == "log_std":
            pieces.append(np.full(rows, config.log_std_init))
        elif parameter.dim() < 2:
            pieces.append(np.zeros(rows))
        else:
            pieces.append(orthogonal(rows, columns, _gain(name), random).ravel())
    return np.concatenate(pieces).astype(np.float32)


def _gain(name: str) -> float:
    if name.startswith("cell."):
        return 1.0
    return {"policy_head.weight": 0.01, "value_head.weight": 1.0}.get(name, math.sqrt(2.0))


def _apply(layer: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    # Not layer(x): for nets of this size calling the modules costs more than what they compute.
    return nn.functional.linear(x, layer.weight, layer.bias)


def _trunk(n_in: int, hidden_sizes: tuple[int, ...]) -> nn.ModuleList:
    return nn.ModuleList(_Layer(before, after) for before, after in itertools.pairwise((n_in, *hidden_sizes)))


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
