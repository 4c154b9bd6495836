"""Options from a TOML file: what wins over what, what is refused and how, and that a run's own file repeats the run."""

import json
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

import fastac
from fastac.cli import main
from fastac.cli.configuration import tomllib, write_config

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cli.md"


def invoke(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture
def trained(tmp_path):
    """The config in run.json of a training with such a file and such options."""

    def train(kind, text, *words):
        (tmp_path / "run.toml").write_text(text)
        result = invoke("train", kind, "--config", tmp_path / "run.toml", *words, "--runs", tmp_path, "--name", "x")
        assert result.exit_code == 0, result.output
        return json.loads((tmp_path / "x" / "run.json").read_text())["config"]

    return train


def test_keys_may_have_dashes_and_values_are_typed(trained):
    text = 'n-steps = 8\nhidden_sizes = [8, 9]\nshared-trunk = false\ngamma = 1\nactivation = "relu"\nseed = 3\n'
    config = trained("a2c", f"{text}total-timesteps = 100")
    expected = fastac.A2C(n_steps=8, hidden_sizes=(8, 9), shared_trunk=False, gamma=1.0, activation="relu", seed=3)
    assert config == {**expected.config.to_dict(), "hidden_sizes": [8, 9]}


@pytest.mark.parametrize("where", ["in the file", "before it", "after it"])
def test_options_win_over_the_file_and_the_file_over_a_preset(where, tmp_path):
    """n_envs, n_steps and gae_lambda are in all three, in two, and in the preset alone."""
    file = tmp_path / "run.toml"
    named = 'preset = "a2c-8"\n' if where == "in the file" else ""
    file.write_text(f"{named}n_envs = 2\nn_steps = 4\ntotal_timesteps = 100\nseed = 3\n")
    given = ["--config", file]
    if where != "in the file":
        given = ["--preset", "a2c-8", *given] if where == "before it" else [*given, "--preset", "a2c-8"]
    result = invoke("train", "a2c", *given, "--n-envs", 1, "--runs", tmp_path, "--name", "x")
    assert result.exit_code == 0, result.output
    assert result.stderr == "notice: preset a2c-8 was tuned for 8 envs, not for 1 env\n"
    config = json.loads((tmp_path / "x" / "run.json").read_text())["config"]
    expected = fastac.A2C(**{**fastac.preset("a2c-8"), "n_envs": 1, "n_steps": 4, "seed": 3}).config.to_dict()
    assert config == {**expected, "hidden_sizes": [64, 64]}


def test_a_preset_that_is_given_wins_over_that_of_the_file(trained):
    config = trained("a2c", 'preset = "a2c-8"\ntotal_timesteps = 100\n', "--preset", "a2c-4")
    assert config["learning_rate"] == fastac.preset("a2c-4")["learning_rate"]


def test_where_a_run_goes_and_when_it_ends_are_keys_too(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text(
        f'runs = "{tmp_path}/there"\nname = "first"\nsolve = 9\ncheckpoint_every_s = 0\ntotal_timesteps = 90000'
    )
    result = invoke("train", "a2c", "--config", file, "--seed", 3)
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "there" / "first" / "run.json").read_text())
    assert record["solve"] == 9.0 and record["num_timesteps"] < 90000
    assert not (tmp_path / "there" / "first" / "model.previous.safetensors").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learing_rate = 1", "expected a known key, got learing_rate: did you mean learning_rate?"),
        ("n-stepz = 1", "expected a known key, got n-stepz: did you mean n_steps?"),
        ("zzzzz = 1", "expected a known key, got zzzzz: known are total_timesteps, solve, preset, env, "),
        ("config = 'x'", "expected a known key, got config: "),
        ("[a2c]\nn_steps = 1", "expected a known key, got a2c: "),
        ("n_steps = 1\nn-steps = 1", "expected each key once, got n_steps with underscores and with dashes"),
        ("n_steps = '8'", "n_steps: expected a whole number, got '8'"),
        ("n-steps = 8.0", "n-steps: expected a whole number, got 8.0"),
        ("seed = true", "seed: expected a whole number, got True"),
        ("gamma = '0.9'", "gamma: expected a number, got '0.9'"),
        ("hidden_sizes = '64,64'", "hidden_sizes: expected a list of whole numbers >= 1, got '64,64'"),
        ("hidden_sizes = [64, 0]", "hidden_sizes: expected a list of whole numbers >= 1, got [64, 0]"),
        ("hidden_sizes = []", "hidden_sizes: expected a list of whole numbers >= 1, got []"),
        ("shared_trunk = 1", "shared_trunk: expected true or false, got 1"),
        ("env = 1", "env: expected a text, got 1"),
        ("engine = 'jax'", "engine: 'jax' is not one of 'auto', 'native', 'torch'."),
        ("preset = 'a3c-4'", "preset: 'a3c-4' is not one of 'a2c-4', 'a2c-8', "),
        ("total_timesteps = 0", "total_timesteps: 0 is not in the range x>=1."),
        ("n_steps = 0", "n_steps: expected >= 1 and <= 100000, got 0"),
        ("gamma = nan", "gamma: expected >= 0 and <= 1, got nan"),
        ("solve = 501", "solve: expected a mean return from 0 to 500, as each of"),
        ("split = 3", "split: expected a divisor of n_envs=4, got 3"),
        ("env_kwargs = 1", "env_kwargs: expected a table, or JSON as text, got 1"),
        ("env_kwargs = '[1]'", "env_kwargs: expected a JSON object, as in '{\"gravity\": 1.6}', got '[1]'"),
        ("env_kwargs = {a = nan}", "env_kwargs: expected a JSON object, as in "),
        ("env_kwargs = {a = 2026-01-02}", "env_kwargs: expected a JSON object, as in "),
        ("n_steps: 1", "expected TOML, "),
        ("\xff", "expected TOML, "),
    ],
)
def test_a_wrong_file_is_a_usage_error_that_names_file_and_key(text, message, tmp_path):
    (tmp_path / "run.toml").write_text(text, encoding="latin-1")
    result = invoke("train", "a2c", "--config", tmp_path / "run.toml", "--runs", tmp_path / "runs")
    assert result.exit_code == 2, result.output
    assert f"{tmp_path}/run.toml: {message}" in re.sub(r"\s*\n\s*", " ", result.output)
    assert [path.name for path in tmp_path.iterdir()] == ["run.toml"]


