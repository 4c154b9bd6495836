"""Nothing for two seconds, then a bar on a terminal and plain lines elsewhere."""

import io

import pytest
from rich.console import Console

from fastac import progress
from fastac.progress import TrainingProgress


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_plain_lines(clock, capsys):
    with TrainingProgress(1000, "A3C", visible=True) as shown:
        for clock[0], env_steps in [(1.0, 100), (1.9, 190), (4.0, 400), (5.0, 500), (14.5, 725)]:
            shown.update(env_steps, 25.0)
    assert capsys.readouterr().err.splitlines() == [
        "A3C: 400 of 1,000 env steps, 100 per s, return 25.0, 6 s left",
        "A3C: 725 of 1,000 env steps, 50 per s, return 25.0, 6 s left",
    ]


def test_no_return_yet_and_no_steps_yet(clock, capsys):
    with TrainingProgress(1000, "A2C", visible=True) as shown:
        clock[0] = 3.0
        shown.update(0, float("nan"))
    assert capsys.readouterr().err == "A2C: 0 of 1,000 env steps, 0 per s, return -, inf s left\n"


def test_invisible(clock, capsys):
    with TrainingProgress(1000, "A2C", visible=False) as shown:
        clock[0] = 30.0
        shown.update(400, 1.0)
    assert capsys.readouterr().err == ""


def test_a_bar_on_a_terminal(clock, monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(progress, "Console", lambda stderr: Console(file=screen, force_terminal=True, width=100))
    with TrainingProgress(1000, "A3C", visible=True) as shown:
        clock[0] = 4.0
        shown.update(400, 25.0)
        shown._bar.refresh()
    assert (
        "400/1,000 env steps" in screen.getvalue()
        and "100/s" in screen.getvalue()
        and "return 25.0" in screen.getvalue()
    )
