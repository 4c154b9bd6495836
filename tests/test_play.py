"""`fastac play`: episodes are those of evaluate_policy, films hold every step of them, windows can be closed."""

import itertools
import os
import subprocess
import sys
from fractions import Fraction

import av
import gymnasium
import numpy as np
import pygame
import pytest
from click.testing import CliRunner
from PIL import Image

import fastac
from fastac import pictures
from fastac.cli import main
from fastac.env.batch import Maker
from fastac.env.drawn import DrawnEnv
from fastac.pictures import Gif, Mp4, Window, film, in_one
from fastac.playing import Play

CART = {"n_steps": 8, "hidden_sizes": (16,), "seed": 3}
# Played by Gymnasium, as it has env_kwargs.
GYMNASIUM = {"env": "CartPole-v1", "env_kwargs": {"sutton_barto_reward": False}, "max_episode_steps": 25, **CART}
ACROBOT = {"env": "Acrobot-v1", "max_episode_steps": 6, "n_envs": 2, **CART}


@pytest.fixture(autouse=True)
def no_screen(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setenv("SDL_AUDIODRIVER", "dummy")


def invoke(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


def decided(model):
    """With larger weights than it began with, so that its actions depend on what it sees."""
    model.params *= 4
    return model


def played(model, **options):
    """(all pictures, returns)"""
    play = Play(model, **options)
    try:
        return list(play.pictures()), play.returns
    finally:
        play.close()


def frames_of_gif(path):
    with Image.open(path) as image:
        durations, frames = [], []
        for k in range(image.n_frames):
            image.seek(k)
            durations.append(image.info["duration"])
            frames.append(np.asarray(image.convert("RGB")))
    return frames, durations


def frames_of_mp4(path):
    with av.open(path) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264" and stream.codec_context.pix_fmt == "yuv420p"
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)], stream.average_rate


# ---- episodes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"policy": "MlpGruPolicy"},
        {"policy": "MlpLstmPolicy", "normalize_observation": True},
        {"normalize_observation": True, "normalize_reward": True},
    ],
    ids=["mlp", "gru", "lstm, normalised", "normalised"],
)
def test_episodes_are_those_of_evaluate_policy(options, deterministic):
    def model():
        return decided(fastac.A2C(n_envs=2, **GYMNASIUM, **options).learn(320))

    expected, lengths = fastac.evaluate_policy(
        model(), n_eval_episodes=3, deterministic=deterministic, seed=5, return_episode_rewards=True
    )
    shown, returns = played(model(), n_envs=3, deterministic=deterministic, seed=5)
    assert returns == expected and len(shown) == 1 + max(lengths)


def test_a_policy_that_remembers_is_given_its_memory(monkeypatch):
    model = decided(fastac.A2C(policy="MlpGruPolicy", n_envs=2, **GYMNASIUM).learn(320))
    choose, given = model.choose, []

    def noted(obs, deterministic, state, start, random):
        given.append((None if state is None else state.copy(), start.copy()))
        return choose(obs, deterministic, state, start, random)

    monkeypatch.setattr(model, "choose", noted)
    _, returns = played(model, episodes=2, seed=0)
    states, starts = zip(*given, strict=True)
    assert states[0] is None and all(np.any(state) for state in states[1:])
    first = int(returns[0])  # steps of the first episode; its end is looked at, and then the next one begins
    assert [k for k, start in enumerate(starts) if start[0]] == [0, first + 1]


def test_the_native_env_is_drawn_by_gymnasium():
    model = fastac.A2C(n_envs=2, **CART)
    shown, returns = played(model, seed=5)
    assert len(shown) == 1 + returns[0] and shown[0].shape == (400, 600, 3)
    env = gymnasium.make("CartPole-v1", render_mode="rgb_array")
    env.reset(seed=Play(model, seed=5)._seeds[0])
    np.testing.assert_array_equal(shown[0][40:], env.render()[40:])  # above stands the return
    env.close()


def test_the_same_seed_plays_the_same_episodes():
    model = decided(fastac.A2C(n_envs=2, **CART))
    (first, returns), (again, same), (_, other) = (played(model, n_envs=2, seed=seed) for seed in (1, 1, 2))
    assert returns == same and all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert len(returns) == len(other) == 2


