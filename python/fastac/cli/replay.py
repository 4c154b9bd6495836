"""`fastac replay`: a recorded run again, to the last bit, up to any update, or with other staleness."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from fastac.cli.endings import ends_in_order, signals_raised
from fastac.words import counted

if TYPE_CHECKING:
    from fastac.a3c import A3C
    from fastac.lab.replay import Replayed
    from fastac.recording import Recording

# Upright and at rest; the cart at the side; the pole leaning, and leaning while it falls.
_STATES = (
    ("upright", (0.0, 0.0, 0.0, 0.0)),
    ("cart 1.5 to the right", (1.5, 0.0, 0.0, 0.0)),
    ("pole leans 0.1 rad right", (0.0, 0.0, 0.1, 0.0)),
    ("pole falls right", (0.0, 0.0, 0.1, 1.0)),
    ("pole falls left", (0.0, 0.0, -0.1, -1.0)),
)
_EPISODES = 10


@click.command()
@click.argument("folder", metavar="RUN", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--at", type=click.IntRange(min=0), help="stop after that many updates  [default: all]")
@click.option(
    "--staleness",
    type=click.IntRange(min=0),
    help="instead: the same workers in the same order, each gradient from the parameters of that many gradients before"
    "  [default: as it was]",
)
@click.option(
    "--save", "save_to", type=click.Path(path_type=Path), help="keep the model there, as a file or in a folder"
)
@click.option("--force", is_flag=True, default=False, show_default=True, help="let --save overwrite what is there")
def replay(folder: Path, at: int | None, staleness: int | None, save_to: Path | None, force: bool) -> None:
    """Make a recorded run again, to the last bit.

    RUN is the runs/<name> of `fastac train a3c --record`. One thread computes every update again, from whatever
    version its worker had read, in the recorded order: the model is that of the run to the last bit, or the command
    fails and says where they part.

    \b
    fastac replay runs/NAME                    is it the same, to the last bit?
    fastac replay runs/NAME --at 1000          the policy after 1,000 updates
    fastac replay runs/NAME --staleness 0      what if no gradient had been stale?
    """
    with ends_in_order():
        from fastac import A3C
        from fastac.checkpoint import file_of
        from fastac.lab.replay import expect_equal, load_recording
        from fastac.lab.replay import replay as play

        target = None if save_to is None else file_of(save_to)
        if target is not None and target.exists() and not force:
            raise click.UsageError(f"--save: {target} exists already; --force overwrites it")
        load_recording(folder)  # where there is none, or a damaged one, that is said
        model = A3C.load(folder)
        recording = model.recording
        if recording is None or not recording.parts:
            raise click.UsageError(f"{folder}: nothing was recorded of the model that is there; train with --record")
        with signals_raised():
            replayed = play(recording, at)
            if at is None:
                expect_equal(replayed, model.params, model.state)
                _tell_whole(folder, recording, replayed)
            if staleness is not None:
                as_it_was, replayed = replayed, play(recording, at, staleness)
                _compare(as_it_was, replayed, staleness)
            model.params[:] = replayed.params
            model.state[:] = replayed.state
            if at is not None:
                _show(model, replayed, recording)
            if save_to is not None:
                click.echo(f"saved: {_save(model, replayed, save_to)}")


def _tell_whole(folder: Path, recording: Recording, replayed: Replayed) -> None:
    entries = np.concatenate([part.entries for part in recording.parts])
    workers = len(np.unique(entries[["worker", "incarnation"]]))
    calls = "one learn()" if len(recording.parts) == 1 else f"{len(recording.parts)} calls of learn() and resume()"
    click.echo(
        f"{folder}: {counted(replayed.updates, 'updates')} of {counted(workers, 'workers')} and "
        f"{counted(replayed.rejected, 'rejected gradients')} "
        f"of {calls} replayed; parameters and optimizer state are equal to the last bit"
    )


def _compare(as_it_was: Replayed, other: Replayed, staleness: int) -> None:
    for label, one in (("as it was", as_it_was), (f"staleness {staleness}", other)):
        solved = one.solved_after()
        when = "not solved (475)" if solved is None else f"solved (475) after {solved:,} env steps"
        click.echo(
            f"{label}: {when}, return of the last 100 episodes {one.final_return():.1f}, "
            f"{counted(one.updates, 'updates')} and {counted(one.rejected, 'rejected gradients')} in "
            f"{one.env_steps:,} env steps"
        )


def _show(model: A3C, replayed: Replayed, recording: Recording) -> None:
    from rich.console import Console
    from rich.table import Table

    from fastac import evaluate_policy
    from fastac.mlp import act

    mean, deviation = evaluate_policy(model, _EPISODES, seed=0)
    click.echo(
        f"after {replayed.updates:,} of {counted(recording.updates, 'updates')} and {replayed.env_steps:,} env steps: "
        f"greedy return {mean:.1f} +- {deviation:.1f} over {_EPISODES} episodes"
    )
    probabilities, values = act(model.config, model.params, np.array([state for _, state in _STATES], np.float32))
    table = Table("state", "P(push left)", "P(push right)", "value")
    for (label, _), (left, right), value in zip(_STATES, probabilities, values, strict=True):
        table.add_row(label, f"{left:.3f}", f"{right:.3f}", f"{value:.2f}")
    Console().print(table)


def _save(model: A3C, replayed: Replayed, path: Path) -> Path:
    """A model of its own: it has not been trained by learn(), so there is nothing to resume, and no recording."""
    from fastac import A3C

    kept = A3C(**{**model.config.to_dict(), "record": False})
    kept.params[:] = replayed.params
    kept.state[:] = replayed.state
    return kept.save(path)
