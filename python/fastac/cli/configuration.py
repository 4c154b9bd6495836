"""Options from a TOML file (--config), and the file that a run leaves so that it can be made again."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import tomli_w
from click.core import ParameterSource

from fastac import rundir
from fastac.cli.options import Command, JsonObject, comma_separated
from fastac.words import unknown

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_FILE = "fastac.config"  # in a context's meta: the file, and the options that it sets


def config_option(command: Command) -> Command:
    """--config: what the file says stands in the place of presets and defaults, so that options that are given win."""

    def take(context: click.Context, parameter: click.Parameter, path: Path | None) -> None:
        if path is not None:
            values = _read(path, context)
            context.default_map = {**(context.default_map or {}), **values}
            context.meta[_FILE] = path, values.keys()

    return click.option(
        "--config",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        default=None,
        is_eager=True,
        expose_value=False,
        callback=take,
        help="TOML file of these options, as a run's config.toml is; those given here win  [default: none]",
    )(command)


def file_that_set(name: str, context: click.Context) -> Path | None:
    """The file of --config where it is what gave an option its value."""
    path, names = context.meta.get(_FILE, (None, ()))
    of_file = name in names and context.get_parameter_source(name) is ParameterSource.DEFAULT_MAP
    return path if of_file else None


def write_config(path: Path, command: str, values: Mapping[str, Any]) -> None:
    """The file with which `command` is told the same `values` again; None stands for an option that is not given.

    Mappings become text: TOML has no null.
    """
    given = {
        name: json.dumps(value) if isinstance(value, dict) else value
        for name, value in values.items()
        if value is not None
    }
    rundir.write_text(path, f"# {command} --config {path.name}\n{tomli_w.dumps(given)}")


def read_config(path: Path) -> dict[str, Any]:
    """What is in a file. Raises OSError where it cannot be read, ValueError where it is no TOML."""
    with path.open("rb") as file:
        found: dict[str, Any] = tomllib.load(file)
        return found


def _read(path: Path, context: click.Context) -> dict[str, Any]:
    """The values by option, as click takes them. Raises UsageError where the file is none of these."""
    try:
        found = read_config(path)
    except (OSError, ValueError) as error:
        raise click.UsageError(f"{path}: expected TOML, {error}") from None
    options = {
        option.name: option
        for option in context.command.params
        if isinstance(option, click.Option) and option.name not in (None, "config")
    }
    values: dict[str, Any] = {}
    for key, value in found.items():
        name = key.replace("-", "_")
        if name not in options:
            raise click.UsageError(f"{path}: {unknown('key', key, map(str, options))}")
        if name in values:
            raise click.UsageError(f"{path}: expected each key once, got {name} with underscores and with dashes")
        values[name] = _value_of(options[name], value, f"{path}: {key}", context)
    return values


def _value_of(option: click.Option, value: Any, where: str, context: click.Context) -> Any:
    expected, fits = _kind(option)
    if not fits(value):
        raise click.UsageError(f"{where}: expected {expected}, got {value!r}")
    typed = ",".join(map(str, value)) if isinstance(value, list) else value
    try:
        option.type_cast_value(context, typed)
    except click.BadParameter as error:
        raise click.UsageError(f"{where}: {error.message}") from None
    return typed


def _kind(option: click.Option) -> tuple[str, Callable[[Any], bool]]:
    """What the value of an option is in TOML, in words and as a test. On a command line everything is text."""
    if option.is_flag:
        return "true or false", lambda value: isinstance(value, bool)
    if option.callback is comma_separated:
        return (
            "a list of whole numbers >= 1",
            lambda value: isinstance(value, list) and bool(value) and all(_is_whole(one) and one >= 1 for one in value),
        )
    if isinstance(option.type, JsonObject):
        return "a table, or JSON as text", lambda value: isinstance(value, (dict, str))
    if isinstance(option.type, click.types.IntParamType):
        return "a whole number", _is_whole
    if isinstance(option.type, click.types.FloatParamType):
        return "a number", lambda value: _is_whole(value) or isinstance(value, float)
    return "a text", lambda value: isinstance(value, str)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
