"""Workers that fail in known ways, at the top level of a module so that another process can import them."""

import os
import signal
import threading
import time

import numpy as np

from fastac.worker import READY


def _push(session, n_params):
    params = np.empty(n_params, np.float32)
    version, _ = session.read(params)
    session.submit(np.ones(n_params, np.float32), version_read=version, env_steps=1, learning_rate=1.0)


def behave(task, session, report):
    """task: (what, n_params). Pushes three gradients, then does `what`; another worker pushes until it is stopped."""
    what, n_params = task
    report(READY)
    while not session.go and not session.stop_requested:
        time.sleep(0.001)
    for _ in range(3):
        _push(session, n_params)
    if what == "raise":
        raise RuntimeError("the pole fell over")
    if what == "raise unpicklable":
        raise RuntimeError(threading.Lock())
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "exit":
        os._exit(7)
    if what == "hang":
        signal.pause()
    while what == "work" and not session.stop_requested:
        _push(session, n_params)
        time.sleep(0.001)
    return 0.0
