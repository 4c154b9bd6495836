"""N CartPoles, for ``gymnasium.make_vec``: N actions in, observations, rewards and ends of episodes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.error import ClosedEnvironmentError, ResetNeeded
from gymnasium.spaces import Discrete
from gymnasium.vector.utils import batch_space

from fastac import _core
from fastac.env.arguments import (
    AutoresetMode,
    as_int64,
    checked_seed,
    expand_seeds,
    parse_autoreset_mode,
    positive_int,
    reset_bounds,
    reset_mask,
)
from fastac.env.common import (
    ENV_ID,
    BoolArray,
    Drawer,
    Float32Array,
    Float64Array,
    Int64Array,
    NativeEnv,
    State,
    observation_space,
)
from fastac.exclusive import exclusive

INT64 = np.dtype(np.int64)


class CartPoleVectorEnv(NativeEnv, gymnasium.vector.VectorEnv[Float32Array, Int64Array, npt.NDArray[Any]]):
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
        self.num_envs = positive_int("num_envs", num_envs)
        self.autoreset_mode = parse_autoreset_mode(autoreset_mode)
        if render_mode not in (None, "rgb_array"):
            raise ValueError(
                f"render_mode: expected None or 'rgb_array', got {render_mode!r}; a window shows one env: "
                f"gymnasium.make({ENV_ID!r}, render_mode='human')"
            )
        self.render_mode = render_mode
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        self.single_observation_space = observation_space()
        self.single_action_space = Discrete(2)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._native = _core.CartPole(
            self.num_envs,
            positive_int("max_episode_steps", max_episode_steps),
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
        seeds = expand_seeds(seed, self.num_envs)
        options = {} if options is None else options
        mask = reset_mask(options, self.num_envs)
        low, high = reset_bounds(options)
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
            self._native.step(actions if ready else as_int64(actions))
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
            self._drawer = Drawer(self.render_mode)
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

    def _seed_streams(self, seeds: dict[int, int | None]) -> None:
        """Give the streams of these envs their seeds (None: the operating system's entropy), all or none."""
        if not seeds:
            return
        sequences = [np.random.SeedSequence(checked_seed(seed)) for seed in seeds.values()]
        words = np.array([sequence.generate_state(4, np.uint64) for sequence in sequences])
        self._native.seed(np.array(list(seeds), dtype=np.int64), words)
        for index, sequence in zip(seeds, sequences, strict=True):
            entropy = sequence.entropy
            assert isinstance(entropy, int)
            self._seeds[index] = entropy

    def _seed_unseeded(self) -> None:
        self._check_open()
        self._seed_streams({i: None for i, seed in enumerate(self._seeds) if seed is None})

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


def _generator(words: Sequence[int]) -> np.random.Generator:
    bit_generator = np.random.PCG64(0)
    bit_generator.state = {
        "bit_generator": "PCG64",
        "state": {"state": words[0] << 64 | words[1], "inc": words[2] << 64 | words[3]},
        "has_uint32": 0,
        "uinteger": 0,
    }
    return np.random.Generator(bit_generator)
