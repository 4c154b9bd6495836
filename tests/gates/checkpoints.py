"""A gate: whatever is done to a checkpoint, it is refused or it is what was saved; the one before it always loads.

    python tests/gates/checkpoints.py [--flips N] [--kills N] [--seed N]

Cuts and overwrites a file in the ways that disks do, flips bits, kills a process while it saves (at random moments, and
at every line of checkpoint.py), and fills a disk. Prints one line; the exit code is 1 if anything went wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pickle
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fastac import checkpoint
from fastac.checkpoint import Checkpoint, load_checkpoint, previous_of, save_checkpoint
from fastac.errors import CheckpointError

P = 4675  # the default policy's parameters


def made(generation: int, n_params: int = P, algorithm: str = "A2C") -> Checkpoint:
    """A checkpoint like those of A2C, its content decided by `generation` alone."""
    rng = np.random.default_rng(generation)
    arrays = {
        "params": rng.normal(size=n_params).astype(np.float32),
        "optimizer_state": rng.random((2, n_params)).astype(np.float32),
        "env_state": rng.normal(size=(4, 4)),
        "env_status": np.zeros(4, np.uint8),
        "action_stream": rng.integers(0, 2**64, (4, 4), np.uint64),
        "episode_length": rng.integers(0, 500, 4),
    }
    config = {"env": "CartPole-v1", "hidden_sizes": [64, 64], "learning_rate": 2.2e-3, "seed": None}
    return Checkpoint(algorithm, config, {"version": generation, "unfinished": {"wall_s": 1.5 * generation}}, arrays)


def content(saved: Checkpoint) -> tuple[object, ...]:
    """All of it, comparable to the last bit."""
    arrays = [(name, array.dtype.str, array.shape, array.tobytes()) for name, array in sorted(saved.arrays.items())]
    return saved.algorithm, saved.config, saved.standing, arrays


def generation_of(file: Path) -> int:
    """Which of the made ones a file holds. Raises AssertionError if it is none of them."""
    saved = load_checkpoint(file)
    generation = saved.standing["version"]
    assert content(saved) == content(made(generation)), f"{file.name} was loaded, and is not what was saved"
    return int(generation)


# ---- damage ---------------------------------------------------------------------------------------------------


class Damaged:
    """A folder with two checkpoints, of which the main one is to be damaged."""

    def __init__(self, folder: Path, n_params: int) -> None:
        self.file = folder / "model.safetensors"
        self.saved, before = made(2, n_params), made(1, n_params)
        save_checkpoint(self.file, before)
        save_checkpoint(self.file, self.saved)
        self.data = self.file.read_bytes()
        self.before = content(before)
        self.tried = 0

    def refuses_or_loads_the_same(self, data: bytes, what: str) -> bool:
        """Whether it was refused, with the way out in the message; what is loaded must be what was saved."""
        self.tried += 1
        self.file.write_bytes(data)
        try:
            loaded = load_checkpoint(self.file, "A2C")
        except CheckpointError as error:
            assert f"the previous checkpoint is whole, load {previous_of(self.file)}" in str(error), f"{what}: {error}"
            return True
        except Exception as error:
            raise AssertionError(f"{what}: expected CheckpointError, got {error!r}") from error
        assert content(loaded) == content(self.saved), f"{what}: loaded silently"
        return False

    def the_previous_one_loads(self) -> None:
        loaded = load_checkpoint(previous_of(self.file), "A2C")
        assert content(loaded) == self.before, "the previous one is not what was saved"


def truncations(folder: Path, n_params: int) -> int:
    """Cut, extended, overwritten in part, or another file altogether: all of it must be refused."""
    damaged = Damaged(folder, n_params)
    data = damaged.data
    end_of_header = 8 + int.from_bytes(data[:8], "little")
    others = {
        name: save_checkpoint(folder / name, it).read_bytes()
        for name, it in {"another algorithm": made(2, n_params, "A3C"), "another generation": made(3, n_params)}.items()
    }
    header = json.loads(data[8:end_of_header])
    borders = {end_of_header + offset for name in damaged.saved.arrays for offset in header[name]["data_offsets"]}
    cuts = {0, 1, 7, 8, 9, 8 + (end_of_header - 8) // 2, end_of_header - 1, len(data) - 1} | borders - {len(data)}
    cases = {f"cut to {n} bytes": data[:n] for n in cuts}
    cases |= {
        f"{n} bytes of zeros at the end": data[:-n] + bytes(n) for n in (64, 4096, len(data) - end_of_header, len(data))
    }
    cases |= {
        f"a block of zeros at {n}": data[:n] + bytes(512) + data[n + 512 :] for n in range(0, len(data) - 512, 8192)
    }
    cases |= {"one byte too long": data + b"\0", "twice": data + data, "garbage behind": data + os.urandom(100)}
    cases |= {"another algorithm": others["another algorithm"], "a pickle": pickle.dumps(made(2))}
    cases["the header of another save"] = others["another generation"][:end_of_header] + data[end_of_header:]
    for what, damage in cases.items():
        assert damaged.refuses_or_loads_the_same(damage, what), f"{what}: not refused"
    damaged.the_previous_one_loads()
    return damaged.tried


def bit_flips(folder: Path, n_params: int, n: int, rng: random.Random) -> tuple[int, int]:
    """Half of them in the header, which holds all the meaning; returns how many, and how many changed nothing."""
    damaged = Damaged(folder, n_params)
    header_bits = 8 * (8 + int.from_bytes(damaged.data[:8], "little"))
    all_bits = 8 * len(damaged.data)
    flips = rng.sample(range(header_bits), min(n // 2, header_bits))
    flips += rng.sample(range(header_bits, all_bits), min(n - len(flips), all_bits - header_bits))
    harmless = 0
    for bit in flips:
        data = bytearray(damaged.data)
        data[bit // 8] ^= 1 << bit % 8
        harmless += not damaged.refuses_or_loads_the_same(bytes(data), f"bit {bit}")
    damaged.the_previous_one_loads()
    return damaged.tried, harmless


# ---- death while saving ---------------------------------------------------------------------------------------


def save_on_and_on(file: Path, first: int, completed: int) -> None:
    """The child: saves generation after generation, and says which of them are complete."""
    for generation in range(first, first + 1_000_000):
        save_checkpoint(file, made(generation))
        os.write(completed, struct.pack("<q", generation))


def killed_while_saving(file: Path, first: int, after_s: float) -> int:
    """Generation that the child had completed when it was killed; `first` - 1 if none."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            save_on_and_on(file, first, writer)
        finally:
            os._exit(1)
    os.close(writer)
    time.sleep(after_s)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reader, "rb") as stream:
        said = stream.read()
    assert os.WIFSIGNALED(status), "the child could not save"
    return int(struct.unpack("<q", said[-8:])[0]) if said else first - 1


