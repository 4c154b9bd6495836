"""The core's own tests, plain and under sanitizers. Proof that they catch what they are there for: gates/mutants.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from mutants import MUTANTS, judge
from mutants_schedules import WEAKER_WOULD_DO
from toolchain import COMPILER, ROOT, SANITIZERS, build, must_run, unusable


@pytest.mark.parametrize("preset", list(SANITIZERS))
def test_core(preset: str, tmp_path: Path) -> None:
    assert unusable("plain") == "", f"{COMPILER} does not work: {unusable('plain')}"
    if unusable(preset):
        pytest.skip(f"{COMPILER} cannot build or run a trivial program here: {unusable(preset)}")
    build(preset, tmp_path)
    listed = must_run(["ctest", "--test-dir", tmp_path, "--output-on-failure", "--parallel", "2"])
    for source in [*(ROOT / "cpp" / "tests").glob("test_*.cpp"), *(ROOT / "cpp" / "gates").glob("gate_*.cpp")]:
        assert source.stem in listed, f"{source.name} is in no list of tests"


def test_a_mutant_is_caught() -> None:
    """One of them, so that the machinery cannot rot; `python tests/gates/mutants.py` runs all."""
    verdict = judge(next(mutant for mutant in MUTANTS if mutant.name == "published before the payload, by a test"))
    assert verdict.caught, verdict.words


def test_mutants_fit_the_headers() -> None:
    for mutant in [*MUTANTS, *(weaker for weaker, _ in WEAKER_WOULD_DO)]:
        for header, old, _ in mutant.changes:
            text = (ROOT / "cpp" / "include" / "fastac" / header).read_text()
            assert text.count(old) == 1, f"{mutant.name}: {header} holds this {text.count(old)} times: {old}"
