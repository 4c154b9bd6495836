"""What both envs are made of: the native env that they hold, their space, and Gymnasium's drawing."""

from __future__ import annotations

import copy
import threading
from typing import Any, TypeAlias, TypeVar

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.envs.classic_control.cartpole import CartPoleEnv as GymnasiumCartPole
from gymnasium.spaces import Box

from fastac import _core
from fastac.exclusive import exclusive

Float32Array: TypeAlias = npt.NDArray[np.float32]
Float64Array: TypeAlias = npt.NDArray[np.float64]
Int64Array: TypeAlias = npt.NDArray[np.int64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
State: TypeAlias = dict[str, npt.NDArray[Any]]
Env = TypeVar("Env", bound="NativeEnv")

ENV_ID = "fastac/CartPole-v1"


class NativeEnv:
    """What both envs share: a native env, which one thread uses at a time, and copies that share nothing with it."""

    _native: _core.CartPole
    _drawer: Drawer | None = None  # here too: close() runs even where the constructor failed

    def __init__(self) -> None:
        self._inside = threading.RLock()

    @exclusive
    def __getstate__(self) -> dict[str, Any]:
        """For copy and pickle: all but the lock, the drawing surface and the views, which a copy makes for itself."""
        own = ("_inside", "_drawer", "_obs", "_final_obs", "_reward", "_terminated", "_truncated")
        return {name: value for name, value in self.__dict__.items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        NativeEnv.__init__(self)
        self.__dict__.update(state)
        self._fetch_views()

    def __copy__(self: Env) -> Env:
        """A shallow copy would be the same native env under a second name."""
        return copy.deepcopy(self)

    def _fetch_views(self) -> None:
        """Once, and not in every step: a fetch costs as much as stepping an env."""
        self._obs, self._final_obs = self._native.obs, self._native.final_obs
        self._reward = self._native.reward
        self._terminated, self._truncated = self._native.terminated, self._native.truncated


class Drawer:
    """Gymnasium's own drawing of a state, so that a frame is pixel for pixel the same."""

    def __init__(self, render_mode: str) -> None:
        self._env: Any = GymnasiumCartPole(render_mode=render_mode)

    def draw(self, state: Float64Array) -> Any:
        self._env.state = state
        return self._env.render()

    def close(self) -> None:
        self._env.close()


def observation_space() -> gymnasium.Space[Any]:
    # Twice the limits at which an episode is terminated, so that its last observation is inside.
    high = np.array([2.4 * 2, np.inf, 12 * 2 * np.pi / 360 * 2, np.inf], dtype=np.float32)
    return Box(-high, high, dtype=np.float32)