def killed_at_line(file: Path, generation: int, line: int) -> bool:
    """Saves in a child that is killed before the `line`-th line it runs in checkpoint.py; False if it ended before."""
    child = os.fork()
    if child == 0:
        try:
            left = [line]

            def trace(frame, event, _):  # type: ignore[no-untyped-def]  # it returns itself
                if frame.f_code.co_filename != checkpoint.__file__:
                    return None
                left[0] -= event == "line"
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return trace

            sys.settrace(trace)
            save_checkpoint(file, made(generation))
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the child could not save"
    return os.WIFSIGNALED(status)


def kills(folder: Path, n: int, rng: random.Random) -> int:
    """Returns at how many lines it was killed beside the n random moments."""
    file = folder / "model.safetensors"
    latest = 2
    for generation in (1, 2):
        save_checkpoint(file, made(generation))
    for _ in range(n):
        completed = killed_while_saving(file, latest + 1, rng.uniform(0.0, 0.06))
        latest = whole_after_a_death(file, completed)
    line = 0
    while killed_at_line(file, latest + 1, line := line + 1):
        latest = whole_after_a_death(file, latest)
    save_checkpoint(file, made(latest + 2))
    assert sorted(path.name for path in folder.iterdir()) == [previous_of(file).name, file.name], "strays are left"
    return line - 1


