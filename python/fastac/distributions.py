"""What a policy's outputs mean: outputs float32[B, K] -> actions, their probability and the entropy.

Before it: networks.py, whose head gives the outputs. After it: rollout.py samples, objective.py scores.
Sampling is by inversion of uniform numbers, which each env has a stream of: so what an env does depends on no other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fastac.mlp import sample
from fastac.spaces import Actions

Float32 = npt.NDArray[np.float32]
Taken = npt.NDArray[Any]  # int64[N], int64[N, K] or float32[N, D]

_NEARLY_ZERO = 2.0**-54  # in the place of 0: uniform numbers are multiples of 2^-53 in [0, 1)
_LOG_2_PI = 1.8378770664093453


class Distribution(ABC):
    """Over actions. `n_outputs`: K, what the policy gives for it. `n_uniforms`: numbers that one sample takes."""

    n_outputs: int
    n_uniforms: int

    @abstractmethod
    def parameters(self, outputs: torch.Tensor) -> Float32:
        """Outputs [N, K] as `sample` and `mode` take them, [N, K]."""

    @abstractmethod
    def sample(self, parameters: Float32, uniforms: npt.NDArray[np.float64]) -> Taken:
        """Actions of uniforms in [0, 1), [N, n_uniforms]."""

    @abstractmethod
    def mode(self, parameters: Float32) -> Taken:
        """The most probable actions."""

    @abstractmethod
    def score(self, outputs: torch.Tensor, actions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """-log of the actions' probabilities (or densities) [B], and minus the sum of the entropies."""


class Categorical(Distribution):
    """One of A actions; outputs are logits, parameters probabilities."""

    def __init__(self, n_actions: int) -> None:
        self.n_outputs, self.n_uniforms = n_actions, 1

    def parameters(self, outputs: torch.Tensor) -> Float32:
        return cast(Float32, torch.softmax(outputs, -1).numpy())

    def sample(self, parameters: Float32, uniforms: npt.NDArray[np.float64]) -> Taken:
        return sample(parameters, uniforms[:, 0])

    def mode(self, parameters: Float32) -> Taken:
        likeliest: Taken = parameters.argmax(axis=1)
        return likeliest

    def score(self, outputs: torch.Tensor, actions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        # For nets of this size each operation costs more than what it computes: as few as it can be written with.
        log_probabilities = torch.log_softmax(outputs, -1)
        surprise = nn.functional.nll_loss(log_probabilities, actions, reduction="none")
        return surprise, (log_probabilities.exp() * log_probabilities).sum()


class MultiCategorical(Distribution):
    """One of each of several sets, independently: the outputs of one after the other."""

    def __init__(self, nvec: tuple[int, ...]) -> None:
        self._parts = [Categorical(n) for n in nvec]
        self._sizes = list(nvec)
        self._bounds = np.cumsum([0, *nvec])
        self.n_outputs, self.n_uniforms = sum(nvec), len(nvec)

    def parameters(self, outputs: torch.Tensor) -> Float32:
        pieces = torch.split(outputs, self._sizes, -1)
        return np.concatenate([part.parameters(piece) for part, piece in zip(self._parts, pieces, strict=True)], 1)

    def sample(self, parameters: Float32, uniforms: npt.NDArray[np.float64]) -> Taken:
        drawn = [part.sample(self._piece(parameters, k), uniforms[:, k : k + 1]) for k, part in enumerate(self._parts)]
        return np.stack(drawn, axis=1)

    def mode(self, parameters: Float32) -> Taken:
        return np.stack([part.mode(self._piece(parameters, k)) for k, part in enumerate(self._parts)], axis=1)

    def _piece(self, parameters: Float32, k: int) -> Float32:
        return parameters[:, self._bounds[k] : self._bounds[k + 1]]

    def score(self, outputs: torch.Tensor, actions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        pieces = zip(self._parts, torch.split(outputs, self._sizes, -1), actions.unbind(-1), strict=True)
        surprises, entropies = zip(*(part.score(piece, taken) for part, piece, taken in pieces), strict=True)
        return torch.stack(surprises).sum(0), torch.stack(entropies).sum()


class DiagonalGaussian(Distribution):
    """Real numbers, independently normal: outputs are D means and D logarithms of standard deviations."""

    def __init__(self, n: int) -> None:
        self.n_outputs, self.n_uniforms = 2 * n, n
        self._n = n

    def parameters(self, outputs: torch.Tensor) -> Float32:
        return cast(Float32, outputs.numpy())

    def sample(self, parameters: Float32, uniforms: npt.NDArray[np.float64]) -> Taken:
        normal = torch.special.ndtri(torch.from_numpy(np.maximum(uniforms, _NEARLY_ZERO))).numpy().astype(np.float32)
        drawn: Float32 = parameters[:, : self._n] + np.exp(parameters[:, self._n :]) * normal
        return drawn

    def mode(self, parameters: Float32) -> Taken:
        means: Float32 = parameters[:, : self._n].copy()
        return means

    def score(self, outputs: torch.Tensor, actions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, log_std = torch.split(outputs, self._n, -1)
        deviations = (actions - mean) * torch.exp(-log_std)
        surprise = (0.5 * (deviations * deviations + _LOG_2_PI) + log_std).sum(-1)
        return surprise, -(log_std + 0.5 * (1.0 + _LOG_2_PI)).sum()


def distribution_of(actions: Actions) -> Distribution:
    """What a policy for these actions is over."""
    if actions.kind == "discrete":
        return Categorical(actions.nvec[0])
    return MultiCategorical(actions.nvec) if actions.kind == "multi_discrete" else DiagonalGaussian(actions.size)
