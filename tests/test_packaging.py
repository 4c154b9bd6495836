"""What a release is made of, and who is told that it does not run there."""

import re
from pathlib import Path

import pytest
from toolchain import ROOT, run

from fastac.cli.configuration import tomllib

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.mark.parametrize(("system", "words"), [("Windows", "WSL2"), ("Darwin", "does not run on Darwin")])
def test_other_systems_are_told_before_they_look_for_a_compiler(system: str, words: str, tmp_path: Path) -> None:
    told = run(["cmake", "-S", ROOT, "-B", tmp_path, f"-DCMAKE_SYSTEM_NAME={system}"])
    assert told.returncode != 0
    assert words in told.stdout and "docs/portability.md" in told.stdout and "compiler" not in told.stdout


def test_the_same_pythons_are_named_everywhere() -> None:
    named = "\n".join(PROJECT["project"]["classifiers"])
    minors = [int(minor) for minor in re.findall(r"Python :: 3\.(\d+)", named)]
    assert minors == list(range(minors[0], minors[-1] + 1))
    assert PROJECT["project"]["requires-python"] == f">=3.{minors[0]}"
    assert PROJECT["tool"]["cibuildwheel"]["build"] == [f"cp3{minor}-*" for minor in minors]
    for page in ("README.md", "docs/start.md", "docs/portability.md"):
        assert f"Python 3.{minors[0]} to 3.{minors[-1]}" in (ROOT / page).read_text(), page
