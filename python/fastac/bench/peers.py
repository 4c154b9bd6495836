"""What else trains actor-critics, or steps CartPole, to race against: where it is, and what it needs installed."""

from __future__ import annotations

import importlib.util
import warnings
from dataclasses import dataclass
from typing import Any

from fastac.bench import racer
from fastac.bench.racer import Racer

GET_THEM = "pip install 'fastac[peers]'"


@dataclass(frozen=True)
class Peer:
    """A racer's target, and the package without which it cannot run."""

    name: str
    target: str
    package: str

    @property
    def installed(self) -> bool:
        return importlib.util.find_spec(self.package) is not None


PLAIN_A3C = Peer("plain torch worker", "fastac.bench.plain_a3c:trainer", "torch")
JAX_A2C = Peer("JAX A2C, compiled", "fastac.bench.jax_a2c:trainer", "jax")
SB3_A2C = Peer("Stable-Baselines3 A2C", "fastac.bench.sb3_a2c:trainer", "stable_baselines3")
SOLVE_JAX_A2C = Peer("JAX A2C, compiled", "fastac.bench.jax_a2c:solver", "jax")
SOLVE_JAX_PPO = Peer("JAX PPO, compiled", "fastac.bench.jax_ppo:solver", "jax")
SOLVE_SB3_A2C = Peer("Stable-Baselines3 A2C", "fastac.bench.sb3_a2c:solver", "stable_baselines3")
ENVPOOL = Peer("EnvPool, its best setting", "fastac.bench.envpool_env:stepper", "envpool")

PACKAGES = ("jax", "stable-baselines3", "envpool")  # whose versions stand beside the figures


def enter(racers: dict[str, Racer], peer: Peer, *arguments: Any, on: tuple[int, ...]) -> None:
    """Adds a peer to those that race; where it is not installed or cannot start, a warning says so."""
    if peer.installed:
        racer.enter(racers, peer.name, peer.target, *arguments, on=on)
    else:
        warnings.warn(f"{peer.name} does not race: {peer.package} is not installed ({GET_THEM})", stacklevel=2)
