"""The command line.

Exit codes: 0 done, 1 the run failed, 2 the command was wrong, 130 stopped by Ctrl-C, 143 stopped by SIGTERM.
"""

from __future__ import annotations

import click

from fastac._core import __version__
from fastac.cli.bench import bench
from fastac.cli.check import check
from fastac.cli.compare import compare
from fastac.cli.doctor import doctor
from fastac.cli.evaluate import evaluate
from fastac.cli.exercise import exercise
from fastac.cli.lab import mitigations_command, staleness_command, stragglers_command
from fastac.cli.presets import presets
from fastac.cli.replay import replay
from fastac.cli.report import report
from fastac.cli.resume import resume
from fastac.cli.search import search
from fastac.cli.train import train


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="fastac")
def main() -> None:
    """Asynchronous and synchronous advantage actor-critic on one native CartPole.

    \b
    fastac doctor                            is this machine ready, and what to do where not
    fastac check                             is every gradient applied exactly once, whatever dies?
    fastac compare --quick                   A3C against A2C in two minutes
    fastac exercise                          the classroom exercise: logs, pictures, answers
    fastac train a3c --preset a3c-8          train, and keep the model in runs/
    fastac eval runs/NAME                    play episodes without learning
    fastac resume runs/NAME                  finish a run that was interrupted
    fastac report runs/NAME                  a run or a comparison as one HTML page
    fastac replay runs/NAME                  make a recorded run again, to the last bit
    fastac staleness --quick                 what stale gradients do to learning
    fastac mitigations --quick               what helps against stale gradients
    fastac stragglers --quick                what waiting for the slowest worker costs; --real: by the clock
    fastac bench env                         the env against Gymnasium's
    """


main.add_command(train)
main.add_command(resume)
main.add_command(replay)
main.add_command(evaluate)
main.add_command(compare)
main.add_command(exercise)
main.add_command(report)
main.add_command(bench)
main.add_command(doctor)
main.add_command(check)
main.add_command(presets)
main.add_command(search)
main.add_command(staleness_command)
main.add_command(mitigations_command)
main.add_command(stragglers_command)
