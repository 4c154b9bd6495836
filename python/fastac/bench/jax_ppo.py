"""PPO in JAX, compiled as a whole, with the settings that are in use for it on CartPole (see README of PureJaxRL).

4 envs, rollouts of 128, 4 epochs of 4 minibatches, learning rate 2.5e-4 annealed over 500,000 env steps, clip 0.2,
entropy 0.01, two 64-64 tanh nets, Adam. Schulman et al. 2017, arXiv:1707.06347.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fastac.bench.jax_cartpole import Begin, Update, clipped, layer, mlp, solver_of, starts, step
from fastac.bench.pace import Solved

TOTAL_TIMESTEPS = 500_000
_N, _T, _EPOCHS, _MINIBATCHES, _LIMIT = 4, 128, 4, 4, 500
_LEARNING_RATE, _GAMMA, _LAMBDA, _CLIP, _ENTROPY, _VALUE, _NORM = 2.5e-4, 0.99, 0.95, 0.2, 0.01, 0.5, 0.5
_BETA1, _BETA2, _EPS = 0.9, 0.999, 1e-5
_UNROLL = 8


def solver(total_timesteps: int = TOTAL_TIMESTEPS) -> Callable[[int], Solved]:
    updates = math.ceil(total_timesteps / (_N * _T))
    return solver_of(*program(updates), updates)


def program(updates: int) -> tuple[Begin, Update]:
    """The learning rate reaches 0 after so many updates."""

    def begin(key: Any) -> Any:
        keys = jax.random.split(key, 8)

        def net(keys: Any, outputs: int, gain: float) -> Any:
            hidden = [layer(keys[0], 4, 64, math.sqrt(2.0)), layer(keys[1], 64, 64, math.sqrt(2.0))]
            return [*hidden, layer(keys[2], 64, outputs, gain)]

        params = net(keys[:3], 2, 0.01), net(keys[3:6], 1, 1.0)
        zeros = jax.tree.map(jnp.zeros_like, params)
        return (params, zeros, zeros, 0), starts(keys[6], _N), jnp.zeros(_N, jnp.int32), keys[7]

    def update(state: Any, _: Any) -> tuple[Any, Any]:
        learner, envs, elapsed, key = state
        params = learner[0]
        key, of_actions, of_starts, of_epochs = jax.random.split(key, 4)

        def act(carry: Any, random: Any) -> tuple[Any, Any]:
            envs, elapsed = carry
            uniform, start = random
            log_p = jax.nn.log_softmax(_policy(params, envs))
            actions = (jnp.exp(log_p[:, 0]) <= uniform).astype(jnp.int32)
            after, fell = step(envs, actions)
            length = elapsed + 1
            ended = fell | (length >= _LIMIT)
            row = (envs, actions, _taken(log_p, actions), _value(params, envs), ended, jnp.where(ended, length, 0))
            return (jnp.where(ended[:, None], start, after), jnp.where(ended, 0, length)), row

        random = jax.random.uniform(of_actions, (_T, _N)), starts(of_starts, _T, _N)
        (envs, elapsed), rows = jax.lax.scan(act, (envs, elapsed), random, unroll=_UNROLL)
        obs, actions, log_p, values, ended, lengths = rows
        advantages = _advantages(values, _value(params, envs), ended)
        batch = (obs, actions, log_p, values, advantages, advantages + values)
        batch = jax.tree.map(lambda x: x.reshape(_T * _N, *x.shape[2:]), batch)

        def epoch(learner: Any, key: Any) -> Any:
            order = jax.random.permutation(key, _T * _N).reshape(_MINIBATCHES, -1)
            return jax.lax.scan(lambda learner, rows: (_descend(learner, batch, rows, updates), None), learner, order)

        learner, _ = jax.lax.scan(epoch, learner, jax.random.split(of_epochs, _EPOCHS))
        return (learner, envs, elapsed, key), lengths

    return begin, update


def _policy(params: Any, obs: Any) -> Any:
    return mlp(params[0], obs, jnp.tanh)


def _value(params: Any, obs: Any) -> Any:
    return mlp(params[1], obs, jnp.tanh)[..., 0]


def _taken(log_p: Any, actions: Any) -> Any:
    return jnp.take_along_axis(log_p, actions[..., None], -1)[..., 0]


def _advantages(values: Any, last: Any, ended: Any) -> Any:
    """GAE [T, N]. As is the custom there, an episode that was cut counts as one whose pole fell."""

    def estimate(carry: Any, row: Any) -> tuple[Any, Any]:
        advantage, successor = carry
        value, end = row
        goes_on = 1.0 - end
        delta = 1.0 + _GAMMA * successor * goes_on - value
        advantage = delta + _GAMMA * _LAMBDA * goes_on * advantage
        return (advantage, value), advantage

    _, advantages = jax.lax.scan(estimate, (jnp.zeros(_N), last), (values, ended), reverse=True, unroll=_UNROLL)
    return advantages


def _loss(params: Any, obs: Any, actions: Any, old_log_p: Any, old_values: Any, advantages: Any, returns: Any) -> Any:
    log_p = jax.nn.log_softmax(_policy(params, obs))
    ratios = jnp.exp(_taken(log_p, actions) - old_log_p)
    advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    policy_loss = -jnp.minimum(ratios * advantages, jnp.clip(ratios, 1 - _CLIP, 1 + _CLIP) * advantages).mean()
    values = _value(params, obs)
    near = old_values + jnp.clip(values - old_values, -_CLIP, _CLIP)
    value_loss = 0.5 * jnp.maximum((values - returns) ** 2, (near - returns) ** 2).mean()
    entropy = -(jnp.exp(log_p) * log_p).sum(-1).mean()
    return policy_loss + _VALUE * value_loss - _ENTROPY * entropy


def _descend(learner: Any, batch: Any, rows: Any, updates: int) -> Any:
    """One step of Adam on one minibatch; the learning rate is that of the update it belongs to."""
    params, means, squares, steps = learner
    grads = jax.grad(_loss)(params, *(x[rows] for x in batch))
    grads = clipped(grads, _NORM)
    learning_rate = _LEARNING_RATE * (1.0 - steps // (_EPOCHS * _MINIBATCHES) / updates)
    means = jax.tree.map(lambda m, g: _BETA1 * m + (1 - _BETA1) * g, means, grads)
    squares = jax.tree.map(lambda v, g: _BETA2 * v + (1 - _BETA2) * g * g, squares, grads)
    steps = steps + 1
    of_means, of_squares = 1 - _BETA1**steps, 1 - _BETA2**steps
    params = jax.tree.map(
        lambda p, m, v: p - learning_rate * (m / of_means) / (jnp.sqrt(v / of_squares) + _EPS), params, means, squares
    )
    return params, means, squares, steps
