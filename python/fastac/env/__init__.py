"""The Gymnasium faces of the native CartPole: actions in, observations, rewards and ends of episodes out.

Room before: the policy. Room after: the rollout. The only rooms that import gymnasium.

The physics is Barto, Sutton & Anderson 1983, "Neuronlike adaptive elements that can solve difficult learning
control problems", with the constants of Gymnasium's CartPole-v1. Observations are (cart position m, cart
velocity m/s, pole angle rad, pole angular velocity rad/s). Action 0 pushes the cart to the left, 1 to the
right, with 10 N for 0.02 s. An episode is terminated when the cart is beyond 2.4 m or the pole beyond 12
degrees, and truncated at the time limit; both may be true.
"""

from __future__ import annotations

from typing import Any

import gymnasium

from fastac.env.arguments import AutoresetMode
from fastac.env.common import ENV_ID
from fastac.env.single import CartPoleEnv
from fastac.env.vector import CartPoleVectorEnv
from fastac.metrics import SOLVED

__all__ = ["ENV_ID", "AutoresetMode", "CartPoleEnv", "CartPoleVectorEnv", "make_vec", "register"]


def register() -> None:
    """Make ``gymnasium.make`` and ``make_vec`` know "fastac/CartPole-v1"; a second call does nothing."""
    if ENV_ID not in gymnasium.registry:
        gymnasium.register(
            id=ENV_ID,
            entry_point="fastac.env:CartPoleEnv",
            vector_entry_point="fastac.env:CartPoleVectorEnv",
            max_episode_steps=500,
            reward_threshold=SOLVED,
        )


def make_vec(env_id: str, num_envs: int, **options: Any) -> gymnasium.vector.VectorEnv[Any, Any, Any]:
    """gymnasium.make_vec, for the rooms that must not import gymnasium themselves."""
    return gymnasium.make_vec(env_id, num_envs=num_envs, **options)


register()
