"""What the commands say of themselves: every option with its default, every command with an example; and how little
`fastac --help` imports."""

import re
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from fastac.cli import main
from fastac.cli.group import Later


def invoke(*words):
    return CliRunner().invoke(main, words, prog_name="fastac")


def commands_of(group, path=("fastac",)):
    """Of each command its words and itself, groups included."""
    yield path, group
    if isinstance(group, click.Group):
        for name in group.commands:
            _, command, _ = group.resolve_command(click.Context(group), [name])
            yield from commands_of(command, (*path, name))


COMMANDS = dict(commands_of(main))
each_command = pytest.mark.parametrize("path", COMMANDS, ids=" ".join)


def test_they_are_all_here():
    assert {("fastac",), ("fastac", "train", "a3c"), ("fastac", "bench", "solve"), ("fastac", "eval")} <= set(COMMANDS)


@each_command
def test_help(path):
    result = invoke(*path[1:], "--help")
    assert result.exit_code == 0 and result.output.startswith(f"Usage: {' '.join(path)} ")


@each_command
def test_every_option_tells_what_it_does_and_its_default(path):
    command = COMMANDS[path]
    context = click.Context(command)
    for option in command.params:
        if isinstance(option, click.Argument):
            metavar = option.make_metavar(context)
            assert metavar in command.help, f"{metavar} is not explained"
            continue
        _, words = option.get_help_record(context)
        assert option.help, f"{option.opts} has no help"
        plain_flag = option.is_flag and not option.secondary_opts
        told = "[default: " in words or "if not given" in words or option.required or plain_flag
        assert told, f"{option.opts}: {words}"


@each_command
def test_examples_are_of_the_command_and_have_its_options(path):
    command = COMMANDS[path]
    examples = re.findall(r"^\s*(fastac .*?)(?:   .*)?$", command.help, re.MULTILINE)
    own = [line for line in examples if line.startswith(" ".join(path))]
    assert own, "no example"
    for line in own:
        if not isinstance(command, click.Group):
            flags = set(re.findall(r" (--[\w-]+)", line))
            assert flags <= {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)}


@pytest.mark.parametrize("group", [(), ("train",), ("bench",)], ids=lambda group: " ".join(group) or "fastac")
def test_no_summary_of_a_command_is_cut(group, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    words = invoke(*group, "--help").output
    listed = words.partition("Commands:\n")[2].splitlines()
    assert len(listed) >= 2 and max(map(len, listed)) < 80
    assert [line for line in listed if line.endswith("...") or len(line.split()) < 3] == []


def test_help_tells_default_unit_and_range():
    words = " ".join(invoke("train", "a3c", "--help").output.split())
    assert (
        "--n-steps INTEGER rollout length T between updates [env steps per env] (>= 1 and <= 100000) [default: 32]"
        in words
    )
    assert "--update [lockfree|lock|queue|hogwild]" in words


@pytest.mark.parametrize("name", main.commands)
def test_what_is_known_before_a_command_is_imported_is_so(name):
    known = main.commands[name]
    command = known.load()
    assert isinstance(known, Later) and command.name == name
    assert known.get_short_help_str(1000) == command.get_short_help_str(1000)


def test_exit_codes_are_told():
    words = invoke("--help").output
    assert [code for code in ("0", "1", "2", "130", "143") if not re.search(rf"^ +{code}  +\w", words, re.M)] == []


@pytest.mark.parametrize(
    ("words", "nearest"),
    [
        (["trian"], "'train'"),
        (["train", "a4c"], "'a3c'"),
        (["bench", "slove"], "'solve'"),
        (["train", "a3c", "--learing-rate", "1"], "'--learning-rate'"),
    ],
)
def test_the_nearest_name_is_told(words, nearest):
    result = invoke(*words)
    assert result.exit_code == 2 and nearest in result.output


def test_help_and_completion_of_commands_import_little():
    code = "import sys, fastac_command as f\ntry:\n    f.main()\nfinally:\n    print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("Usage: fastac ")
    imported = set(done.stderr.split())
    assert "click" in imported and "fastac.cli" in imported
    heavy = {"numpy", "rich", "scipy", "gymnasium", "torch", "matplotlib", "safetensors", "fastac.config", "asyncio"}
    assert imported & heavy == set()


@pytest.mark.parametrize(
    "words",
    [
        ["play", ".", "--fps"],
        ["check", "--seconds"],
        ["bench", "scores", "--fraction"],
        ["bench", "env", "--round-s"],
        ["stragglers", "--step-s"],
        ["train", "a2c", "--checkpoint-every-s"],
        ["resume", ".", "--checkpoint-every-s"],
    ],
    ids=" ".join,
)
def test_nan_is_in_no_range(words):
    result = CliRunner().invoke(main, [*words, "nan"])
    assert result.exit_code == 2 and "expected a finite number, got 'nan'" in " ".join(result.output.split())
