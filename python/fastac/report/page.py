"""One file of HTML: no script, no network, everything escaped. In: a Page. Out: its text, in ASCII."""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Template

from fastac._core import __version__
from fastac.report.drawing import AXES, SLOTS, swatch
from fastac.report.parts import Html, element, escaped, joined

_THEMES = {"auto": "as the system", "light": "light", "dark": "dark"}


@dataclass(frozen=True)
class Page:
    """What stands on a page. `hideable`: the label of each series that has a checkbox, by its key. `axes`: whether its
    figures have x-axes to choose from."""

    title: str
    body: Sequence[Html]
    hideable: Mapping[str, str]
    axes: bool = True


def to_html(page: Page) -> str:
    """The whole file; characters beyond ASCII as references, so that no encoding can spoil them."""
    here = importlib.resources.files("fastac.report")
    style = (here / "page.css").read_text(encoding="ascii") + _hiding(page.hideable)
    text = Template((here / "page.html").read_text(encoding="ascii")).substitute(
        title=escaped(page.title), style=style, controls=_controls(page), body=joined(page.body), version=__version__
    )
    return text.encode("ascii", "xmlcharrefreplace").decode()


def _hiding(hideable: Mapping[str, str]) -> str:
    """Without a script: what is not chosen is not displayed."""
    axes = [axis.replace("_", "-") for axis in AXES]
    rules = [f":root:has(#axis-{a}:checked) .axis:not(.axis-{a}) {{ display: none }}" for a in axes]
    rules += [f":root:has(#show-{key}:not(:checked)) .series-{key} {{ display: none }}" for key in hideable]
    return "\n".join(rules)


def _controls(page: Page) -> Html:
    axes = [_choice("radio", "axis", f"axis-{a.replace('_', '-')}", name, a == "env_steps") for a, name in AXES.items()]
    shown = []
    for slot, (key, label) in enumerate(page.hideable.items()):
        mark = swatch(SLOTS - 1, band=True) if key == "band" else swatch(slot % SLOTS)
        shown.append(_choice("checkbox", f"show-{key}", f"show-{key}", joined([mark, label]), True))
    themes = [_choice("radio", "theme", f"theme-{key}", name, key == "auto") for key, name in _THEMES.items()]
    groups = {"x-axis": axes if page.axes else [], "show": shown, "colours": themes}
    return joined([_group(name, choices) for name, choices in groups.items() if choices])


def _group(name: str, choices: Sequence[Html]) -> Html:
    return element("fieldset", element("legend", name), *choices)


def _choice(kind: str, name: str, key: str, label: object, checked: bool) -> Html:
    mark = " checked" if checked else ""
    return element("label", Html(f'<input type="{kind}" name="{name}" id="{key}"{mark}>'), element("span", label))