def test_what_is_wrong_with_an_option_is_not_laid_to_the_file(tmp_path):
    (tmp_path / "run.toml").write_text("n_steps = 8\nsplit = 4")
    words = ["train", "a2c", "--config", tmp_path / "run.toml", "--n-steps", 0]
    result = invoke(*words)
    assert result.exit_code == 2 and "Error: --n-steps: expected >= 1 and <= 100000, got 0" in result.output


def test_no_such_file():
    result = invoke("train", "a2c", "--config", "nowhere.toml")
    assert result.exit_code == 2 and "'nowhere.toml' does not exist" in result.output


@pytest.mark.parametrize(
    "words", [["--n-envs", 2, "--split", 2], ["--preset", "a2c-8", "--solve", 20, "--checkpoint-every-s", 0]]
)
def test_the_file_of_a_run_repeats_it(words, tmp_path):
    common = ["--total-timesteps", 3000, "--runs", tmp_path]
    assert invoke("train", "a2c", *words, *common, "--name", "first").exit_code == 0
    again = ["train", "a2c", "--config", tmp_path / "first" / "config.toml", "--runs", tmp_path, "--name", "second"]
    assert invoke(*again).exit_code == 0
    first, second = fastac.A2C.load(tmp_path / "first"), fastac.A2C.load(tmp_path / "second")
    assert first.config == second.config and first.config.seed is not None
    assert first.params.tobytes() == second.params.tobytes() and first.num_timesteps == second.num_timesteps
    files = [(tmp_path / name / "config.toml").read_text() for name in ("first", "second")]
    assert files[0] == files[1] and files[0].startswith("# fastac train a2c --config config.toml\n")


def test_the_file_of_a3c_holds_all_that_it_was_told(tmp_path):
    words = ["--workers", 2, "--backend", "thread", "--max-staleness", 5, "--record", "--learning-rate", "1e-5"]
    common = ["--total-timesteps", 600, "--solve", 300, "--runs", tmp_path]
    assert invoke("train", "a3c", *words, *common, "--name", "first").exit_code == 0
    again = ["train", "a3c", "--config", tmp_path / "first" / "config.toml", "--runs", tmp_path, "--name", "second"]
    assert invoke(*again).exit_code == 0
    records = [json.loads((tmp_path / name / "run.json").read_text()) for name in ("first", "second")]
    same = ("config", "total_timesteps", "solve")
    assert [records[0][key] for key in same] == [records[1][key] for key in same]
    assert records[0]["config"]["max_staleness"] == 5 and records[0]["config"]["record"]


