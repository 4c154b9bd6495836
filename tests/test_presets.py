"""Presets and the search that finds them: equal budgets, and what is given wins."""

import json
import math
import warnings

import pytest
from click.testing import CliRunner

import fastac
from fastac.cli import main
from fastac.compare import search
from fastac.compare.search import Candidate, Case, Search
from fastac.metrics import SOLVED
from fastac.presets import ENV_PRESETS, PRESETS, presets_of, tuned_for_another_size


def invoke(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


# ---- presets --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_model_of_that_size(name):
    kind, n = name.split("-")
    model = {"a2c": fastac.A2C, "a3c": fastac.A3C}[kind](**fastac.preset(name))
    assert model.config.n_envs * getattr(model.config, "workers", 1) == int(n)


def test_names():
    assert presets_of("a2c") == ("a2c-4", "a2c-8", *ENV_PRESETS) and presets_of("a3c") == ("a3c-4", "a3c-8")
    fastac.preset("a2c-4").clear()
    assert fastac.preset("a2c-4")  # a copy
    with pytest.raises(fastac.ConfigError, match=r"preset: expected one of a2c-4, a2c-8, a3c-4, a3c-8, .*, got 'a4c'"):
        fastac.preset("a4c")


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_solves(name):
    """By one of three seeds: how stale A3C's gradients are is up to the machine, and to what else it does."""
    kind = fastac.A2C if name.startswith("a2c") else fastac.A3C

    def solves(seed):
        model = kind(**fastac.preset(name), seed=seed).learn(300_000, solve=SOLVED)
        return model.history.time_to(SOLVED) is not None

    assert any(solves(seed) for seed in range(3))


def test_options_win_over_the_preset(tmp_path):
    common = ["--total-timesteps", 100, "--seed", 3, "--runs", tmp_path, "--name"]
    for words, changed in (
        (["--preset", "a2c-8"], {}),
        (["--hidden-sizes", "8,9", "--preset", "a2c-8", "--n-steps", 5], {"hidden_sizes": (8, 9), "n_steps": 5}),
    ):
        name = f"run{len(words)}"
        assert invoke("train", "a2c", *words, *common, name).exit_code == 0
        config = json.loads((tmp_path / name / "run.json").read_text())["config"]
        expected = fastac.A2C(**{**fastac.preset("a2c-8"), "seed": 3, **changed}).config.to_dict()
        assert config == {**expected, "hidden_sizes": list(expected["hidden_sizes"])}
    result = invoke("train", "a2c", "--preset", "a3c-8")
    assert result.exit_code == 2 and "a2c-4" in result.output


@pytest.mark.parametrize(
    ("name", "options", "notice"),
    [
        ("a3c-8", {"workers": 8, "n_envs": 1}, None),
        ("a3c-8", {"workers": 2, "n_envs": 1}, "8 workers with 1 env each, not for 2 workers with 1 env each"),
        ("a3c-4", {"workers": 4, "n_envs": 2}, "4 workers with 1 env each, not for 4 workers with 2 envs each"),
        ("a2c-8", {"workers": 1, "n_envs": 8}, None),
        ("a2c-8", {"workers": 2, "n_envs": 16}, "8 envs, not for 16 envs"),
    ],
)
def test_another_size_than_it_was_tuned_for_is_told(name, options, notice, tmp_path):
    expected = None if notice is None else f"preset {name} was tuned for {notice}"
    assert tuned_for_another_size(name, options) == expected
    given = [word for key, value in options.items() for word in (f"--{key.replace('_', '-')}", value)]
    words = ["train", name[:3], "--preset", name, *given, "--total-timesteps", 1, "--runs", tmp_path]
    result = invoke(*words, *(["--backend", "thread"] if name.startswith("a3c") else []))
    told = [line for line in result.stderr.splitlines() if line.startswith("notice: ")]
    assert result.exit_code == 0 and told == ([] if expected is None else [f"notice: {expected}"])


def test_the_table_shows_all_of_them():
    result = invoke("presets")
    assert result.exit_code == 0
    for name, values in (PRESETS | ENV_PRESETS).items():
        assert name in result.output
        assert all(field in result.output for field in values)


@pytest.mark.parametrize("name", ENV_PRESETS)
def test_a_preset_for_another_env_trains_there(name):
    if "LunarLander" in name:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # one that is an error crashes SWIG's modules
            pytest.importorskip("Box2D")
    model = fastac.A2C(**fastac.preset(name), seed=0).learn(500)
    assert model.config.env == name.removeprefix("a2c-") and fastac.evaluate_policy(model, n_eval_episodes=2)


def test_the_scores_of_the_others(tmp_path):
    """Of three seeds and a hundredth of the env steps: what is told is what happened."""
    words = ["--env", "Pendulum-v1", "--seeds", 2, "--fraction", 0.002, "--runs", tmp_path, "--name", "s"]
    result = invoke("bench", "scores", *words)
    assert result.exit_code == 0, result.output
    figures = json.loads((tmp_path / "s" / "bench-scores.json").read_text())["figures"]["Pendulum-v1"]
    model = fastac.A2C(**fastac.preset("a2c-Pendulum-v1"), seed=101).learn(2_000)
    assert figures["returns"][1] == fastac.evaluate_policy(model, n_eval_episodes=100, seed=101)[0]
    assert "0 of 2" in result.output and "-163.0" in result.output and "seeds from 100 on" in result.output


# ---- the search -----------------------------------------------------------------------------------------------


def test_rank():
    assert Candidate({}, {0: 5.0, 1: 7.0, 2: 100.0}).rank() == (0, 7.0)
    assert Candidate({}, {0: 5.0, 1: math.inf, 2: 1.0}).rank() == (1, 5.0)
    assert Candidate({}, {0: math.inf}).solved == 0


def test_equal_budgets_and_halving(monkeypatch):
    """Candidate k of 16 needs 1000 k env steps, but for one that fails on its fourth seed."""
    runs = []

    def fake(case, options, seed, total_timesteps):
        runs.append((case.name, seed, total_timesteps))
        if not options:
            return 500.0
        k = numbers[json.dumps(options)]
        return math.inf if k == 0 and seed >= 1003 else 1000.0 * k

    monkeypatch.setattr(search, "env_steps_to_solve", fake)
    searches = [Search(Case(algorithm, 4), 16, 50_000, 2) for algorithm in ("a2c", "a3c")]
    drawn = [json.dumps(candidate.options) for candidate in searches[0].candidates]
    assert drawn == [json.dumps(candidate.options) for candidate in searches[1].candidates]
    numbers = {options: k for k, options in enumerate(drawn)}
    assert len(numbers) == 16
    for one in searches:
        assert sum(1 for _ in one.run()) == one.n_runs == 16 * 3 + 4 * 2 + 1 * 5 + 1 * 20 + 2 * 2
        assert [numbers[json.dumps(candidate.options)] for candidate in one.best()[:5]] == [1, 2, 3, 0, 4]
        assert [len(candidate.env_steps) for candidate in one.best()[:6]] == [30, 5, 5, 5, 3, 3]
        assert one.fresh["found"].env_steps == {5000: 1000.0, 5001: 1000.0}
        assert one.fresh["defaults"].env_steps == {5000: 500.0, 5001: 500.0}
    half = len(runs) // 2
    assert [run[1:] for run in runs[:half]] == [run[1:] for run in runs[half:]]  # the same seeds and env steps
    assert {seed for _, seed, steps in runs if steps == 100_000} == {5000, 5001}  # fresh ones
    assert {seed for _, seed, steps in runs if steps == 50_000} == set(range(1000, 1030))


@pytest.mark.parametrize("algorithm", ["a2c", "a3c"])
def test_env_steps_to_solve(algorithm):
    case, small = Case(algorithm, 2), {"hidden_sizes": (8,), "n_steps": 8}
    assert search.env_steps_to_solve(case, small, 0, 500) == math.inf
    diverging = {**small, "learning_rate": 1e30, "max_grad_norm": 0.0}
    assert search.env_steps_to_solve(case, diverging, 0, 50_000) == math.inf
    found = search.env_steps_to_solve(Case(algorithm, 4), {}, 0, 300_000)
    assert 20_000 < found < 300_000 and found == int(found)


def test_the_command(tmp_path):
    words = ["search", "--envs", "1", "--candidates", 2, "--fresh", 1, "--total-timesteps", 300, "--runs", tmp_path]
    result = invoke(*words, "--name", "s")
    assert result.exit_code == 0, result.output
    words = " ".join(result.output.split())
    assert "a3c-1: none of 2 candidates solved (475) on any seed within 300 env steps: no winner" in words
    assert "0 of 1" in words and "unsolved" in words and "1 fresh seed, at most 600, 2 candidates; no interval" in words
    record = json.loads((tmp_path / "s" / "search.json").read_text())
    assert [case["case"] for case in record["cases"]] == ["a2c-1", "a3c-1"]
    assert record["budget"] == {"candidates": 2, "total_timesteps": 300, "seed": 0}
    assert [len(one["env_steps"]) for one in record["cases"][0]["candidates"]] == [30, 3]
    assert record["cases"][0]["candidates"][0]["env_steps"]["1000"] is None  # never solved
    assert list(record["cases"][0]["fresh"]) == ["defaults"]
    assert invoke("search", "--envs", 1_000_000).exit_code == 2


def test_the_winner_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(search, "env_steps_to_solve", lambda case, options, seed, most: 1000.0 + seed)
    words = ["search", "--envs", "1", "--candidates", 2, "--fresh", 3, "--runs", tmp_path]
    output = " ".join(invoke(*words).output.split())
    assert "a2c-1: hidden_sizes=" in output and "3 of 3" in output and "medians, smallest and largest below" in output


@pytest.mark.parametrize(("after", "left"), [(0, False), (3, True)])
def test_a_search_that_is_stopped_keeps_what_it_tried(after, left, tmp_path, monkeypatch):
    countdown = iter(range(after, -1, -1))

    def fake(*_):
        if next(countdown) == 0:
            raise KeyboardInterrupt
        return 1.0

    monkeypatch.setattr(search, "env_steps_to_solve", fake)
    result = invoke("search", "--runs", tmp_path, "--name", "s")
    assert result.exit_code == 130 and f"stopped: {after} of " in result.output
    assert (tmp_path / "s").exists() == left
    if left:
        (first, *_), *_ = [
            case["candidates"] for case in json.loads((tmp_path / "s" / "search.json").read_text())["cases"]
        ]
        assert first["env_steps"] == {"1000": 1.0, "1001": 1.0, "1002": 1.0}
