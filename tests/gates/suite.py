"""The whole test suite again and again, in random order: python tests/gates/suite.py [times=20] [seed=0]"""

from __future__ import annotations

import subprocess
import sys

from toolchain import ROOT


def main(times: int = 20, seed: int = 0) -> int:
    for turn in range(times):
        command = [sys.executable, "-m", "pytest", "-q", f"--shuffle={seed + turn}"]
        done = subprocess.run(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        print(f"suite, order {seed + turn}: {done.stdout.strip().splitlines()[-1]}", file=sys.stderr, flush=True)
        if done.returncode != 0:
            print(done.stdout[-10_000:], file=sys.stderr)
            print(f"suite: failed in order {seed + turn}")
            return 1
    print(f"suite: {times} times in random order (orders {seed} to {seed + times - 1}): all passed")
    return 0


if __name__ == "__main__":
    sys.exit(main(**{key: int(value) for key, value in (word.split("=") for word in sys.argv[1:])}))
