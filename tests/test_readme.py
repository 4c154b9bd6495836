"""What the README shows works as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[1] / "README.md"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.DOTALL)


def test_the_python_example(tmp_path):
    (code,) = blocks("python")
    assert "total_timesteps=100_000" in code
    shorter = code.replace("total_timesteps=100_000", "total_timesteps=3_000")
    done = subprocess.run([sys.executable, "-c", shorter], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "pushed =" in done.stdout and (tmp_path / "a3c.safetensors").exists()


def test_links_lead_somewhere():
    targets = re.findall(r"\]\(([^)#]+)\)", README.read_text())
    assert len(targets) > 10
    for target in targets:
        assert (README.parent / target).exists(), target


@pytest.mark.parametrize(
    "command", [line for block in blocks("") for line in block.splitlines() if line.startswith("fastac ")]
)
def test_commands_exist(command):
    words = command.split("#")[0].split()[1:]
    done = subprocess.run([sys.executable, "-m", "fastac", *words, "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("Usage:"), command
