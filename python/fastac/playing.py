"""A policy at play, to be looked at: episodes without learning, picture by picture.

In: a model. Out: pictures of all its envs at each step, and the returns of the episodes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from fastac import seeding
from fastac.algorithm import Algorithm
from fastac.env.drawn import Picture
from fastac.errors import ConfigError
from fastac.pictures import in_one
from fastac.problem import make_drawn


class Play:
    """Some episodes of a model in one or several envs; as many in each, as evaluate_policy plays them.

    The same model, seed and numbers play the same episodes: for envs of Gymnasium those of evaluate_policy, with as
    many envs as episodes.

    Args:
        n_envs: side by side, but no more than episodes.
        episodes: in all; one in each env if None.
        seed: of the initial states and of the actions that are sampled; drawn from the system if None.
        deterministic: take the most probable action instead of sampling.
        max_steps: env steps in each env after which it ends, whether or not the episodes are over; None: when they are.

    Attributes:
        returns: of the episodes that are over, in the order in which they ended.
        fps: pictures per second, at the pace of the env.

    Raises:
        ConfigError: a number < 1, or an env that cannot be drawn.
    """

    def __init__(
        self,
        model: Algorithm,
        *,
        n_envs: int = 1,
        episodes: int | None = None,
        seed: int | None = None,
        deterministic: bool = True,
        max_steps: int | None = None,
    ) -> None:
        episodes = n_envs if episodes is None else episodes
        for name, value in (("n_envs", n_envs), ("episodes", episodes), ("max_steps", max_steps)):
            if value is not None and value < 1:
                raise ConfigError(f"{name}: expected a whole number >= 1, got {value}")
        n_envs = min(n_envs, episodes)  # one without an episode would stand still
        self._model = model
        self._deterministic = deterministic
        self._max_steps = max_steps
        self._to_play = np.array([(episodes + i) // n_envs for i in range(n_envs)])
        self._seeds = seeding.gymnasium_seeds(seeding.play_words(seed, n_envs))
        self._random = seeding.play_stream(seed)
        self._envs = [make_drawn(model.config, model.problem) for _ in range(n_envs)]
        self.fps = self._envs[0].fps
        self.returns: list[float] = []

    @property
    def over(self) -> bool:
        """Whether all episodes are."""
        return not self._to_play.any()

    def pictures(self) -> Iterator[Picture]:
        """One of the beginning, and one after each step. An env whose episodes are over stays as it is."""
        n, actions_of = len(self._envs), self._model.problem.spaces.actions
        obs = np.stack([env.reset(seed) for env, seed in zip(self._envs, self._seeds, strict=True)])
        obs = np.ascontiguousarray(obs, self._model.problem.spaces.obs_dtype)
        returns, ended, state = np.zeros(n), np.zeros(n, np.bool_), None
        start = np.ones(n, np.bool_)
        frames = [env.picture() for env in self._envs]
        for step in itertools.count():
            yield in_one(frames, [f"return {its:g}" for its in returns])
            if self.over or step == self._max_steps:
                return
            actions, state = self._model.choose(obs, self._deterministic, state, start, self._random)
            actions = actions_of.for_env(actions)
            start = np.zeros(n, np.bool_)
            for i in np.flatnonzero(self._to_play):
                if ended[i]:
                    obs[i], returns[i], ended[i], start[i] = self._envs[i].reset(), 0.0, False, True
                else:
                    obs[i], reward, ended[i] = self._envs[i].step(actions[i])
                    returns[i] += reward
                if ended[i]:
                    self.returns.append(float(returns[i]))
                    self._to_play[i] -= 1
                frames[i] = self._envs[i].picture()

    def close(self) -> None:
        for env in self._envs:
            env.close()
