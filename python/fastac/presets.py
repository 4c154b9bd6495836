"""Hyper-parameters with names: CartPole's, with 4 and 8 envs, found by `fastac search`, and those of other envs.

In: a name. Out: keyword arguments of A2C or A3C. How they were found and what they do on fresh seeds: docs/presets.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastac.errors import ConfigError
from fastac.words import counted

Preset = dict[str, Any]

# What differs from the defaults in config.py.
PRESETS: dict[str, Preset] = {
    "a2c-4": {
        "n_envs": 4,
        "hidden_sizes": (64, 64),
        "learning_rate": 0.0055,
        "n_steps": 24,
        "gae_lambda": 0.9,
        "max_grad_norm": 0.7,
        "ent_coef": 0.0001,
        "vf_coef": 0.25,
        "reward_scale": 0.1,
        "eps": 1e-05,
    },
    "a2c-8": {
        "n_envs": 8,
        "hidden_sizes": (64, 64),
        "learning_rate": 0.007,
        "n_steps": 16,
        "gae_lambda": 0.9,
        "max_grad_norm": 0.7,
        "ent_coef": 0.0001,
        "vf_coef": 0.25,
        "reward_scale": 0.15,
        "eps": 0.001,
    },
    "a3c-4": {
        "workers": 4,
        "hidden_sizes": (64, 64),
        "learning_rate": 0.0026,
        "n_steps": 16,
        "gae_lambda": 0.85,
        "max_grad_norm": 0.5,
        "ent_coef": 0.0001,
        "vf_coef": 0.25,
        "reward_scale": 0.15,
        "eps": 0.001,
    },
    "a3c-8": {
        "workers": 8,
        "hidden_sizes": (64, 64),
        "learning_rate": 0.0039,
        "n_steps": 24,
        "gae_lambda": 0.75,
        "max_grad_norm": 0.5,
        "ent_coef": 0.0001,
        "vf_coef": 0.5,
        "reward_scale": 0.2,
        "eps": 0.001,
    },
}


# For other envs: in the region of what is published for them (docs/presets.md), tried on seeds from 1000 on.
_NORMALIZED: Preset = {
    "hidden_sizes": (64, 64),
    "shared_trunk": False,
    "normalize_observation": True,
    "normalize_reward": True,
    "reward_scale": 1.0,
    "ent_coef": 0.0,
    "eps": 1e-5,
}
ENV_PRESETS: dict[str, Preset] = {
    "a2c-Acrobot-v1": {
        "env": "Acrobot-v1",
        "n_envs": 16,
        **_NORMALIZED,
        "n_steps": 5,
        "learning_rate": 7e-4,
        "gae_lambda": 1.0,
    },
    "a2c-MountainCarContinuous-v0": {
        "env": "MountainCarContinuous-v0",
        "n_envs": 4,
        **_NORMALIZED,
        "n_steps": 100,
        "learning_rate": 7e-4,
        "gae_lambda": 1.0,
        "noise_steps": 16,
    },
    "a2c-Pendulum-v1": {
        "env": "Pendulum-v1",
        "n_envs": 8,
        **_NORMALIZED,
        "n_steps": 8,
        "learning_rate": 1e-3,
        "lr_schedule": "linear",
        "gamma": 0.95,
        "gae_lambda": 0.9,
        "vf_coef": 0.4,
        "log_std_init": -0.5,
        "noise_steps": 8,
    },
    "a2c-LunarLander-v3": {
        "env": "LunarLander-v3",
        "n_envs": 16,
        **_NORMALIZED,
        "n_steps": 5,
        "learning_rate": 2e-3,
        "lr_schedule": "linear",
        "gae_lambda": 0.9,
        "ent_coef": 1e-3,
    },
}


def preset(name: str) -> Preset:
    """Keyword arguments of A2C or A3C, as in `A3C(**preset("a3c-8"))`; a copy. Raises ConfigError for another name."""
    if name not in (known := PRESETS | ENV_PRESETS):
        raise ConfigError(f"preset: expected one of {', '.join(known)}, got {name!r}")
    return dict(known[name])


def tuned_for_another_size(name: str, options: Mapping[str, Any]) -> str | None:
    """What is to be said where `options` have another number of envs than the preset was found with; else None."""

    def size(of: Mapping[str, Any]) -> str:
        envs = counted(of["n_envs"], "envs")
        return f"{counted(of['workers'], 'workers')} with {envs} each" if name in presets_of("a3c") else envs

    tuned, given = size({"n_envs": 1} | preset(name)), size(options)
    return None if given == tuned else f"preset {name} was tuned for {tuned}, not for {given}"


def presets_of(algorithm: str) -> tuple[str, ...]:
    """Names of those for "a2c" or "a3c"."""
    return tuple(name for name in PRESETS | ENV_PRESETS if name.startswith(f"{algorithm}-"))
