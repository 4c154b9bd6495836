"""Options of the commands: those of a config are made from the declarations in config.py."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from fastac import rundir
from fastac._core import MAX_WORKERS
from fastac.config import CUSTOM_POLICY, A3CConfig, Config, spec_of
from fastac.metrics import SOLVED, WINDOW
from fastac.presets import preset, presets_of, tuned_for_another_size

Command = Callable[..., None]


class FiniteRange(click.FloatRange):
    """A range that holds no NaN, which compares with nothing, and no infinity."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"expected a finite number, got {value!r}", param, ctx)
        return number


class JsonObject(click.ParamType[dict[str, Any]]):
    """'{"goal_velocity": 0.1}' -> {"goal_velocity": 0.1}. A mapping, as TOML has them, stays as it is.

    Refuses what a checkpoint, which is JSON, cannot hold: NaN, infinity and dates.
    """

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        try:
            found = json.loads(value) if isinstance(value, str) else value
            json.dumps(found, allow_nan=False)
        except (TypeError, ValueError) as error:
            self.fail(f"expected a JSON object, as in '{{\"gravity\": 1.6}}', got {value!r}: {error}", param, ctx)
        if not isinstance(found, dict):
            self.fail(f"expected a JSON object, as in '{{\"gravity\": 1.6}}', got {value!r}", param, ctx)
        return found


def given(option: str) -> bool:
    """Whether an option of the command that runs has a value of its own, so that it is not as by default."""
    source = click.get_current_context().get_parameter_source(option)
    return source not in (None, ParameterSource.DEFAULT)  # None: of a command that another one has invoked


def workers_option(help: str) -> Callable[[Command], Command]:
    """--workers of a command that has no config: as many as A3C has by default."""
    return click.option(
        "--workers", type=click.IntRange(1, MAX_WORKERS), default=A3CConfig.workers, show_default=True, help=help
    )


CHECKPOINT_EVERY_S = 30.0

checkpoint_option = click.option(
    "--checkpoint-every-s",
    type=FiniteRange(min=0),
    default=CHECKPOINT_EVERY_S,
    show_default=True,
    help="time between checkpoints; 0: only at the end [s]",
)

checkpoint_of_run_option = click.option(
    "--checkpoint-every-s",
    type=FiniteRange(min=0),
    default=None,
    help="time between checkpoints; 0: only at the end [s]  [default: as the run was told]",
)

timesteps_option = click.option(
    "--total-timesteps",
    type=click.IntRange(min=1),
    default=200_000,
    show_default=True,
    help="env steps to train for, over all envs",
)

solve_option = click.option(
    "--solve",
    type=float,
    default=None,
    metavar="RETURN",
    help=f"end once the mean return of the last {WINDOW} episodes is as high; {SOLVED:g} solves CartPole-v1"
    "  [default: only when the env steps are done]",
)


_PRESET = "fastac.preset"  # the name that was given, in a context's meta


def tell_of_another_size(options: Mapping[str, Any]) -> None:
    """One line where a preset is used with another number of envs than it was tuned for."""
    name = click.get_current_context().meta.get(_PRESET)
    if name is not None and (notice := tuned_for_another_size(name, options)) is not None:
        click.echo(f"notice: {notice}", err=True)


def preset_option(algorithm: str) -> Callable[[Command], Command]:
    """--preset: what it says stands in the place of the defaults, so that options that are given win."""

    def take(context: click.Context, parameter: click.Parameter, name: str | None) -> None:
        if name is not None:
            values = {key: _words(value) for key, value in preset(name).items()}
            context.default_map = {**values, **(context.default_map or {})}  # what is there is the file's, and wins
            context.meta[_PRESET] = name

    return click.option(
        "--preset",
        type=click.Choice(presets_of(algorithm)),
        default=None,
        is_eager=True,
        expose_value=False,
        callback=take,
        help="named hyper-parameters (`fastac presets`); other options and --config win  [default: those below]",
    )


def _words(value: Any) -> Any:
    return ",".join(map(str, value)) if isinstance(value, tuple) else value


def config_options(config_type: type[Config], *, leave_out: tuple[str, ...] = ()) -> Callable[[Command], Command]:
    """One option for each field of a config, its help made from the field's declaration."""

    def decorate(command: Command) -> Command:
        for field in reversed(dataclasses.fields(config_type)):
            if field.name not in leave_out:
                command = _option(field)(command)
        return command

    return decorate


_TYPES: dict[str, type] = {"float": float, "int": int, "str": str}


def _option(field: dataclasses.Field[Any]) -> Callable[[Command], Command]:
    spec, declared = spec_of(field), str(field.type)
    flag = "--" + field.name.replace("_", "-")
    unit = f" [{spec.unit}]" if spec.unit else ""
    range_ = f" ({spec.allowed()})" if spec.allowed() and not spec.choices else ""
    shared: dict[str, Any] = {
        "default": field.default,
        "show_default": True,
        "help": spec.help + unit + range_,
    }
    if declared == "bool":
        return click.option(f"{flag}/--no-{flag[2:]}", **shared)
    if declared.startswith("dict"):
        return click.option(flag, type=JsonObject(), metavar="JSON", **shared)
    if declared.startswith("tuple"):
        shared["default"] = _words(field.default)
        return click.option(flag, callback=comma_separated, metavar="N,N,...", **shared)
    if spec.choices:
        named = [choice for choice in spec.choices if choice != CUSTOM_POLICY]  # a module has no name
        return click.option(flag, type=click.Choice(named), **shared)
    return click.option(flag, type=_TYPES[declared.split(" ")[0]], **shared)


def comma_separated(context: click.Context, parameter: click.Parameter, text: str) -> tuple[int, ...]:
    """ "8,64" -> (8, 64)."""
    try:
        numbers = tuple(int(number) for number in text.split(",") if number.strip())
    except ValueError:
        raise click.BadParameter(f"expected whole numbers between commas, got {text!r}") from None
    if not numbers or min(numbers) < 1:
        raise click.BadParameter(f"expected at least one number, each >= 1, got {text!r}")
    return numbers


def playing_options(command: Command) -> Command:
    """--seed and --deterministic, of what plays a model."""
    command = click.option(
        "--deterministic/--stochastic",
        default=True,
        show_default=True,
        help="always the most probable action, or actions drawn as in training",
    )(command)
    return click.option(
        "--seed",
        type=click.IntRange(min=0),
        default=None,
        help="of the initial states  [default: drawn from the system, and told]",
    )(command)


def run_options(command: Command) -> Command:
    command = click.option(
        "--runs",
        type=click.Path(path_type=Path),
        default=Path("runs"),
        show_default=True,
        help="where run folders go",
    )(command)
    return click.option("--name", default=None, help="name of the run's folder  [default: kind, date and time]")(
        command
    )


def new_folder(runs: Path, name: str | None, kind: str) -> Path:
    try:
        return rundir.make_folder(runs, name, kind)
    except FileExistsError as error:
        raise click.UsageError(f"{error.filename} exists already: choose another --name") from None
