"""Saving and loading: named arrays and what describes them, as one safetensors file that knows its own digests.

Two are kept, the latest and the one before it, and at every moment at least one of them is whole. No pickle, ever.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load, save

from fastac.errors import CheckpointError

Arrays = Mapping[str, npt.NDArray[Any]]
MODEL_FILE = "model.safetensors"  # its name in a run folder
_FORMAT = "fastac checkpoint 3"


@dataclass(frozen=True)
class Checkpoint:
    """A model between two updates: all that decides how its training goes on."""

    algorithm: str  # "A2C" or "A3C"
    config: dict[str, Any]
    standing: dict[str, Any]  # what has been done so far; plain values, for JSON
    arrays: Arrays  # parameters, optimizer state and whatever else is numbers


def file_of(path: str | os.PathLike[str]) -> Path:
    """The checkpoint itself, where `path` is a run folder."""
    return Path(path) / MODEL_FILE if Path(path).is_dir() else Path(path)


def previous_of(path: str | os.PathLike[str]) -> Path:
    """Where the checkpoint before the latest is kept: model.safetensors -> model.previous.safetensors."""
    file = file_of(path)
    return file.with_name(f"{file.stem}.previous{file.suffix}")


# ---- writing --------------------------------------------------------------------------------------------------


def save_checkpoint(path: str | os.PathLike[str], checkpoint: Checkpoint) -> Path:
    """Writes the file whole or not at all, and keeps the one that was there, if it was whole; returns the file's path.

    When this returns, the checkpoint survives a power failure. One process at a time may save to a path.

    Raises:
        OSError: it could not be written. What was there before is still there.
    """
    file = file_of(path)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        _remove_temporaries(file)  # of a save that was killed
        try:
            _replace(file, _pack(checkpoint))
        except BaseException:
            _remove_temporaries(file)
            raise
    except OSError as error:
        raise OSError(error.errno, f"checkpoint not saved: {error.strerror}", str(file)) from error
    return file


def _replace(file: Path, data: bytes) -> None:
    # The new file is complete on the disk before either name changes, and so is the copy of the old one. The names
    # change by renaming, each at once: whatever happens in between, and whichever of the two renamings a power failure
    # lets through, both names stand for whole checkpoints.
    new = _write_temporary(file, data)
    if (old := _whole(file)) is not None:  # a damaged one must not take the place of a whole one
        os.replace(_write_temporary(previous_of(file), old), previous_of(file))
    os.replace(new, file)
    directory = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _write_temporary(file: Path, data: bytes) -> Path:
    temporary = file.with_name(f"{file.name}.{os.getpid()}.saving")
    with temporary.open("xb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    return temporary


def _remove_temporaries(file: Path) -> None:
    ours = "|".join(re.escape(name) for name in (file.name, previous_of(file).name))
    for path in file.parent.iterdir():
        if re.fullmatch(rf"({ours})\.\d+\.saving", path.name):
            path.unlink(missing_ok=True)


def _pack(checkpoint: Checkpoint) -> bytes:
    head = json.dumps(
        {"algorithm": checkpoint.algorithm, "config": checkpoint.config, "standing": checkpoint.standing},
        allow_nan=False,
    )
    arrays = {name: np.ascontiguousarray(array) for name, array in checkpoint.arrays.items()}
    return save(arrays, {"format": _FORMAT, "head": head, "manifest": json.dumps(_manifest(head, arrays))})


def _manifest(head: str, arrays: Arrays) -> dict[str, str]:
    """SHA-256 of the head and of each array with its name, dtype and shape."""
    digests = {"head": hashlib.sha256(head.encode()).hexdigest()}
    for name, array in arrays.items():
        described = json.dumps([name, array.dtype.name, array.shape]).encode()
        digests[f"array {name!r}"] = hashlib.sha256(described + array.tobytes()).hexdigest()
    return digests


# ---- reading --------------------------------------------------------------------------------------------------


def load_checkpoint(path: str | os.PathLike[str], algorithm: str | None = None) -> Checkpoint:
    """Reads a file, or the model in a run folder, and checks every bit of what it returns.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it is damaged, and what of it; is no checkpoint; or is not one of `algorithm`. The message
            says whether the previous checkpoint beside it is whole. Nothing is ever loaded in its place.
    """
    file = file_of(path)
    try:
        checkpoint = _unpack(file.read_bytes())
    except FileNotFoundError:
        raise FileNotFoundError(f"no checkpoint at {file}{_way_out(file, algorithm)}") from None
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}{_way_out(file, algorithm)}") from error.__cause__
    if algorithm not in (None, checkpoint.algorithm):
        found = checkpoint.algorithm
        words = f"{file}: expected an {algorithm} model, got {found}: use fastac.{found}.load"
        raise CheckpointError(words + _previous_instead(file, algorithm))
    return checkpoint


def _way_out(file: Path, algorithm: str | None) -> str:
    previous = previous_of(file)
    if previous.exists() and _whole(previous) is None:
        return f"; the previous one, {previous}, is damaged, too"
    return _previous_instead(file, algorithm)


def _previous_instead(file: Path, algorithm: str | None) -> str:
    """Where it is whole, and what was asked for."""
    previous = previous_of(file)
    data = _whole(previous)
    if data is None or algorithm not in (None, _unpack(data).algorithm):
        return ""
    return f"; the previous checkpoint is whole, load {previous} instead"


def _whole(file: Path) -> bytes | None:
    """The bytes of a whole checkpoint, None where there is none."""
    try:
        data = file.read_bytes()
        _unpack(data)
    except (OSError, CheckpointError):
        return None
    return data


def _unpack(data: bytes) -> Checkpoint:
    """What is returned is what was saved: names, dtypes, shapes and bytes are all in the digests of the manifest."""
    if not data:
        raise CheckpointError("the file is empty")
    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        metadata = header["__metadata__"]
        saved_format = metadata["format"]
    except Exception as error:  # whatever a parser may say of arbitrary bytes
        raise CheckpointError(f"no checkpoint of fastac, or its header is damaged ({error!r})") from error
    if saved_format != _FORMAT:
        raise CheckpointError(f"expected the format '{_FORMAT}', got {saved_format!r}")
    try:
        arrays, head, manifest = load(data), metadata["head"], json.loads(metadata["manifest"])
        found = _manifest(head, arrays)
        damaged = sorted(name for name in {*found, *manifest} if found.get(name) != manifest.get(name))
    except Exception as error:
        raise CheckpointError(f"damaged: it is cut, or its header is not what was saved ({error!r})") from error
    if damaged:
        raise CheckpointError(f"damaged: {', '.join(damaged)}: not what was saved")
    return Checkpoint(**json.loads(head), arrays=arrays)
