"""Numbers of things in words, for messages, tables and pictures."""

from __future__ import annotations


def counted(n: int, many: str, one: str | None = None) -> str:
    """(1, "seeds") -> "1 seed", (2000, "seeds") -> "2,000 seeds". `one`: after 1, if not `many` without s."""
    return f"{n:,} {many if n != 1 else many.removesuffix('s') if one is None else one}"
