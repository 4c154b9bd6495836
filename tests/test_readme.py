"""What the README and the pages with code show works as it stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README, INTEROP = ROOT / "README.md", ROOT / "docs" / "interop.md"
PAGES = [README, INTEROP]


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def run(code, folder):
    """With a training that is shorter than the one shown."""
    shorter = re.sub(r"total_timesteps=[\d_]+", "total_timesteps=3_000", code)
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}  # torch's would wait for each other, and for other tests
    done = subprocess.run([sys.executable, "-c", shorter], cwd=folder, capture_output=True, text=True, env=one_thread)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_python_example(tmp_path):
    (code,) = blocks(README, "python")
    assert "total_timesteps=100_000" in code
    assert "pushed =" in run(code, tmp_path) and (tmp_path / "a3c.safetensors").exists()


@pytest.mark.parametrize("code", blocks(INTEROP, "python"))
def test_the_code_of_interop(code, tmp_path):
    printed = run(code, tmp_path)
    assert bool(printed.strip()) == ("print(" in code)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    assert len(targets) >= 5
    for target in targets:
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize(
    "command", [line for block in blocks(README, "") for line in block.splitlines() if line.startswith("fastac ")]
)
def test_commands_exist(command):
    words = command.split("#")[0].split()[1:]
    done = subprocess.run([sys.executable, "-m", "fastac", *words, "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("Usage:"), command
