"""The env as Gymnasium and its tools see it: registration, checkers, wrappers, rendering, lifecycle."""

import copy
import os
import pickle
import subprocess
import sys
import threading
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.classic_control.cartpole import CartPoleEnv as GymnasiumCartPole
from gymnasium.error import ClosedEnvironmentError, ResetNeeded
from gymnasium.utils.env_checker import check_env

import fastac
import fastac.env
from fastac.env import ENV_ID, AutoresetMode, CartPoleEnv, CartPoleVectorEnv

fastac.env.register()

# pygame 2.6 looks for its data with pkg_resources, which warns.
pytestmark = [
    pytest.mark.filterwarnings("ignore:pkg_resources is deprecated"),
    pytest.mark.filterwarnings("ignore:Deprecated call to `pkg_resources"),
]


@pytest.fixture(autouse=True)
def no_screen(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


# --- registration ---


def test_register_twice_is_once():
    spec = gymnasium.spec(ENV_ID)
    fastac.env.register()
    assert gymnasium.spec(ENV_ID) is spec
    assert (spec.max_episode_steps, spec.reward_threshold) == (500, 475.0)


def test_make():
    env = gymnasium.make(ENV_ID)
    assert isinstance(env.unwrapped, CartPoleEnv)
    assert env.spec.max_episode_steps == 500


def test_make_vec_finds_the_native_vector_env():
    env = gymnasium.make_vec(ENV_ID, num_envs=3)
    assert isinstance(env, CartPoleVectorEnv)
    assert env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert env.native.max_episode_steps == 500
    assert str(env) == f"CartPoleVectorEnv({ENV_ID}, num_envs=3)"
    env = gymnasium.make_vec(ENV_ID, num_envs=2, autoreset_mode="SameStep", max_episode_steps=9)
    assert (env.native.autoreset_mode, env.native.max_episode_steps) == ("same_step", 9)


def test_make_vec_sync_of_single_envs_is_the_same_env():
    vectors = [
        gymnasium.make_vec("CartPole-v1", num_envs=3, vectorization_mode="sync"),
        gymnasium.make_vec(ENV_ID, num_envs=3, vectorization_mode="sync"),
        gymnasium.make_vec(ENV_ID, num_envs=3),
    ]
    outputs = [vector.reset(seed=5)[0] for vector in vectors]
    rng = np.random.default_rng(0)
    for _ in range(300):
        for output in outputs[1:]:
            for mine, other in zip(output, outputs[0], strict=True):
                assert np.array_equal(mine, other)
        actions = rng.integers(0, 2, 3)
        outputs = [vector.step(actions)[:4] for vector in vectors]


def test_metadata_of_one_env_is_its_own():
    CartPoleVectorEnv(autoreset_mode="Disabled").metadata["render_fps"] = 1
    assert CartPoleVectorEnv.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert CartPoleVectorEnv.metadata["render_fps"] == 50


def test_importing_the_env_does_not_import_torch():
    code = "import sys, fastac.env; assert 'torch' not in sys.modules; assert 'pygame' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# --- the single env ---


def test_check_env_warns_of_nothing_but_cartpoles_unbounded_velocities():
    warned = []
    for name in (ENV_ID, "CartPole-v1"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            check_env(gymnasium.make(name).unwrapped)
        warned.append([str(w.message) for w in caught if "pkg_resources" not in str(w.message)])
    assert warned[0] == warned[1]
    assert all("infinity" in message for message in warned[0])


def test_single_env_is_gymnasiums():
    ours, theirs = (gymnasium.make(name) for name in (ENV_ID, "CartPole-v1"))
    rng = np.random.default_rng(1)
    for episode in range(60):
        options = {"low": -0.1} if episode % 3 == 0 else None
        seed = episode if episode % 2 == 0 else None
        results = [env.reset(seed=seed, options=options) for env in (ours, theirs)]
        while True:
            assert np.array_equal(results[0][0], results[1][0])
            assert results[0][0].dtype == results[1][0].dtype
            assert results[0][1:] == results[1][1:]
            assert [type(x) for x in results[0]] == [type(x) for x in results[1]]
            if len(results[0]) == 5 and (results[0][2] or results[0][3]):
                break
            obs = results[0][0]
            action = int(obs[2] + 0.3 * obs[3] > 0) if rng.random() > 0.1 else int(rng.integers(2))
            results = [env.step(action) for env in (ours, theirs)]
        assert ours.unwrapped.np_random.random() == theirs.unwrapped.np_random.random()


def test_single_env_lifecycle():
    env = CartPoleEnv(sutton_barto_reward=True)
    with pytest.raises(ResetNeeded, match="never reset"):
        env.step(0)
    env.reset(seed=0)
    for action in (2, -1, 0.5, "left", None, np.array([0, 1])):
        with pytest.raises(ValueError, match="action: expected 0 or 1"):
            env.step(action)
    with pytest.raises(ValueError, match="reset bounds"):
        env.reset(options={"low": 1.0})
    rewards = []
    terminated = False
    while not terminated:
        _, reward, terminated, _, _ = env.step(np.int32(1))
        rewards.append(reward)
    assert rewards == [0.0] * (len(rewards) - 1) + [-1.0]
    with pytest.raises(ResetNeeded, match="has ended"):
        env.step(0)
    env.close()
    env.close()
    with pytest.raises(ClosedEnvironmentError):
        env.reset()
    with pytest.raises(ValueError, match="render_mode"):
        CartPoleEnv(render_mode="ansi")


# --- rendering ---


def test_frames_are_gymnasiums_pixel_for_pixel():
    env = CartPoleVectorEnv(num_envs=3, render_mode="rgb_array")
    with pytest.raises(ResetNeeded):
        env.render()
    env.reset(seed=4, options={"low": -0.15, "high": 0.15})
    reference = GymnasiumCartPole(render_mode="rgb_array")
    seen = []
    for _ in range(3):
        frames = env.render()
        for frame, state in zip(frames, env.native.state.T, strict=True):
            reference.state = state
            expected = reference.render()
            assert frame.shape == (400, 600, 3)
            assert frame.dtype == np.uint8
            assert np.array_equal(frame, expected)
        seen += frames
        for _ in range(8):
            env.step([1, 0, 1])
    assert len({frame.tobytes() for frame in seen}) == 9
    env.close()


def test_single_env_renders():
    ours, theirs = (gymnasium.make(name, render_mode="rgb_array") for name in (ENV_ID, "CartPole-v1"))
    for env in (ours, theirs):
        env.reset(seed=1)
        env.step(1)
    assert np.array_equal(ours.render(), theirs.render())
    ours.close()


def test_human_window_of_the_single_env_opens_and_closes():
    import pygame

    env = CartPoleEnv(render_mode="human")
    env.reset(seed=0)
    assert pygame.display.get_init()
    env.step(1)
    env.close()
    assert not pygame.display.get_init()


def test_render_without_a_mode_warns():
    for env in (CartPoleVectorEnv(), CartPoleEnv()):
        env.reset(seed=0)
        with pytest.warns(UserWarning, match="without a render mode"):
            assert env.render() is None


# --- the vector env's lifecycle and arguments ---


def test_use_after_close():
    env = CartPoleVectorEnv(num_envs=2)
    env.reset(seed=0)
    env.close()
    env.close()
    for use in (
        env.reset,
        lambda: env.step([0, 1]),
        env.render,
        env.get_state,
        lambda: env.set_state({}),
        lambda: env.native,
        lambda: env.np_random,
        lambda: env.np_random_seed,
    ):
        with pytest.raises(ClosedEnvironmentError, match="close"):
            use()


# --- one thread, copies, forks ---


class Meeting:
    """A native env that stays inside its next call until it is told to go on."""

    def __init__(self, native):
        self.native, self.inside, self.go_on = native, threading.Event(), threading.Event()

    def __getattr__(self, name):
        return getattr(self.native, name)

    def step(self, actions):
        self.inside.set()
        assert self.go_on.wait(60)
        self.native.step(actions)


@pytest.mark.parametrize("kind", [CartPoleVectorEnv, CartPoleEnv])
def test_a_second_thread_is_refused_and_changes_nothing(kind):
    env, twin = kind(), kind()
    action = [0] if kind is CartPoleVectorEnv else 0
    for each in (env, twin):
        each.reset(seed=0)
    meeting = env._native = Meeting(env._native)
    results = []
    thread = threading.Thread(target=lambda: results.append(env.step(action)))
    thread.start()
    assert meeting.inside.wait(60)
    uses = [lambda: env.step(action), env.reset, env.render, env.close, lambda: copy.copy(env)]
    if kind is CartPoleVectorEnv:
        uses += [env.get_state, lambda: env.set_state({}), lambda: env.np_random, lambda: env.np_random_seed]
    for use in uses:
        with pytest.raises(fastac.EnvInUseError, match="another thread is using this env"):
            use()
    meeting.go_on.set()
    thread.join()
    expected = twin.step(action)
    assert np.array_equal(results[0][0], expected[0])
    assert np.array_equal(env.step(action)[0], twin.step(action)[0])  # and afterwards it is free
    env.close()


@pytest.mark.parametrize(
    "way", [copy.copy, copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))], ids=["copy", "deepcopy", "pickle"]
)
@pytest.mark.parametrize("kind", [CartPoleVectorEnv, CartPoleEnv])
def test_a_copy_goes_on_by_itself(kind, way):
    env = kind(render_mode="rgb_array")
    action = [1] if kind is CartPoleVectorEnv else 1
    env.reset(seed=3)
    env.step(action)
    env.render()
    twin = way(env)
    assert all(np.array_equal(a, b) for a, b in zip(frames(twin), frames(env), strict=True))

    def play(one):
        steps = [one.step(action)[0] for _ in range(3)]
        return [*steps, one.reset()[0]]

    first = play(twin)
    assert np.array_equal(np.array(first), np.array(play(env)))
    assert env.np_random_seed == twin.np_random_seed
    env.close()
    twin.step(action)  # not closed with it
    twin.close()
    with pytest.raises(ClosedEnvironmentError):
        way(twin).reset()