def test_the_file_of_a_run_serves_another_env_and_policy(tmp_path):
    """It holds what was told, and not what followed from it: CartPole's length of episodes, the native engine."""
    common = ["--total-timesteps", 100, "--runs", tmp_path]
    assert invoke("train", "a2c", *common, "--name", "first").exit_code == 0
    again = ["train", "a2c", "--config", tmp_path / "first" / "config.toml", *common, "--name"]
    for name, words in (("env", ["--env", "Acrobot-v1"]), ("policy", ["--policy", "MlpGruPolicy"])):
        result = invoke(*again, name, *words)
        assert result.exit_code == 0, result.output
    configs = {name: json.loads((tmp_path / name / "run.json").read_text())["config"] for name in ("env", "policy")}
    assert configs["env"]["max_episode_steps"] is None and configs["policy"]["engine"] == "torch"


def test_arguments_of_an_env_that_toml_cannot_hold(tmp_path):
    arguments = {"desc": None, "map_name": "4x4"}
    words = ["--env", "FrozenLake-v1", "--env-kwargs", json.dumps(arguments), "--total-timesteps", 100]
    result = invoke("train", "a2c", *words, "--runs", tmp_path, "--name", "first")
    assert result.exit_code == 0, result.output
    again = ["train", "a2c", "--config", tmp_path / "first" / "config.toml", "--runs", tmp_path, "--name", "second"]
    assert invoke(*again).exit_code == 0
    assert fastac.A2C.load(tmp_path / "second").config.env_kwargs == arguments


@pytest.mark.parametrize("text", ['{"a": NaN}', '{"a": 1e999}', "[]", "{"])
def test_arguments_of_an_env_that_are_none(text, tmp_path):
    result = invoke("train", "a2c", "--env", "FrozenLake-v1", "--env-kwargs", text, "--runs", tmp_path / "runs")
    assert result.exit_code == 2 and "'--env-kwargs': expected a JSON object" in " ".join(result.output.split())
    assert not (tmp_path / "runs").exists()


def test_a_table_of_arguments(trained):
    config = trained("a2c", 'env = "FrozenLake-v1"\ntotal_timesteps = 100\n[env_kwargs]\nis_slippery = false\n')
    assert config["env_kwargs"] == {"is_slippery": False}


def test_what_is_written_is_what_was_given(tmp_path):
    values = {"a": 1e-5, "b": 'quote " and \\', "c": (64, 64), "d": True, "e": None, "f": 2.0}
    write_config(tmp_path / "config.toml", "fastac train a2c", values)
    found = tomllib.loads((tmp_path / "config.toml").read_text())
    assert found == {"a": 1e-5, "b": 'quote " and \\', "c": [64, 64], "d": True, "f": 2.0}


def test_a_comparison(tmp_path):
    file = tmp_path / "c.toml"
    text = 'seeds = 1\ntotal_timesteps = 600\nbackend = "thread"\nn_envs = 2\nn_steps = 8\nhidden_sizes = [16]\n'
    file.write_text(f"quick = true\n{text}")
    result = invoke("compare", "--config", file, "--first-seed", 5, "--runs", tmp_path, "--name", "c")
    assert result.exit_code == 0, result.output
    plan = json.loads((tmp_path / "c" / "compare.json").read_text())["plan"]
    assert plan["seeds"] == [5] and plan["total_timesteps"] == 600 and plan["options"]["n_steps"] == 8
    assert plan["arms"] == ["A3C", "A2C"]  # quick
    file.write_text("seeds = 0")
    result = invoke("compare", "--config", file)
    assert result.exit_code == 2 and f"{file}: seeds: 0 is not in the range x>=1." in " ".join(result.output.split())


def test_the_page(tmp_path, monkeypatch):
    """Its file is one, and its commands can be given one after the other."""
    text = PAGE.read_text()
    monkeypatch.chdir(tmp_path)
    (file,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    Path("run.toml").write_text(file)
    shown = re.findall(r"^fastac .*", text, re.MULTILINE)
    assert len(shown) == 7 and shown[1] == f"{shown[0]} --seed 2 --name second"
    for line in (line for line in shown if " > " not in line):
        result = invoke(*shlex.split(line, comments=True)[1:])
        assert result.exit_code in ((0, 1) if "--threshold" in line else (0,)), (line, result.output)
    record = json.loads(Path("runs/first/run.json").read_text())
    assert record["config"]["n_steps"] == 20 and record["config"]["gae_lambda"] == fastac.preset("a3c-4")["gae_lambda"]
    assert len(list(Path("runs").iterdir())) == 3
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (PAGE.parent / target).exists(), target
