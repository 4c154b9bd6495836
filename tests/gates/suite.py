"""The whole test suite again and again, in random order: python tests/gates/suite.py [times=20] [seed=0]

Where there is ccache, the core is compiled in the first turn only.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile

from toolchain import ROOT


def main(times: int = 20, seed: int = 0) -> int:
    with tempfile.TemporaryDirectory() as compiled:
        # Each turn builds in a folder of its own, whose name would be in the debug information.
        ccache = {"CMAKE_CXX_COMPILER_LAUNCHER": "ccache", "CCACHE_DIR": compiled, "CCACHE_NOHASHDIR": "1"}
        env = ccache if shutil.which("ccache") else {}
        return again_and_again(times, seed, {**os.environ, **env})


def again_and_again(times: int, seed: int, env: dict[str, str]) -> int:
    """Runs every order, whatever others found: together they say more than the first that fails."""
    failed = []
    for order in range(seed, seed + times):
        command = [sys.executable, "-m", "pytest", "-q", "-n", "auto", f"--shuffle={order}"]
        done = subprocess.run(command, cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        print(f"suite, order {order}: {done.stdout.strip().splitlines()[-1]}", file=sys.stderr, flush=True)
        if done.returncode != 0:
            print(done.stdout[-10_000:], file=sys.stderr, flush=True)
            failed.append(order)
    outcome = f"failed in {', '.join(map(str, failed))}" if failed else "all passed"
    print(f"suite: {times} times in random order (orders {seed} to {seed + times - 1}): {outcome}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(**{key: int(value) for key, value in (word.split("=") for word in sys.argv[1:])}))
