"""The Gymnasium faces of the native CartPole: actions in, observations, rewards and ends of episodes out.

Room before: the policy. Room after: the rollout. The only module that imports gymnasium.

The physics is Barto, Sutton & Anderson 1983, "Neuronlike adaptive elements that can solve difficult learning
control problems", with the constants of Gymnasium's CartPole-v1. Observations are (cart position m, cart
velocity m/s, pole angle rad, pole angular velocity rad/s). Action 0 pushes the cart to the left, 1 to the
right, with 10 N for 0.02 s. An episode is terminated when the cart is beyond 2.4 m or the pole beyond 12
degrees, and truncated at the time limit; both may be true.
"""

from __future__ import annotations

import copy
import operator
import threading
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, SupportsFloat, SupportsIndex, TypeAlias, TypeVar

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.envs.classic_control.cartpole import CartPoleEnv as GymnasiumCartPole
from gymnasium.error import ClosedEnvironmentError, ResetNeeded
from gymnasium.error import Error as GymnasiumError
from gymnasium.spaces import Box, Discrete
from gymnasium.vector.utils import batch_space

from fastac import _core
from fastac.exclusive import exclusive
from fastac.metrics import SOLVED
from fastac.words import counted

try:
    from gymnasium.vector import AutoresetMode
except ImportError:  # gymnasium 1.0 knows only NEXT_STEP and has no name for it

    class AutoresetMode(Enum):  # type: ignore[no-redef]  # either this or the import
        """What happens to an env whose episode has ended."""

        NEXT_STEP = "NextStep"
        SAME_STEP = "SameStep"
        DISABLED = "Disabled"


