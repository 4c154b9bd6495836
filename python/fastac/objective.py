"""Stage 3, second half. A rollout in -> one flat gradient float32[P] out, in `policy.grad`.

Before it: rollout.py. After it: the update scheme (shared.py), which publishes and applies it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from fastac import _core, returns
from fastac.config import Config
from fastac.policy import FlatPolicy
from fastac.rollout import Rollout


@dataclass(frozen=True)
class GradientStats:
    """What the gradient was made of. Losses and entropy are means over the rollout, before their weights."""

    grad_norm: float  # global norm before clipping
    policy_loss: float
    value_loss: float
    entropy: float
    return_mean: float
    return_var: float
    explained_variance: float


@np.errstate(over="ignore", invalid="ignore")  # a gradient that diverges is rejected and counted when it is pushed
def compute_gradient(policy: FlatPolicy, rollout: Rollout, config: Config, ent_coef: float) -> GradientStats:
    """The gradient of the advantage actor-critic loss, by autograd, over the T * N steps of a rollout:

        loss = mean(-advantage * log pi(action | obs)) + vf_coef * mean((return - V(obs))^2) - ent_coef * mean(entropy)

    Advantages and returns are constants. Source: Mnih et al. 2016, arXiv:1602.01783, with GAE. The gradient is left
    in `policy.grad`, clipped to max_grad_norm if the config clips at the worker.
    """
    policy.zero_grad()
    logits, values = policy.module(torch.from_numpy(rollout.obs.reshape(-1, rollout.obs.shape[-1])))
    log_probabilities = torch.log_softmax(logits, -1)
    taken = log_probabilities.gather(1, torch.from_numpy(rollout.actions.reshape(-1, 1))).squeeze(1)
    policy_loss = -(torch.from_numpy(rollout.advantages.reshape(-1)) * taken).mean()
    value_loss = (torch.from_numpy(rollout.returns.reshape(-1)) - values).square().mean()
    entropy = -(log_probabilities.exp() * log_probabilities).sum(-1).mean()
    loss = policy_loss + config.vf_coef * value_loss - ent_coef * entropy
    loss.backward()
    max_norm = config.max_grad_norm if config.clip_at == "worker" else 0.0
    grad_norm = _core.clip_grad_norm(policy.grad, max_norm)
    parts = torch.stack([policy_loss, value_loss, entropy]).detach().numpy()
    return GradientStats(
        grad_norm,
        float(parts[0]),
        float(parts[1]),
        float(parts[2]),
        float(np.mean(rollout.returns)),
        float(np.var(rollout.returns)),
        returns.explained_variance(rollout.values, rollout.returns),
    )
