"""The native env and streams at their boundary: what is refused, untouched, kept alive and restored."""

import copy
import gc
import pickle
import resource
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastac import _core
from fastac.env import CartPoleVectorEnv

SEEDS = st.integers(0, 2**130)
MODES = st.sampled_from(["next_step", "same_step", "disabled"])


def words(*seeds):
    return np.array([np.random.SeedSequence(seed).generate_state(4, np.uint64) for seed in seeds])


def make(num_envs=2, seed=0, **kwargs):
    env = _core.CartPole(num_envs, **kwargs)
    env.seed(np.arange(num_envs), words(*range(seed, seed + num_envs)))
    env.reset()
    return env


def everything(env):
    outputs = [getattr(env, name) for name in ("obs", "reward", "terminated", "truncated", "final_obs")]
    return [a.tobytes() for a in (*env.get_state().values(), *outputs)]


# --- streams ---


@given(seed=SEEDS, low=st.floats(-1e6, 1e6), width=st.floats(0, 1e6))
def test_resets_draw_what_numpy_draws(seed, low, width):
    env = _core.CartPole(1)
    env.seed(np.zeros(1, np.int64), words(seed))
    generator = np.random.Generator(np.random.PCG64(seed))
    for _ in range(3):
        env.reset(None, low, low + width)
        assert np.array_equal(env.state[:, 0], generator.uniform(low, low + width, size=4))


@settings(deadline=None)
@given(seeds=st.lists(SEEDS, min_size=1, max_size=5))
def test_streams_are_numpys(seeds):
    streams = _core.UniformStreams(words(*seeds))
    drawn = np.array([streams.random() for _ in range(300)])
    expected = np.array([np.random.Generator(np.random.PCG64(seed)).random(300) for seed in seeds]).T
    assert np.array_equal(drawn, expected)


def test_many_draws_of_one_stream():
    streams = _core.UniformStreams(words(11))
    out = np.empty(1)
    drawn = np.empty(50_000)
    for t in range(len(drawn)):
        streams.random_into(out)
        drawn[t] = out[0]
    generator = np.random.Generator(np.random.PCG64(11))
    assert np.array_equal(drawn, generator.random(50_000))
    state = generator.bit_generator.state["state"]
    low64 = 2**64 - 1
    expected = [state["state"] >> 64, state["state"] & low64, state["inc"] >> 64, state["inc"] & low64]
    assert streams.state.tolist() == [expected]


def test_streams_are_restored():
    streams = _core.UniformStreams(words(1, 2, 3))
    streams.random()
    saved = streams.state
    first = streams.random()
    assert not np.array_equal(streams.random(), first)
    streams.state = saved
    assert np.array_equal(streams.random(), first)
    assert len(streams) == 3


@pytest.mark.parametrize(
    ("seeds", "error"),
    [
        (np.zeros((2, 4), np.int64), TypeError),
        ([[1, 2, 3, 4]], TypeError),
        (np.zeros((2, 3), np.uint64), ValueError),
        (np.zeros(4, np.uint64), ValueError),
        (np.zeros((4, 2), np.uint64).T, ValueError),
    ],
)
def test_bad_seed_words(seeds, error):
    with pytest.raises(error, match="seeds: expected uint64"):
        _core.UniformStreams(seeds)


def test_bad_outputs_and_states_leave_the_streams():
    streams = _core.UniformStreams(words(1, 2))
    saved = streams.state
    read_only = np.zeros(2)
    read_only.flags.writeable = False
    for out, error in [
        (np.zeros(2, np.float32), TypeError),
        (np.zeros(3), ValueError),
        (np.zeros(4)[::2], ValueError),
        (read_only, ValueError),
    ]:
        with pytest.raises(error, match="out: expected"):
            streams.random_into(out)
    even = saved.copy()
    even[1, 3] += np.uint64(1)
    for state in (even, np.zeros_like(saved), saved[:1].copy()):
        with pytest.raises(ValueError, match="expected"):
            streams.state = state
    assert np.array_equal(streams.state, saved)


