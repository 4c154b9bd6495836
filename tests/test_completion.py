"""`fastac completion`: a real bash completes with the script; what zsh and fish get is click's, too."""

import os
import shutil
import subprocess
import sys

import pytest
from click.testing import CliRunner

from fastac.cli import main

# As bash does on a tab: the function that is registered for fastac is called with the words of the line, the last one
# to be completed, and leaves in COMPREPLY what it offers. Only bash itself can obey compopt.
ON_TAB = """
eval "$(fastac completion bash)"
compopt() { echo compopt "$@"; }
registered=$(complete -p fastac); registered=${registered#* -F }; registered=${registered% fastac}
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
"$registered" fastac "${COMP_WORDS[-1]}" "${COMP_WORDS[-2]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def on_tab(tmp_path_factory):
    """What bash offers for the words of a line."""
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    folder = tmp_path_factory.mktemp("bin")
    (folder / "fastac").write_text(f"#!/bin/sh\nexec '{sys.executable}' -m fastac \"$@\"\n")
    (folder / "fastac").chmod(0o755)
    path = os.pathsep.join([str(folder), os.environ["PATH"]])

    def offered(*words):
        command = ["bash", "--norc", "-c", ON_TAB, "bash", *words]
        done = subprocess.run(command, env={**os.environ, "PATH": path}, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()

    return offered


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["fastac", "tr"], ["train"]),
        (["fastac", "train", "a"], ["a2c", "a3c"]),
        (["fastac", "train", "a3c", "--upd"], ["--update"]),
        (["fastac", "train", "a3c", "--update", "l"], ["lockfree", "lock"]),
        (["fastac", "train", "a2c", "--preset", "a2c-8"], ["a2c-8"]),
        (["fastac", "bench", "s"], ["scaling", "scores", "solve"]),
        (["fastac", "resume", "ru"], ["compopt -o dirnames", ""]),
        (["fastac", "train", "--resume", "ru"], ["compopt -o dirnames", ""]),
        (["fastac", "eval", "ru"], ["compopt -o default", ""]),
        (["fastac", "train", "a2c", "--config", "ru"], ["compopt -o default", ""]),
    ],
)
def test_bash_completes(words, expected, on_tab):
    assert on_tab(*words) == expected


def test_every_command_is_offered(on_tab):
    assert on_tab("fastac", "") == sorted(main.commands)


@pytest.mark.parametrize(("shell", "line"), [("zsh", "#compdef fastac\n"), ("fish", "function _fastac_completion;\n")])
def test_the_other_shells(shell, line):
    result = CliRunner().invoke(main, ["completion", shell])
    assert result.exit_code == 0 and result.output.startswith(line) and f"_FASTAC_COMPLETE={shell}_" in result.output


def test_a_shell_that_is_not_known():
    result = CliRunner().invoke(main, ["completion", "csh"])
    assert result.exit_code == 2 and "'csh' is not one of 'bash', 'zsh', 'fish'" in result.output