def whole_after_a_death(file: Path, completed: int) -> int:
    """The generation under the main name: the last completed one, or the one that was being saved."""
    latest, previous = generation_of(file), generation_of(previous_of(file))
    assert completed <= latest <= completed + 1, f"{completed} was saved, {latest} is there"
    assert previous <= latest, f"{latest} is there, and {previous} as the one before it"
    return latest


# ---- a full disk ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A file system of 1 MiB in `folder`, where we may mount one."""
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    mounted = shutil.which("mount") is not None and subprocess.run(command, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


def full_disk(folder: Path) -> str:
    """Saves with room for nothing, for a part of one file, and for one of the two; returns how the disk was filled."""
    with small_disk(folder) as mounted:
        file = folder / "model.safetensors"
        for generation in (1, 2):
            save_checkpoint(file, made(generation))
        size = file.stat().st_size
        for room in (0, 4096, size // 2, size - 1, size + size // 2):
            with filled(folder, room) if mounted else file_size_limit(min(room, size - 1)):
                try:
                    save_checkpoint(file, made(3))
                    raise AssertionError(f"a save that needs {size} bytes twice succeeded with {room}")
                except OSError as error:
                    assert error.filename == str(file), f"{error} does not name the file"
            assert (generation_of(previous_of(file)), generation_of(file)) == (1, 2), "a failed save changed something"
            assert len(list(folder.iterdir())) == 2, "a failed save left something"
        save_checkpoint(file, made(3))
        assert (generation_of(previous_of(file)), generation_of(file)) == (2, 3), "no save after the disk was full"
    return "tmpfs" if mounted else "RLIMIT_FSIZE"


@contextlib.contextmanager
def filled(folder: Path, room: int) -> Iterator[None]:
    filler = folder / "filler"
    free = os.statvfs(folder)
    filler.write_bytes(bytes(max(0, free.f_bavail * free.f_frsize - room // free.f_frsize * free.f_frsize)))
    try:
        yield
    finally:
        filler.unlink()


@contextlib.contextmanager
def file_size_limit(limit: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# ---------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def no_pickle() -> Iterator[None]:
    """Whoever reads a pickle fails."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a pickle was read")

    before = {name: getattr(pickle, name) for name in ("load", "loads", "Unpickler", "_Unpickler", "_load", "_loads")}
    for name in before:
        setattr(pickle, name, refuse)
    try:
        yield
    finally:
        for name, own in before.items():
            setattr(pickle, name, own)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--flips", type=int, default=2000, help="bits flipped, one at a time; of a small file: all")
    options.add_argument("--kills", type=int, default=100, help="kills at random moments")
    options.add_argument("--n-params", type=int, default=P, help="size of the damaged checkpoints")
    options.add_argument("--seed", type=int, default=0)
    asked = options.parse_args()
    rng = random.Random(asked.seed)
    with tempfile.TemporaryDirectory() as root, no_pickle():
        folders = [Path(root, name) for name in ("truncations", "flips", "kills", "disk")]
        for folder in folders:
            folder.mkdir()
        try:
            cut = truncations(folders[0], asked.n_params)
            flipped, harmless = bit_flips(folders[1], asked.n_params, asked.flips, rng)
            lines = kills(folders[2], asked.kills, rng)
            disk = full_disk(folders[3])
        except Exception as error:
            print(f"checkpoint: FAILED: {type(error).__name__}: {error}")
            return 1
    print(
        f"checkpoint: {cut} truncations, {flipped:,} bit flips ({harmless} without effect), {asked.kills} kills while "
        f"saving and one at each of its {lines} lines, full disk ({disk}): 0 silent, the previous one always loads"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