def frames(env):
    rendered = env.render()
    return rendered if isinstance(rendered, tuple) else (rendered,)


def test_a_forked_env_is_a_copy():
    env = CartPoleVectorEnv(num_envs=2)
    env.reset(seed=0)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, b"".join(env.step([1, 0])[0].tobytes() for _ in range(5)))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    theirs = os.read(reader, 5 * 2 * 4 * 4)
    for descriptor in (reader, writer):
        os.close(descriptor)
    ours = b"".join(env.step([1, 0])[0].tobytes() for _ in range(5))
    assert ours == theirs  # the child's steps were not ours
    env.close()


def test_gymnasiums_processes_are_the_same_env():
    make = [lambda: gymnasium.make(ENV_ID)] * 2
    ours = gymnasium.vector.AsyncVectorEnv(make, context="fork")
    theirs = gymnasium.vector.SyncVectorEnv(make)
    assert np.array_equal(ours.reset(seed=1)[0], theirs.reset(seed=1)[0])
    for t in range(30):
        results = [env.step(np.array([t % 2, 1])) for env in (ours, theirs)]
        for mine, other in zip(results[0][:4], results[1][:4], strict=True):
            assert np.array_equal(mine, other)
    ours.close()
    theirs.close()


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"num_envs": 0}, ValueError, "num_envs: expected at least 1"),
        ({"num_envs": 2.0}, TypeError, "num_envs: expected an int, got float"),
        ({"num_envs": True}, TypeError, "num_envs"),
        ({"max_episode_steps": 0}, ValueError, "max_episode_steps: expected at least 1"),
        ({"max_episode_steps": None}, TypeError, "max_episode_steps"),
        ({"autoreset_mode": "never"}, ValueError, "autoreset_mode: expected one of"),
        ({"autoreset_mode": 1}, ValueError, "autoreset_mode: expected one of"),
        ({"render_mode": "human"}, ValueError, "a window shows one env"),
        ({"render_mode": "ansi"}, ValueError, "render_mode"),
    ],
)
def test_bad_arguments(kwargs, error, message):
    with pytest.raises(error, match=message):
        CartPoleVectorEnv(**kwargs)


