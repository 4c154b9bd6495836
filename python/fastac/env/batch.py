"""Any Gymnasium env, many at once, with the face of the native batch: what the trainers step where no native env is.

Room before: the policy, whose actions come in. Room after: the rollout, which reads observations, rewards and ends.
"""

from __future__ import annotations

import contextlib
import importlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces as gym_spaces
from gymnasium.envs.registration import EnvSpec

from fastac import seeding
from fastac.env.arguments import AutoresetMode
from fastac.errors import ConfigError
from fastac.spaces import Actions, Spaces

AnyEnv = gymnasium.Env[Any, Any]
AnyVectorEnv = gymnasium.vector.VectorEnv[Any, Any, Any]

_THE_SAME = (
    "env: expected a function that makes another env each time, as each has episodes of its own, got one that returns "
    "the same again: make the env inside the function"
)


@dataclass(frozen=True)
class Maker:
    """Makes one env, from its registration or by the user's function; goes to the workers."""

    made_by: EnvSpec | Callable[[], AnyEnv]
    max_episode_steps: int | None
    options: Mapping[str, Any]

    def __call__(self) -> AnyEnv:
        if callable(self.made_by):
            env = self.made_by(**self.options)
            if not isinstance(env, gymnasium.Env):
                raise ConfigError(f"env: expected a function that returns a gymnasium.Env, got {type(env).__name__}")
            if self.max_episode_steps is not None:
                env = gymnasium.wrappers.TimeLimit(env, self.max_episode_steps)
        else:
            env = gymnasium.make(self.made_by, max_episode_steps=self.max_episode_steps, **self.options)
        return in_one_piece(env)


def spec_of(env_id: str) -> EnvSpec:
    """The registration of an id; of "module:id" once the module is imported.

    Raises ConfigError, with Gymnasium's own words and suggestions.
    """
    module, _, registered = env_id.rpartition(":")
    try:
        if module:
            importlib.import_module(module)
        return gymnasium.spec(registered)
    except (gymnasium.error.Error, ImportError) as error:
        raise ConfigError(f"env: expected the id of a registered Gymnasium env, got {env_id!r}: {error}") from error


class OneHot(gym_spaces.Box):
    """The numbers of a Discrete space, as gymnasium.spaces.flatten shows them: 1 in one place and 0 elsewhere."""

    def __init__(self, space: gym_spaces.Discrete) -> None:
        super().__init__(0, 1, (int(space.n),), np.int64)
        self.start = int(space.start)


def in_one_piece(env: AnyEnv) -> AnyEnv:
    """With observations that are one array: those of other spaces (Discrete, Tuple) are flattened, one-hot, and a
    number by itself becomes an array of one."""
    space = env.observation_space
    if isinstance(space, gym_spaces.Box) and space.shape:
        return env
    if isinstance(space, gym_spaces.Dict) or not space.is_np_flattenable:
        raise ConfigError(
            f"env: expected observations that are one array, got {space}: wrap the env so that they are, "
            "for example in gymnasium.wrappers.FlattenObservation"
        )
    flat = gymnasium.wrappers.FlattenObservation(env)
    if isinstance(space, gym_spaces.Discrete):
        flat.observation_space = OneHot(space)
    return flat


def spaces_of(observations: gymnasium.Space[Any], actions: gymnasium.Space[Any]) -> Spaces:
    """What a policy has to know. Raises ConfigError for spaces that no policy here is for."""
    if not isinstance(observations, gym_spaces.Box) or not observations.shape:
        raise ConfigError(f"env: expected observations in a Box, of one dimension at least, got {observations}")
    dtype = "uint8" if observations.dtype == np.uint8 else "float32"
    start = observations.start if isinstance(observations, OneHot) else None
    return Spaces(tuple(observations.shape), _actions_of(actions), dtype, start)


def spaces_made(make_env: Maker) -> Spaces:
    """Of the env that it makes, which is tried. Raises ConfigError for one that takes other arguments, or that a
    function gives a second time: several would step it, each in the midst of another's episode."""
    try:
        made = make_env()
    except TypeError as error:
        raise ConfigError(
            f"env_kwargs: expected the arguments of what makes the env, got {dict(make_env.options)}: {error}"
        ) from error
    with contextlib.closing(made) as one:
        spaces = spaces_of(one.observation_space, one.action_space)
    if callable(make_env.made_by) and not isinstance(make_env.made_by, type):
        with contextlib.closing(make_env()) as other:  # once the first is closed: there may be no room for two
            if other.unwrapped is one.unwrapped:
                raise ConfigError(_THE_SAME)
    return spaces


