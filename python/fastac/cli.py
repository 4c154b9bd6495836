"""The command line: `fastac train`, `fastac compare`, `fastac bench`. Options come from the declarations in config.py.

Exit codes: 0 done, 1 the run failed, 2 the command was wrong, 130 stopped by Ctrl-C, 143 stopped by SIGTERM.
"""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from fastac._core import __version__
from fastac.config import A2CConfig, A3CConfig, Config, spec_of
from fastac.errors import ConfigError, FastacError

if TYPE_CHECKING:
    from fastac.algorithm import Algorithm

Command = Callable[..., None]

_COMPARE_SETS = ("seed",)  # fields that `compare` chooses itself
_SIGNAL_OF_STOP = {"received": signal.SIGINT}


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="fastac")
def main() -> None:
    """Asynchronous and synchronous advantage actor-critic on one native CartPole.

    \b
    fastac compare --quick                   A3C against A2C in two minutes
    fastac train a3c --workers 4             train, and keep the model in runs/
    fastac bench env                         the env against Gymnasium's
    """


@main.group()
def train() -> None:
    """Train one model; its tables and its checkpoint go to runs/<name>/."""


@main.group()
def bench() -> None:
    """Measure; every table says minimum, median and maximum over interleaved rounds."""


# ---- options ----------------------------------------------------------------------------------------------------


def _config_options(config_type: type[Config], *, leave_out: tuple[str, ...] = ()) -> Callable[[Command], Command]:
    """One option for each field of a config, its help made from the field's declaration."""

    def decorate(command: Command) -> Command:
        for field in reversed(dataclasses.fields(config_type)):
            if field.name not in leave_out:
                command = _option(field)(command)
        return command

    return decorate


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
    if declared.startswith("tuple"):
        shared["default"] = ",".join(str(size) for size in field.default)  # type: ignore[union-attr]
        return click.option(flag, callback=_comma_separated, metavar="N,N,...", **shared)
    if spec.choices:
        return click.option(flag, type=click.Choice(spec.choices), **shared)
    return click.option(flag, type=float if declared == "float" else int, **shared)


def _comma_separated(context: click.Context, parameter: click.Parameter, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in text.split(",") if number.strip())
    except ValueError:
        raise click.BadParameter(f"expected whole numbers between commas, got {text!r}") from None


def _run_options(command: Command) -> Command:
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


def _new_folder(runs: Path, name: str | None, kind: str) -> Path:
    from fastac import rundir

    try:
        return rundir.new_folder(runs, name, kind)
    except FileExistsError as error:
        raise click.UsageError(f"{error.filename} exists already: choose another --name") from None


# ---- how a command ends -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def _ends_in_order() -> Iterator[None]:
    """Bad values are usage errors; a failed run is one message and exit code 1; SIGTERM is handled like Ctrl-C."""

    def terminate(*_: object) -> NoReturn:
        _SIGNAL_OF_STOP["received"] = signal.SIGTERM
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except ConfigError as error:
        raise click.UsageError(str(error)) from None
    except KeyboardInterrupt:
        _stopped("nothing was under way yet")
    except (FastacError, TimeoutError) as error:
        click.echo(f"fastac: {type(error).__name__}: {error}", err=True)
        sys.exit(1)
    finally:
        signal.signal(signal.SIGTERM, before)


def _stopped(what: str) -> NoReturn:
    # A terminal has just written ^C at the beginning of the line.
    click.echo(("\r" if sys.stderr.isatty() else "") + f"stopped: {what}", err=True)
    sys.exit(128 + _SIGNAL_OF_STOP["received"])


# ---- train ------------------------------------------------------------------------------------------------------

_TIMESTEPS = click.option(
    "--total-timesteps",
    type=click.IntRange(min=1),
    default=200_000,
    show_default=True,
    help="env steps to train for, over all envs",
)


@train.command("a2c")
@_TIMESTEPS
@_config_options(A2CConfig)
@_run_options
def train_a2c(**options: Any) -> None:
    """Synchronous: all envs in one batch, one update for each rollout of all.

    \b
    fastac train a2c --n-envs 4
    fastac train a2c --n-envs 8 --split 8 --seed 1
    """
    _train("a2c", **options)


@train.command("a3c")
@_TIMESTEPS
@_config_options(A3CConfig)
@_run_options
def train_a3c(**options: Any) -> None:
    """Asynchronous: workers with envs of their own, each updating the shared parameters.

    \b
    fastac train a3c --workers 4 --update lockfree --backend process
    fastac train a3c --workers 8 --update hogwild --seed 1
    """
    _train("a3c", **options)


