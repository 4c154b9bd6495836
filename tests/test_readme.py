"""What README and docs/ show works as it stands there: links lead somewhere, commands exist, code runs.

The blocks of a page run from the first to the last, in one folder: those marked `python` in one session, those marked
`sh` in a shell. One marked `toml` is saved as run.toml. One marked `output` is what the block before it prints. One
without a mark shows what some run printed, and is not run.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

import fastac
from fastac.cli import main

ROOT = Path(__file__).resolve().parents[1]
FILES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
PAGES = {str(path.relative_to(ROOT)): path.read_text() for path in FILES}

# Blocks that do not run here, by page and first words, and why.
NOT_RUN = {
    ("README.md", "python -m venv .venv && .venv/bin/pip install -c constraints.txt . "): ".ci/run runs it",
    ("README.md", "python -m venv .venv && .venv/bin/pip install -c constraints.txt '.[test]'"): ".ci/run runs it",
    ("README.md", "fastac doctor"): "many minutes, for all of it; that each command exists is tested below",
    ("docs/exercise.md", "fastac exercise"): "a minute; .ci/run runs its quick form",
    ("docs/start.md", "python -m venv .venv"): "builds the package anew; .ci/run does it by README's line",
}
DONE = "\x1e"  # printed after each block
LANGUAGES = {  # that run, as lines of Python
    "python": "{code}",
    "sh": "__import__('subprocess').run(['bash', '-euc', {code!r}], check=True)\n",
    "toml": "__import__('pathlib').Path('run.toml').write_text({code!r})\n",
}


def blocks(text):
    """[(language, code)]"""
    return re.findall(r"^```(.*)\n((?:.*\n)*?)```$", text, re.MULTILINE)


def runs(page, language, code):
    return language in LANGUAGES and not any(page == name and code.startswith(it) for name, it in NOT_RUN)


def program_of(shown):
    """One Python program of a page's blocks."""
    return "".join(LANGUAGES[language].format(code=code) + f"print({DONE!r}, flush=True)\n" for language, code in shown)


def test_the_language_of_every_block_is_known():
    assert {language for text in PAGES.values() for language, _ in blocks(text)} == {"", "output", *LANGUAGES}


def test_what_does_not_run_is_there():
    for page, first_words in NOT_RUN:
        assert any(code.startswith(first_words) for _, code in blocks(PAGES[page])), (page, first_words)


@pytest.mark.parametrize("page", [page for page, text in PAGES.items() if any(runs(page, *it) for it in blocks(text))])
def test_code_runs_and_prints_what_is_shown(page, tmp_path):
    shown = [(language, code) for language, code in blocks(PAGES[page]) if runs(page, language, code)]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        [sys.executable, "-c", program_of(shown)],
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"},  # torch's threads would wait for each other
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    printed = dict(zip(shown, done.stdout.split(DONE + "\n"), strict=False))
    before = None
    for block in blocks(PAGES[page]):
        if block[0] == "output":
            assert printed[before] == block[1]
        before = block


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", PAGES[page]):
        assert ((ROOT / page).parent / target).exists(), target


def commands():
    """Of all blocks that are commands, and between backquotes."""
    found = []
    for page, text in PAGES.items():
        lines = [line for language, code in blocks(text) if language == "sh" for line in code.splitlines()]
        prose = re.sub(r"^```.*\n(?:.*\n)*?```$", "", text, flags=re.MULTILINE)
        lines += re.findall(r"`(fastac [^`]+)`", prose)
        found += [pytest.param(line, id=f"{page}: {line}") for line in lines if line.startswith("fastac ")]
    return found


@pytest.mark.parametrize("command", commands())
def test_commands_exist(command):
    """With all their options, whatever their values."""
    words = re.split(r" +#| \(", command)[0].split()[1:]
    found, context = main, click.Context(main)
    while isinstance(found, click.Group) and words and not words[0].startswith("-"):
        _, found, words = found.resolve_command(context, words)
    known = {name for option in found.get_params(context) for name in (*option.opts, *option.secondary_opts)}
    assert {word for word in words if word.startswith("-")} <= known


def test_names_and_defaults_beside_those_of_stable_baselines3():
    table = PAGES["docs/tutorials/from_sb3.md"].split("## Names of the constructor")[1].split("\n\n")[1]
    shown = dict(re.findall(r"`(\w+)=([^`]+)`", "".join(row.split(" | ")[1] for row in table.splitlines())))
    defaults = fastac.A2CConfig().to_dict()
    assert len(shown) > 15
    assert {name: eval(value) for name, value in shown.items()} == {name: defaults[name] for name in shown}