# --- arguments ---

READ_ONLY = np.array([0, 1])
READ_ONLY.flags.writeable = False
UNALIGNED = np.zeros(17, np.uint8)[1:].view(np.int64)


@pytest.mark.parametrize(
    ("actions", "error", "message"),
    [
        ([0, 1], TypeError, r"expected int64\[2\], got list"),
        (np.array([0, 1], np.int32), TypeError, r"expected int64\[2\], got int32"),
        (np.array([0, 1], np.uint64), TypeError, r"got uint64"),
        (np.array([0, 1], ">i8"), TypeError, r"got >i8"),
        (np.array([False, True]), TypeError, r"got bool"),
        (np.array([0.0, 1.0]), TypeError, r"got float64"),
        (np.array([0]), ValueError, r"expected int64\[2\], got shape \[1\]"),
        (np.array([[0, 1]]), ValueError, r"got shape \[1, 2\]"),
        (np.array(0), ValueError, r"got shape \[\]"),
        (np.zeros(4, np.int64)[::2], ValueError, r"not C-contiguous and aligned"),
        (UNALIGNED, ValueError, r"not C-contiguous and aligned"),
        (np.array([0, 2]), ValueError, r"expected 0 or 1, got 2 for env 1"),
        (np.array([-1, 0]), ValueError, r"expected 0 or 1, got -1 for env 0"),
    ],
)
def test_bad_actions_change_nothing(actions, error, message):
    env = make()
    env.step(np.array([1, 0]))
    before = everything(env)
    with pytest.raises(error, match=message):
        env.step(actions)
    assert everything(env) == before


def test_read_only_actions_are_fine():
    make().step(READ_ONLY)


@pytest.mark.parametrize(
    ("kwargs", "error"),
    [
        ({"num_envs": 0}, ValueError),
        ({"num_envs": 2**62}, ValueError),
        ({"num_envs": 1, "max_episode_steps": 0}, ValueError),
        ({"num_envs": 1, "autoreset_mode": "sometimes"}, ValueError),
        ({"num_envs": -1}, TypeError),
    ],
)
def test_bad_constructor_arguments(kwargs, error):
    with pytest.raises(error):
        _core.CartPole(**kwargs)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((np.array([1, 0]),), TypeError),
        ((np.ones(3, bool),), ValueError),
        ((None, 0.1, -0.1), ValueError),
        ((None, -1e308, 1e308), ValueError),
        ((None, float("nan"), 0.0), ValueError),
    ],
)
def test_bad_resets_change_nothing(arguments, error):
    env = make()
    before = everything(env)
    with pytest.raises(error, match="expected"):
        env.reset(*arguments)
    assert everything(env) == before


def test_reset_before_seed_names_the_env():
    env = _core.CartPole(2)
    env.seed(np.array([0]), words(0))
    with pytest.raises(_core.ResetNeeded, match="env 1 has no random stream"):
        env.reset()
    assert env.get_state()["status"].tolist() == [2, 2]


def test_a_mask_may_be_a_view_of_any_bytes():
    env, twin = make(3), make(3)
    env.reset(np.frombuffer(b"\x00\x02\xff", np.bool_))
    twin.reset(np.array([False, True, True]))
    assert everything(env) == everything(twin)


def test_bad_seed_indices_change_nothing():
    env = make()
    before = everything(env)
    for index in (-1, 2):
        with pytest.raises(ValueError, match=f"expected 0 to 1, got {index}"):
            env.seed(np.array([0, index]), words(7, 8))
    with pytest.raises(ValueError, match=r"words: expected uint64\[2, 4\]"):
        env.seed(np.array([0, 1]), words(7))
    assert everything(env) == before


# --- views ---


def test_views_are_made_once_and_reused():
    env = make()
    assert env.obs is env.obs
    obs = env.obs
    before = obs.copy()
    env.step(np.array([1, 0]))
    assert not np.array_equal(obs, before)
    assert env.state is not env.state


