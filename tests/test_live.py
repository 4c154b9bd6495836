"""The live view: its figures are those of the run, it fits the terminal, and leaves that in order."""

import io
import math
import re
import shlex
import time

import pytest
from rich.console import Console
from whole_runs import COMMAND, Terminal, wait_until

import fastac
from fastac import live, progress
from fastac.live import OverTime, View, bars_of, sparkline
from fastac.progress import Narrower
from fastac.shared import Ledger
from fastac.staleness import WorkerShare

RAMP = live._RAMPS[0]
SMALL = {"n_steps": 8, "hidden_sizes": (16,), "seed": 3}
SHOW, HIDE = "\x1b[?25h", "\x1b[?25l"  # the cursor
nan = math.nan


# ---- figures over time, and bars ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "width", "low", "high", "expected"),
    [
        ([], 5, 0.0, 1.0, ""),
        ([0.0, 7.0], 5, 0.0, 7.0, "▁█"),
        ([0, 1, 2, 3, 4, 5, 6, 7], 8, 0.0, 7.0, RAMP),
        ([0, 2, 5, 7], 2, 0.0, 7.0, "▂▇"),  # means 1 and 6
        ([1, 1, 7], 2, 1.0, 7.0, "▁▅"),  # means 1 and 4
        ([nan, 7.0, 0.0], 3, 0.0, 7.0, " █▁"),
        ([5.0, 5.0], 4, 5.0, 5.0, "██"),
        ([1.0], 0, 0.0, 1.0, ""),
    ],
)
def test_sparkline(values, width, low, high, expected):
    assert sparkline(values, width, RAMP, low, high) == expected


def test_a_figure_over_time_keeps_its_course_in_little_room(monkeypatch):
    monkeypatch.setattr(live, "_POINTS", 2)
    its = OverTime()
    for n, expected in [(3, [0, 1, 2]), (4, [0.5, 2.5]), (5, [0.5, 2.5]), (6, [0.5, 2.5, 4.5]), (8, [1.5, 5.5])]:
        while len(its.values) * its._each + len(its._pending) < n:
            its.append(float(len(its.values) * its._each + len(its._pending)))
        assert its.values == expected


@pytest.mark.parametrize(
    ("histogram", "expected"),
    [
        ({}, "         "),
        ({0: 800, 1: 1, 3: 100, 64: 101}, "█▁ ▁    ▂"),
        ({4: 4, 7: 4, 8: 4, 31: 2, 63: 1, 1000: 1}, "    █▄▂▁▁"),
    ],
)
def test_bars_of_a_histogram(histogram, expected):
    assert bars_of(histogram, RAMP) == expected


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (59.6, "1:00"), (3599.0, "59:59"), (3661.0, "1:01:01")])
def test_time_left(seconds, text):
    assert live._clock(seconds) == text


# ---- the view -------------------------------------------------------------------------------------------------


class Told:
    """A Training as far as the view asks: figures that are known beforehand."""

    title = "A3C MlpPolicy on CartPole-v1, native engine"
    total_timesteps = 2_000_000

    def __init__(self, workers):
        self.env_steps, self.ep_rew_mean, self.workers = 0, nan, workers

    def scalars(self, asker):
        return {"time/fps": 10_000.0}

    def ledger(self):
        shares = tuple(
            WorkerShare(w, 1000 + w, 8000, nan, 0, 0, 1.5 + w, 100 + w, 2000 + w, {0: 900, w % 50: 100})
            for w in range(self.workers)
        )
        return Ledger(9000, 8000, 1000, 7000, 0, 30, 4, 966, 12_345, 1.5, 2010, None, deaths=2, workers=shares)


def view_of(workers, monkeypatch):
    now, told, view = [100.0], Told(workers), View(Told.title)
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])
    view.look(told)
    for k in range(1, 101):
        now[0] += 0.5
        told.env_steps += 10_000 if k % 2 else 20_000
        told.ep_rew_mean = nan if k < 10 else float(k)
        view.look(told)
    return view


def drawn(view, width, height=24, file=None):
    console = Console(file=file or io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    with console.capture() as captured:
        console.print(Narrower(view))
    return captured.get().splitlines()


@pytest.mark.parametrize("workers", [1, 4, 16, 64])
@pytest.mark.parametrize("width", [80, 120])
def test_what_is_shown(width, workers, monkeypatch):
    lines = drawn(view_of(workers, monkeypatch), width)
    text = "\n".join(lines)
    assert lines[0] == Told.title + (f", {workers} workers" if workers > 1 else "")
    assert lines[1].endswith("75%  1,500,000/2,000,000 env steps  0:50 left")
    (returns,) = re.findall(r"^return +100\.0 (\S+) 10\.0 to 100\.0$".replace(r"(\S+)", r"([ ▁-█]+)"), text, re.M)
    assert returns.strip()[0] == "▁" and returns[-1] == "█"
    assert re.search(r"^env steps/s +40,000 [▁-█]+ 0 to 40,000$", text, re.M)
    figures = re.findall(r"(\d+) +([\d.]+) +([\d,]+) +([\d,]+)  █", text)
    shown = len(figures)
    assert sorted(int(name) for name, *_ in figures) == list(range(shown))
    for name, mean, p95, largest in figures:
        w = int(name)
        assert (mean, p95, largest) == (f"{1.5 + w:.2f}", str(100 + w), f"{2000 + w:,}")
    rest = re.search(r"(\d+) more workers, staleness at most 2,063", text)
    assert shown + (int(rest[1]) if rest else 0) == workers
    assert lines[-1].split() == ["7,000", "34", "1,000", "12,345", "2"]
    assert lines[-2].split() == ["gradients", "applied", "rejected", "aborted", "retries", "deaths"]


@pytest.mark.parametrize("workers", [1, 4, 16, 64])
@pytest.mark.parametrize("width", [20, 40, 80, 120])
def test_room_is_left_for_the_echo_of_ctrl_c(width, workers, monkeypatch):
    lines = drawn(view_of(workers, monkeypatch), width)
    assert max(map(len, lines)) <= width - 8 and (width < 80 or len(lines) <= 24)


def test_a_terminal_that_knows_ascii_alone(monkeypatch):
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    text = "\n".join(drawn(view_of(4, monkeypatch), 80, file=file))
    text.replace("…", "").encode("ascii")
    assert re.search(r"^return +100\.0 [ _.=+*%#-]+ 10\.0 to", text, re.M)


def test_before_the_first_step():
    view = View(Told.title)
    view.look(Told(4))
    text = "\n".join(drawn(view, 80))
    assert "0/2,000,000 env steps" in text and re.search(r"^return +no episode yet", text, re.M)


# ---- the callback ---------------------------------------------------------------------------------------------


@pytest.fixture
def terminal(monkeypatch):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100, height=30, _environ={"TERM": "xterm"})
    monkeypatch.setattr(live, "Console", lambda stderr: console)
    monkeypatch.setattr(fastac.LiveView, "every_s", 0.0)
    return screen


