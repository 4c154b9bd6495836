"""`fastac completion`: the script with which a shell completes commands, options and paths."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", metavar="SHELL", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that completes fastac in a shell.

    SHELL is bash (from 4.4 on), zsh or fish. Commands, options, their choices, run folders and files are completed.
    For every new shell, bash and zsh take the script where they start, fish from a folder of its own:

    \b
    echo 'eval "$(fastac completion bash)"' >> ~/.bashrc
    echo 'eval "$(fastac completion zsh)"' >> ~/.zshrc         after compinit
    fastac completion fish > ~/.config/fish/completions/fastac.fish
    """
    root = context.find_root()
    script_of = get_completion_class(shell)
    assert script_of is not None
    click.echo(script_of(root.command, {}, "fastac", "_FASTAC_COMPLETE").source(), nl=False)