def test_views_keep_the_buffers_and_the_handle_is_freed():
    env = make()
    obs, expected = env.obs, env.obs.copy()
    gone = weakref.ref(env)
    del env
    gc.collect()
    assert gone() is None
    make(num_envs=2, seed=9)  # would likely get the freed memory
    assert np.array_equal(obs, expected)


def resident_bytes():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


def test_freed_envs_give_their_memory_back():
    _core.CartPole(100_000)
    before = resident_bytes()
    for _ in range(20):
        _core.CartPole(100_000)  # about 11 MB each
    assert resident_bytes() - before < 50e6


# --- save and restore ---


@settings(deadline=None, max_examples=60)
@given(mode=MODES, seed=st.integers(0, 1000), limit=st.integers(1, 30), before=st.integers(0, 60))
def test_a_restored_env_goes_on_bit_for_bit(mode, seed, limit, before):
    rng = np.random.default_rng(seed)
    env = make(3, seed, max_episode_steps=limit, autoreset_mode=mode)
    twin = _core.CartPole(3, limit, mode)

    def step(target, actions):
        if mode == "disabled":
            finished = target.get_state()["status"] == 1
            if finished.any():
                target.reset(finished)
        target.step(actions)

    for _ in range(before):
        step(env, rng.integers(0, 2, 3))
    saved = env.get_state()
    twin.set_state(saved)
    assert np.array_equal(twin.obs, env.obs)
    for _ in range(40):
        actions = rng.integers(0, 2, 3)
        step(env, actions)
        step(twin, actions)
        for name in ("obs", "reward", "terminated", "truncated"):
            assert np.array_equal(getattr(env, name), getattr(twin, name))
    for name, value in env.get_state().items():
        assert np.array_equal(value, twin.get_state()[name])


def test_what_get_state_returns_is_a_copy():
    env = make()
    saved = env.get_state()
    kept = {name: value.copy() for name, value in saved.items()}
    env.step(np.array([1, 0]))
    assert all(np.array_equal(saved[name], kept[name]) for name in kept)
    assert {name: (value.dtype.name, value.shape) for name, value in saved.items()} == {
        "state": ("float64", (4, 2)),
        "elapsed": ("int64", (2,)),
        "status": ("uint8", (2,)),
        "rng": ("uint64", (2, 4)),
    }


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("state", np.zeros((2, 4)), ValueError),
        ("state", np.zeros((4, 2), np.float32), TypeError),
        ("state", np.full((4, 2), np.nan), ValueError),
        ("elapsed", np.array([0, -1]), ValueError),
        ("elapsed", np.array([0, 2**63 - 1]), ValueError),
        ("status", np.array([0, 3], np.uint8), ValueError),
        ("status", np.array([0, 1], np.uint8), ValueError),  # nothing stays finished under same_step
        ("rng", np.zeros((2, 4), np.uint64), ValueError),
        ("rng", np.full((2, 4), 2, np.uint64), ValueError),
        ("rng", None, ValueError),
    ],
)
def test_bad_saved_states_change_nothing(name, value, error):
    env = make(autoreset_mode="same_step")
    env.step(np.array([1, 0]))
    before = everything(env)
    saved = make(seed=5, autoreset_mode="same_step").get_state()
    if value is None:
        del saved[name]
    else:
        saved[name] = value
    with pytest.raises(error, match=name):
        env.set_state(saved)
    assert everything(env) == before


def test_a_dict_that_makes_up_its_entries():
    class MadeUp(dict):
        def __getitem__(self, key):
            return super().__getitem__(key).copy()  # nobody but the caller keeps it

    env, twin = make(300, 1), make(300, 2)
    twin.set_state(MadeUp(env.get_state()))
    assert everything(twin)[:4] == everything(env)[:4]


