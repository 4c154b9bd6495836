"""One of a thing, and more of them."""

import pytest

from fastac import machine
from fastac.shared import Ledger
from fastac.words import counted


@pytest.mark.parametrize(
    ("n", "words", "text"),
    [
        (0, ("rounds",), "0 rounds"),
        (1, ("rounds",), "1 round"),
        (2, ("rounds",), "2 rounds"),
        (2000, ("env steps",), "2,000 env steps"),
        (1, ("virtual workers",), "1 virtual worker"),
        (1, ("pushes were", "push was"), "1 push was"),
        (3, ("pushes were", "push was"), "3 pushes were"),
    ],
)
def test_counted(n, words, text):
    assert counted(n, *words) == text


def test_one_is_one_where_people_read_it():
    where = dict.fromkeys(("processor", "python", "torch", "gymnasium", "fastac"), "x") | {"load_1min": 0.0}
    assert machine.summary(where | {"cores": 1}).startswith("x, 1 core, load 0.0; ")
    ledger = Ledger(**dict.fromkeys(Ledger.__dataclass_fields__, 0) | {"deaths": 1, "restarts": 1})
    assert ledger.text().endswith("; 1 death, 1 restart")
