"""PPO in one file, on any vector env of Gymnasium with discrete actions, in torch.

    python examples/ppo.py --env-id CartPole-v1
    python examples/ppo.py --env-id fastac:fastac/CartPole-v1

Only the id of the env changes. With `--vectorization-mode sync`, Gymnasium's CartPole takes its seeds as the native one
does, and both print the same learning curve.

Schulman et al. 2017, "Proximal Policy Optimization Algorithms"; advantages: Schulman et al. 2015, "High-Dimensional
Continuous Control Using Generalized Advantage Estimation". Shapes: T rollout length, N envs.
"""

import argparse
import time
from dataclasses import dataclass, fields

import gymnasium
import numpy as np
import torch
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from torch import nn
from torch.distributions import Categorical


@dataclass
class Config:
    env_id: str = "fastac:fastac/CartPole-v1"  # module:id, so that the module that registers it is imported
    vectorization_mode: str = ""  # of gymnasium.make_vec: "", "sync" or "async"
    seed: int = 0
    num_envs: int = 8
    total_timesteps: int = 100_000
    rollout: int = 32  # T
    epochs: int = 10
    minibatches: int = 1
    learning_rate: float = 2e-3  # at the beginning; it falls to 0 in a line
    gamma: float = 0.98
    gae_lambda: float = 0.8
    clip: float = 0.2
    entropy_coef: float = 0.0
    value_coef: float = 0.5
    max_grad_norm: float = 0.5


class ActorCritic(nn.Module):
    def __init__(self, observations: int, actions: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(observations, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh())
        self.actor, self.critic = nn.Linear(64, actions), nn.Linear(64, 1)

    def forward(self, obs: torch.Tensor) -> tuple[Categorical, torch.Tensor]:
        features = self.trunk(obs)
        return Categorical(logits=self.actor(features)), self.critic(features).squeeze(-1)


def advantages_of(rewards, values, terminated, ended, config):
    """float32[T, N]; `values` float32[T + 1, N], of which the row after a step belongs to what the step led to.

    A truncated episode goes on in its value, a terminated one does not; neither takes advantages of the next episode.
    """
    advantages, following = torch.zeros_like(rewards), torch.zeros_like(rewards[0])
    for t in reversed(range(len(rewards))):
        delta = rewards[t] + config.gamma * values[t + 1] * ~terminated[t] - values[t]
        advantages[t] = following = delta + config.gamma * config.gae_lambda * following * ~ended[t]
    return advantages


def loss_of(model, obs, actions, old_log_probs, advantages, returns, config):
    policy, values = model(obs)
    ratio = (policy.log_prob(actions) - old_log_probs).exp()
    advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    clipped = ratio.clamp(1 - config.clip, 1 + config.clip)
    policy_loss = -torch.min(ratio * advantages, clipped * advantages).mean()
    value_loss = 0.5 * (values - returns).square().mean()
    return policy_loss + config.value_coef * value_loss - config.entropy_coef * policy.entropy().mean()


def train(config: Config) -> None:
    torch.manual_seed(config.seed)
    torch.set_num_threads(1)  # more cost more than they do, for a net of this size
    T, N = config.rollout, config.num_envs
    envs = gymnasium.make_vec(config.env_id, num_envs=N, vectorization_mode=config.vectorization_mode or None)
    envs = RecordEpisodeStatistics(envs)
    model = ActorCritic(envs.single_observation_space.shape[0], int(envs.single_action_space.n))
    optimizer = torch.optim.Adam(model.parameters(), config.learning_rate, eps=1e-5)

    obs = torch.zeros(T + 1, N, *envs.single_observation_space.shape)
    actions = torch.zeros(T, N, dtype=torch.int64)
    log_probs, rewards, values = torch.zeros(T, N), torch.zeros(T, N), torch.zeros(T + 1, N)
    terminated, ended = torch.zeros(T, N, dtype=torch.bool), torch.zeros(T, N, dtype=torch.bool)
    played = torch.zeros(T, N, dtype=torch.bool)
    obs[T] = torch.from_numpy(envs.reset(seed=config.seed)[0])
    resets = torch.zeros(N, dtype=torch.bool)
    env_steps, began = 0, time.perf_counter()
    for update in range(1, config.total_timesteps // (T * N) + 1):
        obs[0] = obs[T]
        with torch.no_grad():
            for t in range(T):
                policy, values[t] = model(obs[t])
                actions[t] = policy.sample()
                log_probs[t] = policy.log_prob(actions[t])
                next_obs, reward, terminations, truncations, _ = envs.step(actions[t].numpy())
                obs[t + 1], rewards[t] = torch.from_numpy(next_obs), torch.from_numpy(reward)
                terminated[t] = torch.from_numpy(terminations)
                ended[t] = terminated[t] | torch.from_numpy(truncations)
                # The step after the end of an episode only resets the env (NEXT_STEP): the policy's action had no part.
                played[t], resets = ~resets, ended[t].clone()
            values[T] = model(obs[T])[1]
        optimizer.param_groups[0]["lr"] = config.learning_rate * (1 - env_steps / config.total_timesteps)
        env_steps += T * N
        advantages = advantages_of(rewards, values, terminated, ended, config)
        returns = advantages + values[:T]
        batch = [x[played] for x in (obs[:T], actions, log_probs, advantages, returns)]
        for _ in range(config.epochs):
            for rows in torch.randperm(len(batch[0])).chunk(config.minibatches):
                optimizer.zero_grad()
                loss_of(model, *(x[rows] for x in batch), config).backward()
                nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
                optimizer.step()
        if update % 20 == 0 and envs.return_queue:
            mean = np.mean(envs.return_queue)
            print(f"{env_steps} env steps, {envs.episode_count} episodes, mean return of the last 100: {mean:.2f}")
    print(f"{env_steps / (time.perf_counter() - began):,.0f} env steps per second, training included")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for field in fields(Config):
        parser.add_argument("--" + field.name.replace("_", "-"), type=type(field.default), default=field.default)
    train(Config(**vars(parser.parse_args())))
