"""One env that draws itself, for who watches a policy: an action in, a reward out, and what there is to be seen."""

from __future__ import annotations

import dataclasses
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from fastac.env.batch import Maker
from fastac.errors import ConfigError

Picture = npt.NDArray[np.uint8]  # [height, width, 3]

_FPS = 30  # where an env does not say how many pictures are a second of it


class DrawnEnv:
    """What `maker` makes, with render_mode="rgb_array".

    Attributes:
        fps: pictures per second, at the pace of the env.

    Raises:
        ConfigError: the env takes no render_mode.
    """

    def __init__(self, maker: Maker) -> None:
        try:
            self._env = dataclasses.replace(maker, options={**maker.options, "render_mode": "rgb_array"})()
        except TypeError as error:
            raise ConfigError(f"env: expected one that takes render_mode='rgb_array', {error}") from error
        self.fps = float(self._env.metadata.get("render_fps") or _FPS)

    def reset(self, seed: int | None = None) -> npt.NDArray[Any]:
        """The first observation of the next episode."""
        return np.asarray(self._env.reset(seed=seed)[0])

    def step(self, action: Any) -> tuple[npt.NDArray[Any], float, bool]:
        """(observation, reward, whether the episode is over)"""
        obs, reward, terminated, truncated, _ = self._env.step(action)
        return np.asarray(obs), float(reward), bool(terminated or truncated)

    def picture(self) -> Picture:
        """Of now. Raises ConfigError for an env that has none, or whose library is not installed."""
        try:
            frame: Any = self._env.render()
        except gymnasium.error.DependencyNotInstalled as error:
            raise ConfigError(
                f"env: expected what draws it to be installed, {error}; "
                "for the classic ones of Gymnasium: pip install 'fastac[render]'"
            ) from error
        except NotImplementedError as error:
            raise ConfigError(f"env: expected one that draws itself (rgb_array), got {self._env}") from error
        if not isinstance(frame, np.ndarray) or frame.ndim != 3 or frame.shape[2] != 3:
            raise ConfigError(f"env: expected one that draws itself (rgb_array), got {self._env}, which drew {frame!r}")
        return frame.astype(np.uint8)

    def close(self) -> None:
        self._env.close()
