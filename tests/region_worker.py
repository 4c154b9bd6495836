"""What the child processes of test_shared.py run: importable, light, and without pytest."""

from __future__ import annotations

import numpy as np

from fastac import _core


def push_many(fd: int, nonce: int, seat: int, n: int) -> None:
    """Worker `seat`: n gradients, all ones times seat + 1, learning rate 1."""
    region = _core.Region.attach(fd, nonce)
    worker = _core.Session(region, seat)
    grads = np.full((1, region.parameters), seat + 1, np.float32)
    worker.submit_many(grads, n, 1.0)
    worker.log(np.full(_core.LOG_COLUMNS, seat, np.float64))
    worker.close()


def serve(fd: int, nonce: int) -> None:
    """The learner of the scheme `queue`, until the stop."""
    region = _core.Region.attach(fd, nonce)
    learner = _core.Session(region, region.workers + 1)
    while not learner.stop_requested:
        learner.serve(50)
    learner.close()


def attach_inherited(fd: int, nonce: int) -> None:
    """Run as a script would be: with a descriptor inherited under the same number."""
    region = _core.Region.attach(fd, nonce)
    worker = _core.Session(region, 0)
    worker.submit(np.ones(region.parameters, np.float32), version_read=0, env_steps=3, learning_rate=0.5)
    worker.close()
