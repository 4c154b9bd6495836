"""The answers to the exercise's questions, each with what was measured beside it.

A difference is called one only where as large a one would come by chance in fewer than 1 of 100 repetitions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from fastac.compare.experiment import ARMS
from fastac.compare.tables import of_arm
from fastac.compare.verdicts import mann_whitney
from fastac.exercise.figures import counts, median, of_first, of_later, reached
from fastac.exercise.runs import SCHEMES, TARGET, Exercise, Runs
from fastac.words import counted

_LEAST_P = 0.01
_FEWEST = 5  # seeds; of fewer, no two groups lie so far apart that p would be below _LEAST_P


def answers(runs: Runs, exercise: Exercise) -> dict[str, str]:
    """{question: answer}. Expects that all runs have ended."""
    return {
        "The main advantage of A3C?": _advantage(runs, exercise),
        "Its main disadvantage?": _disadvantage(runs),
        f"What do {exercise.updates:,} updates reach?": _reach(runs, exercise),
        "The batch, or the staleness?": _batch_or_staleness(runs, exercise),
        f"Which is at {TARGET:.0f} first?": _first_at_target(runs),
        "Lock, queue, hogwild or lock-free?": _schemes(runs),
    }


def differs(a: Sequence[float], b: Sequence[float]) -> bool:
    return mann_whitney(a, b) < _LEAST_P


def compared(what: str, a: Sequence[float], b: Sequence[float], names: tuple[str, str], digits: int) -> str:
    """One sentence: both medians, and whether the runs carry a difference."""
    seeds = counted(len(a), "seeds")
    if min(len(a), len(b)) < _FEWEST:
        verdict = f"{seeds}: too few to tell"
    elif differs(a, b):
        verdict = f"p = {mann_whitney(a, b):.1g}"
    else:
        verdict = f"no difference that {seeds} could show, p = {mann_whitney(a, b):.2f}"
    return f"{what}: {names[0]} {_number(median(a), digits)}, {names[1]} {_number(median(b), digits)} ({verdict})."


def _advantage(runs: Runs, exercise: Exercise) -> str:
    speed = {arm: of_later(runs, arm)["env_steps_per_s"] for arm in ARMS}
    ratio = median(speed["A3C"]) / median(speed["A2C split"])
    return (
        "No worker waits for another, so that rollouts and updates go on side by side on all cores, without a barrier "
        f"and without a replay memory. Measured: {exercise.workers} worker processes made {median(speed['A3C']):,.0f} "
        f"env steps per second, {ratio:.2f} times as many as A2C split ({median(speed['A2C split']):,.0f}), which "
        f"makes the same small updates in turn in one process. A2C, in one process too, made "
        f"{median(speed['A2C']):,.0f}, with an update for every {exercise.workers} of theirs."
        + (" So these runs do not show the advantage." if ratio < 1 else "")
    )


def _disadvantage(runs: Runs) -> str:
    a3c, split = of_later(runs, "A3C"), of_later(runs, "A2C split")
    cost = compared(
        f"Env steps to {TARGET:.0f}",
        a3c["env_steps_to_target"],
        split["env_steps_to_target"],
        ("A3C", "A2C split (staleness 0)"),
        0,
    )
    return (
        "Gradients are stale: others have changed the parameters since they were read. Measured: "
        f"{median(a3c['staleness_mean']):.2f} updates lay in between on average, at most "
        f"{median(a3c['staleness_p95']):.0f} for 95 % of the gradients, {max(a3c['staleness_max']):,.0f} for the "
        f"stalest. {cost}"
    )


def _reach(runs: Runs, exercise: Exercise) -> str:
    within = {arm: of_first(runs, exercise, arm)["env_steps_to_target"] for arm in ARMS}
    seeds = len(exercise.seeds)
    told = ", ".join(f"{arm} on {reached(times)}" for arm, times in within.items())
    text = (
        f"They are {exercise.env_steps('A3C'):,} env steps for A3C and for A2C split, {exercise.env_steps('A2C'):,} "
        f"for A2C, whose update holds {counted(exercise.workers, 'rollouts')}. A mean return of {TARGET:.0f} came "
        f"within them in: {told} of {counted(seeds, 'seeds')}."
    )
    later = of_later(runs, "A3C")
    if reached(within["A3C"]) == 0 and math.isfinite(needed := median(later["updates_to_target"])):
        text += (
            f" Too few for A3C: the median of its longer runs came there after {needed:,.0f} updates, "
            f"{median(later['env_steps_to_target']):,.0f} env steps."
        )
    return text


def _batch_or_staleness(runs: Runs, exercise: Exercise) -> str:
    norms = {arm: of_first(runs, exercise, arm)["grad_norm_matched"] for arm in ARMS}
    what = "Gradient norm over the same {:,} env steps, {}".format(exercise.env_steps("A3C"), "{}")
    return " ".join(
        [
            compared(
                what.format("batch size alone"), norms["A2C split"], norms["A2C"], ("A2C split", "A2C"), 3
            ),
            f"Independent rollouts would give a ratio of sqrt({exercise.workers}) = {math.sqrt(exercise.workers):.1f}, "
            f"measured {median(norms['A2C split']) / median(norms['A2C']):.1f}.",
            compared("Staleness alone", norms["A3C"], norms["A2C split"], ("A3C", "A2C split"), 3),
        ]
    )  # fmt: skip


def _first_at_target(runs: Runs) -> str:
    a3c, a2c = of_later(runs, "A3C"), of_later(runs, "A2C")
    return " ".join(
        compared(what, a3c[key], a2c[key], ("A3C", "A2C"), digits)
        for what, key, digits in (
            ("Env steps", "env_steps_to_target", 0),
            ("Updates", "updates_to_target", 0),
            ("Seconds of training", "wall_s_to_target", 3),
        )
    )


def _schemes(runs: Runs) -> str:
    figures = {scheme: of_later(runs, arm) for scheme, arm in SCHEMES.items()}
    safe = counts([its for scheme, arm in SCHEMES.items() if scheme != "hogwild" for its in of_arm(runs.later, arm)])
    differences = [
        compared(what, its[key], figures["lockfree"][key], (scheme, "lockfree"), 0)
        for what, key in (
            ("Updates per second", "updates_per_s"),
            (f"Env steps to {TARGET:.0f}", "env_steps_to_target"),
        )
        for scheme, its in figures.items()
        if scheme != "lockfree" and differs(its[key], figures["lockfree"][key])
    ]
    return " ".join(
        [
            f"Of {safe['pushed']:,} gradients under lock, queue and lockfree, {safe['applied']:,} were applied, each "
            f"once; {safe['merged']} were merged, {safe['rejected']} rejected. hogwild overwrote "
            f"{median(figures['hogwild']['lost']):.1%} of its additions.",
            *(differences or [_no_difference(len(figures["lockfree"]["updates_per_s"]))]),
        ]
    )


def _no_difference(seeds: int) -> str:
    if seeds < _FEWEST:
        return f"{counted(seeds, 'seeds')}: too few to tell the schemes apart in speed or in env steps to {TARGET:.0f}."
    return f"These seeds show no scheme to differ from lockfree in speed or in env steps to {TARGET:.0f}."


def _number(x: float, digits: int) -> str:
    return "unsolved" if math.isinf(x) else f"{x:,.{digits}f}"