def _train(kind: str, total_timesteps: int, name: str | None, runs: Path, **options: Any) -> None:
    with _ends_in_order():
        {"a2c": A2CConfig, "a3c": A3CConfig}[kind](**options)  # a bad value is an error before torch is imported
        import fastac

        model: Algorithm = {"a2c": fastac.A2C, "a3c": fastac.A3C}[kind](**options)
        folder = _new_folder(runs, name, kind)
        try:
            model.learn(total_timesteps, progress_bar=True)
        except KeyboardInterrupt:
            path = _save(model, folder)
            _stopped(f"{model.num_timesteps:,} of {total_timesteps:,} env steps done, saved in {path}")
        except FastacError:
            _save(model, folder)
            raise
        path = _save(model, folder)
        _report(model, path)


def _save(model: Algorithm, folder: Path) -> Path:
    from fastac import machine, rundir

    assert model.history is not None and model.ledger is not None
    rundir.write_table(folder / "episodes.csv", model.history.episodes)
    rundir.write_table(folder / "updates.csv", model.history.updates)
    rundir.write_table(folder / "moments.csv", model.history.moments)
    record = {
        "algorithm": type(model).__name__,
        "config": model.config.to_dict(),
        "machine": machine.describe(),
        "num_timesteps": model.num_timesteps,
        "version": model.version,
        "ledger": dataclasses.asdict(model.ledger),
        "startup_s": model.history.startup_s,
        "train_s": model.history.train_s,
        "cpu_s": model.history.cpu_s,
        "solved_195": model.history.time_to(195.0),
        "solved_475": model.history.time_to(475.0),
    }
    rundir.write_json(folder / "run.json", record)
    return model.save(folder / "model.safetensors")


def _report(model: Algorithm, path: Path) -> None:
    history, ledger = model.history, model.ledger
    assert history is not None and ledger is not None
    solved = history.time_to(475.0)
    click.echo(
        f"{type(model).__name__}: {model.num_timesteps:,} env steps and {model.version:,} updates "
        f"in {history.train_s:.1f} s ({model.num_timesteps / history.train_s:,.0f} env steps per s), "
        f"return of the last 100 episodes {history.final_return():.1f}"
    )
    click.echo(
        "solved (475): not in this run"
        if solved is None
        else f"solved (475): after {solved['env_steps']:,.0f} env steps and {solved['wall_s']:.1f} s"
    )
    click.echo(f"ledger: {ledger.text()}")
    click.echo(f"saved: {path}")


# ---- compare ----------------------------------------------------------------------------------------------------


@main.command()
@click.option("--quick", is_flag=True, help="3 seeds of 60,000 env steps: under two minutes on two cores")
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="number of seeds, from --first-seed on",
)
@click.option("--first-seed", type=click.IntRange(min=0), default=0, show_default=True, help="the first seed")
@click.option(
    "--n-envs",
    type=click.IntRange(1, 64),
    default=4,
    show_default=True,
    help="envs of each algorithm; A3C: workers with one env each",
)
@click.option(
    "--update",
    type=click.Choice(("lockfree", "lock", "queue", "hogwild")),
    default="lockfree",
    show_default=True,
    help="A3C's update scheme",
)
@click.option(
    "--backend",
    type=click.Choice(("thread", "process")),
    default="process",
    show_default=True,
    help="where A3C's workers run",
)
@_TIMESTEPS
@_config_options(Config, leave_out=_COMPARE_SETS)
@_run_options
def compare(
    quick: bool,
    seeds: int,
    first_seed: int,
    n_envs: int,
    update: str,
    backend: str,
    total_timesteps: int,
    name: str | None,
    runs: Path,
    **options: Any,
) -> None:
    """A3C against A2C, with everything equal that can be: table, CSV, JSON and pictures in runs/<name>/.

    Both play the same envs with the same policy, initial weights, optimizer and seeds. A third arm, A2C split,
    updates in turn from one env each, as A3C does, but without staleness: it separates what small updates do from
    what asynchrony does.

    \b
    fastac compare --quick
    fastac compare --seeds 20 --n-envs 8 --update hogwild
    """
    with _ends_in_order():
        Config(**options)
        from fastac.compare import experiment

        plan = experiment.Plan(
            total_timesteps,
            tuple(range(first_seed, first_seed + seeds)),
            n_envs,
            update,
            backend,
            options=options,
        )
        if quick:
            plan = experiment.quick(plan)
        folder = _new_folder(runs, name, "compare")
        results: list[Any] = []
        try:
            for result in experiment.run(plan, progress_bar=True):
                results.append(result)
                click.echo(_result_line(result))
        except KeyboardInterrupt:
            done = f"{len(results)} of {len(plan.seeds) * len(plan.arms)} runs done"
            if results:
                _write_comparison(folder, results, plan)
                _stopped(f"{done}, written to {folder}")
            folder.rmdir()
            _stopped(done)
        _write_comparison(folder, results, plan)


