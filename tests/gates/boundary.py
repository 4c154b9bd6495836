"""The Python boundary under AddressSanitizer and UBSan: python tests/gates/boundary.py [calls=200000] [seed=0]

Builds the extension with the sanitizers and calls everything that it offers, with arguments of every kind, from a
Python that has their runtime preloaded (boundary_driver.py). A call may end with a value or a documented exception;
anything else, a crash or a report of a sanitizer fails the gate, and the shortest list of operations that leads to it
is printed.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from toolchain import ROOT, must_run

HERE = Path(__file__).resolve().parent
COMPILER = "g++"  # clang's runtime is not found by its name, and g++ is what builds wheels here
DEADLINE_S = 1800
DRIVERS, SEEDS_APART = 2, 10**7  # a driver for each of two cores


def build(folder: Path) -> Path:
    """Builds the extension with the sanitizers; returns a folder from which `fastac._core` is imported."""
    import pybind11

    options = {
        "CMAKE_BUILD_TYPE": "Debug",  # without optimisation: that takes half of the time to build
        "CMAKE_CXX_COMPILER": COMPILER,
        "FASTAC_SANITIZE": "address,undefined",
        "SKBUILD_PROJECT_VERSION": "0",
        "Python_EXECUTABLE": sys.executable,
        "pybind11_DIR": pybind11.get_cmake_dir(),
    }
    defined = [f"-D{name}={value}" for name, value in options.items()]
    must_run(["cmake", "-S", ROOT, "-B", folder / "build", "-G", "Ninja", *defined])
    must_run(["cmake", "--build", folder / "build", "--parallel", "2"])
    package = folder / "fastac"
    package.mkdir()
    # Nothing but the extension: gymnasium and its libraries are not what is looked at.
    (package / "__init__.py").touch()
    (module,) = (folder / "build").glob("_core*.so")
    module.rename(package / module.name)
    return folder


def drive(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the driver in a Python of its own with the runtime of the sanitizers preloaded."""
    # Without libstdc++ the runtime would not find __cxa_throw, which it intercepts.
    libraries = [must_run([COMPILER, f"-print-file-name={name}.so"]).strip() for name in ("libasan", "libstdc++")]
    env = {
        **os.environ,
        "PYTHONPATH": str(folder),
        "PYTHONHASHSEED": "0",
        "PYTHONMALLOC": "malloc",  # so that Python's own objects are guarded, too
        "LD_PRELOAD": " ".join(libraries),
        # Python keeps much to its end on purpose, so leaks cannot be told from that.
        "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1:abort_on_error=0:exitcode=99",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1:exitcode=99",
    }
    command = [sys.executable, "-W", "error", str(HERE / "boundary_driver.py"), *arguments]
    return subprocess.run(
        command,
        env=env,
        text=True,
        errors="replace",
        timeout=DEADLINE_S,
        capture_output=True,
    )


def main(calls: int = 200_000, seed: int | None = None) -> int:
    seed = random.randrange(10**6) if seed is None else seed
    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(DRIVERS) as pool:
        folder = build(Path(temporary))
        seeds = [seed + k * SEEDS_APART for k in range(DRIVERS)]
        ended = list(pool.map(lambda first: drive(folder, str(-(-calls // DRIVERS)), str(first)), seeds))
        for done in ended:
            if done.returncode != 0:
                return explain(folder, done)
    counts = [[int(n) for n in re.findall(r"calls=(\d+) refused=(\d+)", done.stdout)[0]] for done in ended]
    made, refused = (sum(column) for column in zip(*counts, strict=True))
    print(
        f"boundary: {made:,} calls under AddressSanitizer and UBSan, {refused:,} refused with a clear error: 0 reports "
        f"(seed {seed})"
    )
    return 0


def explain(folder: Path, done: subprocess.CompletedProcess[str]) -> int:
    """Says what went wrong, and which operations lead to it."""
    print(done.stderr[-8000:], file=sys.stderr)
    failing = re.findall(r"seed=(\d+)", done.stdout)[-1]
    if "Failing test case" not in done.stderr and "Falsifying example" not in done.stderr:
        # It ended the process. Once more, with each example in a fork, so that the list of operations is shrunk.
        print(drive(folder, "1", failing, "isolated").stderr[-4000:], file=sys.stderr)
    said = re.findall(r"AddressSanitizer: .*|runtime error: .*|AssertionError: .*", done.stderr)
    what = said[0][:200] if said else f"the driver ended with {done.returncode}"
    print(f"boundary: FAILED: {what}; again: python tests/gates/boundary.py calls=1 seed={failing}")
    return 1


if __name__ == "__main__":
    sys.exit(main(**{key: int(value) for key, value in (word.split("=") for word in sys.argv[1:])}))
