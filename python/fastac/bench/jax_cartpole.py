"""CartPole and an MLP in JAX, written here for peers in which env, rollout, loss and update are one program."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fastac.bench.pace import Case, Solved, solved_in_program, timed

# state -> (state, lengths int[T, N] of the episodes that ended, 0 elsewhere); the other argument is scan's, unused.
Update = Callable[[Any, Any], tuple[Any, Any]]
Begin = Callable[[Any], Any]  # key -> state


def starts(key: Any, *shape: int) -> Any:
    """States float32[*shape, 4] of episodes that begin."""
    return jax.random.uniform(key, (*shape, 4), minval=-0.05, maxval=0.05)


def step(states: Any, actions: Any) -> tuple[Any, Any]:
    """Gymnasium's CartPole in float32: states float32[N, 4] after actions int32[N], and which poles fell bool[N]."""
    x, x_dot, theta, theta_dot = states.T
    force = jnp.where(actions == 1, 10.0, -10.0)
    cos, sin = jnp.cos(theta), jnp.sin(theta)
    temp = (force + 0.05 * theta_dot**2 * sin) / 1.1
    theta_acc = (9.8 * sin - cos * temp) / (0.5 * (4.0 / 3.0 - 0.1 * cos**2 / 1.1))
    x_acc = temp - 0.05 * theta_acc * cos / 1.1
    moved = (x + 0.02 * x_dot, x_dot + 0.02 * x_acc, theta + 0.02 * theta_dot, theta_dot + 0.02 * theta_acc)
    states = jnp.stack(moved, axis=1)
    return states, (jnp.abs(states[:, 0]) > 2.4) | (jnp.abs(states[:, 2]) > 12 * math.pi / 180)


def layer(key: Any, n_in: int, n_out: int, gain: float) -> tuple[Any, Any]:
    """Orthogonal weights [n_in, n_out] and zero biases."""
    return jax.nn.initializers.orthogonal(gain)(key, (n_in, n_out)), jnp.zeros(n_out)


def mlp(layers: Any, inputs: Any, activation: Callable[[Any], Any]) -> Any:
    *hidden, (head, bias) = layers
    for weights, biases in hidden:
        inputs = activation(inputs @ weights + biases)
    return inputs @ head + bias


def clipped(grads: Any, max_norm: float) -> Any:
    """To a global norm."""
    norm = jnp.sqrt(sum((g**2).sum() for g in jax.tree.leaves(grads)))
    scale = jnp.minimum(1.0, max_norm / (norm + 1e-6))
    return jax.tree.map(lambda g: g * scale, grads)


def trainer_of(begin: Begin, update: Update, env_steps_per_update: int, seed: int) -> Case:
    """Compiled once, for any number of updates."""
    state = begin(jax.random.key(seed))
    many = jax.jit(lambda state, n: jax.lax.fori_loop(0, n, lambda _, state: update(state, None)[0], state))
    run = many.lower(state, 1).compile()

    def train(env_steps: int) -> int:
        nonlocal state
        updates = math.ceil(env_steps / env_steps_per_update)
        state = jax.block_until_ready(run(state, updates))
        return updates * env_steps_per_update

    return timed(train)


def solver_of(begin: Begin, update: Update, updates: int) -> Callable[[int], Solved]:
    """Compiled here; a run of all updates is timed, and the moment read off its episodes."""
    program = jax.jit(lambda state: jax.lax.scan(update, state, None, length=updates))
    start = jax.jit(begin)
    run = program.lower(start(jax.random.key(0))).compile()

    def solve(seed: int) -> Solved:
        state = jax.block_until_ready(start(jax.random.key(seed)))
        wall, cpu = time.perf_counter(), time.process_time()
        _, lengths = jax.block_until_ready(run(state))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        return solved_in_program(np.asarray(lengths), wall, cpu)

    return solve