def _result_line(result: Any) -> str:
    solved = result.solved(475.0)
    when = (
        "not solved (475)"
        if solved is None
        else f"solved (475) after {solved['env_steps']:>9,.0f} env steps, {solved['wall_s']:6.1f} s"
    )
    return f"{result.arm:<9}  seed {result.seed:<3}  return {result.history.final_return():6.1f}  {when}"


def _write_comparison(folder: Path, results: list[Any], plan: Any) -> None:
    from rich.console import Console

    from fastac import machine
    from fastac.compare import plots, tables

    where = machine.describe()
    tables.write(folder, results, plan, where)
    plots.draw_curves(folder / "compare.png", results, plan)
    plots.draw_time_to_solve(folder / "time_to_solve.png", results, plan)
    console = Console()
    console.print(tables.terminal_table(results, plan))
    console.print(tables.footer(where), highlight=False, soft_wrap=True)
    console.print(
        f"Written: {folder}/compare.csv, compare.json, compare.png, time_to_solve.png",
        highlight=False,
        soft_wrap=True,
    )


# ---- bench ------------------------------------------------------------------------------------------------------


@bench.command("env")
@click.option(
    "--envs",
    "sizes",
    default="1,8,64,1024",
    show_default=True,
    callback=_comma_separated,
    metavar="N,N,...",
    help="numbers of envs",
)
@click.option("--rounds", type=click.IntRange(min=1), default=7, show_default=True, help="interleaved rounds")
@click.option(
    "--round-s",
    type=click.FloatRange(min=0, min_open=True),
    default=0.3,
    show_default=True,
    help="length of a round of one form [s]",
)
@_run_options
def bench_env(sizes: tuple[int, ...], rounds: int, round_s: float, name: str | None, runs: Path) -> None:
    """The native CartPole against Gymnasium's sync, async and vector-entry-point CartPole, in one run."""
    with _ends_in_order():
        from fastac.bench import env

        results = env.measure(sizes, rounds, round_s)
        _show_bench(env.table(results), env.as_json(results), runs, name, "bench-env")


@bench.command("updates")
@click.option(
    "--workers",
    default="1,2,4,8",
    show_default=True,
    callback=_comma_separated,
    metavar="N,N,...",
    help="numbers of worker threads",
)
@click.option(
    "--n-params",
    type=click.IntRange(min=1),
    default=4675,
    show_default=True,
    help="floats in a gradient; 4,675 is the default policy",
)
@click.option("--rounds", type=click.IntRange(min=1), default=7, show_default=True, help="interleaved rounds")
@click.option(
    "--n-updates",
    type=click.IntRange(min=1),
    default=2000,
    show_default=True,
    help="updates of each worker in a round",
)
@_run_options
def bench_updates(
    workers: tuple[int, ...], n_params: int, rounds: int, n_updates: int, name: str | None, runs: Path
) -> None:
    """What read, push and apply cost under every update scheme, and how many additions get lost."""
    with _ends_in_order():
        from fastac.bench import updates

        results = updates.measure(workers, n_params, rounds, n_updates)
        _show_bench(updates.table(results, n_params), updates.as_json(results), runs, name, "bench-updates")


def _show_bench(table: Any, figures: dict[str, Any], runs: Path, name: str | None, kind: str) -> None:
    from rich.console import Console

    from fastac import machine, rundir

    where = machine.describe()
    folder = _new_folder(runs, name, kind)
    rundir.write_json(folder / f"{kind}.json", {"command": sys.argv[1:], "machine": where, "figures": figures})
    console = Console()
    console.print(table)
    console.print(f"Measured on {machine.summary(where)}.", highlight=False, soft_wrap=True)
    console.print(f"Written: {folder}/{kind}.json", highlight=False, soft_wrap=True)