Float32Array: TypeAlias = npt.NDArray[np.float32]
Float64Array: TypeAlias = npt.NDArray[np.float64]
Int64Array: TypeAlias = npt.NDArray[np.int64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
State: TypeAlias = dict[str, npt.NDArray[Any]]
Env = TypeVar("Env", bound="_NativeEnv")

ENV_ID = "fastac/CartPole-v1"
INT64 = np.dtype(np.int64)
RESET_LOW, RESET_HIGH = -0.05, 0.05  # bounds of each entry of an initial state


class _NativeEnv:
    """What both envs share: a native env, which one thread uses at a time, and copies that share nothing with it."""

    _native: _core.CartPole
    _drawer: _Drawer | None = None  # here too: close() runs even where the constructor failed

    def __init__(self) -> None:
        self._inside = threading.RLock()

    @exclusive
    def __getstate__(self) -> dict[str, Any]:
        """For copy and pickle: all but the lock, the drawing surface and the views, which a copy makes for itself."""
        own = ("_inside", "_drawer", "_obs", "_final_obs", "_reward", "_terminated", "_truncated")
        return {name: value for name, value in self.__dict__.items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        _NativeEnv.__init__(self)
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


class CartPoleVectorEnv(_NativeEnv, gymnasium.vector.VectorEnv[Float32Array, Int64Array, npt.NDArray[Any]]):
    """N CartPoles stepped together, bit-identical to a ``SyncVectorEnv`` of N ``CartPole-v1``.

    One thread at a time may use it. A copy (``copy``, ``deepcopy``, ``pickle``, a forked process) is an env of its own
    that goes on bit for bit.

    Args:
        num_envs: N, at least 1.
        max_episode_steps: env steps after which an episode is truncated, at least 1.
        autoreset_mode: an ``AutoresetMode``, its value ("NextStep") or its name ("NEXT_STEP", "next_step").
        render_mode: None or "rgb_array".
        sutton_barto_reward: False: reward 1 for every step. True: 0, and -1 where the pole fell.

    Raises:
        TypeError, ValueError: an argument of the wrong type, out of range or not supported.
        EnvInUseError: from every method, where another thread is inside of one.
        gymnasium.error.ClosedEnvironmentError: from every method after ``close``, which may be called again.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012  (Gymnasium's own way of declaring it)
        "render_modes": ["rgb_array"],
        "render_fps": 50,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        num_envs: int = 1,
        max_episode_steps: int = 500,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        sutton_barto_reward: bool = False,
    ) -> None:
        super().__init__()
        self.num_envs = _positive_int("num_envs", num_envs)
        self.autoreset_mode = _parse_autoreset_mode(autoreset_mode)
        if render_mode not in (None, "rgb_array"):
            raise ValueError(
                f"render_mode: expected None or 'rgb_array', got {render_mode!r}; a window shows one env: "
                f"gymnasium.make({ENV_ID!r}, render_mode='human')"
            )
        self.render_mode = render_mode
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        self.single_observation_space = _observation_space()
        self.single_action_space = Discrete(2)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._native = _core.CartPole(
            self.num_envs,
            _positive_int("max_episode_steps", max_episode_steps),
            self.autoreset_mode.name.lower(),
            bool(sutton_barto_reward),
        )
        self._fetch_views()
        self._seeds: list[int | None] = [None] * self.num_envs
        self._was_reset = np.zeros(self.num_envs, dtype=np.bool_)

    @property
    def native(self) -> _core.CartPole:
        """The native env itself: its output arrays are views, reused by the next step."""
        self._check_open()
        return self._native

    @exclusive
    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> tuple[Float32Array, dict[str, Any]]:
        """Begin a new episode in every env, or in those of ``options["reset_mask"]``.

        Args:
            seed: int: env i gets ``seed + i``. Sequence of N ints or None: one each. None: the stream runs
                on, and is seeded from the operating system's entropy if it never was.
            options: ``low``, ``high``: bounds of the uniform initial state, for this reset only.
                ``reset_mask``: bool[N]; the other envs keep their state and observation.

        Returns:
            obs float32[N, 4], a copy, and an empty info.

        Raises:
            gymnasium.error.Error: a seed is not a non-negative Python int.
            TypeError, ValueError: a wrong mask, bound or number of seeds. Nothing has changed then.
            gymnasium.error.ResetNeeded: the mask leaves out an env that was never reset.
        """
        self._check_open()
        seeds = self._expand_seeds(seed)
        options = {} if options is None else options
        mask = self._reset_mask(options)
        low, high = _reset_bounds(options)
        if mask is not None and not (mask | self._was_reset).all():
            index = int(np.flatnonzero(~(mask | self._was_reset))[0])
            raise ResetNeeded(f"reset_mask: expected every env that was never reset, env {index} is left out")
        chosen = range(self.num_envs) if mask is None else np.flatnonzero(mask).tolist()
        self._seed_streams({i: seeds[i] for i in chosen if seeds[i] is not None or self._seeds[i] is None})
        self._native.reset(mask, low, high)
        self._was_reset |= True if mask is None else mask
        return self._obs.copy(), {}

    @exclusive
    def step(self, actions: Any) -> tuple[Float32Array, Float64Array, BoolArray, BoolArray, dict[str, Any]]:
        """Advance every env by one env step of 0.02 s.

        Args:
            actions: integers [N], each 0 (left) or 1 (right).

        Returns:
            obs float32[N, 4], reward float64[N], terminated bool[N], truncated bool[N], all copies, and info.
            Under SAME_STEP, where an episode ended, info holds ``final_obs`` (object[N]: float32[4] or None),
            ``final_info`` and their masks ``_final_obs`` and ``_final_info`` (bool[N]); else it is empty.

        Raises:
            TypeError, ValueError: actions of the wrong dtype, shape or range. Nothing has changed then.
            gymnasium.error.ResetNeeded: an env was never reset, or has ended under DISABLED.
        """
        self._check_open()
        # What a policy gives is stepped as it is: checking and converting it costs more than the step.
        ready = type(actions) is np.ndarray and actions.dtype == INT64 and actions.flags.carray
        try:
            self._native.step(actions if ready else _as_int64(actions))
        except _core.ResetNeeded as error:
            raise ResetNeeded(str(error)) from None
        terminated, truncated = self._terminated.copy(), self._truncated.copy()
        infos = {}
        if self.autoreset_mode is AutoresetMode.SAME_STEP:
            infos = self._final_infos(terminated | truncated)
        return self._obs.copy(), self._reward.astype(np.float64), terminated, truncated, infos

    @exclusive
    def render(self) -> tuple[npt.NDArray[np.uint8], ...] | None:
        """One frame uint8[400, 600, 3] for each env, drawn by Gymnasium, or None without a render mode."""
        self._check_open()
        if self.render_mode is None:
            gymnasium.logger.warn("render() without a render mode: expected render_mode='rgb_array'")
            return None
        if not self._was_reset.all():
            raise ResetNeeded("render: expected reset before the first frame")
        if self._drawer is None:
            self._drawer = _Drawer(self.render_mode)
        return tuple(self._drawer.draw(state) for state in self._native.state.T)

    @exclusive
    def close_extras(self, **kwargs: Any) -> None:
        """Release the drawing surface; called by ``close``, after which every use is an error."""
        if self._drawer is not None:
            self._drawer.close()

    @property
    @exclusive
    def np_random_seed(self) -> tuple[int, ...]:  # type: ignore[override]  # one for each env
        """The seed of each env's stream; -1 where it is unknown, after ``set_state``."""
        self._seed_unseeded()
        return tuple(seed for seed in self._seeds if seed is not None)

    @property  # type: ignore[misc]  # read-only, as in SyncVectorEnv
    @exclusive
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]  # one for each env
        """A *copy* of each env's stream as a numpy Generator: drawing from it changes nothing here."""
        self._seed_unseeded()
        return tuple(_generator(words) for words in self._native.get_state()["rng"].tolist())

    @exclusive
    def get_state(self) -> State:
        """Copies of all that decides the future of the envs, for ``set_state``; numeric arrays only.

        ``state`` float64[4, N]; ``elapsed`` int64[N], env steps since the episode began; ``status`` uint8[N],
        0 running, 1 finished, 2 never reset; ``rng`` uint64[N, 4], the streams.
        """
        self._check_open()
        return self._native.get_state()

    @exclusive
    def set_state(self, saved: State) -> None:
        """Continue, bit for bit, where ``get_state`` was called; all or nothing.

        Raises:
            TypeError, ValueError: an entry is missing, has another dtype or shape, or an impossible value.
        """
        self._check_open()
        self._native.set_state(saved)
        self._was_reset = saved["status"] != _core.CartPole.NEVER_RESET
        self._seeds = [-1 if any(words) else None for words in saved["rng"].tolist()]

    def _expand_seeds(self, seed: int | Sequence[int | None] | None) -> Sequence[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, int):
            return [seed + i for i in range(self.num_envs)]
        if not hasattr(seed, "__len__"):
            # A numpy integer too: Gymnasium refuses it.
            raise TypeError(f"seed: expected None, a Python int or a list of them, got {type(seed).__name__}")
        if len(seed) != self.num_envs:
            raise ValueError(f"seed: expected {counted(self.num_envs, 'seeds')}, one for each env, got {len(seed)}")
        return seed

    def _seed_streams(self, seeds: dict[int, int | None]) -> None:
        """Give the streams of these envs their seeds (None: the operating system's entropy), all or none."""
        if not seeds:
            return
        sequences = [np.random.SeedSequence(_checked_seed(seed)) for seed in seeds.values()]
        words = np.array([sequence.generate_state(4, np.uint64) for sequence in sequences])
        self._native.seed(np.array(list(seeds), dtype=np.int64), words)
        for index, sequence in zip(seeds, sequences, strict=True):
            entropy = sequence.entropy
            assert isinstance(entropy, int)
            self._seeds[index] = entropy

    def _seed_unseeded(self) -> None:
        self._check_open()
        self._seed_streams({i: None for i, seed in enumerate(self._seeds) if seed is None})

    def _reset_mask(self, options: Mapping[str, Any]) -> BoolArray | None:
        if "reset_mask" not in options:
            return None
        mask = options["reset_mask"]
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
            got = mask.dtype if isinstance(mask, np.ndarray) else type(mask).__name__
            raise TypeError(f"reset_mask: expected a numpy array of bool, got {got}")
        if mask.shape != (self.num_envs,):
            raise ValueError(f"reset_mask: expected shape ({self.num_envs},), got {mask.shape}")
        if not mask.any():
            raise ValueError("reset_mask: expected at least one True, got none")
        return np.ascontiguousarray(mask)

    def _final_infos(self, done: BoolArray) -> dict[str, Any]:
        if not done.any():
            return {}
        final_obs = np.full(self.num_envs, None, dtype=object)
        ended = np.flatnonzero(done)
        for index, obs in zip(ended.tolist(), self._final_obs[ended], strict=True):  # rows of a copy
            final_obs[index] = obs
        return {"final_obs": final_obs, "_final_obs": done, "final_info": {}, "_final_info": done.copy()}

    def _check_open(self) -> None:
        if self.closed:
            raise ClosedEnvironmentError(f"{self!r}: expected an open env, got one after close()")


class CartPoleEnv(_NativeEnv, gymnasium.Env[Float32Array, Any]):
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
        self.observation_space = _observation_space()
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
        low, high = _reset_bounds({} if options is None else options)
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
            self._drawer = _Drawer(self.render_mode)
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


class _Drawer:
    """Gymnasium's own drawing of a state, so that a frame is pixel for pixel the same."""

    def __init__(self, render_mode: str) -> None:
        self._env: Any = GymnasiumCartPole(render_mode=render_mode)

    def draw(self, state: Float64Array) -> Any:
        self._env.state = state
        return self._env.render()

    def close(self) -> None:
        self._env.close()


def register() -> None:
    """Make ``gymnasium.make`` and ``make_vec`` know "fastac/CartPole-v1"; a second call does nothing."""
    if ENV_ID not in gymnasium.registry:
        gymnasium.register(
            id=ENV_ID,
            entry_point="fastac.env:CartPoleEnv",
            vector_entry_point="fastac.env:CartPoleVectorEnv",
            max_episode_steps=500,
            reward_threshold=SOLVED,
        )


def _observation_space() -> gymnasium.Space[Any]:
    # Twice the limits at which an episode is terminated, so that its last observation is inside.
    high = np.array([2.4 * 2, np.inf, 12 * 2 * np.pi / 360 * 2, np.inf], dtype=np.float32)
    return Box(-high, high, dtype=np.float32)


def _positive_int(name: str, value: SupportsIndex) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name}: expected an int, got {type(value).__name__}")
    number = operator.index(value)
    if number < 1:
        raise ValueError(f"{name}: expected at least 1, got {number}")
    return number


