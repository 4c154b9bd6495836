"""What the gates and the tests of the core build with: the compiler, the sanitizers, the cmake of this environment."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMPILER = os.environ.get("CXX", "c++")
SANITIZERS = {"plain": None, "tsan": "thread", "asan": "address,undefined"}


def run(command: Sequence[str | Path], **kwargs: object) -> subprocess.CompletedProcess[str]:
    """Runs a command with the cmake and ninja of this environment first on the path."""
    folders = []
    try:
        import cmake

        folders.append(cmake.CMAKE_BIN_DIR)
    except ImportError:
        pass
    try:
        import ninja

        folders.append(ninja.BIN_DIR)
    except ImportError:
        pass
    env = {**os.environ, "PATH": os.pathsep.join([*folders, os.environ["PATH"]]), **kwargs.pop("env", {})}
    return subprocess.run(
        [str(word) for word in command],
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        errors="replace",
        **kwargs,
    )


def must_run(command: Sequence[str | Path], **kwargs: object) -> str:
    done = run(command, **kwargs)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}"
    return done.stdout


def build(preset: str, folder: Path, compiler: str = COMPILER, target: str = "all") -> None:
    """Builds the core's tests and gates with a preset of CMakePresets.json."""
    must_run(["cmake", "--preset", preset, "-B", folder], cwd=ROOT, env={"CXX": compiler})
    must_run(["cmake", "--build", folder, "--parallel", "2", "--target", target])


def flags(build: str) -> list[str]:
    """What a single source is compiled with, outside of cmake."""
    common = ["-std=c++20", "-pthread", "-ffp-contract=off", "-fno-math-errno"]
    if build == "plain":
        return [*common, "-O1"]  # compiled many times, run for a moment
    # g++'s ThreadSanitizer does not see an inlined memcpy.
    return [
        *common,
        "-O1",
        "-g",
        f"-fsanitize={SANITIZERS[build]}",
        "-fno-sanitize-recover=all",
        "-fno-builtin-memcpy",
    ]


@functools.cache
def unusable(build: str) -> str:
    """Why this compiler cannot build or run a trivial program so; empty: it can."""
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder, "trivial.cpp"), Path(folder, "trivial")
        source.write_text("int main() { return 0; }\n")
        done = run([COMPILER, *flags(build), source, "-o", program])
        if done.returncode == 0:
            done = run([program])
    return "" if done.returncode == 0 else f"exit status {done.returncode}: {done.stdout.strip()}"


def source_of(program: str) -> Path:
    """cpp/tests, cpp/gates or cpp/schedules: where the source of a test or gate lies."""
    found = list((ROOT / "cpp").glob(f"*/{program}.cpp"))
    assert len(found) == 1, f"{program}: expected one source, got {found}"
    return found[0]


def precompile(build: str, folder: Path) -> Path:
    """A header with all of the standard library that the core and its gates name; reading it is half of a compilation.

    `compile_program` takes it in. Returns its path; the precompiled one lies beside it.
    """
    sources = [
        file for kind in ("*.hpp", "*.cpp") for file in (ROOT / "cpp").rglob(kind) if "bindings" not in file.parts
    ]
    names = {name for file in sources for name in re.findall(r"^#include <(\w+)>$", file.read_text(), re.MULTILINE)}
    header = folder / f"{build}.hpp"
    header.write_text("".join(f"#include <{name}>\n" for name in sorted(names)))
    must_run([COMPILER, *flags(build), "-U_FORTIFY_SOURCE", "-x", "c++-header", header, "-o", f"{header}.gch"])
    return header


def compile_program(program: str, build: str, headers: Path, target: Path, precompiled: Path | None = None) -> None:
    """Compiles one test or gate against the headers in `headers`, which come before the repository's own."""
    source = source_of(program)
    folders = [headers, source.parent, ROOT / "cpp" / "tests", ROOT / "cpp" / "gates"]
    includes = [word for folder in folders for word in ("-I", folder)]
    # Where a gate lies beside atomics of its own, it takes them.
    own = source.parent / "scheduled_atomics.hpp"
    define = [f'-DFASTAC_ATOMICS="{own.name}"', "-U_FORTIFY_SOURCE"] if own.exists() else []
    first = ["-U_FORTIFY_SOURCE", "-include", precompiled] if precompiled else []
    must_run([COMPILER, *flags(build), *define, *first, *includes, source, "-o", target])


def copy_headers(to: Path) -> Path:
    """The core's headers, to be changed: to/fastac."""
    return Path(shutil.copytree(ROOT / "cpp" / "include" / "fastac", to / "fastac"))
