"""Configurations told apart from their defaults, and the commands that give the same run again."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from fastac.compare.experiment import QUICK_ARMS
from fastac.config import A2CConfig, A3CConfig, Config, spec_of
from fastac.report.parts import Html, element, table
from fastac.report.reading import part

CONFIGS: dict[str, type[Config]] = {"A2C": A2CConfig, "A3C": A3CConfig}


def differing(config_type: type[Config], values: Mapping[str, Any]) -> list[str]:
    """The fields that are not as they would be by default, in the order in which they are declared."""
    fields = dataclasses.fields(config_type)
    return [field.name for field in fields if field.name in values and values[field.name] != _plain(field.default)]


def configuration(config_type: type[Config], values: Mapping[str, Any], caption: str) -> Html:
    """What differs from the defaults first; all else where one may open it."""
    fields = {field.name: field for field in dataclasses.fields(config_type)}
    changed = differing(config_type, values)
    rows = [[n, _text(values[n]), _text(_plain(fields[n].default)), _meaning(fields[n])] for n in changed]
    rows += [
        [name, _text(value), "unknown to this version", ""] for name, value in values.items() if name not in fields
    ]
    same = [[name, _text(values[name]), _meaning(fields[name])] for name in fields if name in values]
    same = [row for row in same if row[0] not in changed]
    first = (
        table(f"{caption}: what differs from the defaults", ["", "value", "default", "meaning"], rows)
        if rows
        else element("p", f"{caption}: everything as it is by default.")
    )
    if not same:
        return first
    rest = table(f"{caption}: as by default", ["", "value", "meaning"], same)
    return Html(first + element("details", element("summary", f"{len(same)} values as by default"), rest))


def train_command(record: Mapping[str, Any]) -> str | None:
    """The `fastac train` of a run with this record; None where that does not say enough."""
    algorithm, values = str(record.get("algorithm")), part(record, "config")
    if algorithm not in CONFIGS or not values:
        return None
    words = ["fastac", "train", algorithm.lower(), "--total-timesteps", _text(record.get("total_timesteps"))]
    for name, value in part(record, "cluster").items():
        words += [_flag(name), _text(value)]
    return _line([*words, *_options(CONFIGS[algorithm], values)])


def compare_command(record: Mapping[str, Any]) -> str | None:
    """The `fastac compare` of a comparison with this record; None where that does not say enough."""
    plan = part(record, "plan")
    seeds = plan.get("seeds")
    if not isinstance(seeds, list) or not seeds:
        return None
    words = ["fastac", "compare"] + (["--quick"] if plan.get("arms") == list(QUICK_ARMS) else [])
    words += ["--seeds", str(len(seeds)), "--first-seed", str(seeds[0])]
    for name in ("n_envs", "update", "backend", "total_timesteps"):
        words += [_flag(name), _text(plan.get(name))]
    return _line([*words, *_options(Config, part(plan, "options"))])


def _line(words: Iterable[str]) -> str:
    return " ".join(map(shlex.quote, words))


def _options(config_type: type[Config], values: Mapping[str, Any]) -> Iterable[str]:
    for name in differing(config_type, values):
        value = values[name]
        if isinstance(value, bool):
            yield _flag(name) if value else _flag(f"no_{name}")
        elif value is not None:
            yield from (_flag(name), _text(value))


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _text(value: Any) -> str:
    """As it is typed."""
    if isinstance(value, dict):
        return json.dumps(value)
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _plain(default: Any) -> Any:
    """As JSON has it."""
    return list(default) if isinstance(default, tuple) else default


def _meaning(field: dataclasses.Field[Any]) -> str:
    spec = spec_of(field)
    return spec.help + (f" [{spec.unit}]" if spec.unit else "")
