"""The fixture of conftest.py that looks after every test: it finds what was left behind, and nothing else."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import leftovers
import pytest

HERE = Path(__file__).parent
TESTS = """
import os, subprocess, sys, threading, time
from pathlib import Path
import leftovers, pytest
from fastac import _core

leftovers.GRACE_S = 0.3
leftovers.SHARED_FILES = Path("shared")  # a file in the real place would be blamed on whatever test runs meanwhile
leftovers.SHARED_FILES.mkdir()
kept = []
SLEEP = [sys.executable, "-c", "import time; time.sleep(20)"]

def test_child():
    kept.append(subprocess.Popen(SLEEP))

def test_zombie():
    kept.append(subprocess.Popen([sys.executable, "-c", ""]))

def test_grandchild_without_a_parent():
    code = f"import subprocess; subprocess.Popen({SLEEP!r}, start_new_session=True)"
    subprocess.run([sys.executable, "-c", code], check=True)

def test_orphaned_fork():
    child = os.fork()
    if child == 0:
        if os.fork() == 0:
            time.sleep(20)
        os._exit(0)
    os.waitpid(child, 0)

def test_thread():
    threading.Thread(target=time.sleep, args=(20,), name="fastac-learner", daemon=True).start()

def test_descriptor():
    kept.append(os.open("/dev/null", os.O_RDONLY))

def test_shared_file():
    (leftovers.SHARED_FILES / "fastac-1").touch()

def test_mapping():
    region = _core.Region.create(workers=1, parameters=1)
    kept.append(_core.Session(region, 0))

def test_nothing_that_stays():
    class Loop:
        pass
    loop = Loop()
    loop.loop, loop.region = loop, _core.Region.create(workers=1, parameters=1)
    threading.Thread(target=time.sleep, args=(0.1,), name="fastac-soon-gone").start()
    subprocess.run(SLEEP[:2] + [""])

def test_tidy_up():
    (leftovers.SHARED_FILES / "fastac-1").unlink()
    for thing in leftovers._processes():
        os.kill(thing[1], 9)
"""


@pytest.fixture(scope="session")
def summary(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("nested")
    for name in ("conftest.py", "leftovers.py"):
        shutil.copy(HERE / name, folder)
    (folder / "test_bad.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-c", "/dev/null", "--rootdir", ".", "-p", "no:cacheprovider"]
    done = subprocess.run([*command, "test_bad.py"], cwd=folder, text=True, capture_output=True)
    assert "10 passed, 8 errors" in done.stdout, done.stdout
    return done.stdout


@pytest.mark.parametrize(
    ("test", "words"),
    [
        ("child", "time.sleep(20)"),
        ("zombie", "state Z"),
        ("grandchild_without_a_parent", "time.sleep(20)"),
        ("orphaned_fork", "pytest"),
        ("thread", "thread fastac-learner"),
        ("descriptor", "/dev/null"),
        ("shared_file", "shared/fastac-1"),
        ("mapping", "memfd:fastac"),
    ],
)
def test_what_is_left_behind_is_found(summary: str, test: str, words: str) -> None:
    said = summary.split(f"ERROR at teardown of test_{test} ")[1].split("ERROR at teardown")[0]
    assert "left behind by this test" in said
    assert words in said.split("short test summary")[0]


def test_where_it_looks_for_files():
    assert Path("/dev/shm") == leftovers.SHARED_FILES


MAPS = """
import mmap, os, sys, time
with open(sys.argv[1], "w+b") as file:
    file.truncate(4096)
    mapped = mmap.mmap(file.fileno(), 4096)
    print(os.getpid(), flush=True)
    time.sleep(60)
"""


def test_what_another_process_maps_is_its_own(tmp_path):
    """One that is neither our child nor has our marks; without it the file is somebody's who left it behind."""
    file = Path(f"/dev/shm/not-ours-{os.getpid()}")
    command = ["setsid", "--fork", sys.executable, "-c", MAPS, str(file)]
    with subprocess.Popen(command, env={}, stdout=subprocess.PIPE) as starter:
        pid = int(starter.stdout.readline())
    assert file.exists() and ("file", file.name) not in leftovers.look()
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while ("file", file.name) not in leftovers.look():  # until the process is gone
        assert time.monotonic() < deadline
    file.unlink()


@pytest.mark.parametrize("test", ["nothing_that_stays", "tidy_up"])
def test_what_goes_away_is_not_blamed(summary: str, test: str) -> None:
    assert f"ERROR at teardown of test_{test} " not in summary
