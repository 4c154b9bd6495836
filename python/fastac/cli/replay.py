"""`fastac replay`: a recorded run again, to the last bit, up to any update, or with other staleness."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from fastac import rundir
from fastac.cli.endings import ends_in_order, signals_raised, stopped
from fastac.errors import ReplayError
from fastac.words import counted

if TYPE_CHECKING:
    from fastac.a3c import A3C
    from fastac.lab.diagnose import Diagnostics
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
_PAGE_COLUMNS = 110  # of a table that goes into a file


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
    "--save",
    "save_to",
    type=click.Path(path_type=Path),
    help="keep the model there, as a file or in a folder  [default: nowhere]",
)
@click.option(
    "--diagnose", "diagnosed", is_flag=True, help="measure what staleness did to the gradients  [default: only replay]"
)
@click.option(
    "--every",
    type=click.IntRange(min=1),
    help="with --diagnose: measure one of so many updates  [default: so many that about 5,000 are measured]",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="with --diagnose: folder for its CSV, JSON and picture  [default: RUN]",
)
@click.option("--force", is_flag=True, default=False, show_default=True, help="let --save overwrite what is there")
def replay(
    folder: Path,
    at: int | None,
    staleness: int | None,
    save_to: Path | None,
    diagnosed: bool,
    every: int | None,
    out: Path | None,
    force: bool,
) -> None:
    """Make a recorded run again, to the last bit.

    RUN is the runs/<name> of `fastac train a3c --record`. One thread computes every update again, from whatever
    version its worker had read, in the recorded order: the model is that of the run to the last bit, or the command
    fails and says where they part.

    \b
    fastac replay runs/NAME                    is it the same, to the last bit?
    fastac replay runs/NAME --at 1000          the policy after 1,000 updates
    fastac replay runs/NAME --staleness 0      what if no gradient had been stale?
    fastac replay runs/NAME --diagnose         how far were gradients from fresh ones?
    """
    with ends_in_order():
        from fastac import A3C
        from fastac.checkpoint import file_of
        from fastac.lab.replay import expect_equal, load_recording
        from fastac.lab.replay import replay as play

        if diagnosed and staleness is not None:
            raise click.UsageError("--diagnose: expected the run as it was, got --staleness")
        if not diagnosed and (every is not None or out is not None):
            raise click.UsageError("--every, --out: expected --diagnose with them")
        target = None if save_to is None else file_of(save_to)
        if target is not None and target.exists() and not force:
            raise click.UsageError(f"--save: {target} exists already; --force overwrites it")
        try:
            load_recording(folder)  # where there is none, or a damaged one, that is said
        except FileNotFoundError as error:
            raise click.UsageError(str(error)) from None
        model = A3C.load(folder)
        recording = model.recording
        if recording is None or not recording.parts:
            raise click.UsageError(f"{folder}: nothing was recorded of the model that is there; train with --record")
        with signals_raised():
            if diagnosed:
                if at == 0:
                    raise click.UsageError("--at: expected at least 1 with --diagnose, got 0")
                replayed = _diagnose(folder, recording, at, every, folder if out is None else out)
            else:
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
    took_part, of = len(np.unique(entries["worker"])), recording.config.workers
    workers = ("" if took_part == of else f"{took_part} of ") + counted(of, "workers")
    replaced = len(np.unique(entries[["worker", "incarnation"]])) - took_part
    deaths = f" and {replaced} that replaced one" if replaced else ""
    calls = "one learn()" if len(recording.parts) == 1 else f"{len(recording.parts)} calls of learn() and resume()"
    click.echo(
        f"{folder}: {counted(replayed.updates, 'updates')} of {workers}{deaths} and "
        f"{counted(replayed.rejected, 'rejected gradients')} "
        f"of {calls} replayed; parameters and optimizer state are equal to the last bit"
    )


def _diagnose(folder: Path, recording: Recording, at: int | None, every: int | None, out: Path) -> Replayed:
    """Replays and measures; what was measured by then is kept when it is interrupted."""
    from fastac.lab.diagnose import Diagnostics, every_of
    from fastac.lab.replay import replay as play

    out.mkdir(parents=True, exist_ok=True)
    updates = recording.updates if at is None else at
    every = every or every_of(updates)
    probe = Diagnostics(recording.config, every)

    def keep() -> None:
        if probe.measured:
            _show_diagnosis(folder, out, recording, probe, every)

    try:
        replayed = play(recording, at, probe=probe)
        keep()
        return replayed
    except KeyboardInterrupt as stop:
        keep()
        stopped(f"{probe.updates:,} of {updates:,} updates replayed", stop)
    except ReplayError:
        keep()
        raise
    finally:
        rundir.remove_if_empty(out)


def _show_diagnosis(folder: Path, out: Path, recording: Recording, probe: Diagnostics, every: int) -> None:
    from rich.console import Console

    from fastac.lab import diagnosis, plots

    env_steps = recording.config.n_steps * recording.config.n_envs
    its = diagnosis.diagnosis(folder.resolve().name, probe.updates, every, env_steps, probe.table())
    diagnosis.write(out, its)
    plots.draw_diagnosis(out / "diagnose.png", its)
    console = Console()
    if not console.is_terminal:
        console.width = _PAGE_COLUMNS
    for table in (diagnosis.stale_table(its), diagnosis.parts_table(its)):
        console.print(table)
    written = f"Written: {out}/diagnose.csv, diagnose.json, diagnose.png"
    for line in (diagnosis.LEGEND, *diagnosis.sentences(its), written):
        console.print(line, highlight=False, soft_wrap=True, markup=False)


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

    greedy, sampled = (
        evaluate_policy(model, n_eval_episodes=_EPISODES, deterministic=best, seed=0) for best in (True, False)
    )
    click.echo(
        f"after {replayed.updates:,} of {counted(recording.updates, 'updates')} and {replayed.env_steps:,} env steps: "
        f"greedy return {greedy[0]:.1f} +- {greedy[1]:.1f}, of sampled actions as in training {sampled[0]:.1f} +- "
        f"{sampled[1]:.1f}, over {_EPISODES} episodes each"
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
