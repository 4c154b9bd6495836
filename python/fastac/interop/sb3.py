"""The native CartPole as a ``VecEnv`` of Stable-Baselines3: actions in, observations, rewards, dones and infos out.

Room before: the env. Rooms after: the user's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastac.env import ENV_ID, AutoresetMode, CartPoleVectorEnv, make_vec

try:
    from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvIndices
except ImportError as error:
    raise ImportError("fastac.interop.sb3 needs Stable-Baselines3: pip install 'fastac[sb3]'") from error

TRUNCATED, FINAL_OBS = "TimeLimit.truncated", "terminal_observation"  # Stable-Baselines3's names


def as_vec_env(
    envs: str | CartPoleVectorEnv = ENV_ID,
    n_envs: int | None = None,
    seed: int | None = None,
    env_kwargs: dict[str, Any] | None = None,
) -> CartPoleVecEnv:
    """N native CartPoles as a ``VecEnv``, with all outputs of a ``DummyVecEnv`` of N ``CartPole-v1``, bit for bit.

    As with every ``VecEnv`` that has no ``Monitor`` inside, returns and lengths of episodes are counted by a
    ``VecMonitor`` around it.

    Args:
        envs: "fastac/CartPole-v1", or a ``CartPoleVectorEnv`` in the autoreset mode SAME_STEP.
        n_envs: N, where `envs` is an id; 1 if None.
        seed: of the first reset: env i gets ``seed + i``. None: the streams run on, or come from the operating system.
        env_kwargs: more arguments of ``CartPoleVectorEnv``, where `envs` is an id.

    Raises:
        TypeError, ValueError: another env, another autoreset mode, or a wrong argument.
    """
    if not isinstance(envs, str):
        if n_envs is not None or env_kwargs is not None:
            raise ValueError(
                f"n_envs, env_kwargs: expected None beside envs that there are, got {n_envs}, {env_kwargs}"
            )
        made: Any = envs
    elif envs.removeprefix("fastac:") != ENV_ID:
        raise ValueError(f"envs: expected {ENV_ID!r} or a CartPoleVectorEnv, got {envs!r}")
    else:
        options = {"autoreset_mode": AutoresetMode.SAME_STEP, **(env_kwargs or {})}
        made = make_vec(ENV_ID, 1 if n_envs is None else n_envs, **options)
    vec_env = CartPoleVecEnv(made)
    if seed is not None:
        vec_env.seed(seed)
        vec_env.action_space.seed(seed)  # as make_vec_env of Stable-Baselines3
    return vec_env


class CartPoleVecEnv(VecEnv):
    """What `as_vec_env` makes; all arrays and infos that it returns are the caller's to keep and to change.

    ``seed`` and ``set_options`` take effect at the next ``reset``.

    Args:
        envs: in the autoreset mode SAME_STEP. It is stepped, reset and closed from here.

    Raises:
        TypeError: `envs` is no ``CartPoleVectorEnv``.
        ValueError: its autoreset mode is another one.
    """

    def __init__(self, envs: CartPoleVectorEnv) -> None:
        if not isinstance(envs, CartPoleVectorEnv):
            raise TypeError(
                f"envs: expected a CartPoleVectorEnv without wrappers, got {type(envs).__name__}; "
                "wrappers of Stable-Baselines3 (VecMonitor, VecNormalize) go around what as_vec_env makes"
            )
        if envs.autoreset_mode is not AutoresetMode.SAME_STEP:
            raise ValueError(
                f"autoreset_mode: expected SAME_STEP, the way of Stable-Baselines3, got {envs.autoreset_mode.name}; "
                f"make them by gymnasium.make_vec({ENV_ID!r}, num_envs={envs.num_envs}, autoreset_mode='SameStep')"
            )
        self.envs = envs
        self._each = [_OneEnv(envs, index) for index in range(envs.num_envs)]
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)
        self.metadata = envs.metadata
        self.spec = envs.spec
        self._running: list[dict[str, Any]] = [{TRUNCATED: False}] * envs.num_envs
        self._actions: Any = None

    def reset(self) -> npt.NDArray[np.float32]:
        """Begin a new episode in every env: obs float32[N, 4]."""
        options = self._options[0]
        if any(other != options for other in self._options):
            raise ValueError(f"set_options: expected the same options for all envs, got {self._options}")
        obs, _ = self.envs.reset(seed=self._seeds, options=options)
        self._reset_seeds()
        self._reset_options()
        return obs

    def step_async(self, actions: npt.NDArray[Any]) -> None:
        """Take the actions, integers [N], for ``step_wait``, which does the work."""
        self._actions = actions

    def step_wait(
        self,
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.bool_], list[dict[str, Any]]]:
        """Advance every env by one env step: obs float32[N, 4], reward float32[N], done bool[N], N infos.

        An env whose episode has ended is already in its next one. Its info holds ``terminal_observation`` float32[4];
        ``TimeLimit.truncated`` says whether the time limit alone ended it.

        Raises:
            TypeError, ValueError: actions of the wrong dtype, shape or range, or none. Nothing has changed then.
            gymnasium.error.ResetNeeded: there was no reset.
        """
        obs, rewards, terminated, truncated, ends = self.envs.step(self._actions)
        # A dict of its own for every env and step, since callers write into them and keep them; copied in C.
        infos = list(map(dict.copy, self._running))
        if ends:
            for i in np.flatnonzero(ends["_final_obs"]).tolist():
                infos[i] = {
                    TRUNCATED: bool(truncated[i] and not terminated[i]),
                    FINAL_OBS: ends["final_obs"][i],
                }
        return obs, rewards.astype(np.float32), terminated | truncated, infos

    def close(self) -> None:
        """Close the envs; every later use but another close is an error."""
        self.envs.close()

    def get_images(self) -> Sequence[npt.NDArray[np.uint8] | None]:
        """One frame uint8[400, 600, 3] for each env, or None where there is no render mode."""
        frames = self.envs.render()
        return [None] * self.num_envs if frames is None else list(frames)

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """An attribute of each env: a space, ``metadata``, ``render_mode``, ``spec``, or what ``set_attr`` has set.

        Copies are ``state``, float64[4], and ``np_random``, the stream, whose seed is ``np_random_seed``.
        """
        return [getattr(self._each[i], attr_name) for i in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Keep a value for each env, for ``get_attr``; how the envs play is not changed by it."""
        for i in self._get_indices(indices):
            setattr(self._each[i], attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of each env; there is ``render``."""
        return [getattr(self._each[i], method_name)(*method_args, **method_kwargs) for i in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: Any, indices: VecEnvIndices = None) -> list[bool]:
        """False for each env: they are stepped together, and there is nothing that a wrapper could be around."""
        return [False for _ in self._get_indices(indices)]


class _OneEnv:
    """Env i of the vector env, as far as Stable-Baselines3 and its users ask for one env by itself."""

    def __init__(self, envs: CartPoleVectorEnv, index: int) -> None:
        self._envs, self._index = envs, index
        self.observation_space, self.action_space = envs.single_observation_space, envs.single_action_space
        self.metadata, self.render_mode, self.spec = envs.metadata, envs.render_mode, envs.spec

    @property
    def state(self) -> npt.NDArray[np.float64]:
        """float64[4], a copy."""
        return np.array(self._envs.native.state[:, self._index])

    @property
    def np_random(self) -> np.random.Generator:
        """A *copy* of its stream."""
        return self._envs.np_random[self._index]

    @property
    def np_random_seed(self) -> int:
        return self._envs.np_random_seed[self._index]

    def render(self) -> npt.NDArray[np.uint8] | None:
        frames = self._envs.render()
        return None if frames is None else frames[self._index]