@pytest.mark.parametrize(("n_envs", "episodes"), [(2, 5), (3, 2), (1, 3)])
def test_as_many_episodes_in_each_env(n_envs, episodes):
    model = fastac.A2C(**ACROBOT)
    shown, returns = played(model, n_envs=n_envs, episodes=episodes, seed=0)
    assert len(returns) == episodes
    n_envs = min(n_envs, episodes)
    assert shown[0].shape == played(model, n_envs=n_envs, seed=0, max_steps=1)[0][0].shape
    most = -(-episodes // n_envs)
    assert len(shown) == 1 + 6 * most + most - 1  # each next one begins with a picture of its own


def test_it_may_end_before():
    play = Play(fastac.A2C(**ACROBOT), seed=0, max_steps=4)
    assert len(list(play.pictures())) == 5 and play.returns == [] and not play.over
    play.close()


def test_an_env_that_is_over_stays_as_it_is():
    model = decided(fastac.A2C(n_envs=2, **CART))
    both = (played(model, n_envs=2, seed=seed) for seed in range(20))
    shown, returns = next((shown, returns) for shown, returns in both if returns[0] != returns[1])
    sides = [[picture[:, :600] for picture in shown], [picture[:, 602:] for picture in shown]]
    changes = [[not np.array_equal(a, b) for a, b in itertools.pairwise(side)] for side in sides]
    assert sorted(map(sum, changes)) == sorted(returns)  # as many as it made steps
    assert all(side == sorted(side, reverse=True) for side in changes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_envs": 0}, "n_envs: expected a whole number >= 1, got 0"),
        ({"episodes": 0}, "episodes: expected a whole number >= 1, got 0"),
        ({"max_steps": 0}, "max_steps: expected a whole number >= 1, got 0"),
    ],
)
def test_bad_numbers(options, message):
    with pytest.raises(fastac.ConfigError, match=message):
        Play(fastac.A2C(**CART), **options)


