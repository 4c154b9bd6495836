"""What the site makes of the pages: links that leave docs/ become names, pictures open in full size, and the tables of
hyper-parameters are filled in.

Where the repository is browsed, links to the code work as they stand; the site holds docs/ alone.
"""

from __future__ import annotations

import dataclasses
import posixpath
import re
from typing import Any

import fastac
from fastac.config import Config, spec_of

_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)")
_PICTURE = re.compile(r"!\[[^\]]*\]\(([^)\s]+)\)")
_FIELDS = re.compile(r"<!-- fields of (\w+) -->")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Called by MkDocs with the text of each page."""
    markdown = _LINK.sub(lambda link: _named(link, page.file.src_uri), markdown)
    markdown = _PICTURE.sub(r"[\g<0>](\1)", markdown)
    return _FIELDS.sub(lambda mark: table_of_fields(getattr(fastac, mark[1])), markdown)


def _named(link: re.Match[str], page: str) -> str:
    """A link that leaves docs/ as the path it leads to, in the repository."""
    text, target = link.groups()
    path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), target))
    if ":" in target or path.startswith("docs/"):
        return link[0]
    return f"`{path}`" if text.strip("`") in path else f"{text} (`{path}`)"


def table_of_fields(config_type: type[Config]) -> str:
    """The fields that a config declares itself, as a Markdown table."""
    own = [field for field in dataclasses.fields(config_type) if field.name in config_type.__annotations__]
    head = "| name | default | meaning | range [unit] |\n| --- | --- | --- | --- |\n"
    return head + "\n".join(_row(field) for field in own)


def _row(field: dataclasses.Field[Any]) -> str:
    spec, declared = spec_of(field), str(field.type)
    range_ = "True or False" if declared == "bool" else spec.allowed()
    each = "each " if declared.startswith("tuple") else ""
    unit = f" [{spec.unit}]" if spec.unit else ""
    cells = (f"`{field.name}`", f"`{field.default!r}`", spec.help, each + range_ + unit)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
