"""Stage 3, second half. A rollout in -> one flat gradient float32[P] out, in `policy.grad`.

Before it: rollout.py. After it: the update scheme (shared.py), which publishes and applies it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from fastac import _core, returns
from fastac.config import Config
from fastac.policy import FlatPolicy
from fastac.rollout import Rollout


@dataclass(frozen=True)
class GradientStats:
    """What the gradient was made of. Losses and entropy are means over the rollout, before their weights."""

    grad_norm: float  # global norm before clipping
    grad_norm_clipped: float  # and after that of the worker
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
    advantages, targets = rollout.advantages.reshape(-1), rollout.returns.reshape(-1)
    m = len(advantages)
    actions = torch.from_numpy(rollout.actions.reshape(m, *rollout.actions.shape[2:]))
    policy.zero_grad()
    outputs, values = policy.over(rollout.obs, rollout.memory, rollout.done)
    surprise, negative_entropy_sum = policy.distribution.score(outputs, actions)
    policy_sum = torch.dot(torch.from_numpy(advantages), surprise)
    value_loss = nn.functional.mse_loss(values, torch.from_numpy(targets))
    loss = torch.add(torch.add(policy_sum, negative_entropy_sum, alpha=ent_coef) / m, value_loss, alpha=config.vf_coef)
    loss.backward()  # type: ignore[no-untyped-call]
    max_norm = config.max_grad_norm if config.clip_at == "worker" else 0.0
    grad_norm = _core.clip_grad_norm(policy.grad, max_norm)
    return_mean, return_var = returns.mean_and_variance(targets)
    return GradientStats(
        grad_norm,
        _core.clip_grad_norm(policy.grad, 0.0),
        policy_sum.item() / m,
        value_loss.item(),
        -negative_entropy_sum.item() / m,
        return_mean,
        return_var,
        returns.explained_variance(rollout.values.reshape(-1), targets),
    )
