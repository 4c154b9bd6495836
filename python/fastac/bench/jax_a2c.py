"""A2C in JAX, compiled as a whole, with the same loss, optimizer and net as ours: the hardest rival on a CPU."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fastac.bench.jax_cartpole import Begin, Update, clipped, layer, mlp, solver_of, starts, step, trainer_of
from fastac.bench.pace import Case, Solved
from fastac.config import A2CConfig

_UNROLL = 32  # steps of a rollout without a loop around them


def trainer(config: A2CConfig) -> Case:
    begin, update = program(config)
    return trainer_of(begin, update, config.n_envs * config.n_steps, config.seed or 0)


def solver(total_timesteps: int) -> Callable[[int], Solved]:
    """With the default preset of ours."""
    config = A2CConfig()
    begin, update = program(config)
    return solver_of(begin, update, math.ceil(total_timesteps / (config.n_envs * config.n_steps)))


def program(config: A2CConfig) -> tuple[Begin, Update]:
    n, limit = config.n_envs, config.max_episode_steps
    activation = {"tanh": jnp.tanh, "relu": jax.nn.relu}[config.activation]

    def forward(params: Any, obs: Any) -> tuple[Any, Any]:
        outputs = mlp(params, obs, activation)
        return outputs[..., :2], outputs[..., 2]

    def begin(key: Any) -> Any:
        keys = jax.random.split(key, 3 + len(config.hidden_sizes))
        sizes = (4, *config.hidden_sizes)
        params = [layer(k, a, b, math.sqrt(2.0)) for k, a, b in zip(keys[3:], sizes, sizes[1:], strict=False)]
        heads = [layer(k, sizes[-1], m, gain)[0] for k, m, gain in ((keys[1], 2, 0.01), (keys[2], 1, 1.0))]
        params.append((jnp.concatenate(heads, axis=1), jnp.zeros(3)))
        squares = jax.tree.map(jnp.zeros_like, params)
        return params, squares, starts(keys[0], n), jnp.zeros(n, jnp.int32), jax.random.fold_in(key, 1)

    def loss(params: Any, obs: Any, actions: Any, advantages: Any, returns: Any) -> Any:
        logits, values = forward(params, obs)
        log_p = jax.nn.log_softmax(logits)
        taken = jnp.take_along_axis(log_p, actions[..., None], -1)[..., 0]
        entropy = -(jnp.exp(log_p) * log_p).sum(-1).mean()
        value_loss = ((returns - values) ** 2).mean()
        return -(advantages * taken).mean() + config.vf_coef * value_loss - config.ent_coef * entropy

    def update(state: Any, _: Any) -> tuple[Any, Any]:
        params, squares, envs, elapsed, key = state

        # What is random in a rollout at once, and the values of all successors: faster than a step at a time.
        key, of_actions, of_starts = jax.random.split(key, 3)
        uniforms = jax.random.uniform(of_actions, (config.n_steps, n))

        def act(carry: Any, random: Any) -> tuple[Any, Any]:
            envs, elapsed = carry
            uniform, start = random
            logits, values = forward(params, envs)
            actions = (jax.nn.softmax(logits)[:, 0] <= uniform).astype(jnp.int32)
            after, fell = step(envs, actions)
            length = elapsed + 1
            ended = fell | (length >= limit)
            row = (envs, actions, values, after, fell, ended, jnp.where(ended, length, 0))
            return (jnp.where(ended[:, None], start, after), jnp.where(ended, 0, length)), row

        random = (uniforms, starts(of_starts, config.n_steps, n))
        (envs, elapsed), rows = jax.lax.scan(act, (envs, elapsed), random, unroll=min(config.n_steps, _UNROLL))
        obs, actions, values, after, fell, ended, lengths = rows
        # An episode that was cut went on: it is worth what its final observation is.
        successors = jnp.where(fell, 0.0, forward(params, after)[1])

        def estimate(after: Any, row: Any) -> tuple[Any, Any]:
            value, successor, end = row
            delta = config.reward_scale + config.gamma * successor - value
            advantage = delta + config.gamma * config.gae_lambda * jnp.where(end, 0.0, after)
            return advantage, advantage

        _, advantages = jax.lax.scan(
            estimate, jnp.zeros(n), (values, successors, ended), reverse=True, unroll=min(config.n_steps, _UNROLL)
        )
        grads = jax.grad(loss)(params, obs, actions, advantages, advantages + values)
        grads = clipped(grads, config.max_grad_norm)
        squares = jax.tree.map(lambda v, g: config.alpha * v + (1 - config.alpha) * g * g, squares, grads)
        params = jax.tree.map(
            lambda p, g, v: p - config.learning_rate * g / (jnp.sqrt(v) + config.eps), params, grads, squares
        )
        return (params, squares, envs, elapsed, key), lengths

    return begin, update
