"""`fastac eval`: how good a model is, by episodes played without learning."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from fastac import seeding
from fastac.cli.endings import ends_in_order
from fastac.cli.options import playing_options
from fastac.cli.runs import expect_run, load_model
from fastac.metrics import WINDOW
from fastac.words import counted

if TYPE_CHECKING:
    from fastac.algorithm import Algorithm

_MOST_EPISODES = 100_000  # they are played side by side


@click.command("eval")
@click.argument("path", metavar="MODEL", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--episodes",
    type=click.IntRange(1, _MOST_EPISODES),
    default=WINDOW,
    show_default=True,
    help="how many are played, side by side in as many envs",
)
@playing_options
@click.option(
    "--threshold",
    type=float,
    default=None,
    metavar="RETURN",
    help="exit code 1 if the mean return is below  [default: any return will do]",
)
@click.option("--json", "as_json", is_flag=True, help="one JSON object instead of lines for people")
def evaluate(
    path: Path, episodes: int, seed: int | None, deterministic: bool, threshold: float | None, as_json: bool
) -> None:
    """Play episodes without learning, and say the returns.

    MODEL is a run folder or a file that `save` wrote. The same model, seed and options give the same returns.
    Exit code 0: played, and --threshold, if given, is reached. 1: it is not, or the model is damaged.

    \b
    fastac eval runs/NAME
    fastac eval runs/NAME --stochastic --episodes 1000 --seed 0
    fastac eval model.safetensors --threshold 475 && echo solved
    """
    with ends_in_order():
        if threshold is not None and not math.isfinite(threshold):
            raise click.UsageError(f"--threshold: expected a finite number, got {threshold}")
        if path.is_dir():
            expect_run(path)
        if seed is None:
            seed = seeding.drawn()
        model = load_model(path)
        told = _play(model, episodes, seed, deterministic)
        reached = threshold is None or told["mean_return"] >= threshold
        if as_json:
            asked = {"model": str(path), "algorithm": type(model).__name__}
            click.echo(json.dumps(asked | told | {"threshold": threshold, "reached": reached}, indent=2))
        else:
            click.echo(_lines(model, told))
            if threshold is not None:
                click.echo(f"threshold {threshold:g}: {'reached' if reached else 'not reached'}")
    if not reached:
        sys.exit(1)


def _play(model: Algorithm, episodes: int, seed: int, deterministic: bool) -> dict[str, Any]:
    from fastac import evaluate_policy

    returns, lengths = evaluate_policy(
        model, n_eval_episodes=episodes, deterministic=deterministic, seed=seed, return_episode_rewards=True
    )
    return {
        "episodes": episodes,
        "seed": seed,
        "deterministic": deterministic,
        "mean_return": float(np.mean(returns)),
        "std_return": float(np.std(returns)),
        "min_return": min(returns),
        "max_return": max(returns),
        "mean_length": float(np.mean(lengths)),
    }


def _lines(model: Algorithm, told: dict[str, Any]) -> str:
    actions = "the most probable actions" if told["deterministic"] else "actions drawn as in training"
    return (
        f"{type(model).__name__}, {counted(told['episodes'], 'episodes')}, {actions}, seed {told['seed']}\n"
        f"return: mean {told['mean_return']:.1f}, standard deviation {told['std_return']:.1f}, "
        f"min {told['min_return']:g}, max {told['max_return']:g}"
    )