@pytest.mark.parametrize("mode", ["SAME_STEP", "same_step", "SameStep", AutoresetMode.SAME_STEP])
def test_spellings_of_a_mode(mode):
    env = CartPoleVectorEnv(autoreset_mode=mode)
    assert env.autoreset_mode is env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP


@pytest.mark.parametrize(
    "actions",
    [
        [1, 0],
        (1, 0),
        np.array([1, 0], np.int8),
        np.array([1, 0], np.uint64),
        np.array([1, 0], ">i8"),
        np.array([1, 5, 0, 5])[::2],
        np.frombuffer(b"?" + np.array([1, 0]).tobytes(), np.uint8)[1:].view(np.int64),
    ],
)
def test_integer_actions_of_any_kind(actions):
    env = CartPoleVectorEnv(num_envs=2)
    env.reset(seed=0)
    obs = env.step(actions)[0]
    env.reset(seed=0)
    assert np.array_equal(obs, env.step(np.array([1, 0]))[0])


@pytest.mark.parametrize(
    ("actions", "error"),
    [
        ([True, False], TypeError),
        ([0.0, 1.0], TypeError),
        (["0", "1"], TypeError),
        ([2**70, 0], TypeError),
        (None, TypeError),
        (1, ValueError),
        ([0], ValueError),
        ([[0, 1]], ValueError),
        ([0, 2], ValueError),
        (np.array([2**64 - 1, 0], np.uint64), ValueError),
    ],
)
def test_bad_actions_change_nothing(actions, error):
    env = CartPoleVectorEnv(num_envs=2)
    env.reset(seed=0)
    before = [value.tobytes() for value in env.get_state().values()]
    with pytest.raises(error, match="actions"):
        env.step(actions)
    assert [value.tobytes() for value in env.get_state().values()] == before


