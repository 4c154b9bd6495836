"""The policy as one flat vector float32[P]: its initial weights, and what it answers. Without torch.

The vector is laid out as cpp/include/fastac/mlp.hpp says; policy.py lays torch's modules over the same memory.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt

from fastac import _core, seeding
from fastac.config import Config

Float32 = npt.NDArray[np.float32]

OBS_DIM = 4
N_ACTIONS = 2


def initial_params(config: Config) -> Float32:
    """The weights that training starts from, float32[P], drawn from the config's seed.

    Weights are orthogonal, biases zero; the policy starts close to uniform (gain 0.01), as is usual since
    Schulman et al. 2017, arXiv:1707.06347.
    """
    return mlp_params(config, OBS_DIM, N_ACTIONS)


def mlp_params(config: Config, obs_size: int, n_outputs: int) -> Float32:
    """The same for any number of observed numbers and of outputs of the policy's head."""
    if config.seed is None:
        raise ValueError("expected a config with a seed: use config.resolve_seed()")
    random = np.random.default_rng(seeding.weights_words(config.seed))
    trunk = list(itertools.pairwise((obs_size, *config.hidden_sizes)))
    hidden = config.hidden_sizes[-1]
    pieces: list[npt.NDArray[np.float64]] = []
    for n_in, n_out in trunk if config.shared_trunk else trunk * 2:
        pieces += [orthogonal(n_in, n_out, math.sqrt(2.0), random), np.zeros(n_out)]
    for n_out, gain in ((n_outputs, 0.01), (1, 1.0)):
        pieces += [orthogonal(n_out, hidden, gain, random), np.zeros(n_out)]
    return np.concatenate([piece.ravel() for piece in pieces]).astype(np.float32)


def orthogonal(rows: int, columns: int, gain: float, random: np.random.Generator) -> npt.NDArray[np.float64]:
    """A matrix [rows, columns] whose shorter side is orthonormal, uniform among these, times `gain`: Saxe et al. 2014,
    arXiv:1312.6120."""
    normal = random.standard_normal((max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(normal)
    q *= np.sign(np.diag(r))  # else the decomposition's own choice of signs is in it
    return gain * (q if rows >= columns else q.T)


def act(config: Config, params: Float32, obs: Float32) -> tuple[Float32, Float32]:
    """obs float32[N, 4] -> action probabilities float32[N, A] and values float32[N]; new arrays."""
    return _core.act(
        params,
        obs,
        hidden_sizes=config.hidden_sizes,
        activation=config.activation,
        shared_trunk=config.shared_trunk,
    )


def sample(probabilities: Float32, uniforms: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Actions int64[N] by inversion: the first action whose cumulated probability exceeds the uniform number.

    Args:
        probabilities: [N, A].
        uniforms: in [0, 1), [N].
    """
    cumulated = np.cumsum(probabilities[:, :-1], axis=1, dtype=np.float64)  # the last action takes what is left
    actions: npt.NDArray[np.int64] = (cumulated <= uniforms[:, None]).sum(axis=1)
    return actions
