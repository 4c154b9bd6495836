"""Hyper-parameters with names: for A2C and A3C with 4 and 8 envs, found by `fastac search` with equal budgets.

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


def preset(name: str) -> Preset:
    """Keyword arguments of A2C or A3C, as in `A3C(**preset("a3c-8"))`; a copy. Raises ConfigError for another name."""
    if name not in PRESETS:
        raise ConfigError(f"preset: expected one of {', '.join(PRESETS)}, got {name!r}")
    return dict(PRESETS[name])


def tuned_for_another_size(name: str, options: Mapping[str, Any]) -> str | None:
    """What is to be said where `options` have another number of envs than the preset was found with; else None."""

    def size(of: Mapping[str, Any]) -> str:
        envs = counted(of["n_envs"], "envs")
        return f"{counted(of['workers'], 'workers')} with {envs} each" if name in presets_of("a3c") else envs

    tuned, given = size({"n_envs": 1} | PRESETS[name]), size(options)
    return None if given == tuned else f"preset {name} was tuned for {tuned}, not for {given}"


def presets_of(algorithm: str) -> tuple[str, ...]:
    """Names of those for "a2c" or "a3c"."""
    return tuple(name for name in PRESETS if name.startswith(f"{algorithm}-"))
