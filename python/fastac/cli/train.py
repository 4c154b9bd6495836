"""`fastac train`: one model, trained and kept."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastac import rundir
from fastac.cli.cluster import cluster_of, cluster_options
from fastac.cli.configuration import config_option
from fastac.cli.endings import ends_in_order, signals_raised
from fastac.cli.options import (
    checkpoint_of_run_option,
    checkpoint_option,
    config_options,
    given,
    new_folder,
    preset_option,
    run_options,
    solve_option,
    tell_of_another_size,
    timesteps_option,
)
from fastac.cli.resume import resume
from fastac.cli.runs import RunFolder, train_in
from fastac.cli.watching import Watching, watching_options
from fastac.config import A2CConfig, A3CConfig
from fastac.metrics import Position, expect_reachable

if TYPE_CHECKING:
    from fastac.algorithm import Algorithm


@click.group(invoke_without_command=True, no_args_is_help=True)
@click.option(
    "--resume",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=None,
    help="without a command: finish the run in that folder, as `fastac resume` does  [default: train anew]",
)
@checkpoint_of_run_option
@watching_options
@cluster_options
@click.pass_context
def train(context: click.Context, /, folder: Path | None, **of_resume: Any) -> None:
    """Train one model.

    Its tables and its checkpoint go to runs/<name>/.

    \b
    fastac train a3c --workers 4
    fastac train --resume runs/NAME
    """
    command = context.invoked_subcommand
    if command is not None:
        if folder is not None:
            raise click.UsageError(f"--resume: expected without {command}, as the run has its configuration")
        for option in filter(given, of_resume):
            raise click.UsageError(f"--{option.replace('_', '-')}: expected after {command}, or with --resume")
    elif folder is None:
        raise click.UsageError("expected a2c, a3c or --resume")
    else:
        context.invoke(resume, folder=folder, **of_resume)


@train.command("a2c")
@timesteps_option
@solve_option
@config_option
@preset_option("a2c")
@config_options(A2CConfig)
@checkpoint_option
@watching_options
@cluster_options
@run_options
def train_a2c(**options: Any) -> None:
    """Synchronous: one batch, one update for each rollout of all envs.

    \b
    fastac train a2c --n-envs 4
    fastac train a2c --preset a2c-8
    fastac train a2c --config runs/NAME/config.toml    the same run again
    fastac train a2c --n-envs 8 --split 8 --seed 1
    fastac train a2c --n-envs 64 --workers 2
    """
    _train("a2c", **options)


@train.command("a3c")
@timesteps_option
@solve_option
@config_option
@preset_option("a3c")
@config_options(A3CConfig)
@checkpoint_option
@watching_options
@cluster_options
@run_options
def train_a3c(**options: Any) -> None:
    """Asynchronous: each worker updates the shared parameters itself.

    \b
    fastac train a3c --workers 4 --update lockfree --backend process
    fastac train a3c --workers 8 --update hogwild --seed 1
    fastac train a3c --solve 475             as long as it takes, and no longer
    fastac train a3c --config run.toml --seed 2
    fastac train a3c --cluster auto --nodes 4 --workers 8    on four machines (docs/cluster.md)
    """
    _train("a3c", **options)


def _train(
    kind: str,
    total_timesteps: int,
    solve: float | None,
    checkpoint_every_s: float,
    tensorboard: bool,
    verbose: bool,
    live: bool,
    name: str | None,
    runs: Path,
    **options: Any,
) -> None:
    with ends_in_order():
        told = dict(options)
        cluster = cluster_of(options)
        config = {"a2c": A2CConfig, "a3c": A3CConfig}[kind](**options)  # a bad value is an error before any import
        expect_reachable(solve, config.max_episode_steps)
        tell_of_another_size(options)
        import fastac
        from fastac.engines import import_engine

        import_engine(config)  # while Ctrl-C may still end everything at once
        model: Algorithm = {"a2c": fastac.A2C, "a3c": fastac.A3C}[kind](**options)
        watching = Watching(tensorboard, verbose, live)
        watching.import_all()
        if cluster is not None:
            cluster.expect_possible(model)
        with signals_raised():
            folder = new_folder(runs, name, kind)
            with rundir.locked(folder):
                aim = Position(total_timesteps, solve=solve)
                learn = functools.partial(model.learn, total_timesteps, solve=solve, cluster=cluster)
                train_in(RunFolder(folder, model, told), model, learn, aim, checkpoint_every_s, watching)
