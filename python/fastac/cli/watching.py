"""What one sees of a training, and what it logs: options of `fastac train` and `fastac resume`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fastac.cli.options import Command

if TYPE_CHECKING:
    from fastac.training import BaseCallback


@dataclass(frozen=True)
class Watching:
    """CSV and JSON lines are always written; a bar is shown unless something else is."""

    tensorboard: bool
    verbose: bool
    live: bool

    @property
    def progress_bar(self) -> bool:
        return not (self.verbose or self.live)

    def going_on_in(self, folder: Path) -> Watching:
        """With event files, where there are some already."""
        from fastac.logs import event_files_in

        return dataclasses.replace(self, tensorboard=self.tensorboard or bool(event_files_in(folder)))

    def import_all(self) -> None:
        """What is needed, while Ctrl-C may still end everything at once. Raises ConfigError where that is missing."""
        from fastac import live  # noqa: F401
        from fastac.logs import import_tensorboard

        if self.tensorboard:
            import_tensorboard()

    def callbacks(self, folder: Path) -> list[BaseCallback]:
        """Of a run in that folder."""
        from fastac.live import LiveView
        from fastac.logs import Logger

        formats = {"csv": True, "json": True, "tensorboard": self.tensorboard, "stdout": self.verbose}
        logger = Logger(folder, [name for name, wanted in formats.items() if wanted])
        return [logger, LiveView()] if self.live else [logger]


def watching_options(command: Command) -> Command:
    """The fields of Watching."""
    for option in (
        click.option("--verbose", "-v", is_flag=True, help="print the figures of progress.csv as tables, every second"),
        click.option(
            "--live", is_flag=True, help="watch it: returns, pace, staleness of each worker; plain lines off a terminal"
        ),
        click.option(
            "--tensorboard",
            is_flag=True,
            help="also write event files for TensorBoard (pip install 'fastac[tensorboard]')",
        ),
    ):
        command = option(command)
    return command
