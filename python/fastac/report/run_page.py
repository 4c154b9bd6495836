"""The page of one run. In: a RunSource. Out: its title, its sections and the series that can be hidden."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastac.compare.statistics import curve
from fastac.config import Config
from fastac.metrics import Floats, History, Table, thresholds_of
from fastac.report import books, diagnosis
from fastac.report.commands import CONFIGS, configuration, train_command
from fastac.report.drawing import AXES, Chart, Series, figure, figures
from fastac.report.page import Page
from fastac.report.parts import Html, element, section, shown, table
from fastac.report.reading import RunSource, number, part, parts
from fastac.report.workers import nodes_table, staleness_bars, workers_table
from fastac.words import counted

_POINTS = 150
_CHARTS = (  # column of the table updates, title, unit, zero
    ("grad_norm", "Gradient norm, before clipping", "norm", True),
    ("entropy", "Entropy of the policy", "nats", True),
    ("value_loss", "Value loss", "loss", True),
    ("policy_loss", "Policy loss", "loss", False),
    ("explained_variance", "Explained variance of the values", "share", False),
)


def run_page(source: RunSource) -> Page:
    record, history = source.record, source.history
    algorithm = str(record.get("algorithm", "Run"))
    config_type = CONFIGS.get(algorithm, Config)
    solve = record["solve"] if isinstance(record.get("solve"), float) else None
    # A record that was lost is taken for CartPole's, like a config without an env.
    thresholds = thresholds_of(str(part(record, "config").get("env", Config.env)), solve)
    lines = [*source.notices, *interruption(record)]
    body = [
        books.notices(lines),
        _summary(record, history),
        _solved(record, history, thresholds),
        _curves(history, thresholds),
        _staleness(record, history),
        diagnosis.of_folder(source.folder),
        _ledger(record),
        section("configuration", "Configuration", configuration(config_type, part(record, "config"), algorithm)),
        books.where(record),
        _command(record),
    ]
    return Page(f"{algorithm}: {source.folder.resolve().name}", body, {"mean": "mean", "band": "bands"})


def interruption(record: dict[str, Any]) -> list[str]:
    """What became of a run that did not end by itself."""
    status = str(record.get("status", "unknown"))
    done, asked = shown(number(record, "num_timesteps")), shown(number(record, "total_timesteps"))
    if status == "done" or not record:
        lines = []
    elif status == "running":
        lines = ["This run has not ended: it was still going on when this page was made, or it was killed."]
    else:
        lines = [f"This run was interrupted ({status}): {done} of {asked} env steps were done."]
    if earlier := len(parts(record, "earlier_parts")):
        lines.append(
            f"Interrupted and resumed: {counted(earlier, 'earlier parts')}. Ledger and machine are those of the latest."
        )
    return lines


def _summary(record: dict[str, Any], history: History) -> Html:
    wall_s = float(history.updates["wall_s"][-1]) if len(history.updates["wall_s"]) else float("nan")
    done = number(record, "num_timesteps")
    return section(
        "summary",
        "Summary",
        books.facts(
            {
                "status": record.get("status", "unknown"),
                "env steps": shown(done),
                "updates": shown(number(record, "version")),
                "seconds of training": shown(wall_s),
                "env steps per second": shown(round(done / wall_s) if wall_s > 0 and done == done else float("nan")),
                "return, last 100 episodes": shown(history.final_return()),
                "episodes": shown(len(history.episodes["wall_s"])),
            }
        ),
    )


def _solved(record: dict[str, Any], history: History, thresholds: tuple[float, ...]) -> Html:
    if not thresholds:  # of this env no return is known that solves it
        return Html("")
    rows: list[list[object]] = []
    for threshold in thresholds:
        when = part(record, f"solved_{threshold:g}") or history.time_to(threshold) or {}
        ends = [number(when, name) if when else "not in this run" for name in AXES]
        rows.append([f"mean return {threshold:g}", *ends, number(when, "episodes") if when else "-"])
    note = (
        "The mean is over the last 100 episodes. A run that did not get there is censored: it might have, later. "
        "One run of one seed says nothing about an algorithm; fastac compare does."
    )
    return section(
        "solved",
        "Time to solve",
        table("First reached after", ["", *AXES.values(), "episodes"], rows),
        element("p", note),
    )


def _curves(history: History, thresholds: tuple[float, ...]) -> Html:
    clock = history.updates if len(history.updates["wall_s"]) else history.episodes
    if len(clock["wall_s"]) == 0:
        return section("curves", "Learning curves", element("p", "Nothing was logged to draw."))
    if clock is history.episodes:  # the table of updates is damaged: its axes are known from the episodes
        unknown = np.full(len(clock["wall_s"]), np.nan)
        updates = {name: clock.get(name, unknown) for name in history.updates}
        history = dataclasses.replace(history, updates=updates)
    columns = curve(history, int(history.updates["env_steps"][-1]), points=_POINTS)
    grid = columns["env_steps"]
    window = _band_of_windows(history.episodes["episode_return"], columns["episodes"])
    said = "Of the last 100 episodes."
    charts = [
        Chart("return", "Return", "return", [_series(columns, columns["return_mean"], *window)], said, thresholds),
        Chart("return-var", "Variance of the last 100 returns", "variance", [_series(columns, columns["return_var"])]),
    ]
    for name, title, unit, zero in _CHARTS:
        its = _series(columns, columns[name], *_band(history.updates, name, grid))
        charts.append(Chart(name.replace("_", "-"), title, unit, [its], zero=zero))
    pace = _series(columns, throughput(columns))
    charts.append(Chart("throughput", "Throughput", "env steps per second", [pace]))
    note = (
        f"Line: mean over each of {_POINTS} equal stretches of env steps. Band: from the 10th to the 90th percentile "
        "of what was logged in it."
    )
    return section("curves", "Learning curves", element("p", note), figures(charts))


def throughput(columns: Table) -> Floats:
    """Env steps per second since the point before; NaN where the clock did not move."""
    steps, seconds = (np.diff(columns[name], prepend=0.0) for name in ("env_steps", "wall_s"))
    pace: Floats = np.divide(steps, seconds, out=np.full(len(steps), np.nan), where=seconds > 0)
    return pace


def _series(columns: Table, y: Floats, low: Floats | None = None, high: Floats | None = None) -> Series:
    x = {axis: columns[axis] for axis in AXES}
    if low is None or high is None:
        return Series("mean", "mean", 0, x, dict.fromkeys(AXES, y))
    ends = (dict.fromkeys(AXES, low), dict.fromkeys(AXES, high))
    return Series(
        "mean", "mean", 0, x, dict.fromkeys(AXES, y), *ends, band_keys=("band",), band_label="10th to 90th percentile"
    )


def _band_of_windows(returns: Floats, finished: Floats, window: int = 100) -> tuple[Floats, Floats]:
    """The 10th and the 90th percentile of the last returns, at each point; NaN before the first."""
    return _percentiles([returns[max(0, n - window) : n] for n in finished.astype(int)])


def _over(rows: Table, y: Floats) -> Series:
    """At most _POINTS of the known values, each at its own place."""
    known = np.flatnonzero(np.isfinite(y))
    chosen = known[np.unique(np.linspace(0, len(known) - 1, min(_POINTS, len(known))).astype(int))]
    return _series({axis: rows[axis][chosen] for axis in AXES}, y[chosen])


def _band(rows: Table, name: str, grid: Floats) -> tuple[Floats, Floats]:
    """The 10th and the 90th percentile of what was logged in each stretch of env steps; NaN where nothing was."""
    ends = np.searchsorted(rows["env_steps"], grid, side="right")
    return _percentiles([rows[name][begin:end] for begin, end in itertools.pairwise([0, *ends])])


def _percentiles(groups: Sequence[Floats]) -> tuple[Floats, Floats]:
    ends = np.full((2, len(groups)), np.nan)
    for i, group in enumerate(groups):
        known = group[np.isfinite(group)]
        if len(known):
            ends[:, i] = np.quantile(known, [0.1, 0.9])
    return ends[0], ends[1]


def _staleness(record: dict[str, Any], history: History) -> Html:
    """All updates by the ledger; over time by the parent's samples."""
    exact = part(record, "ledger")
    nodes = max(1, len(parts(exact, "nodes")))  # of a cluster: each with workers of its own
    others = len(parts(exact, "workers")) // nodes - 1
    known = others > 0
    usual = (
        f" {others + 1} workers that are equally fast have a mean of {others}; that of a whole run is never above, one "
        "worker's may be."
    ) * known
    said = element(
        "p",
        "Version when a gradient is applied, minus the version its worker had read. By the ledger: mean "
        f"{shown(number(exact, 'staleness_mean'))}, 95 % of them at most {shown(number(exact, 'staleness_p95'))}, "
        f"largest {shown(number(exact, 'staleness_max'))}.{usual}",
    )
    sampled = "Mean over the updates since the sample before. The parent samples every 50 ms."
    course = _over(history.moments, history.moments["staleness_mean"])
    over_time = figure(Chart("staleness", "Staleness over the run", "updates", [course], sampled))
    several = len(parts(exact, "workers")) > 1
    drawn = element("div", staleness_bars(exact), over_time, class_="figures") if several else Html()
    return section("staleness", "Staleness", said, drawn, workers_table(exact), nodes_table(exact))


def _ledger(record: dict[str, Any]) -> Html:
    its = part(record, "ledger")
    if not its:
        return section("ledger", "Ledger", element("p", "Not recorded: the run has not closed its books."))
    balanced, equations = books.balance(its)
    verdict = element("p", f"{'The books balance' if balanced else 'THE BOOKS DO NOT BALANCE'}: {equations}.")
    return section(
        "ledger", "Ledger", verdict, table("Where every gradient went", ["", "", ""], books.ledger_rows(its))
    )


def _command(record: dict[str, Any]) -> Html:
    note = "Written from the configuration, the seed included."
    if number(part(record, "config"), "workers") > 1:
        note += " With several workers another run is not the same run: the order of the updates is the machine's."
    resumed = ["fastac resume FOLDER"] if parts(record, "earlier_parts") else []
    return books.commands([train_command(record), *resumed], note)
