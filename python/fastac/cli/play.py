"""`fastac play`: a policy to be looked at, in a window or as a GIF or an MP4."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fastac import seeding
from fastac.cli.endings import ends_in_order, signals_raised, stopped
from fastac.cli.options import FiniteRange, playing_options
from fastac.cli.runs import expect_run, load_model
from fastac.words import counted

if TYPE_CHECKING:
    from fastac.playing import Play


@click.command()
@click.argument("path", metavar="MODEL", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    metavar="FILE",
    help="write FILE.gif or FILE.mp4 (pip install 'fastac[video]')  [default: show a window]",
)
@click.option(
    "--episodes",
    type=click.IntRange(min=1),
    default=None,
    help="how many are played in all  [default: one in each env]",
)
@click.option(
    "--envs",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="envs in one picture, at most one for each episode",
)
@playing_options
@click.option(
    "--fps", type=FiniteRange(1, 1000), default=None, help="pictures per second  [default: the pace of the env]"
)
@click.option(
    "--max-steps",
    type=click.IntRange(min=1),
    default=None,
    help="env steps in each env, at most  [default: until the episodes are over]",
)
def play(
    path: Path,
    out: Path | None,
    episodes: int | None,
    envs: int,
    seed: int | None,
    deterministic: bool,
    fps: float | None,
    max_steps: int | None,
) -> None:
    """Show a policy at play, in a window or a film.

    MODEL is a run folder or a file that `save` wrote. The return so far stands in each picture. A window is closed by
    its button or by Ctrl-C; a file that is not finished is not written.

    \b
    fastac play runs/NAME
    fastac play runs/NAME --out play.gif
    fastac play runs/NAME --out play.mp4 --envs 4 --episodes 8 --stochastic
    """
    with ends_in_order():
        from fastac.pictures import expect_writable, film
        from fastac.playing import Play

        if out is not None:
            expect_writable(out)
            os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # else pygame looks for a display, and may complain
        if path.is_dir():
            expect_run(path)
        if seed is None:
            seed = seeding.drawn()
        model = load_model(path)
        its = Play(model, n_envs=envs, episodes=episodes, seed=seed, deterministic=deterministic, max_steps=max_steps)
        shown = 0
        with signals_raised():
            try:
                with film(out, model.title, fps or its.fps) as pictures:
                    for picture in its.pictures():
                        shown += 1
                        if not pictures.add(picture):
                            break
            except KeyboardInterrupt as stop:
                stopped(_told(its, seed) if out is None else f"{out} is not written", stop)
            finally:
                its.close()
        click.echo(_told(its, seed))
        if out is not None:
            click.echo(f"written: {out} ({counted(shown, 'pictures')})")


def _told(its: Play, seed: int) -> str:
    returns = ", ".join(f"{one:g}" for one in its.returns)
    return f"{counted(len(its.returns), 'episodes')}, seed {seed}" + (f", return {returns}" if returns else "")