def test_first_reset_without_a_seed_draws_entropy():
    seeds = set()
    for _ in range(2):
        env = CartPoleVectorEnv(num_envs=2)
        obs, _ = env.reset()
        twin = CartPoleVectorEnv(num_envs=2)
        assert np.array_equal(obs, twin.reset(seed=list(env.np_random_seed))[0])
        seeds.update(env.np_random_seed)
    assert len(seeds) == 4


def test_seeds_can_be_read_before_the_first_reset():
    env = CartPoleVectorEnv(num_envs=2)
    seeds, streams = env.np_random_seed, env.np_random
    assert env.np_random_seed == seeds
    expected = [stream.uniform(-0.05, 0.05, 4) for stream in streams]
    env.reset()
    assert np.array_equal(env.native.state.T, expected)


def test_np_random_is_a_copy():
    env = CartPoleVectorEnv(num_envs=2)
    env.reset(seed=0)
    assert env.np_random[0].random() == env.np_random[0].random()


def test_mask_must_name_the_envs_that_were_never_reset():
    env = CartPoleVectorEnv(num_envs=2)
    with pytest.raises(ResetNeeded, match="env 1 is left out"):
        env.reset(options={"reset_mask": np.array([True, False])})
    assert env.get_state()["status"].tolist() == [2, 2]
