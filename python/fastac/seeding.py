"""Random streams: one seed in, an independent stream for every use out.

Streams come from numpy's SeedSequence with a key for (use, index), never from seed + index: with the latter, env 1
of seed 0 would be env 0 of seed 1, and the seeds of an experiment would share their episodes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_ENV, _ACTION, _WEIGHTS = 0, 1, 2
_STALENESS, _COST = 10, 11  # of the laboratory


def drawn() -> int:
    """A seed from the system's entropy, below 2^32: where none was given, and it is to be told."""
    return int(np.random.SeedSequence().generate_state(1, np.uint32)[0])


def play_words(seed: int | None, n: int) -> npt.NDArray[np.uint64]:
    """Seed words uint64[n, 4] of n envs that are only played in; from the system's entropy if None."""
    return np.stack([child.generate_state(4, np.uint64) for child in np.random.SeedSequence(seed).spawn(n)])


def play_stream(seed: int | None) -> np.random.Generator:
    """What their actions are sampled from, apart from the envs' own; from the system's entropy if None."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0, _ACTION)))


def gymnasium_seeds(words: npt.NDArray[np.uint64]) -> list[int]:
    """Of seed words uint64[n, 4], what Gymnasium's reset(seed=...) takes: below 2^31, as some envs want it."""
    return [int(word) for word in words[:, 0] >> np.uint64(33)]


def _sequence(seed: int, *key: int) -> np.random.SeedSequence:
    return np.random.SeedSequence(seed, spawn_key=key)


def _words(seed: int, call: int, use: int, first: int, n: int, incarnation: int) -> npt.NDArray[np.uint64]:
    later = (incarnation,) if incarnation else ()  # a longer key: nothing that the dead one lived through is replayed
    return np.stack(
        [_sequence(seed, call, use, index, *later).generate_state(4, np.uint64) for index in range(first, first + n)]
    )


def env_words(seed: int, call: int, first: int, n: int, incarnation: int = 0) -> npt.NDArray[np.uint64]:
    """Seed words uint64[n, 4] of the streams from which these envs draw their initial states.

    Envs are numbered over all workers: first .. first + n - 1. `call` counts the model's learn calls, `incarnation`
    the workers that have died in the seat of theirs.
    """
    return _words(seed, call, _ENV, first, n, incarnation)


def action_words(seed: int, call: int, first: int, n: int, incarnation: int = 0) -> npt.NDArray[np.uint64]:
    """Seed words uint64[n, 4] of the streams from which these envs' actions are sampled."""
    return _words(seed, call, _ACTION, first, n, incarnation)


def weights_words(seed: int) -> npt.NDArray[np.uint64]:
    """Seed words uint64[4] of the initial weights: the same for every algorithm, so that comparisons start from one
    policy."""
    return _sequence(seed, 0, _WEIGHTS, 0).generate_state(4, np.uint64).astype(np.uint64)


def staleness_words(seed: int) -> npt.NDArray[np.uint64]:
    """Seed words uint64[4] of a staleness that is drawn: apart from those of envs and actions."""
    return _sequence(seed, 0, _STALENESS, 0).generate_state(4, np.uint64).astype(np.uint64)


def cost_words(seed: int) -> npt.NDArray[np.uint64]:
    """Seed words uint64[4] of what env steps cost in virtual time."""
    return _sequence(seed, 0, _COST, 0).generate_state(4, np.uint64).astype(np.uint64)
