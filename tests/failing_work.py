"""Workers that fail in known ways, at the top level of a module so that another process can import them."""

import ctypes
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


def _work_for(session, n_params, seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until and not session.stop_requested:
        _push(session, n_params)
        time.sleep(0.001)


class LastWord:
    """Kills whoever says it, before it is said."""

    def __reduce__(self):
        os.kill(os.getpid(), signal.SIGKILL)


def behave(task, session, report):
    """task: (what, n_params). Pushes three gradients, then does `what`; another worker pushes until it is stopped.

    What is done "once" is done by the first worker in its seat; the next one comes to its end.
    """
    what, n_params = task
    first = session.incarnation(session.seat) == 0
    if what == "die unready":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "never ready" or (what == "die once, then never ready" and not first):
        time.sleep(600)
    report(READY)
    while not session.go and not session.stop_requested:
        session.beat()
        time.sleep(0.001)
    if what == "die in vain":
        os.kill(os.getpid(), signal.SIGKILL)
    for _ in range(3):
        _push(session, n_params)
    if what == "raise its cpus":
        raise RuntimeError(f"cpus {sorted(os.sched_getaffinity(0))}")
    if what == "raise":
        raise RuntimeError("the pole fell over")
    if what == "raise unpicklable":
        raise RuntimeError(threading.Lock())
    if what == "raise at length":
        raise RuntimeError("a very tall pole " * 10_000)
    if what == "report at length":
        report("a very long pole " * 10_000)
    if what == "work a while and die once":
        _work_for(session, n_params, 1.0)
    if what == "work a while":
        _work_for(session, n_params, 2.0)
    if what == "die" or ("die once" in what and first):
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "exit":
        os._exit(7)
    if what == "hang":
        signal.pause()
    if what == "hang with the GIL":
        ctypes.PyDLL(None).sleep(600)
    for _ in range({"stop once": 1, "stop twice": 2}.get(what, 0)):
        os.kill(os.getpid(), signal.SIGSTOP)
        _work_for(session, n_params, 0.5)
    if what == "die at its last word" and first:
        return LastWord()
    while what == "work" and not session.stop_requested:
        _push(session, n_params)
        time.sleep(0.001)
    return 0.0
