"""A wrong version of the core, and the gate that must notice it."""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """`changes`: (header, a text that stands in it once, what takes its place), in this order."""

    name: str
    changes: tuple[tuple[str, str, str], ...]
    gate: str  # the program that must fail
    build: str = "plain"  # or tsan, asan
    says: str = "CHECK failed"  # so that a crash for another reason does not count; empty: it never ends
    arguments: tuple[str, ...] = ()
