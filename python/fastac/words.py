"""Words for messages, tables and pictures: numbers of things, and names that are not known."""

from __future__ import annotations

from collections.abc import Iterable


def counted(n: int, many: str, one: str | None = None) -> str:
    """(1, "seeds") -> "1 seed", (2000, "seeds") -> "2,000 seeds". `one`: after 1, if not `many` without s."""
    return f"{n:,} {many if n != 1 else many.removesuffix('s') if one is None else one}"


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """("key", "gama", ...) -> "expected a known key, got gama: did you mean gamma?"; or, none being near, all."""
    from difflib import get_close_matches  # not needed where nothing is wrong

    known = list(known)
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
    return f"expected a known {what}, got {name}: {hint}"