def test_a_count_of_steps_at_its_end_is_restored():
    env = make(1, max_episode_steps=_core.CartPole.NO_TIME_LIMIT)
    env.set_state(env.get_state() | {"elapsed": np.array([2**63 - 2])})
    env.step(np.array([0]))
    assert env.truncated.all()
    env.set_state(env.get_state())
    env.step(np.array([0]))
    assert env.get_state()["elapsed"].tolist() == [0]


@pytest.mark.parametrize("limit", [1, 5, 23, 500])
def test_steps_are_counted_one_by_one_and_limits_are_met_to_the_step(limit):
    """Under resets and restores at any moment, against a count kept here."""
    random = np.random.default_rng(limit)
    env = make(6, max_episode_steps=limit, autoreset_mode="same_step")
    env.reset(np.ones(6, bool), -0.05, 0.05)
    expected = np.zeros(6, np.int64)
    cut = 0
    for _ in range(400):
        if random.random() < 0.05:
            mask = random.random(6) < 0.5
            env.reset(mask, -0.05, 0.05)
            expected[mask] = 0
        if random.random() < 0.05:
            other = make(6, max_episode_steps=limit, autoreset_mode="same_step")
            other.set_state(env.get_state())
            env = other
        env.truncated[0] = True  # each step writes anew what it tells
        env.step(random.integers(0, 2, 6))
        expected += 1
        assert env.truncated.tolist() == (expected >= limit).tolist()
        cut += int(env.truncated.sum())
        expected[env.truncated | env.terminated] = 0
        if random.random() < 0.3:
            assert env.get_state()["elapsed"].tolist() == expected.tolist()
    assert env.get_state()["elapsed"].tolist() == expected.tolist()
    assert (cut > 0) == (limit < 100)


COPIES = [copy.copy, copy.deepcopy, *(lambda env, p=p: pickle.loads(pickle.dumps(env, p)) for p in range(6))]


@pytest.mark.parametrize("way", COPIES)
def test_copies_go_on_bit_for_bit_and_share_nothing(way):
    env = make(2, max_episode_steps=7, autoreset_mode="same_step", sutton_barto_reward=True)
    env.step(np.array([1, 0]))
    twin = way(env)
    assert type(twin) is _core.CartPole
    assert (twin.num_envs, twin.max_episode_steps, twin.autoreset_mode) == (2, 7, "same_step")
    kept = everything(env)
    steps = [(twin.step(np.array([1, 1])), everything(twin))[1] for _ in range(20)]
    assert everything(env) == kept
    assert steps == [(env.step(np.array([1, 1])), everything(env))[1] for _ in range(20)]


def test_streams_are_not_copied():
    for way in COPIES:
        with pytest.raises(TypeError, match="keep its `state`"):
            way(_core.UniformStreams(words(1)))


def test_the_state_setter_keeps_the_episode():
    env = make()
    env.step(np.array([1, 0]))
    state = np.arange(8.0).reshape(4, 2) / 100
    env.state = state
    assert np.array_equal(env.state, state)
    assert np.array_equal(env.obs, state.T.astype(np.float32))
    assert env.get_state()["elapsed"].tolist() == [1, 1]
    for bad in (np.full((4, 2), np.inf), np.zeros((2, 4)), np.zeros((4, 2), np.float32)):
        with pytest.raises((TypeError, ValueError), match="state: expected"):
            env.state = bad
    assert np.array_equal(env.state, state)


def test_a_restored_vector_env_does_not_know_its_seeds():
    env = CartPoleVectorEnv(num_envs=2)
    fresh = env.get_state()
    env.reset(seed=3)
    twin = CartPoleVectorEnv(num_envs=2)
    twin.set_state(env.get_state())
    assert twin.np_random_seed == (-1, -1)
    assert np.array_equal(twin.step([0, 1])[0], env.step([0, 1])[0])
    assert np.array_equal(twin.reset()[0], env.reset()[0])
    twin.set_state(fresh)  # never seeded, never reset: the next reset seeds it anew
    assert np.abs(twin.reset()[0]).max() <= 0.05
    assert min(twin.np_random_seed) >= 0
