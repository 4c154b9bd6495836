"""A signal that arrives at a bad moment takes effect after it."""

import os
import signal
import threading

import pytest

from fastac.signals import signals_deferred


def test_ctrl_c_is_raised_at_the_end():
    steps = []
    with pytest.raises(KeyboardInterrupt):
        with signals_deferred() as arrived:
            assert arrived == []
            os.kill(os.getpid(), signal.SIGINT)
            assert arrived == [signal.SIGINT]
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
