"""The words of a page: text is escaped here, and nowhere is it put into a page unescaped."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from typing import Any


class Html(str):
    """Markup. Everything else is text, and is escaped when it becomes markup."""


def escaped(value: object) -> Html:
    return value if isinstance(value, Html) else Html(html.escape(str(value)))


def joined(pieces: Iterable[object]) -> Html:
    return Html("".join(escaped(piece) for piece in pieces))


def element(tag: str, *content: object, **attributes: object) -> Html:
    """<tag attribute="...">content</tag>; `class_` is the attribute class, `a_b` the attribute a-b."""
    named = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"' for name, value in attributes.items()
    )
    return Html(f"<{tag}{named}>{joined(content)}</{tag}>")


def section(name: str, title: str, *content: object) -> Html:
    heading = element("h2", title, id=f"{name}-title")
    return element("section", heading, *content, id=name, aria_labelledby=f"{name}-title")


def table(caption: str, columns: Sequence[object], rows: Iterable[Sequence[object]]) -> Html:
    """The first column names its row. It scrolls by itself where the page is narrow."""
    head = element("tr", *(element("th", column, scope="col") for column in columns))
    body = [element("tr", element("th", first, scope="row"), *map(_cell, rest)) for first, *rest in rows]
    whole = element("table", element("caption", caption), element("thead", head), element("tbody", *body))
    return element("div", whole, class_="scroll", tabindex="0", role="region", aria_label=caption)


def _cell(value: object) -> Html:
    return element("td", shown(value) if isinstance(value, (int, float)) else value)


def shown(value: Any) -> str:
    """A number for people: 59,424; 0.0334; a dash where it is not known."""
    if isinstance(value, bool) or value is None or not isinstance(value, (int, float)):
        return "-" if value is None else str(value)
    if math.isnan(value):
        return "-"
    if math.isinf(value):
        return "unsolved"
    if float(value).is_integer() or abs(value) >= 1e5:
        return f"{value:,.0f}"
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"
