"""Charts: series over three x-axes in, a figure with one SVG for each axis and a table of the same numbers out."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fastac.compare import plots
from fastac.metrics import Floats
from fastac.report.parts import Html, element, escaped, joined, shown, table

if TYPE_CHECKING:
    from fastac.compare.plots import Axes

AXES = {"env_steps": "env steps", "updates": "updates", "wall_s": "seconds of training"}
SLOTS = 6  # colours and dashes that page.css knows
_DASHES: tuple[tuple[float, ...], ...] = ((), (5, 2), (1, 1.5), (6, 1.5, 1, 1.5), (3, 3), (8, 2))
_SIZE_IN = (4.6, 2.9)  # small, so that its text can be read on a phone
_TABLE_ROWS = 12
_FEW_POINTS = 8  # that are marked, so that the lines between them are no measurements
# Colours that stand for variables of page.css: one picture serves light, dark and paper.
_INK, _SLOT = "#fe00ff", "#fe000{}"
_LONG = re.compile(r"-?\d+\.\d{3,}")


@dataclass(frozen=True)
class Series:
    """One line of a chart, and the band around it.

    Attributes:
        key: of the checkbox that hides the line; `band_keys`: of those that hide the band.
        slot: its colour and dashes.
        x, y, low, high: float64[n] for each of AXES, NaN where unknown.
        censored: where on the x-axis runs ended that never were solved.
    """

    key: str
    label: str
    slot: int
    x: Mapping[str, Floats]
    y: Mapping[str, Floats]
    low: Mapping[str, Floats] | None = None
    high: Mapping[str, Floats] | None = None
    band_keys: Sequence[str] = ()
    band_label: str = ""
    steps: bool = False
    censored: Mapping[str, Floats] | None = None


@dataclass(frozen=True)
class Chart:
    """What one figure shows. `levels`: horizontal lines. `top`: upper end of the y-axis where it is known."""

    key: str
    title: str
    unit: str
    series: Sequence[Series]
    note: str = ""
    levels: Sequence[float] = ()
    top: float | None = None
    zero: bool = True


def figure(chart: Chart) -> Html:
    """The chart with its legend, its text alternative and its table; a sentence where there is nothing to draw."""
    its = [one for one in chart.series if any(np.isfinite(y).any() for y in one.y.values())]
    caption = element("figcaption", element("h3", chart.title), _legend(its))
    note = element("p", chart.note, class_="note") if chart.note else ""
    if not its:
        return element("figure", caption, element("p", "Nothing was logged to draw.", class_="empty"), note)
    pictures = [
        element("div", _picture(chart, its, axis), class_=f"axis axis-{axis.replace('_', '-')}") for axis in AXES
    ]
    return element("figure", caption, *pictures, note, _numbers(chart, its), id=f"figure-{chart.key}")


def figures(charts: Sequence[Chart]) -> Html:
    """Side by side where there is room."""
    return element("div", *map(figure, charts), class_="figures")


def bars(
    key: str,
    title: str,
    labels: Mapping[str, str],
    columns: Mapping[str, Sequence[float]],
    stacked: Sequence[str],
    x_label: str,
    note: str,
) -> Html:
    """A histogram: one bar for each label, of those of the columns that are `stacked`, SLOTS at most.

    The table below it has all columns, of which the first is the whole. `labels`: under a bar, and what it means.
    """
    shares, *_ = columns.values()

    def draw(ax: Axes) -> None:
        floor = np.zeros(len(labels))
        for slot, name in enumerate(stacked):
            ax.bar(range(len(labels)), columns[name], bottom=floor, color=_SLOT.format(slot), width=0.8)
            floor = floor + columns[name]
        ax.set_xticks(range(len(labels)), list(labels), fontsize=7.5)
        ax.set_xlabel(f"{x_label}, from .. on")
        ax.yaxis.set_major_formatter(lambda y, _: f"{y:g} %")
        ax.grid(False, axis="x")

    most = int(np.argmax(shares))
    told = f"Bars. Most, {shares[most]:.1f} %, lie at {list(labels.values())[most]}."
    rows = [[label, *(f"{column[i]:.2f} %" for column in columns.values())] for i, label in enumerate(labels.values())]
    numbers = element("details", element("summary", "Numbers"), table(title, [x_label, *columns], rows), class_="data")
    return _still(key, title, draw, told, stacked if len(stacked) > 1 else (), note, numbers)


def marks(
    key: str,
    title: str,
    labels: Sequence[str],
    rows: Mapping[str, Sequence[tuple[float, float, float]]],
    x_label: str,
    unit: str,
    note: str,
    *,
    zero: bool = False,
) -> Html:
    """Values with their intervals, (value, low, high) for each label, NaN where unknown; SLOTS rows at most.

    `zero`: the y-axis begins there.
    """

    def draw(ax: Axes) -> None:
        for slot, its in enumerate(rows.values()):
            aside = np.arange(len(labels)) + 0.16 * (slot - (len(rows) - 1) / 2)
            values, lows, highs = np.array(its, np.float64).reshape(-1, 3).T
            color = _SLOT.format(slot)
            ax.plot(aside, values, marker="o", ms=5, lw=1.4, color=color, dashes=_DASHES[slot] or (None, None))
            ax.vlines(aside, lows, highs, color=color, lw=1.4)
        ax.set_xticks(range(len(labels)), list(labels), fontsize=7.5)
        ax.set_xlabel(x_label)
        ax.set_ylabel(unit)
        ax.yaxis.set_major_formatter(lambda value, _: _tick(value))
        if zero:
            ax.set_ylim(bottom=0)

    told = " ".join(
        f"{name}: " + ", ".join(f"{shown(one[0])} at {at}" for at, one in zip(labels, its, strict=True)) + "."
        for name, its in rows.items()
    )
    return _still(key, title, draw, told, tuple(rows), note, lines=True)


def _still(
    key: str,
    title: str,
    draw: Callable[[Axes], None],
    told: str,
    names: Sequence[str],
    note: str,
    numbers: Html | str = "",
    *,
    lines: bool = False,
) -> Html:
    """A figure with one picture, whose axes cannot be switched. `names`: the legend, in the order of the slots."""
    picture = _inline(plots.as_svg(draw, key, _SIZE_IN, _INK), key, title, told)
    entries = [element("span", swatch(slot, band=not lines), name) for slot, name in enumerate(names)]
    legend = element("p", *entries, class_="legend" if lines else "legend solid") if names else ""
    caption = element("figcaption", element("h3", title), legend)
    return element("figure", caption, picture, element("p", note, class_="note"), numbers, id=f"figure-{key}")


def swatch(slot: int, *, band: bool = False) -> Html:
    """A piece of the line, for a legend."""
    mark = (
        Html('<path d="M0 1H28V11H0Z" class="fill"/>')
        if band
        else element("path", d="M0 6H28", stroke_dasharray=" ".join(str(1.8 * dash) for dash in _DASHES[slot % SLOTS]))
    )
    return element("svg", mark, class_=f"swatch slot-{slot % SLOTS}", viewBox="0 0 28 12", aria_hidden="true")


def _classes(keys: Sequence[str]) -> str:
    return " ".join(f"series-{key}" for key in keys)


def _legend(series: Sequence[Series]) -> Html:
    entries = []
    for one in series:
        entries.append(element("span", swatch(one.slot), one.label, class_=f"series-{one.key}"))
        if one.band_label:
            mark = swatch(one.slot, band=True)
            entries.append(element("span", mark, one.band_label, class_=_classes(one.band_keys)))
    return element("p", *entries, class_="legend")


def _picture(chart: Chart, series: Sequence[Series], axis: str) -> Html:
    name = f"{chart.key}-{axis.replace('_', '-')}"
    svg = plots.as_svg(_painter(chart, series, axis), name, _SIZE_IN, _INK)
    told = " ".join(_in_words(one, axis) for one in series)
    return _inline(svg, name, f"{chart.title} over {AXES[axis]}", told)


def _painter(chart: Chart, series: Sequence[Series], axis: str) -> Callable[[Axes], None]:
    def draw(ax: Axes) -> None:
        for one in series:
            color, kind = _SLOT.format(one.slot % SLOTS), "steps-post" if one.steps else "default"
            x, y = one.x[axis], one.y[axis]
            if one.low is not None and one.high is not None:
                band = ax.fill_between(x, one.low[axis], one.high[axis], color=color, alpha=0.18, lw=0)
                band.set_gid(_classes(one.band_keys))
            dashes = (None, None) if not _DASHES[one.slot % SLOTS] else _DASHES[one.slot % SLOTS]
            (line,) = ax.plot(x, y, color=color, lw=1.6, dashes=dashes, drawstyle=kind, gid=f"series-{one.key}")
            if np.isfinite(y).sum() <= _FEW_POINTS:
                line.set_marker("o")
            if one.censored is not None and len(one.censored[axis]):
                at = one.censored[axis]
                heights = y[np.maximum(np.searchsorted(x, at, side="right") - 1, 0)]
                ax.plot(at, heights, "|", color=color, ms=9, mew=1.6, gid=f"series-{one.key}")
        for level in chart.levels:
            ax.axhline(level, color=_INK, lw=0.8, ls=":")
        ax.set_xlabel(AXES[axis])
        ax.set_ylabel(chart.unit)
        ax.set_xlim(left=0)
        ax.set_ylim(bottom=0 if chart.zero else None, top=chart.top)
        ax.locator_params(nbins=5)
        for its in (ax.xaxis, ax.yaxis):
            its.set_major_formatter(lambda value, _: _tick(value))

    return draw


def _tick(value: float) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{round(value, 9):g}"


def _in_words(one: Series, axis: str) -> str:
    x, y = one.x[axis], one.y[axis]
    known = np.flatnonzero(np.isfinite(y))
    if len(known) == 0:
        return f"{one.label}: nothing known."
    first, last = known[0], known[-1]
    return (
        f"{one.label}: from {shown(float(y[first]))} at {shown(float(x[first]))} {AXES[axis]} to "
        f"{shown(float(y[last]))} at {shown(float(x[last]))}; smallest {shown(float(np.nanmin(y)))}, "
        f"largest {shown(float(np.nanmax(y)))}."
    )


def _numbers(chart: Chart, series: Sequence[Series]) -> Html:
    """At most _TABLE_ROWS rows of each series, the first and the last among them."""
    tables = []
    for axis, unit in AXES.items():
        rows = []
        for one in series:
            known = np.flatnonzero(np.isfinite(one.y[axis]))
            chosen = known[np.unique(np.linspace(0, len(known) - 1, min(_TABLE_ROWS, len(known))).astype(int))]
            for i in chosen:
                ends = [float(end[axis][i]) if end is not None else float("nan") for end in (one.low, one.high)]
                rows.append([one.label, float(one.x[axis][i]), float(one.y[axis][i]), *ends])
        columns = ["", unit, chart.unit, "lower end", "upper end"]
        if all(one.low is None for one in series):
            columns, rows = columns[:3], [row[:3] for row in rows]
        its = table(f"{chart.title} over {unit}", columns, rows)
        tables.append(element("div", its, class_=f"axis axis-{axis.replace('_', '-')}"))
    return element("details", element("summary", "Numbers"), *tables, class_="data")


def _inline(svg: str, name: str, title: str, told: str) -> Html:
    """matplotlib's document as a part of a page: no addresses, no identifiers but its own, colours by name."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", body, flags=re.DOTALL)
    (box,) = re.findall(r'viewBox="[^"]*"', body[: body.index(">")])
    body = body[body.index(">") + 1 : body.rindex("</svg>")]
    body = re.sub(r'<g id="(series-[^"]*)"', r'<g class="\1"', body)
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    body = body.replace("xlink:href", "href").replace(_INK, "var(--ink)")
    body = re.sub(_SLOT.format(r"(\d)"), r"var(--slot-\1)", body)
    body = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", body)
    body = re.sub(r"<[^>]*>", lambda tag: _LONG.sub(lambda found: f"{float(found[0]):.1f}", tag[0]), body)  # no text
    body = re.sub(r"\s*\n\s*", " ", body)
    named = f'role="img" aria-labelledby="{name}-title {name}-desc"'
    words = joined([element("title", title, id=f"{name}-title"), element("desc", escaped(told), id=f"{name}-desc")])
    return Html(f"<svg {box} {named}>{words}{body}</svg>")
