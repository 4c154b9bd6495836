"""A worker of A3C as tutorials write it, but right: one env of Gymnasium's, a torch module, a tensor for every step.

With one worker there is nobody to share parameters with: its gradients are applied to the module that it acts with.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import gymnasium
import torch
from torch import nn

from fastac.bench.pace import Case, timed
from fastac.config import A3CConfig


class ActorCritic(nn.Module):
    def __init__(self, hidden_sizes: tuple[int, ...]) -> None:
        super().__init__()
        sizes = (4, *hidden_sizes)
        layers = [nn.Sequential(nn.Linear(a, b), nn.Tanh()) for a, b in itertools.pairwise(sizes)]
        self.hidden = nn.Sequential(*layers)
        self.policy = nn.Linear(sizes[-1], 2)
        self.value = nn.Linear(sizes[-1], 1)

    def forward(self, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self.hidden(obs)
        return self.policy(hidden), self.value(hidden).squeeze(-1)


class Step(NamedTuple):
    value: torch.Tensor
    log_p: torch.Tensor  # of the action that was taken
    entropy: torch.Tensor
    reward: float  # scaled
    goes_on: bool  # the episode, with the next step
    successor: torch.Tensor  # what is to come where it does not: 0, but where it was only cut


def trainer(config: A3CConfig) -> Case:
    """With the rollouts, net, loss and optimizer of a config; its n_envs is 1."""
    torch.manual_seed(config.seed or 0)
    torch.set_num_threads(1)
    model = ActorCritic(config.hidden_sizes)
    optimizer = torch.optim.RMSprop(model.parameters(), config.learning_rate, alpha=config.alpha, eps=config.eps)
    env = gymnasium.make("CartPole-v1")
    obs, _ = env.reset(seed=config.seed)

    def train(env_steps: int) -> int:
        nonlocal obs
        done = 0
        while done < env_steps:
            steps = []
            for _ in range(config.n_steps):
                logits, value = model(torch.from_numpy(obs))
                policy = torch.distributions.Categorical(logits=logits)
                action = policy.sample()  # type: ignore[no-untyped-call]  # torch's own
                log_p, entropy = policy.log_prob(action), policy.entropy()  # type: ignore[no-untyped-call]  # the same
                obs, reward, terminated, truncated, _ = env.step(action.item())
                ended = terminated or truncated
                successor = torch.zeros(()) if terminated or not truncated else _value(model, obs)
                steps.append(Step(value, log_p, entropy, float(reward) * config.reward_scale, not ended, successor))
                if ended:
                    obs, _ = env.reset()
            optimizer.zero_grad()
            loss_of(steps, _value(model, obs), config).backward()  # type: ignore[no-untyped-call]  # the same
            nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
            optimizer.step()
            done += config.n_steps
        return done

    return timed(train)


def loss_of(steps: Sequence[Step], after: torch.Tensor, config: A3CConfig) -> torch.Tensor:
    """Mnih et al. 2016 with GAE; `after` is the value of the observation after the last step."""
    loss, advantage = torch.zeros(()), torch.zeros(())
    for step in reversed(steps):
        value = step.value.detach()
        delta = step.reward + config.gamma * (after if step.goes_on else step.successor) - value
        advantage = delta + config.gamma * config.gae_lambda * step.goes_on * advantage
        value_loss = (advantage + value - step.value).square()
        loss = loss - advantage * step.log_p + config.vf_coef * value_loss - config.ent_coef * step.entropy
        after = value
    return loss / len(steps)


def _value(model: ActorCritic, obs: object) -> torch.Tensor:
    with torch.no_grad():
        value: torch.Tensor = model(torch.as_tensor(obs))[1]
    return value
