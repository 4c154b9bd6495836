"""The core's own tests, plain and under sanitizers, and proof that they catch what they are there for."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
COMPILER = os.environ.get("CXX", "c++")
SANITIZERS = {"plain": None, "tsan": "thread", "asan": "address,undefined"}


def run(command: Sequence[str | Path], **kwargs: object) -> subprocess.CompletedProcess[str]:
    """Runs a command with the cmake and ninja of this environment first on the path."""
    folders = []
    try:
        import cmake

        folders.append(cmake.CMAKE_BIN_DIR)
    except ImportError:
        pass
    try:
        import ninja

        folders.append(ninja.BIN_DIR)
    except ImportError:
        pass
    env = {**os.environ, "PATH": os.pathsep.join([*folders, os.environ["PATH"]])}
    return subprocess.run(
        [str(word) for word in command],
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        errors="replace",
        **kwargs,
    )


def must_run(command: Sequence[str | Path], **kwargs: object) -> str:
    done = run(command, **kwargs)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}"
    return done.stdout


def sanitizer_flags(sanitizer: str | None) -> list[str]:
    if sanitizer is None:
        return ["-O2"]
    # g++'s ThreadSanitizer does not see an inlined memcpy.
    return ["-O1", "-g", f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all", "-fno-builtin-memcpy"]


@pytest.fixture(scope="session")
def usable_sanitizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Why a sanitizer cannot be used here, by its name; empty: it can."""
    folder = tmp_path_factory.mktemp("sanitizers")
    source = folder / "trivial.cpp"
    source.write_text("int main() { return 0; }\n")
    reasons = {}
    for name, sanitizer in SANITIZERS.items():
        program = folder / name
        done = run([COMPILER, *sanitizer_flags(sanitizer), source, "-o", program])
        if done.returncode == 0:
            done = run([program])
        reasons[name] = "" if done.returncode == 0 else f"exit status {done.returncode}: {done.stdout.strip()}"
    assert reasons["plain"] == "", f"{COMPILER} does not work: {reasons['plain']}"
    return reasons


@pytest.mark.parametrize("preset", list(SANITIZERS))
def test_core(preset: str, usable_sanitizers: dict[str, str], tmp_path: Path) -> None:
    if usable_sanitizers[preset]:
        pytest.skip(f"{COMPILER} cannot build or run a trivial program here: {usable_sanitizers[preset]}")
    must_run(["cmake", "--preset", preset, "-B", tmp_path], cwd=ROOT)
    must_run(["cmake", "--build", tmp_path, "--parallel", "2"])
    listed = must_run(["ctest", "--test-dir", tmp_path, "--output-on-failure"])
    for source in [*(ROOT / "cpp" / "tests").glob("test_*.cpp"), *(ROOT / "cpp" / "gates").glob("gate_*.cpp")]:
        assert source.stem in listed, f"{source.name} is in no list of tests"


class SeededBug(NamedTuple):
    header: str
    replacements: list[tuple[str, str]]
    gate: str  # the test program that must fail
    build: str
    says: str  # and what it must say, so that a crash for another reason does not count; empty: it hangs


