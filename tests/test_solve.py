"""A run that ends when it is solved: by one definition, in order, and A2C with the same update again."""

import json
import math
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

import fastac
from fastac import updates
from fastac.cli import main
from fastac.config import BACKENDS, ENGINES
from fastac.metrics import (
    EPISODE,
    SOLVED,
    UPDATE,
    WINDOW,
    HistoryBuilder,
    Position,
    Solving,
    expect_reachable,
    row,
    thresholds_of,
)

SMALL = {"n_steps": 8, "hidden_sizes": (16,), "seed": 11}
EASY = 40.0  # twice what the untrained policy gets


def bits(model):
    return model.params.tobytes(), model.state.tobytes()


def episodes(worker, *pairs):
    """Rows of (time, return)."""
    return np.stack([row(EPISODE, time_s, worker, 10, 0, r, 10) for time_s, r in pairs])


# ---- the definition -------------------------------------------------------------------------------------------


def test_it_is_that_of_the_field():
    assert (SOLVED, WINDOW) == (475.0, 100)
    assert thresholds_of("CartPole-v1") == (195, 475) and thresholds_of("Acrobot-v1") == ()
    assert thresholds_of("fastac/CartPole-v1", 30.0) == (30, 195, 475) and thresholds_of("Acrobot-v1", -80.0) == (-80,)


def test_a_run_is_solved_by_the_episode_that_the_history_names():
    returns = np.random.default_rng(0).integers(0, 500, 400).astype(float)
    history = HistoryBuilder(0.0)
    solving, solved_by = Solving(280.0, 1), None
    for i, r in enumerate(returns):
        rows = episodes(0, (float(i), r))
        history.add_rows(rows)
        solving.add_rows(0, rows)
        if solving.look(float(i)) and solved_by is None:
            solved_by = i + 1
    assert history.build().time_to(280.0)["episodes"] == solved_by > WINDOW
    assert solving.solved  # though later means are lower
    assert history.build().final_return() < 280.0


def test_workers_are_heard_in_the_order_of_time():
    solving, now_s = Solving(100.0, 2), 0.2
    solving.add_rows(0, episodes(0, *[(t / 1000, 100.0) for t in range(1, 101)]))
    assert not solving.look(now_s)  # worker 1 may have ended a bad episode before the last of these
    assert len(solving.returns) == 0
    solving.add_rows(1, episodes(1, (0.0505, 0.0)))
    assert not solving.look(now_s) and list(solving.returns) == [100.0] * 50 + [0.0]
    solving.add_rows(1, np.stack([row(UPDATE, 0.15, 1, 8, 1, *[0.0] * 13)]))
    assert not solving.look(now_s) and solving.returns[49] == 0.0  # the first of 101 is gone, the bad one is not
    solving.add_rows(0, episodes(0, *[(0.11 + t / 10_000, 100.0) for t in range(49)]))
    assert not solving.look(now_s) and solving.returns[0] == 0.0
    solving.add_rows(0, episodes(0, (0.12, 100.0)))
    assert solving.look(now_s)


def test_a_worker_that_tells_nothing_holds_nobody_up():
    solving = Solving(100.0, 2)
    solving.add_rows(0, episodes(0, *[(t / 1000, 100.0) for t in range(1, 101)]))
    assert not solving.look(1.0)
    assert solving.look(1.2)


def test_at_the_end_all_episodes_count():
    """Worker 1 has told of nothing after 0.05 s, so what worker 0 did after that was still waiting for it."""
    solving = Solving(100.0, 2)
    solving.add_rows(1, episodes(1, (0.0505, 0.0)))
    solving.add_rows(0, episodes(0, *[(t / 1000, 100.0) for t in range(1, 151)]))
    assert not solving.look(0.2) and len(solving.returns) == 51
    # What a checkpoint of now keeps: all that was told, in the order of time, the bad one just out of the window.
    assert solving.latest() == (100.0,) * 100 and len(solving.returns) == 51
    assert not solving.solved
    solving.end()
    assert solving.solved and tuple(solving.returns) == solving.latest() == (100.0,) * 100


def test_without_a_threshold_nothing_is_solved():
    solving = Solving(None, 1)
    solving.add_rows(0, episodes(0, *[(t, math.inf) for t in range(200)]))
    assert not solving.look(1000.0)


def test_the_window_reaches_back_into_the_parts_before():
    start = Position(900, env_steps=500, returns=(0.0,) * 60 + (90.0,) * 40)
    builder, solving = HistoryBuilder(0.0, start), Solving(90.0, 1, start.returns)
    rows = episodes(0, *[(t, 90.0) for t in range(1, 61)])
    builder.add_rows(rows[:-1])
    solving.add_rows(0, rows[:-1])
    assert builder.build().time_to(90.0) is None and not solving.look(60.0)
    builder.add_rows(rows[-1:])
    solving.add_rows(0, rows[-1:])
    assert solving.look(60.0)
    assert builder.build().time_to(90.0) == {"env_steps": 1100.0, "wall_s": 60.0, "updates": 0.0, "episodes": 60.0}


# ---- whole runs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("split", [1, 2])
def test_a2c_ends_with_the_update_that_solves(split, engine):
    options = {**SMALL, "n_envs": 2, "split": split, "engine": engine}
    model, again = (fastac.A2C(**options).learn(400_000, solve=EASY) for _ in range(2))
    solved = model.history.time_to(EASY)
    assert solved["env_steps"] == model.num_timesteps < 400_000
    assert solved["updates"] == model.version
    assert bits(model) == bits(again)
    assert model.unfinished is None
    with pytest.raises(fastac.NothingToResumeError):
        model.resume()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("update", ["lockfree", "queue"])
