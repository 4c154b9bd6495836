"""`fastac train`: one model, trained and kept."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastac import rundir
from fastac.cli.endings import ends_in_order, signals_raised, stopped
from fastac.cli.options import config_options, new_folder, run_options, timesteps_option
from fastac.config import A2CConfig, A3CConfig
from fastac.errors import FastacError
from fastac.signals import signals_deferred

if TYPE_CHECKING:
    from fastac.algorithm import Algorithm


@click.group()
def train() -> None:
    """Train one model; its tables and its checkpoint go to runs/<name>/."""


@train.command("a2c")
@timesteps_option
@config_options(A2CConfig)
@run_options
def train_a2c(**options: Any) -> None:
    """Synchronous: all envs in one batch, one update for each rollout of all.

    \b
    fastac train a2c --n-envs 4
    fastac train a2c --n-envs 8 --split 8 --seed 1
    """
    _train("a2c", **options)


@train.command("a3c")
@timesteps_option
@config_options(A3CConfig)
@run_options
def train_a3c(**options: Any) -> None:
    """Asynchronous: workers with envs of their own, each updating the shared parameters.

    \b
    fastac train a3c --workers 4 --update lockfree --backend process
    fastac train a3c --workers 8 --update hogwild --seed 1
    """
    _train("a3c", **options)


def _train(kind: str, total_timesteps: int, name: str | None, runs: Path, **options: Any) -> None:
    with ends_in_order():
        {"a2c": A2CConfig, "a3c": A3CConfig}[kind](**options)  # a bad value is an error before torch is imported
        import fastac

        model: Algorithm = {"a2c": fastac.A2C, "a3c": fastac.A3C}[kind](**options)
        with signals_raised():
            path = _learn(model, new_folder(runs, name, kind), total_timesteps)
        _report(model, path)


def _learn(model: Algorithm, folder: Path, total_timesteps: int) -> Path:
    """Trains and saves, however the training ended; returns the model's file."""
    try:
        model.learn(total_timesteps, progress_bar=True)
    except KeyboardInterrupt as stop:
        if model.num_timesteps == 0:
            folder.rmdir()
            stopped("nothing was trained yet", stop)
        path = _save(model, folder, "stopped")
        stopped(f"{model.num_timesteps:,} of {total_timesteps:,} env steps done, saved in {path}", stop)
    except FastacError as error:
        path = _save(model, folder, f"failed: {type(error).__name__}")
        click.echo(f"saved: {path}, after {model.num_timesteps:,} env steps", err=True)
        raise
    return _save(model, folder, "done")


@signals_deferred()
def _save(model: Algorithm, folder: Path, status: str) -> Path:
    from fastac import machine

    path = model.save(folder / "model.safetensors")
    if model.history is None or model.ledger is None:  # stopped before the run was open
        return path
    rundir.write_table(folder / "episodes.csv", model.history.episodes)
    rundir.write_table(folder / "updates.csv", model.history.updates)
    rundir.write_table(folder / "moments.csv", model.history.moments)
    record = {
        "status": status,
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
    return path


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