def model_of(kind):
    if kind == "a2c":
        return fastac.A2C(n_envs=4, **SMALL)
    return fastac.A3C(workers=2, backend=kind, **SMALL)


@pytest.mark.parametrize("kind", ["a2c", "thread", "process"])
def test_it_draws_and_is_wiped_away(kind, terminal):
    model = model_of(kind).learn(20_000, callback=fastac.LiveView())
    shown = terminal.getvalue()
    assert model.title in shown and "gradients" in shown and "/20,000 env steps" in shown
    assert shown.index(HIDE) < shown.rindex(SHOW) and HIDE not in shown[shown.rindex(SHOW) :]
    assert shown.endswith("\x1b[1A\x1b[2K")  # the last of the lines is gone, too


def test_whatever_fails_the_cursor_comes_back(terminal):
    class Failing(fastac.BaseCallback):
        def on_training_end(self, training):
            raise RuntimeError("at the end")

    with pytest.raises(RuntimeError, match="at the end"):
        model_of("a2c").learn(2000, callback=[Failing(), fastac.LiveView()])
    assert SHOW in terminal.getvalue() and HIDE not in terminal.getvalue().rpartition(SHOW)[2]


def test_it_takes_the_place_of_the_bar(terminal, monkeypatch):
    monkeypatch.setattr(progress, "_SILENT_S", 0.0)
    monkeypatch.setattr(progress.WaitingProgress, "_open_bar", lambda self: pytest.fail("a bar, too"))
    monkeypatch.setattr(progress, "can_draw", lambda console: True)
    model_of("a2c").learn(2000, callback=fastac.LiveView(), progress_bar=True)
    assert "gradients" in terminal.getvalue()


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_off_a_terminal_there_are_plain_lines(term, capsys, monkeypatch):
    monkeypatch.setattr(progress, "_SILENT_S", 0.0)
    monkeypatch.setattr(progress, "_LINE_EVERY_S", 0.0)
    if term == "dumb":
        dumb = Console(stderr=True, force_terminal=True, _environ={"TERM": "dumb"})
        monkeypatch.setattr(live, "Console", lambda stderr: dumb)
        monkeypatch.setattr(progress, "Console", lambda stderr: dumb)
    model_of("a2c").learn(2000, callback=fastac.LiveView())
    lines = capsys.readouterr().err.splitlines()
    assert lines and all(re.match(r"A2C: [\d,]+ of 2,000 env steps, .* per s, ", line) for line in lines)


def test_drawing_takes_a_twentieth_of_the_time(terminal, monkeypatch):
    its = fastac.LiveView()

    class Slow(View):
        def look(self, training):
            super().look(training)
            time.sleep(0.05)

    monkeypatch.setattr(live, "View", Slow)
    model_of("a2c").learn(64, callback=its)
    assert its.every_s >= 20 * 0.05


# ---- a terminal -----------------------------------------------------------------------------------------------


@pytest.fixture
def shell(request, tmp_path):
    its = Terminal(request.param, tmp_path)
    yield its
    its.close()


@pytest.mark.parametrize("shell", [80, 120], indirect=True)
@pytest.mark.parametrize("kind", ["a2c", "a3c --workers 2", "a3c --workers 16 --engine torch"])
def test_ctrl_c_leaves_the_terminal_in_order(kind, shell, tmp_path):
    command = f"exec {shlex.quote(str(COMMAND))} train {kind} --live --total-timesteps 1000000000 --name x\n"
    (tmp_path / "go").write_text(command)
    shell.type("bash go\n")  # a line that does not wrap

    def trained():
        shell.read(0.1)
        *_, names, counts = ["", *shell.screen.lines()]
        return "retries" in names and counts.split()[0] != "0"

    assert wait_until(trained, 120), shell.screen.lines()
    assert not shell.screen.cursor_visible
    shell.type("\x03")
    assert shell.wait_for_prompt(60), shell.screen.lines()
    assert shell.in_order()
    text = "".join(shell.said())
    assert re.fullmatch(
        r".*stopped: [\d,]+ of 1,000,000,000 env steps done; .* saved in runs/x/model\.safetensors", text
    )
    assert "retries" not in text and "return" not in text
