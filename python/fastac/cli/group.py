"""A group whose commands are imported when they are asked for, so that `fastac --help` waits for none of them."""

from __future__ import annotations

from importlib import import_module

import click


class Later(click.Command):
    """What is known of a command before it is imported: its name and its line in the group's help.

    place: the module and the name in it, "fastac.cli.train:train".
    """

    def __init__(self, name: str, place: str, line: str) -> None:
        super().__init__(name, short_help=line)
        self._place = place

    def load(self) -> click.Command:
        module, _, name = self._place.partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command


class LazyGroup(click.Group):
    """Help, completion and suggestions make do with what `Later` knows; who goes on to a command gets the command."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return name, command.load() if isinstance(command, Later) else command, rest
