"""A2C of Stable-Baselines3, which is what people use, on Gymnasium's CartPole-v1."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from stable_baselines3 import A2C
from stable_baselines3.common.env_util import make_vec_env

from fastac.bench.pace import THRESHOLD, WINDOW, Case, Solved, timed
from fastac.config import A2CConfig


def trainer(config: A2CConfig) -> Case:
    """With as many envs, steps and units as ours."""
    model = A2C(
        "MlpPolicy",
        make_vec_env("CartPole-v1", config.n_envs, seed=config.seed),
        n_steps=config.n_steps,
        learning_rate=config.learning_rate,
        gae_lambda=config.gae_lambda,
        policy_kwargs={"net_arch": list(config.hidden_sizes)},
        seed=config.seed,
        device="cpu",
    )

    def train(env_steps: int) -> int:
        before = model.num_timesteps
        model.learn(env_steps, reset_num_timesteps=False)
        return int(model.num_timesteps - before)

    return timed(train)


def solver(total_timesteps: int, budget_s: float) -> Callable[[int], Solved]:
    """With its own defaults and 8 envs, as its authors tune it for CartPole. Ends when solved, or after `budget_s`."""

    def solve(seed: int) -> Solved:
        model = A2C("MlpPolicy", make_vec_env("CartPole-v1", 8, seed=seed), ent_coef=0.0, seed=seed, device="cpu")
        reached = False
        wall, cpu = time.perf_counter(), time.process_time()

        def goes_on(*_: Any) -> bool:
            nonlocal reached
            returns = [episode["r"] for episode in model.ep_info_buffer or ()]  # the last 100
            reached = len(returns) == WINDOW and float(np.mean(returns)) >= THRESHOLD
            return not reached and time.perf_counter() - wall < budget_s

        model.learn(total_timesteps, callback=goes_on)
        spent, worked = time.perf_counter() - wall, time.process_time() - cpu
        if not reached:
            return Solved(math.inf, math.inf, math.inf, spent)
        return Solved(float(model.num_timesteps), spent, worked, spent)

    return solve
