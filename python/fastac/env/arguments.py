"""What a caller gives to an env -> checked, or an error that says what was expected."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, SupportsIndex

import numpy as np
from gymnasium.error import Error as GymnasiumError

from fastac.env.common import BoolArray, Int64Array
from fastac.words import counted

try:
    from gymnasium.vector import AutoresetMode as AutoresetMode  # for the other rooms, too
except ImportError:  # gymnasium 1.0 knows only NEXT_STEP and has no name for it

    class AutoresetMode(Enum):  # type: ignore[no-redef]  # either this or the import
        """What happens to an env whose episode has ended."""

        NEXT_STEP = "NextStep"
        SAME_STEP = "SameStep"
        DISABLED = "Disabled"


RESET_LOW, RESET_HIGH = -0.05, 0.05  # bounds of each entry of an initial state


def positive_int(name: str, value: SupportsIndex) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name}: expected an int, got {type(value).__name__}")
    number = operator.index(value)
    if number < 1:
        raise ValueError(f"{name}: expected at least 1, got {number}")
    return number


def parse_autoreset_mode(mode: str | AutoresetMode) -> AutoresetMode:
    for candidate in AutoresetMode:
        if mode in (candidate, candidate.value, candidate.name, candidate.name.lower()):
            return candidate
    raise ValueError(f"autoreset_mode: expected one of {[m.value for m in AutoresetMode]}, got {mode!r}")


def expand_seeds(seed: int | Sequence[int | None] | None, num_envs: int) -> Sequence[int | None]:
    if seed is None:
        return [None] * num_envs
    if isinstance(seed, int):
        return [seed + i for i in range(num_envs)]
    if not hasattr(seed, "__len__"):
        # A numpy integer too: Gymnasium refuses it.
        raise TypeError(f"seed: expected None, a Python int or a list of them, got {type(seed).__name__}")
    if len(seed) != num_envs:
        raise ValueError(f"seed: expected {counted(num_envs, 'seeds')}, one for each env, got {len(seed)}")
    return seed


def checked_seed(seed: int | None) -> int | None:
    if seed is not None and not isinstance(seed, int):
        raise GymnasiumError(f"seed: expected a Python int, got {type(seed).__name__}")
    if seed is not None and seed < 0:
        raise GymnasiumError(f"seed: expected at least 0, got {seed}")
    return seed


def reset_bounds(options: Mapping[str, Any]) -> tuple[float, float]:
    bounds = []
    for name, default in (("low", RESET_LOW), ("high", RESET_HIGH)):
        value = options.get(name, default)
        try:
            bounds.append(float(value))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name}: expected a number, got {value!r}") from error
    low, high = bounds
    if not low <= high or not np.isfinite(high - low):
        raise ValueError(f"reset bounds: expected finite low <= high, got low={low}, high={high}")
    return low, high


def reset_mask(options: Mapping[str, Any], num_envs: int) -> BoolArray | None:
    if "reset_mask" not in options:
        return None
    mask = options["reset_mask"]
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
        got = mask.dtype if isinstance(mask, np.ndarray) else type(mask).__name__
        raise TypeError(f"reset_mask: expected a numpy array of bool, got {got}")
    if mask.shape != (num_envs,):
        raise ValueError(f"reset_mask: expected shape ({num_envs},), got {mask.shape}")
    if not mask.any():
        raise ValueError("reset_mask: expected at least one True, got none")
    return np.ascontiguousarray(mask)


def as_int64(actions: Any) -> Int64Array:
    array = np.asarray(actions)
    if array.dtype.kind not in "iu":  # a bool or float is a mistake upstream, not an action
        raise TypeError(f"actions: expected integers, got {array.dtype}")
    return np.require(array, np.int64, ["C", "ALIGNED"])
