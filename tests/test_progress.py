"""Nothing for two seconds, then a bar on a terminal and plain lines elsewhere."""

import io

import pytest
from rich.console import Console

from fastac import progress
from fastac.progress import WaitingProgress, return_note


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_plain_lines(clock, capsys):
    with WaitingProgress(1000, "A3C", "env steps") as shown:
        for clock[0], env_steps in [(1.0, 100), (1.9, 190), (4.0, 400), (5.0, 500), (14.5, 725)]:
            shown.update(env_steps, return_note(25.0))
    assert capsys.readouterr().err.splitlines() == [
        "A3C: 400 of 1,000 env steps, 100 per s, return 25.0, 6 s left",
        "A3C: 725 of 1,000 env steps, 50 per s, return 25.0, 6 s left",
    ]


def test_before_the_first_step(clock, capsys):
    with WaitingProgress(1000, "A2C", "env steps") as shown:
        clock[0] = 3.0
        shown.update(0, return_note(float("nan")))
    assert capsys.readouterr().err == "A2C: 0 of 1,000 env steps, 0 per s, no episode yet, time left unknown\n"


def test_the_start_up_does_not_count_for_the_speed(clock, capsys):
    with WaitingProgress(1000, "A3C", "env steps") as shown:
        clock[0] = 5.0
        shown.start()
        clock[0] = 15.0
        shown.update(40)
    assert capsys.readouterr().err == "A3C: 40 of 1,000 env steps, 4.0 per s, 240 s left\n"


def test_what_was_done_earlier_does_not_count_for_the_speed(clock, capsys):
    with WaitingProgress(1000, "A3C", "env steps") as shown:
        shown.start(600)
        clock[0] = 10.0
        shown.update(700)
    assert capsys.readouterr().err == "A3C: 700 of 1,000 env steps, 10 per s, 30 s left\n"


def test_invisible(clock, capsys):
    with WaitingProgress(1000, "A2C", "env steps", visible=False) as shown:
        clock[0] = 30.0
        shown.update(400)
    assert capsys.readouterr().err == ""


def test_a_bar_on_a_terminal(clock, monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(progress, "Console", lambda stderr: Console(file=screen, force_terminal=True, width=100))
    with WaitingProgress(1000, "A3C", "env steps") as shown:
        clock[0] = 4.0
        shown.update(400, return_note(25.0))
        shown._bar.refresh()
    for words in ("400/1,000 env steps", "100/s", "return 25.0"):
        assert words in screen.getvalue()
