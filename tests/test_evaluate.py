"""`fastac eval`: what it plays is what evaluate_policy plays, and scripts can act on it."""

import json

import pytest
from click.testing import CliRunner

import fastac
from fastac.cli import main


def invoke(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    fastac.A3C(workers=2, backend="thread", n_steps=8, hidden_sizes=(16,), seed=3).learn(3000).save(folder)
    return folder


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("name", ["", "model.safetensors"])
def test_it_plays_what_evaluate_policy_plays(name, deterministic, saved):
    flags = [] if deterministic else ["--stochastic"]
    result = invoke("eval", saved / name, "--episodes", 7, "--seed", 5, "--json", *flags)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    model = fastac.A3C.load(saved)
    returns, lengths = fastac.evaluate_policy(
        model, n_eval_episodes=7, deterministic=deterministic, seed=5, return_episode_rewards=True
    )
    mean, std = fastac.evaluate_policy(fastac.A3C.load(saved), n_eval_episodes=7, deterministic=deterministic, seed=5)
    assert told == {
        "model": str(saved / name),
        "algorithm": "A3C",
        "episodes": 7,
        "seed": 5,
        "deterministic": deterministic,
        "mean_return": mean,
        "std_return": std,
        "min_return": min(returns),
        "max_return": max(returns),
        "mean_length": sum(lengths) / 7,
        "threshold": None,
        "reached": True,
    }


def test_lines_for_people(saved):
    result = invoke("eval", saved, "--seed", 5)
    mean, std = fastac.evaluate_policy(fastac.A3C.load(saved), n_eval_episodes=100, seed=5)
    first, second = result.output.splitlines()
    assert first == "A3C, 100 episodes, the most probable actions, seed 5"
    assert second.startswith(f"return: mean {mean:.1f}, standard deviation {std:.1f}, min ")


def test_a_seed_that_was_drawn_is_told(saved):
    words = ["eval", saved, "--json", "--episodes", 3]
    first, other = (json.loads(invoke(*words).stdout) for _ in range(2))
    assert first["seed"] != other["seed"]
    assert json.loads(invoke(*words, "--seed", first["seed"]).stdout) == first


@pytest.mark.parametrize(("threshold", "code"), [(0, 0), (500.5, 1)])
def test_threshold(threshold, code, saved):
    result = invoke("eval", saved, "--threshold", threshold)
    assert result.exit_code == code
    assert result.output.splitlines()[-1] == f"threshold {threshold:g}: {'not ' if code else ''}reached"
    result = invoke("eval", saved, "--threshold", threshold, "--json")
    assert result.exit_code == code and json.loads(result.stdout)["reached"] == (code == 0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "'nowhere' does not exist"),
        (["."], "expected the folder of a run (runs/<name>), got one without run.json and model.safetensors"),
        ([".", "--threshold", "nan"], "--threshold: expected a finite number, got nan"),
        ([".", "--episodes", "0"], "0 is not in the range 1<=x<=100000"),
    ],
)
def test_a_wrong_command(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = invoke("eval", *words)
    assert result.exit_code == 2 and message in " ".join(result.output.split())


def test_a_damaged_model_is_one_message(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    result = invoke("eval", tmp_path)
    assert result.exit_code == 1 and result.output.startswith("fastac: CheckpointError: ")
