"""A signal that arrives at a bad moment takes effect after it."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from fastac.signals import let_signals_in, signals_deferred


def test_ctrl_c_is_raised_at_the_end():
    steps = []
    with pytest.raises(KeyboardInterrupt):
        with signals_deferred():
            os.kill(os.getpid(), signal.SIGINT)
            steps.append("after the signal")
        steps.append("after the block")
    assert steps == ["after the signal"]


def test_handlers_are_given_back_and_called():
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with signals_deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            assert heard == []
        assert heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_without_a_signal_nothing_happens():
    before = signal.getsignal(signal.SIGINT)
    with signals_deferred():
        pass
    assert signal.getsignal(signal.SIGINT) is before


def test_other_threads_are_left_alone():
    done = []

    def work():
        with signals_deferred():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]


def test_one_inside_another_lets_nothing_through_before_the_end():
    steps = []
    with pytest.raises(KeyboardInterrupt):
        with signals_deferred():
            with signals_deferred():
                os.kill(os.getpid(), signal.SIGINT)
            steps.append("after the inner block")
        steps.append("after the outer block")
    assert steps == ["after the inner block"]


def test_whoever_waits_lets_them_in():
    steps = []
    with pytest.raises(KeyboardInterrupt), signals_deferred():
        let_signals_in()
        steps.append("none has arrived")
        with signals_deferred():
            os.kill(os.getpid(), signal.SIGINT)
            steps.append("one has arrived")
            let_signals_in()
            steps.append("not reached")
    assert steps == ["none has arrived", "one has arrived"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_that_returns_is_called_once():
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with signals_deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            let_signals_in()
            assert heard == [signal.SIGTERM]
        assert heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_what_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with signals_deferred():
            os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_each_of_two_takes_effect():
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with pytest.raises(KeyboardInterrupt), signals_deferred():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
        assert heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


STORM = """
import os, random, signal, sys, threading, time
from fastac.signals import signals_deferred

sys.setswitchinterval(1e-6)
ready = False

def send():
    global ready
    for _ in range(4_000):
        while not ready:
            time.sleep(0)
        ready = False
        time.sleep(random.uniform(0, 2e-5))
        os.kill(os.getpid(), signal.SIGINT)

sender = threading.Thread(target=send)
sender.start()
interrupted = 0
while interrupted < 4_000:
    try:
        ready = True
        while True:
            with signals_deferred():
                pass
    except KeyboardInterrupt:
        interrupted += 1
sender.join()
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(1)
"""


def test_handlers_that_raise_between_any_two_instructions_leave_nothing_deferred():
    done = subprocess.run([sys.executable, "-c", STORM], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (-signal.SIGTERM, "")


@pytest.mark.parametrize(
    "what",
    [
        "engines.import_engine(config.A2CConfig(engine='torch'))",
        "A2C(engine='torch')",
        "A3C(engine='torch', backend='thread').learn(100)",
        "A2C().policy",
        "doctor.torch_build()",
    ],
)
def test_torch_is_imported_whole(what):
    """Python's own exception in the midst of that import would end the process by SIGABRT."""
    code = f"""
import os, signal, sys
from fastac import A2C, A3C, config, doctor, engines

class Finder:
    def find_spec(name, path, target=None):
        if name == "torch":
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Finder)
try:
    {what}
except KeyboardInterrupt:
    print(hasattr(sys.modules.get("torch"), "zeros"))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr
