"""fastac: asynchronous and synchronous advantage actor-critic on one native CartPole and one lock-free gradient buffer.

Importing it registers the env "fastac/CartPole-v1" with Gymnasium. Torch is imported with the first policy in torch.
"""

from __future__ import annotations

import os
import sys

import fastac_command

if sys.argv[:1] == ["-m"] and sys.orig_argv[-len(sys.argv)] in ("fastac", "-mfastac"):  # `python -m fastac`
    fastac_command.process_is_ours = True
    fastac_command.end_at_once_on_ctrl_c()

from typing import TYPE_CHECKING, Any

from fastac._core import __version__
from fastac.errors import (
    CheckpointError,
    ConfigError,
    EnvInUseError,
    FastacError,
    LedgerError,
    NodeWarning,
    NonFiniteGradientError,
    NothingToResumeError,
    ReplayError,
    WorkerDeathWarning,
    WorkerDiedError,
    WorkerError,
    WorkerStuckWarning,
)
from fastac.presets import preset

if TYPE_CHECKING:
    from fastac.a2c import A2C
    from fastac.a3c import A3C
    from fastac.callbacks import (
        CheckpointCallback,
        EvalCallback,
        EveryNUpdates,
        StopTrainingOnRewardThreshold,
    )
    from fastac.cluster.ray_cluster import RayCluster
    from fastac.config import A2CConfig, A3CConfig, Config
    from fastac.env import CartPoleEnv, CartPoleVectorEnv
    from fastac.evaluation import evaluate_policy
    from fastac.live import LiveView
    from fastac.logs import Logger
    from fastac.training import BaseCallback

# A command and the forkserver of its workers are nobody's library: there Gymnasium, which is slow to import, comes in
# with the first env, and numpy with what needs it: `fastac --help` does not.
if not (fastac_command.process_is_ours or "FASTAC_STARTER_PID" in os.environ):
    from fastac import env as _env  # noqa: F401  # registers it

__all__ = [
    "A2C",
    "A3C",
    "A2CConfig",
    "A3CConfig",
    "BaseCallback",
    "CartPoleEnv",
    "CartPoleVectorEnv",
    "CheckpointCallback",
    "CheckpointError",
    "Config",
    "ConfigError",
    "EnvInUseError",
    "EvalCallback",
    "EveryNUpdates",
    "FastacError",
    "LedgerError",
    "LiveView",
    "Logger",
    "NodeWarning",
    "NonFiniteGradientError",
    "NothingToResumeError",
    "RayCluster",
    "ReplayError",
    "StopTrainingOnRewardThreshold",
    "WorkerDeathWarning",
    "WorkerDiedError",
    "WorkerError",
    "WorkerStuckWarning",
    "__version__",
    "evaluate_policy",
    "preset",
]

_LATER = {
    "A2C": "fastac.a2c",
    "A3C": "fastac.a3c",
    "BaseCallback": "fastac.training",
    "CheckpointCallback": "fastac.callbacks",
    "EvalCallback": "fastac.callbacks",
    "EveryNUpdates": "fastac.callbacks",
    "StopTrainingOnRewardThreshold": "fastac.callbacks",
    "A2CConfig": "fastac.config",
    "A3CConfig": "fastac.config",
    "CartPoleEnv": "fastac.env",
    "CartPoleVectorEnv": "fastac.env",
    "Config": "fastac.config",
    "LiveView": "fastac.live",
    "Logger": "fastac.logs",
    "RayCluster": "fastac.cluster.ray_cluster",
    "evaluate_policy": "fastac.evaluation",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        from importlib import import_module

        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"module 'fastac' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
