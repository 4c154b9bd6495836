"""The schedule of an A3C run, recorded: 16 bytes for each gradient, from which lab/replay.py makes the run again.

In: what the workers left in the region (cpp/include/fastac/trace.hpp). Out: a Recording, kept beside the model.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastac import _core
from fastac.checkpoint import MODEL_FILE, Checkpoint, file_of, load_checkpoint, save_checkpoint
from fastac.config import A3CConfig
from fastac.errors import CheckpointError, ConfigError

Float32 = npt.NDArray[np.float32]

FILE = "recording.safetensors"  # its name in a run folder
OUTCOMES = ("applied", "rejected_nonfinite", "rejected_stale")  # in the order of TraceOutcome
ENTRY = np.dtype([("read_at", "<u8"), ("incarnation", "<u4"), ("worker", "<u2"), ("outcome", "<u2")])
_KIND = "A3C recording"


@dataclass(frozen=True)
class Part:
    """One learn() or resume().

    Attributes:
        call: the model's learn calls before it.
        version, num_timesteps: of the model when it began.
        env_steps, total_timesteps: where its schedules began, and where they end.
        params, state: float32[P] and float32[S, P] that it began with.
        entries: ENTRY[n], one for each gradient in the order in which they were applied or rejected. `read_at` is how
            many of them had been when its worker read the parameters for it, `incarnation` how many workers had died in
            its seat.
        id: drawn for each part; a model names that of its latest one (standing.py). Empty in older files.
    """

    call: int
    version: int
    num_timesteps: int
    env_steps: int
    total_timesteps: int
    params: Float32
    state: Float32
    entries: npt.NDArray[Any]
    id: str = ""

    @property
    def updates(self) -> int:
        """Gradients applied."""
        return int(np.count_nonzero(self.entries["outcome"] == 0))


@dataclass(frozen=True)
class Recording:
    """All learn() calls of a model since it records."""

    config: A3CConfig
    parts: tuple[Part, ...]

    @property
    def updates(self) -> int:
        """Optimizer updates recorded."""
        return sum(part.updates for part in self.parts)

    def with_part(self, part: Part) -> Recording:
        """The latest part, which a run under way brings again and again; one without entries is none."""
        earlier = tuple(other for other in self.parts if other.call < part.call)
        return dataclasses.replace(self, parts=(*earlier, part) if len(part.entries) else earlier)

    @property
    def id(self) -> str:
        """That of the latest part; empty where there is none."""
        return self.parts[-1].id if self.parts else ""

    @property
    def num_timesteps(self) -> int:
        """Of the model when the latest part ends; -1 where there is none."""
        if not self.parts:
            return -1
        return self.parts[-1].num_timesteps + len(self.parts[-1].entries) * self.config.n_steps * self.config.n_envs

    def until(self, learn_calls: int, num_timesteps: int) -> Recording:
        """As far as a model goes that was saved before this recording was: what comes later is not in the model."""
        steps_each = self.config.n_steps * self.config.n_envs
        parts = []
        for part in self.parts:
            n = (num_timesteps - part.num_timesteps) // steps_each
            if part.call < learn_calls and n > 0:
                parts.append(dataclasses.replace(part, entries=part.entries[:n]))
        return dataclasses.replace(self, parts=tuple(parts))

    def save(self, path: Path) -> Path:
        """Writes it as a checkpoint is written, whole or not at all. Raises OSError."""
        arrays: dict[str, npt.NDArray[Any]] = {}
        told = []
        for k, part in enumerate(self.parts):
            arrays |= {f"params_{k}": part.params, f"state_{k}": part.state}
            arrays[f"entries_{k}"] = part.entries.view(np.uint64).reshape(-1, 2)
            names = ("call", "version", "num_timesteps", "env_steps", "total_timesteps", "id")
            told.append({name: getattr(part, name) for name in names})
        return save_checkpoint(path, Checkpoint(_KIND, self.config.to_dict(), {"parts": told}, arrays))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Recording:
        """What `save` wrote. Raises FileNotFoundError, or CheckpointError where it is damaged or something else."""
        saved = load_checkpoint(path, _KIND)
        try:
            config, arrays = A3CConfig.from_dict(saved.config), saved.arrays
            parts = tuple(
                Part(**told, params=arrays[f"params_{k}"], state=arrays[f"state_{k}"], entries=_entries(arrays, k))
                for k, told in enumerate(saved.standing["parts"])
            )
        except (ConfigError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: whole, but made by another version of fastac: {error!r}") from error
        return cls(config, parts)


def _entries(arrays: Any, k: int) -> npt.NDArray[Any]:
    return entries_of(arrays[f"entries_{k}"])


def entries_of(words: npt.NDArray[np.uint64]) -> npt.NDArray[Any]:
    """The words uint64[n, 2] of Session.trace as ENTRY[n]."""
    return np.ascontiguousarray(words).view(ENTRY).reshape(-1)


def recording_of(path: str | os.PathLike[str]) -> Path:
    """Where a model's recording is kept: recording.safetensors in a run folder, else NAME.recording.safetensors."""
    file = file_of(path)
    stem = file.stem.removesuffix(".previous")
    return file.with_name(FILE if stem == Path(MODEL_FILE).stem else f"{stem}.{FILE}")


def room_for(config: A3CConfig, env_steps: int, total_timesteps: int) -> int:
    """Entries that a run of the env steps still to do can have. Raises ConfigError for more than can be kept.

    Once they are done a worker brings what it is at, and the ring of each may be full of what the dead have left.
    """
    steps_each = config.n_steps * config.n_envs
    room = -(-max(0, total_timesteps - env_steps) // steps_each) + 16 * config.workers
    if room > _core.MAX_TRACE_ENTRIES:
        raise ConfigError(
            f"record: expected a run of at most {_core.MAX_TRACE_ENTRIES:,} updates, got up to {room:,}; "
            "record a shorter one, or take longer rollouts (n_steps, n_envs)"
        )
    return room
