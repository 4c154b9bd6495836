"""The command line. What its exit codes mean stands in the help of `main`."""

from __future__ import annotations

import click

from fastac._core import __version__
from fastac.cli.group import Later, LazyGroup

_COMMANDS = [
    Later("bench", "fastac.cli.bench:bench", "Measure speed, memory and time to solve."),
    Later("check", "fastac.cli.check:check", "Is every gradient applied exactly once, whatever dies?"),
    Later("compare", "fastac.cli.compare:compare", "A3C against A2C, with everything equal that can be."),
    Later("completion", "fastac.cli.completion:completion", "Print the script that completes fastac in a shell."),
    Later("doctor", "fastac.cli.doctor:doctor", "Is this machine ready for a run, and what to do where not?"),
    Later("eval", "fastac.cli.evaluate:evaluate", "Play episodes without learning, and say the returns."),
    Later("exercise", "fastac.cli.exercise:exercise", "The classroom exercise: logs, pictures, answers."),
    Later(
        "mitigations", "fastac.cli.lab:mitigations_command", "What helps against staleness, each remedy tuned alike."
    ),
    Later("plan", "fastac.cli.plan:plan", "How many nodes of a cluster are worth it?"),
    Later("play", "fastac.cli.play:play", "Show a policy at play, in a window or a film."),
    Later("presets", "fastac.cli.presets:presets", "Show the named sets of hyper-parameters."),
    Later("replay", "fastac.cli.replay:replay", "Make a recorded run again, to the last bit."),
    Later("report", "fastac.cli.report:report", "Show a run or a comparison as one HTML file."),
    Later("resume", "fastac.cli.resume:resume", "Finish a run that was stopped, failed or was killed."),
    Later("search", "fastac.cli.search:search", "Random search with equal budgets for A2C and A3C."),
    Later("staleness", "fastac.cli.lab:staleness_command", "What staleness alone does to learning."),
    Later("stragglers", "fastac.cli.lab:stragglers_command", "What waiting for the slowest worker costs A2C."),
    Later("train", "fastac.cli.train:train", "Train one model."),
]


@click.group(
    cls=LazyGroup,
    commands=_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, prog_name="fastac")
def main() -> None:
    """Asynchronous and synchronous advantage actor-critic on one native CartPole.

    \b
    fastac doctor                            is this machine ready, and what to do where not
    fastac check                             is every gradient applied exactly once, whatever dies?
    fastac compare --quick                   A3C against A2C in two minutes
    fastac exercise                          the classroom exercise: logs, pictures, answers
    fastac train a3c --preset a3c-8          train, and keep the model in runs/
    fastac train a3c --config run.toml       with options from a file
    fastac eval runs/NAME                    play episodes without learning
    fastac play runs/NAME                    watch a policy, in a window, a GIF or an MP4
    fastac resume runs/NAME                  finish a run that was interrupted
    fastac report runs/NAME                  a run or a comparison as one HTML page
    fastac replay runs/NAME                  make a recorded run again, to the last bit
    fastac staleness --quick                 what stale gradients do to learning
    fastac mitigations --quick               what helps against stale gradients
    fastac stragglers --quick                what waiting for the slowest worker costs; --real: by the clock
    fastac bench env                         the env against Gymnasium's
    fastac plan                              how many nodes of a cluster are worth it
    fastac completion bash                   commands and options completed by the shell

    \b
    Exit codes:
      0    done
      1    the run failed, or what was to be checked does not hold (check, doctor, eval --threshold)
      2    the command, an option or the configuration file is wrong
      130  stopped by Ctrl-C
      143  stopped by SIGTERM
    """
