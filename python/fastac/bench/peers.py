"""What else trains A2C on CartPole, to race against: each as a function of env steps, where its packages are installed.

Stable-Baselines3 is what people use. The other is an A2C in JAX, written here, in which env, rollout, loss and update
are one compiled program: the hardest rival on a CPU. Its compilation is not counted.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
from collections.abc import Callable, Iterator
from typing import Any

from fastac.config import A2CConfig

_UNROLL = 32  # steps of a rollout without a loop around them
Train = Callable[[int], int]  # trains that many env steps or a few more; returns how many


def stable_baselines3(config: A2CConfig) -> Train | None:
    """A2C of Stable-Baselines3 on Gymnasium's CartPole-v1, the same envs, steps and units. None if not installed."""
    if importlib.util.find_spec("stable_baselines3") is None:
        return None
    from stable_baselines3 import A2C
    from stable_baselines3.common.env_util import make_vec_env

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

    return train


def jax_a2c(config: A2CConfig) -> Train | None:
    """A2C in JAX, compiled as a whole, with the same loss, optimizer and net as ours. None if not installed."""
    if importlib.util.find_spec("jax") is None:
        return None
    with _on_one_core():
        import jax

        compiled: dict[int, Any] = {}
        begin, update = _program(config)
        state = begin(jax.random.key(config.seed or 0))

    def train(env_steps: int) -> int:
        nonlocal state
        per_update = config.n_envs * config.n_steps
        # Few lengths, so that few are compiled: the next power of two.
        updates = 1 << max(0, math.ceil(math.log2(env_steps / per_update)))
        with _on_one_core():
            if updates not in compiled:
                run = jax.jit(lambda state: jax.lax.scan(update, state, None, length=updates))
                compiled[updates] = run.lower(state).compile()
            state, _ = jax.block_until_ready(compiled[updates](state))
        return updates * per_update

    return train


@contextlib.contextmanager
def _on_one_core() -> Iterator[None]:
    """With more, JAX's threads hand these small products to each other, and everything takes twice as long."""
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cpus)


def _program(config: A2CConfig) -> tuple[Callable[[Any], Any], Callable[[Any, Any], tuple[Any, Any]]]:
    """begin(key) -> state; update(state, _) -> (state, (returns, lengths) of the episodes that ended, 0 elsewhere)."""
    import jax
    import jax.numpy as jnp

    n, limit = config.n_envs, config.max_episode_steps
    activation = {"tanh": jnp.tanh, "relu": jax.nn.relu}[config.activation]

    def starts(key: Any, *shape: int) -> Any:
        return jax.random.uniform(key, (*shape, n, 4), minval=-0.05, maxval=0.05)

    def step(envs: Any, action: Any) -> tuple[Any, Any]:
        """Gymnasium's CartPole in float32; returns the states and which poles fell."""
        x, x_dot, theta, theta_dot = envs.T
        force = jnp.where(action == 1, 10.0, -10.0)
        cos, sin = jnp.cos(theta), jnp.sin(theta)
        temp = (force + 0.05 * theta_dot**2 * sin) / 1.1
        theta_acc = (9.8 * sin - cos * temp) / (0.5 * (4.0 / 3.0 - 0.1 * cos**2 / 1.1))
        x_acc = temp - 0.05 * theta_acc * cos / 1.1
        moved = (x + 0.02 * x_dot, x_dot + 0.02 * x_acc, theta + 0.02 * theta_dot, theta_dot + 0.02 * theta_acc)
        envs = jnp.stack(moved, axis=1)
        return envs, (jnp.abs(envs[:, 0]) > 2.4) | (jnp.abs(envs[:, 2]) > 12 * math.pi / 180)

    def forward(params: Any, obs: Any) -> tuple[Any, Any]:
        *hidden, (head, bias) = params
        for weights, biases in hidden:
            obs = activation(obs @ weights + biases)
        outputs = obs @ head + bias
        return outputs[..., :2], outputs[..., 2]

    def begin(key: Any) -> Any:
        keys = jax.random.split(key, 3 + len(config.hidden_sizes))
        sizes = (4, *config.hidden_sizes)
        orthogonal = jax.nn.initializers.orthogonal
        params = [
            (orthogonal(math.sqrt(2.0))(k, (a, b)), jnp.zeros(b))
            for k, a, b in zip(keys[3:], sizes, sizes[1:], strict=False)
        ]
        heads = [orthogonal(gain)(k, (sizes[-1], m)) for k, m, gain in ((keys[1], 2, 0.01), (keys[2], 1, 1.0))]
        params.append((jnp.concatenate(heads, axis=1), jnp.zeros(3)))
        squares = jax.tree.map(jnp.zeros_like, params)
        return params, squares, starts(keys[0]), jnp.zeros(n, jnp.int32), jax.random.fold_in(key, 1)

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

        random = (uniforms, starts(of_starts, config.n_steps))
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
        norm = jnp.sqrt(sum((g**2).sum() for g in jax.tree.leaves(grads)))
        scale = jnp.minimum(1.0, config.max_grad_norm / (norm + 1e-6))
        grads = jax.tree.map(lambda g: g * scale, grads)
        squares = jax.tree.map(lambda v, g: config.alpha * v + (1 - config.alpha) * g * g, squares, grads)
        params = jax.tree.map(
            lambda p, g, v: p - config.learning_rate * g / (jnp.sqrt(v) + config.eps), params, grads, squares
        )
        return (params, squares, envs, elapsed, key), lengths

    return begin, update