def test_a3c_ends_soon_after(update, backend, engine):
    model = fastac.A3C(workers=2, update=update, backend=backend, engine=engine, **SMALL)
    model.learn(50_000_000, solve=EASY)
    solved = model.history.time_to(EASY)
    assert solved["env_steps"] <= model.num_timesteps < 50_000_000
    assert model.ledger.applied == model.version and model.ledger.pending == model.ledger.deaths == 0
    assert model.unfinished is None
    with pytest.raises(fastac.NothingToResumeError):
        model.resume()
    assert model.learn(160).num_timesteps >= 160 + solved["env_steps"]  # it can be trained on


@pytest.mark.parametrize("kind", [fastac.A2C, fastac.A3C])
def test_env_steps_stay_the_limit(kind):
    model = kind(**SMALL).learn(4000, solve=500.0)
    assert 4000 <= model.num_timesteps < 4100 and model.unfinished is None
    assert model.history.time_to(500.0) is None


@pytest.mark.parametrize("engine", ENGINES)
def test_an_interrupted_run_is_solved_by_the_same_update(engine, tmp_path, monkeypatch):
    monkeypatch.setattr(updates, "_TICK_S", 0.0)  # a checkpoint after each update: natively it takes milliseconds
    monkeypatch.setattr(updates, "_REST", 0)
    options = {**SMALL, "n_envs": 2, "engine": engine}
    whole = fastac.A2C(**options).learn(400_000, solve=EASY)
    model = fastac.A2C(**options)

    def stop(history):
        if len(history.episodes["wall_s"]) > 20:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        model.learn(400_000, solve=EASY, checkpoint=tmp_path, checkpoint_every_s=1e-9, on_checkpoint=stop)
    assert 0 < model.unfinished.env_steps < whole.num_timesteps
    assert model.unfinished.solve == EASY and len(model.unfinished.returns) > 20
    loaded = fastac.A2C.load(tmp_path)
    assert loaded.unfinished == model.unfinished
    assert bits(loaded.resume()) == bits(model.resume()) == bits(whole)
    solved = loaded.history.time_to(EASY)
    assert solved["env_steps"] == loaded.num_timesteps == whole.num_timesteps and loaded.unfinished is None


@pytest.mark.parametrize("solve", [math.nan, math.inf, -0.5, 500.1, np.float32(501), "475", True, 1j])
def test_what_it_refuses(solve):
    model = fastac.A2C(**SMALL)
    with pytest.raises(fastac.ConfigError, match=r"solve: expected a mean return from 0 to 500, as .*, got "):
        model.learn(100, solve=solve)
    assert model.num_timesteps == 0 and model.unfinished is None


def test_what_can_be_reached_is_what_an_episode_can_have():
    assert expect_reachable(None, 20) is None and expect_reachable(np.int64(20), 20) == 20.0
    with pytest.raises(fastac.ConfigError, match=r"from 0 to 20, as each of at most 20 env steps .* with 1, got 475"):
        fastac.A3C(**SMALL, max_episode_steps=20).learn(100, solve=475)


# ---- the command ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("threshold", "words"), [("40", "solved (40): after "), ("500", "solved (500): not in this run")]
)
def test_the_command_says_whether(threshold, words, tmp_path):
    def invoke(*arguments):
        return CliRunner().invoke(main, [str(argument) for argument in arguments])

    small = ["--n-steps", 8, "--hidden-sizes", 16, "--seed", 11, "--total-timesteps", 60_000, "--solve", threshold]
    result = invoke("train", "a2c", *small, "--runs", tmp_path, "--name", "run")
    assert result.exit_code == 0 and result.output.count("solved") == 1 and words in result.output
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == "done" and record["solve"] == float(threshold)
    assert (record["num_timesteps"] < 60_000) == (record[f"solved_{threshold}"] is not None) == ("after" in words)
    result = invoke("resume", tmp_path / "run")
    assert result.exit_code == 0 and "nothing is left to do" in result.output


def test_the_command_and_its_workers_import_nothing_slow(tmp_path):
    command = [sys.executable, "-m", "fastac", "train", "a3c", "--solve", "40", "--runs", str(tmp_path)]
    told = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}  # the forkserver's, too
    result = subprocess.run(command, env=told, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0 and "solved (40): after " in result.stdout
    imported = re.findall(r"\| +([\w.]+)$", result.stderr, re.MULTILINE)
    assert imported.count("numpy") == 2
    assert {"torch", "gymnasium", "scipy", "matplotlib"}.isdisjoint(imported)


def test_rows_that_piled_up_count_in_their_order():
    """The parent was away: what one worker could not tell yet comes before what another one has told."""
    solving = Solving(100.0, 2)
    solving.add_rows(0, episodes(0, *((0.01 * i, 100.0) for i in range(WINDOW))))
    solving.add_rows(1, episodes(1, (0.0, 1.0)))  # its ring was full with that
    assert not solving.look(10.0)
    solving.add_rows(1, episodes(1, *((0.01 * i, 1.0) for i in range(1, WINDOW))))
    assert not solving.look(10.05) and len(solving.returns) == WINDOW
    assert 45.0 < sum(solving.returns) / WINDOW < 55.0


def test_a2c_ends_in_time_however_many_episodes_end_in_an_update():
    model = fastac.A2C(seed=1, n_envs=2048, n_steps=15, max_episode_steps=15, hidden_sizes=(8,), learning_rate=1e-3)
    model.learn(300 * 2048 * 15, solve=14.95)
    assert model.history.time_to(14.95)["updates"] == model.version
