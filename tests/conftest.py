"""For all tests: Ctrl-C works, also where the shell started pytest in the background and had SIGINT ignored; nothing is
left behind; and `--shuffle=SEED` runs them in a random order. In that a module's fixtures are made again and again:
those that take long are of the session."""

import random
import signal
from collections.abc import Iterator

import leftovers
import pytest

signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    before = leftovers.look()
    yield
    left = leftovers.left_since(before)
    if left:
        pytest.fail("left behind by this test:\n" + "\n".join(left), pytrace=False)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--shuffle", type=int, help="run the tests in a random order, drawn from this seed")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    seed = config.getoption("--shuffle")
    if seed is not None:
        random.Random(seed).shuffle(items)
