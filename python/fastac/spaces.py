"""What an env takes and gives, in numbers: enough to build a policy and its buffers, without Gymnasium or torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Actions:
    """What may be done in each step.

    Attributes:
        kind: "discrete", one of nvec[0]; "multi_discrete", one of each of nvec; "box", real numbers of `shape`.
        nvec: sizes of the choices; empty for a "box".
        shape: of a "box"; else empty.
        low: "box": lower bounds of the numbers; infinite where there is none. What lies beyond is clipped for the env.
        high: upper bounds.
        start: "discrete": the env's name for action 0.
        dtype: "box": in which the env wants them; the same to a policy.
    """

    kind: Literal["discrete", "multi_discrete", "box"]
    nvec: tuple[int, ...] = ()
    shape: tuple[int, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    start: int = 0
    dtype: str = field(default="float32", compare=False)

    @property
    def size(self) -> int:
        """Real numbers, or choices, in one action."""
        return math.prod(self.shape) if self.kind == "box" else len(self.nvec)

    @property
    def buffer(self) -> tuple[tuple[int, ...], type[np.generic]]:
        """Shape and dtype of an action in a rollout: int64[], int64[K] or float32[D]."""
        if self.kind == "box":
            return (self.size,), np.float32
        return ((), np.int64) if self.kind == "discrete" else ((self.size,), np.int64)

    def for_env(self, actions: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Actions of a policy [N, ...] as the env wants them: bounded, in its dtype and shape, by its names."""
        if self.kind == "box":
            low, high = (np.array(bound, self.dtype) for bound in (self.low, self.high))
            with np.errstate(over="ignore"):  # what a smaller dtype cannot hold is infinite, and bounded like the rest
                bounded = np.clip(actions.astype(self.dtype), low, high)
            return np.reshape(bounded, (len(actions), *self.shape))
        return actions + self.start if self.start else actions


@dataclass(frozen=True)
class Spaces:
    """Of one env.

    Attributes:
        obs_shape: of an observation.
        actions: what may be done.
        obs_dtype: "float32", or "uint8" (an image, or bytes).
        obs_start: of a Discrete space, whose numbers a policy sees one-hot: the first of them; None of others.
    """

    obs_shape: tuple[int, ...]
    actions: Actions
    obs_dtype: str = "float32"
    obs_start: int | None = field(default=None, compare=False)  # one-hot by whomever, a policy sees the same

    def seen(self, obs: npt.ArrayLike) -> npt.NDArray[Any]:
        """Observations as a policy sees them: numbers of a Discrete space, [] or [N], become one-hot [n] or [N, n].

        Raises ValueError for a number that is not in the space.
        """
        numbers = np.asarray(obs)
        if self.obs_start is None or numbers.dtype.kind not in "iu" or numbers.ndim > 1:
            return np.asarray(obs, self.obs_dtype)
        every = self.obs_start + np.arange(self.obs_size)
        if not np.isin(numbers, every).all():
            raise ValueError(f"obs: expected whole numbers from {every[0]} to {every[-1]}, got {obs!r}")
        one_hot: npt.NDArray[Any] = (numbers[..., None] == every).astype(self.obs_dtype)
        return one_hot

    @property
    def obs_size(self) -> int:
        """Numbers in an observation."""
        return math.prod(self.obs_shape)


CARTPOLE = Spaces((4,), Actions("discrete", (2,)))