def _parse_autoreset_mode(mode: str | AutoresetMode) -> AutoresetMode:
    for candidate in AutoresetMode:
        if mode in (candidate, candidate.value, candidate.name, candidate.name.lower()):
            return candidate
    raise ValueError(f"autoreset_mode: expected one of {[m.value for m in AutoresetMode]}, got {mode!r}")


def _checked_seed(seed: int | None) -> int | None:
    if seed is not None and not isinstance(seed, int):
        raise GymnasiumError(f"seed: expected a Python int, got {type(seed).__name__}")
    if seed is not None and seed < 0:
        raise GymnasiumError(f"seed: expected at least 0, got {seed}")
    return seed


def _reset_bounds(options: Mapping[str, Any]) -> tuple[float, float]:
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


def _as_int64(actions: Any) -> Int64Array:
    array = np.asarray(actions)
    if array.dtype.kind not in "iu":  # a bool or float is a mistake upstream, not an action
        raise TypeError(f"actions: expected integers, got {array.dtype}")
    return np.require(array, np.int64, ["C", "ALIGNED"])


def _generator(words: Sequence[int]) -> np.random.Generator:
    bit_generator = np.random.PCG64(0)
    bit_generator.state = {
        "bit_generator": "PCG64",
        "state": {"state": words[0] << 64 | words[1], "inc": words[2] << 64 | words[3]},
        "has_uint32": 0,
        "uinteger": 0,
    }
    return np.random.Generator(bit_generator)


def make_vec(env_id: str, num_envs: int, **options: Any) -> gymnasium.vector.VectorEnv[Any, Any, Any]:
    """gymnasium.make_vec, for the rooms that must not import gymnasium themselves."""
    return gymnasium.make_vec(env_id, num_envs=num_envs, **options)


register()