def _actions_of(space: gymnasium.Space[Any]) -> Actions:
    if isinstance(space, gym_spaces.Discrete):
        return Actions("discrete", (int(space.n),), start=int(space.start))
    if isinstance(space, gym_spaces.MultiDiscrete) and space.nvec.ndim == 1 and not np.any(space.start):
        return Actions("multi_discrete", tuple(int(n) for n in space.nvec))
    if isinstance(space, gym_spaces.MultiBinary) and len(space.shape) == 1:
        return Actions("multi_discrete", (2,) * space.shape[0])
    if isinstance(space, gym_spaces.Box) and np.issubdtype(space.dtype, np.floating):
        low, high = (tuple(float(x) for x in bound.ravel()) for bound in (space.low, space.high))
        return Actions("box", shape=tuple(space.shape), low=low, high=high, dtype=str(space.dtype))
    raise ConfigError(
        f"env: expected actions in a Discrete, a MultiDiscrete or a MultiBinary of one dimension, or a Box of real "
        f"numbers, got {space}"
    )


def vectorized(make_env: Callable[[], AnyEnv], n_envs: int) -> AnyVectorEnv:
    """`n_envs` envs that Gymnasium steps in turn. Raises ConfigError where two of them are the same."""
    return _distinct(gymnasium.vector.SyncVectorEnv([make_env] * n_envs, autoreset_mode=AutoresetMode.SAME_STEP))


def bases_of(envs: AnyVectorEnv) -> Counter[int]:
    """What is under all wrappers, by identity, and how often: each env, or a vector env of another kind as one."""
    base = envs.unwrapped
    single = [env.unwrapped for env in base.envs] if isinstance(base, gymnasium.vector.SyncVectorEnv) else [base]
    return Counter(map(id, single))


def _distinct(envs: AnyVectorEnv) -> AnyVectorEnv:
    if max(bases_of(envs).values()) > 1:
        raise ConfigError(_THE_SAME)
    return envs


def as_vector_env(env: AnyEnv | AnyVectorEnv) -> AnyVectorEnv:
    """The user's own env or vector env. Raises ConfigError for one that does not reset in the step of an end, or has
    the same env twice."""
    if isinstance(env, gymnasium.Env):
        return vectorized(lambda: in_one_piece(env), 1)
    mode = env.metadata.get("autoreset_mode")
    if mode is not AutoresetMode.SAME_STEP:
        raise ConfigError(
            "env: expected a VectorEnv with autoreset_mode=AutoresetMode.SAME_STEP, whose final observations are told, "
            f"got {mode}"
        )
    return _distinct(env)


class GymnasiumBatch:
    """N envs with the face of _core.CartPole in "same_step" mode: buffers that the next step writes again.

    Attributes:
        obs: [N, *obs_shape], of the env's next step: where an episode has ended, the first of the next one.
        final_obs: [N, *obs_shape], the last of the episodes that ended in this step; elsewhere anything.
        reward: float32[N].
        terminated, truncated: bool[N].
    """

    def __init__(self, envs: AnyVectorEnv, spaces: Spaces, owned: bool = False) -> None:
        """`owned`: whether `close` closes the envs; not so where they are the user's."""
        self._envs = envs
        self._owned = owned
        self._spaces = spaces
        self.num_envs: int = envs.num_envs
        shape = (self.num_envs, *spaces.obs_shape)
        self.obs: npt.NDArray[Any] = np.zeros(shape, spaces.obs_dtype)
        self.final_obs: npt.NDArray[Any] = np.zeros(shape, spaces.obs_dtype)
        self.reward = np.zeros(self.num_envs, np.float32)
        self.terminated = np.zeros(self.num_envs, np.bool_)
        self.truncated = np.zeros(self.num_envs, np.bool_)

    def reset(self, words: npt.NDArray[np.uint64]) -> None:
        """`words` uint64[N, 4]: of which Gymnasium's seeds are made."""
        seeds: Any = seeding.gymnasium_seeds(words)
        self.obs[...] = self._envs.reset(seed=seeds)[0]

    def step(self, actions: npt.NDArray[Any]) -> None:
        """actions as the policy takes them, [N, ...]."""
        obs, rewards, terminated, truncated, infos = self._envs.step(self._spaces.actions.for_env(actions))
        self.obs[...] = obs
        self.reward[:] = rewards
        self.terminated[:] = terminated
        self.truncated[:] = truncated
        for i in np.flatnonzero(self.terminated | self.truncated):
            self.final_obs[i] = infos["final_obs"][i]

    def close(self) -> None:
        if self._owned:
            self._envs.close()