PUBLISH = "words.published.store(sequence, std::memory_order_release);"
LOOK = "tag.nonfinite = has_nonfinite("
SEEDED_BUGS = {
    "published without release": SeededBug(
        "grad_buffer.hpp",
        [(PUBLISH, PUBLISH.replace("release", "relaxed"))],
        "test_grad_buffer",
        "tsan",
        "data race",
    ),
    "published before the payload": SeededBug(
        "grad_buffer.hpp",
        [(PUBLISH, ""), (LOOK, PUBLISH + LOOK)],
        "test_grad_buffer",
        "plain",
        "published(0) == 0U",
    ),
    "full ring overwritten": SeededBug(
        "grad_buffer.hpp",
        [
            (
                "published - consumed >= region_->layout().slots",
                "published - consumed > region_->layout().slots",
            )
        ],
        "test_grad_buffer",
        "plain",
        "CHECK failed",
    ),
    "claim ignores hazards": SeededBug(
        "param_store.hpp", [(" && !hazarded(r)", "")], "test_param_store", "plain", "CHECK failed: uniform"
    ),
    "protect does not look again": SeededBug(
        "param_store.hpp",
        [("if (again == word) return word;", "if (again != 0 || word == 0) return word;")],
        "test_every_store",
        "plain",
        "reader.is_current(seen)",
    ),
    "learner signals after its commit only": SeededBug(
        "updates.hpp",
        [
            ("wake_consumed(ParamStore::record_of(base));", ""),
            ("consumed += n;\n            } else", "consumed += n;\n wake_consumed(target);\n } else"),
        ],
        "test_every_store",
        "plain",
        "waited 300 ms for the learner",
    ),
    "commit without release": SeededBug(
        "param_store.hpp",
        [
            (
                "current.compare_exchange_strong(base, next, std::memory_order_seq_cst)",
                "current.compare_exchange_strong(base, next, std::memory_order_relaxed)",
            )
        ],
        "test_param_store",
        "tsan",
        "data race",
    ),
    "pool too small": SeededBug(
        "layout.hpp",
        [("records(2 * (c.workers + 2) + 2)", "records(2 * (c.workers + 2))")],
        "test_param_store",
        "plain",
        "",  # a claim that never ends
    ),
    "log row published without release": SeededBug(
        "event_log.hpp",
        [
            (
                "words.log_written.store(written + 1, std::memory_order_release);",
                "words.log_written.store(written + 1, std::memory_order_relaxed);",
            )
        ],
        "test_event_log",
        "tsan",
        "data race",
    ),
    "another's gradient consumed but not applied": SeededBug(
        "updates.hpp",
        [("if (tag.nonfinite) {", "if (tag.nonfinite || (w > seat_ && n > 2)) {")],
        "test_updates",
        "plain",
        "CHECK failed",
    ),
    "reap forgets what was begun": SeededBug(
        "updates.hpp",
        [("words.aborted.store(words.begun.load(std::memory_order_relaxed) - ", "words.aborted.store(0 * ")],
        "test_every_store",
        "plain",
        "l.published + l.aborted",
    ),
}


@pytest.mark.parametrize("name", list(SEEDED_BUGS))
def test_seeded_bug_is_caught(name: str, usable_sanitizers: dict[str, str], tmp_path: Path) -> None:
    bug = SEEDED_BUGS[name]
    if usable_sanitizers[bug.build]:
        pytest.skip(f"{COMPILER} cannot build or run a trivial program here: {usable_sanitizers[bug.build]}")
    shutil.copytree(ROOT / "cpp" / "include" / "fastac", tmp_path / "fastac")
    header = tmp_path / "fastac" / bug.header
    text = header.read_text()
    for old, new in bug.replacements:
        assert text.count(old) == 1, f"{bug.header} holds this {text.count(old)} times, expected once: {old}"
        text = text.replace(old, new)
    header.write_text(text)

    program = tmp_path / bug.gate
    source = ROOT / "cpp" / "tests" / f"{bug.gate}.cpp"
    flags = [
        "-std=c++20",
        "-pthread",
        "-ffp-contract=off",
        "-fno-math-errno",
        *sanitizer_flags(SANITIZERS[bug.build]),
    ]
    must_run([COMPILER, *flags, "-I", tmp_path, "-I", source.parent, source, "-o", program])
    for _ in range(5):  # a race shows itself in nearly every run, not in every one
        try:
            done = run([program], timeout=60 if bug.says else 5)
        except subprocess.TimeoutExpired:
            assert not bug.says
            return
        if done.returncode != 0:
            assert bug.says and bug.says in done.stdout, done.stdout[-3000:]
            return
    pytest.fail(f"{bug.gate} passed five times with this bug: {name}")
