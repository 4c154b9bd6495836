"""One CartPole, for ``gymnasium.make``: an action in, an observation, its reward and the end of the episode out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, SupportsFloat

import gymnasium
import numpy as np
from gymnasium.error import ClosedEnvironmentError, ResetNeeded
from gymnasium.spaces import Discrete

from fastac import _core
from fastac.env.arguments import reset_bounds
from fastac.env.common import Drawer, Float32Array, NativeEnv, observation_space
from fastac.exclusive import exclusive


class CartPoleEnv(NativeEnv, gymnasium.Env[Float32Array, Any]):
    """One native CartPole for ``gymnasium.make``; the time limit is Gymnasium's ``TimeLimit`` wrapper's.

    Unlike Gymnasium's own, a step after ``terminated`` is an error, not a warning. One thread at a time may use it; a
    copy is an env of its own that goes on bit for bit.

    Args:
        sutton_barto_reward: False: reward 1 for every step. True: 0, and -1 where the pole fell.
        render_mode: None, "rgb_array" or "human".
    """

    metadata: dict[str, Any] = {"render_modes": ["human", "rgb_array"], "render_fps": 50}  # noqa: RUF012

    def __init__(self, sutton_barto_reward: bool = False, render_mode: str | None = None) -> None:
        super().__init__()
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode: expected None, 'human' or 'rgb_array', got {render_mode!r}")
        self.render_mode = render_mode
        self.observation_space = observation_space()
        self.action_space = Discrete(2)
        self._native = _core.CartPole(1, _core.CartPole.NO_TIME_LIMIT, "disabled", bool(sutton_barto_reward))
        # The only stream is Gymnasium's np_random, which draws the initial states; the native one is unused.
        self._native.seed(np.zeros(1, dtype=np.int64), np.zeros((1, 4), dtype=np.uint64))
        self._fetch_views()
        self._actions = np.zeros(1, dtype=np.int64)
        self._was_reset = False
        self._closed = False

    @exclusive
    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Float32Array, dict[str, Any]]:
        """Begin a new episode: obs float32[4], a copy, and an empty info.

        Args:
            seed: a non-negative Python int, or None to let the stream run on.
            options: ``low``, ``high``: bounds of the uniform initial state, for this reset only.
        """
        self._check_open()
        low, high = reset_bounds({} if options is None else options)
        super().reset(seed=seed)
        state = self.np_random.uniform(low, high, size=4)
        self._native.reset(None, 0.0, 0.0)
        self._native.state = state[:, np.newaxis].copy()
        self._was_reset = True
        if self.render_mode == "human":
            self.render()
        return self._obs[0].copy(), {}

    @exclusive
    def step(self, action: Any) -> tuple[Float32Array, SupportsFloat, bool, bool, dict[str, Any]]:
        """Advance by 0.02 s: obs float32[4], a copy, reward, terminated, truncated=False, an empty info.

        Raises:
            ValueError: action is not 0 or 1.
            gymnasium.error.ResetNeeded: the env was never reset, or its episode has terminated.
        """
        self._check_open()
        if not self.action_space.contains(action):
            raise ValueError(f"action: expected 0 or 1, got {action!r} of type {type(action).__name__}")
        self._actions[0] = action
        try:
            self._native.step(self._actions)
        except _core.ResetNeeded as error:
            raise ResetNeeded(str(error)) from None
        if self.render_mode == "human":
            self.render()
        return self._obs[0].copy(), float(self._reward[0]), bool(self._terminated[0]), False, {}

    @exclusive
    def render(self) -> Any:
        """The frame uint8[400, 600, 3] for "rgb_array"; None for "human", which shows it in a window."""
        self._check_open()
        if self.render_mode is None:
            gymnasium.logger.warn("render() without a render mode: expected 'human' or 'rgb_array'")
            return None
        if not self._was_reset:
            raise ResetNeeded("render: expected reset before the first frame")
        if self._drawer is None:
            self._drawer = Drawer(self.render_mode)
        return self._drawer.draw(self._native.state[:, 0])

    @exclusive
    def close(self) -> None:
        """Release the drawing surface or window; every later use is an error, but for another close."""
        if self._drawer is not None:
            self._drawer.close()
            self._drawer = None
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedEnvironmentError("CartPoleEnv: expected an open env, got one after close()")
