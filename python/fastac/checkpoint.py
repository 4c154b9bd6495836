"""Saving and loading: the flat vectors and what describes them, as one safetensors file. No pickle, ever."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fastac.errors import CheckpointError

Float32 = npt.NDArray[np.float32]
_FORMAT = "fastac checkpoint 1"
MODEL_FILE = "model.safetensors"  # its name in a run folder


@dataclass(frozen=True)
class Checkpoint:
    """A trained model: everything learn() needs to go on training from it, except the envs' own states."""

    algorithm: str  # "A2C" or "A3C"
    config: dict[str, Any]
    params: Float32  # [P]
    state: Float32  # [S, P], the optimizer's
    version: int
    num_timesteps: int
    learn_calls: int


def save_checkpoint(path: str | os.PathLike[str], checkpoint: Checkpoint) -> Path:
    """Writes the file whole or not at all: to a temporary one beside it, synced, then renamed over it."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    head = {
        name: getattr(checkpoint, name) for name in ("algorithm", "config", "version", "num_timesteps", "learn_calls")
    }
    data = save(
        {"params": checkpoint.params, "state": checkpoint.state},
        {"format": _FORMAT, "fastac": json.dumps(head)},
    )
    temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return target


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Reads a file, or the model in a run folder.

    Raises FileNotFoundError for a missing file, CheckpointError for one that is no whole checkpoint of fastac.
    """
    if Path(path).is_dir():
        path = Path(path) / MODEL_FILE
    if not Path(path).is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise CheckpointError(f"{path}: expected a '{_FORMAT}', got {metadata.get('format')!r}")
            return Checkpoint(
                **json.loads(metadata["fastac"]),
                params=file.get_tensor("params"),
                state=file.get_tensor("state"),
            )
    except (SafetensorError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: not a whole checkpoint of fastac ({error})") from error
