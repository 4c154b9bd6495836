"""For all tests: Ctrl-C works, also where the shell started pytest in the background and had SIGINT ignored; and
nothing is left behind."""

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
