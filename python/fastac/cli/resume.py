"""`fastac resume`: a run that was interrupted, finished."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastac import rundir
from fastac.checkpoint import file_of, load_checkpoint, previous_of
from fastac.cli.cluster import cluster_of, cluster_options, cluster_told
from fastac.cli.endings import ends_in_order, signals_raised
from fastac.cli.options import checkpoint_of_run_option
from fastac.cli.runs import RunFolder, expect_run, load_model, train_in
from fastac.cli.watching import Watching, watching_options
from fastac.errors import CheckpointError
from fastac.words import counted

if TYPE_CHECKING:
    from fastac.algorithm import Algorithm


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@checkpoint_of_run_option
@watching_options
@cluster_options
def resume(
    folder: Path,
    checkpoint_every_s: float | None,
    tensorboard: bool,
    verbose: bool,
    live: bool,
    **of_cluster: Any,
) -> None:
    """Finish a run that was stopped, failed or was killed.

    FOLDER is its runs/<name>. Goes on from its latest checkpoint, with its configuration and what is left of its
    env steps, into the same folder. A2C ends with the same bits as if it had never been interrupted. A run that began
    on a cluster goes on there, or on the one that is told here. The same as `fastac train --resume FOLDER`.

    \b
    fastac resume runs/a3c-20260101-120000
    """
    with ends_in_order(), rundir.locked(folder):
        expect_run(folder)
        model = _load(folder)
        run = RunFolder(folder, model)
        cluster = cluster_of(of_cluster) or cluster_told(run.told())
        every_s = run.checkpoint_every_s() if checkpoint_every_s is None else checkpoint_every_s
        for notice in run.notices:
            click.echo(f"notice: {notice}", err=True)
        if model.unfinished is None:
            run.mark_as_done()
            click.echo(f"{folder}: finished, with {counted(model.num_timesteps, 'env steps')}; nothing is left to do")
            return
        from fastac.engines import import_engine

        import_engine(model.config)  # while Ctrl-C may still end everything at once
        watching = Watching(tensorboard, verbose, live).going_on_in(folder)
        watching.import_all()
        if cluster is not None:
            cluster.expect_possible(model)
        with signals_raised():
            goes_on = functools.partial(model.resume, cluster=cluster)
            train_in(run, model, goes_on, model.unfinished, every_s, watching)


def _load(folder: Path) -> Algorithm:
    """The latest whole checkpoint; says so where that is the one before the latest."""
    path = file_of(folder)
    try:
        load_checkpoint(path)
    except (FileNotFoundError, CheckpointError) as error:
        path = previous_of(path)
        try:
            load_checkpoint(path)
        except (FileNotFoundError, CheckpointError):
            raise error from None
        click.echo(f"notice: {error}: this is done now", err=True)
    return load_model(path)