class Plain(gymnasium.Env):
    """Without pictures, or with what is none."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, render_mode=None, drawn=None):
        self.render_mode, self.drawn = render_mode, drawn

    def reset(self, *, seed=None, options=None):
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return np.zeros(2, np.float32), 1.0, True, False, {}

    def render(self):
        if isinstance(self.drawn, Exception):
            raise self.drawn
        return self.drawn


@pytest.mark.parametrize(
    ("drawn", "message"),
    [
        (None, r"expected one that draws itself \(rgb_array\), got .*Plain.*, which drew None"),
        ("text", "expected one that draws itself .* which drew 'text'"),
        (np.zeros((4, 4)), "expected one that draws itself"),
        (NotImplementedError(), "expected one that draws itself"),
        (
            gymnasium.error.DependencyNotInstalled("pygame is not installed"),
            r"expected what draws it to be installed, pygame is not installed.* pip install 'fastac\[render\]'",
        ),
    ],
)
def test_an_env_without_pictures(drawn, message):
    env = DrawnEnv(Maker(lambda render_mode: Plain(render_mode, drawn), None, {}))
    with pytest.raises(fastac.ConfigError, match=f"env: {message}"):
        env.picture()
    assert env.fps == 30


def test_an_env_that_takes_no_render_mode():
    with pytest.raises(fastac.ConfigError, match="env: expected one that takes render_mode='rgb_array'"):
        DrawnEnv(Maker(lambda: Plain(), None, {}))


def test_envs_of_the_user_s_own_cannot_be_made_anew():
    model = fastac.A2C(gymnasium.make("Acrobot-v1"), n_steps=8)
    with pytest.raises(fastac.ConfigError, match="env: expected one that can be made anew, by its id"):
        Play(model)


# ---- pictures -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "frame", "size"),
    [
        (1, (400, 600), (400, 600)),
        (4, (400, 600), (802, 1202)),
        (3, (500, 500), (902, 902)),  # smaller than they are
        (2, (333, 301), (334, 604)),  # even
        (1, (60, 80), (180, 240)),  # larger
    ],
)
def test_many_in_one(n, frame, size):
    frames = [np.full((*frame, 3), 40 * (k + 1), np.uint8) for k in range(n)]
    picture = in_one(frames, ["return 1"] * n)
    assert abs(picture.shape[0] - size[0]) <= 4 and abs(picture.shape[1] - size[1]) <= 4
    assert picture.shape[0] % 2 == picture.shape[1] % 2 == 0 and picture.dtype == np.uint8
    columns = {1: 1, 2: 2, 3: 2, 4: 2}[n]
    height, width = picture.shape[0] // -(-n // columns), picture.shape[1] // columns
    for k in range(n):
        middle = picture[k // columns * height + height // 2, k % columns * width + width // 2]
        assert middle.tolist() == [40 * (k + 1)] * 3


def test_the_caption_stands_in_a_corner():
    frame = np.full((400, 600, 3), 255, np.uint8)
    (first, second), plain = (in_one([frame], [words]) for words in ("return 1", "return 2")), frame
    assert not np.array_equal(first, second) and not np.array_equal(first, plain)
    np.testing.assert_array_equal(first[40:], plain[40:])
    np.testing.assert_array_equal(first[:, 200:], plain[:, 200:])


def some_pictures(n=5, shape=(64, 80)):
    """A bar that moves: no two pictures are equal."""
    for k in range(n):
        picture = np.full((*shape, 3), 255, np.uint8)
        picture[:, 10 * k : 10 * k + 10] = (200, 30, 30)
        yield picture


@pytest.mark.parametrize(("fps", "duration_ms"), [(50, 20), (30, 30), (15, 70), (60, 20), (1, 1000)])
def test_a_gif_holds_every_picture(fps, duration_ms, tmp_path):
    with film(tmp_path / "x.gif", "title", fps) as its:
        assert isinstance(its, Gif) and all(its.add(picture) for picture in some_pictures())
    frames, durations = frames_of_gif(tmp_path / "x.gif")
    assert durations == [duration_ms] * 5
    assert all(np.array_equal(a, b) for a, b in zip(frames, some_pictures(), strict=True))


@pytest.mark.parametrize(("fps", "rate"), [(50, 50), (29.97, Fraction(2997, 100)), (4, 4)])
def test_an_mp4_holds_every_picture(fps, rate, tmp_path):
    with film(tmp_path / "x.MP4", "title", fps) as its:
        assert isinstance(its, Mp4) and all(its.add(picture) for picture in some_pictures())
    frames, its_rate = frames_of_mp4(tmp_path / "x.MP4")
    assert its_rate == rate and len(frames) == 5
    for frame, picture in zip(frames, some_pictures(), strict=True):
        assert np.abs(frame.astype(int) - picture).mean() < 8  # films lose a little


@pytest.mark.parametrize("name", ["x.gif", "x.mp4"])
def test_what_is_not_finished_is_not_written(name, tmp_path):
    (tmp_path / name).write_text("before")
    with pytest.raises(KeyboardInterrupt), film(tmp_path / name, "title", 50) as its:
        for picture in some_pictures():
            its.add(picture)
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "before"


@pytest.mark.parametrize("name", ["x.gif", "x.mp4"])
def test_a_full_disk(name, tmp_path):
    code = (
        "import resource, sys; from pathlib import Path; import numpy as np; from fastac.pictures import film\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))\n"
        "rng = np.random.default_rng(0)\n"
        "try:\n"
        "    with film(Path(sys.argv[1]), 'title', 50) as its:\n"
        "        for _ in range(50):\n"
        "            its.add(rng.integers(0, 255, (64, 80, 3), np.uint8))\n"
        "except OSError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / name)], capture_output=True, text=True)
    assert done.returncode == 0 and "File too large" in done.stdout, done.stderr
    assert list(tmp_path.iterdir()) == []


# ---- a window -------------------------------------------------------------------------------------------------


def test_a_window_shows_each_picture_until_it_is_closed():
    with film(None, "A2C", 1000) as window:
        assert isinstance(window, Window)
        for picture in some_pictures():
            assert window.add(picture)
            seen = pygame.surfarray.array3d(pygame.display.get_surface()).swapaxes(0, 1)
            np.testing.assert_array_equal(seen, picture)
        assert pygame.display.get_caption()[0] == "A2C"
        pygame.event.post(pygame.event.Event(pygame.QUIT))
        assert not window.add(picture)
    assert not pygame.display.get_init()


def no_device():
    raise pygame.error("No available video device")


@pytest.mark.parametrize("init", [no_device, lambda: None], ids=["no driver", "a driver without a screen"])
def test_without_a_display_the_error_names_the_option(init, monkeypatch):
    monkeypatch.delenv("SDL_VIDEODRIVER")
    monkeypatch.setattr(pygame.display, "init", init)
    monkeypatch.setattr(pygame.display, "get_driver", lambda: "offscreen")
    with pytest.raises(fastac.ConfigError, match=r"out: expected FILE\.gif or FILE\.mp4, as no window can be opened: "):
        Window("title", 50)


def test_without_pygame_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pygame", None)
    with pytest.raises(fastac.ConfigError, match=r"expected pygame for a window .*pip install 'fastac\[render\]'"):
        Window("title", 50)


# ---- the command ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for name, model in {
        "cart": decided(fastac.A3C(workers=2, backend="thread", max_episode_steps=30, **CART)),
        "acrobot": fastac.A2C(**ACROBOT),
        "gru": fastac.A2C(policy="MlpGruPolicy", normalize_observation=True, **ACROBOT).learn(32),
    }.items():
        model.save(folder / f"{name}.safetensors")
    return folder


@pytest.mark.parametrize(("name", "size"), [("cart", (802, 1202)), ("acrobot", (902, 902)), ("gru", (902, 902))])
@pytest.mark.parametrize("suffix", ["gif", "mp4"])
def test_a_grid_of_four(suffix, name, size, saved, tmp_path):
    out = tmp_path / f"x.{suffix}"
    result = invoke("play", saved / f"{name}.safetensors", "--out", out, "--envs", 4, "--seed", 2)
    assert result.exit_code == 0, result.output
    model = {"cart": fastac.A3C}.get(name, fastac.A2C).load(saved / f"{name}.safetensors")
    shown, returns = played(model, n_envs=4, seed=2)
    told, written = result.stdout.splitlines()
    assert told == f"4 episodes, seed 2, return {', '.join(f'{one:g}' for one in returns)}"
    assert written == f"written: {out} ({len(shown)} pictures)"
    fps = 50 if name == "cart" else 15
    if suffix == "mp4":
        frames, rate = frames_of_mp4(out)
        assert rate == fps and len(frames) == len(shown)
    else:
        frames, durations = frames_of_gif(out)  # pictures that are equal are one that lasts longer
        assert len(frames) <= len(shown) and sum(durations) == len(shown) * 10 * round(100 / fps)
    assert {frame.shape for frame in frames} == {(*size, 3)}
    for ours, its in ((frames[0], shown[0]), (frames[-1], shown[-1])):
        assert np.abs(ours.astype(int) - its).mean() < 2


def test_options(saved, tmp_path):
    out = tmp_path / "x.gif"
    words = ["play", saved / "acrobot.safetensors", "--out", out, "--stochastic", "--fps", 10, "--max-steps", 4]
    result = invoke(*words, "--episodes", 3)
    assert result.exit_code == 0 and "0 episodes, seed " in result.stdout
    assert sum(frames_of_gif(out)[1]) == 5 * 100


def test_a_window(saved):
    result = invoke("play", saved / "acrobot.safetensors", "--fps", 1000, "--seed", 1)
    assert result.exit_code == 0 and result.stdout == "1 episode, seed 1, return -6\n", result.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "x.avi"], "--out: expected FILE.gif or FILE.mp4, got x.avi"),
        (["--out", "no/x.gif"], "--out: expected a file in a folder that exists, got no/x.gif"),
        (["--envs", "65"], "65 is not in the range 1<=x<=64"),
    ],
)
def test_a_wrong_command(words, message, saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = invoke("play", saved / "cart.safetensors", *words)
    assert result.exit_code == 2 and message in " ".join(result.output.split())
    assert list(tmp_path.iterdir()) == []


def test_without_pyav_the_error_names_the_extra(saved, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    result = invoke("play", saved / "cart.safetensors", "--out", tmp_path / "x.mp4")
    assert result.exit_code == 2 and "pip install 'fastac[video]'" in " ".join(result.output.split())
    result = invoke("play", saved / "cart.safetensors", "--out", tmp_path / "x.gif", "--max-steps", 3)
    assert result.exit_code == 0, result.output


def test_ctrl_c(saved, tmp_path, monkeypatch):
    def interrupted(self, picture):
        raise KeyboardInterrupt

    monkeypatch.setattr(pictures.Gif, "add", interrupted)
    out = tmp_path / "x.gif"
    result = invoke("play", saved / "cart.safetensors", "--out", out)
    assert result.exit_code == 130 and result.output == f"stopped: {out} is not written\n"
    assert list(tmp_path.iterdir()) == []


def test_nothing_but_the_two_lines(saved, tmp_path):
    """Neither pygame's greeting nor SDL's complaints of a display that is not there."""
    environment = {name: value for name, value in os.environ.items() if "DISPLAY" not in name and "SDL" not in name}
    command = [
        sys.executable,
        "-m",
        "fastac",
        "play",
        str(saved / "cart.safetensors"),
        "--out",
        str(tmp_path / "x.gif"),
    ]
    done = subprocess.run([*command, "--max-steps", "3"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 2 and done.stderr == ""
