"""The native CartPole in Stable-Baselines3, against its own DummyVecEnv of Gymnasium's CartPole-v1, bit for bit."""

import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from equality import assert_same
from gymnasium.error import ClosedEnvironmentError, ResetNeeded
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecCheckNan, VecFrameStack, VecMonitor, VecNormalize

from fastac.env import ENV_ID, CartPoleVectorEnv
from fastac.interop.sb3 import as_vec_env
from fastac.policy import one_torch_thread

N = 3


@pytest.fixture(autouse=True)
def one_thread():
    with one_torch_thread():
        yield


def dummy(n_envs=N, **kwargs):
    return DummyVecEnv([lambda: gymnasium.make("CartPole-v1", **kwargs)] * n_envs)


def ours(n_envs=N, **kwargs):
    return as_vec_env(ENV_ID, n_envs, env_kwargs=kwargs)


def balancing(rng, obs):
    """Falls after a few dozen env steps, or later."""
    return np.where(rng.random(len(obs)) < 0.2, rng.integers(0, 2, len(obs)), obs[:, 2] + 0.3 * obs[:, 3] > 0).astype(
        int
    )


def at_random(rng, obs):
    return rng.integers(0, 2, len(obs))


def same_steps(mine, other, obs, policy, env_steps):
    """Plays both, and returns all infos of episodes that ended."""
    rng, ends = np.random.default_rng(0), []
    for _ in range(env_steps):
        actions = policy(rng, obs)
        results = mine.step(actions)
        assert_same(results, other.step(actions))
        obs, _, dones, infos = results
        ends += [info for info, done in zip(infos, dones, strict=True) if done]
    return ends


@pytest.mark.parametrize(("max_episode_steps", "policy"), [(500, balancing), (30, at_random)])
def test_trajectories_are_those_of_dummy_vec_env(max_episode_steps, policy):
    mine, other = (make(max_episode_steps=max_episode_steps) for make in (ours, dummy))
    assert mine.seed(7) == other.seed(7) == [7, 8, 9]
    obs = mine.reset()
    assert_same(obs, other.reset())
    ends = same_steps(mine, other, obs, policy, 1000)
    assert all(info["terminal_observation"].shape == (4,) for info in ends)
    assert {info["TimeLimit.truncated"] for info in ends} == {True, False}
    for env in (mine, other):
        env.set_options({"low": -0.2, "high": 0.2})
    obs = mine.reset()
    assert np.abs(obs).max() > 0.05
    assert_same(obs, other.reset())
    same_steps(mine, other, obs, policy, 300)
    assert_same(mine.reset(), other.reset())  # seed and options were for one reset


def test_an_episode_that_ends_in_both_ways_is_not_truncated():
    """Pushed to one side, the pole falls at the 8th to 10th env step."""
    mine, other = (make(max_episode_steps=9) for make in (ours, dummy))
    for env in (mine, other):
        env.seed(0)
    assert_same(mine.reset(), other.reset())
    lengths, at_the_limit = np.zeros(N, int), set()
    for _ in range(200):
        *_, dones, infos = results = mine.step(np.ones(N, int))
        assert_same(results, other.step(np.ones(N, int)))
        lengths += 1
        at_the_limit |= {infos[i]["TimeLimit.truncated"] for i in np.flatnonzero(dones & (lengths == 9))}
        lengths[dones] = 0
    assert at_the_limit == {True, False}


def test_seed_is_that_of_make_vec_env():
    mine, other = as_vec_env(ENV_ID, N, 11), make_vec_env("CartPole-v1", N, 11)
    assert_same(mine.reset(), other.reset())
    assert [mine.action_space.sample() for _ in range(20)] == [other.action_space.sample() for _ in range(20)]


def test_make_vec_env_takes_the_single_env():
    mine, other = (make_vec_env(name, N, 11, env_kwargs={"max_episode_steps": 30}) for name in (ENV_ID, "CartPole-v1"))
    obs = mine.reset()
    assert_same(obs, other.reset())
    rng = np.random.default_rng(0)
    for _ in range(200):
        actions = balancing(rng, obs)
        obs, *_ = results = mine.step(actions)
        expected = other.step(actions)
        for infos in (results[-1], expected[-1]):
            for info in infos:
                info.get("episode", {}).pop("t", None)
        assert_same(results, expected)


def test_an_existing_vector_env():
    envs = gymnasium.make_vec(ENV_ID, num_envs=2, autoreset_mode="SameStep")
    envs.reset(seed=4)
    vec_env = as_vec_env(envs)
    assert vec_env.envs is envs
    twin = CartPoleVectorEnv(2)
    twin.reset(seed=4)
    assert_same(vec_env.reset(), twin.reset()[0])  # not seeded anew
    assert_same(as_vec_env(envs, seed=8).reset(), twin.reset(seed=8)[0])
    vec_env.close()
    with pytest.raises(ClosedEnvironmentError):
        vec_env.reset()


def test_infos_and_arrays_are_the_callers():
    vec_env = ours()
    vec_env.seed(0)
    kept = [vec_env.reset()]
    for _ in range(3):
        obs, rewards, dones, infos = vec_env.step(np.zeros(N, int))
        assert infos == [{"TimeLimit.truncated": False}] * N
        infos[0]["mine"] = 1
        assert "mine" not in infos[1]
        kept += [obs, rewards, dones]
    assert not any(np.shares_memory(a, b) for i, a in enumerate(kept) for b in kept[:i])


# ---- algorithms -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        (A2C, {}),
        (PPO, {"n_steps": 256, "n_epochs": 2}),
        (DQN, {"learning_starts": 200, "train_freq": 16, "target_update_interval": 100}),
    ],
)
def test_an_algorithm_learns_the_same_as_on_dummy_vec_env(algorithm, options):
    """With episodes that are truncated, whose final observations it evaluates."""
    models = [
        algorithm("MlpPolicy", make(n_envs=4, max_episode_steps=20), seed=0, device="cpu", **options).learn(2048)
        for make in (ours, dummy)
    ]
    (mine, other), before = models, algorithm("MlpPolicy", ours(), seed=0, device="cpu", **options)
    for name, parameter in mine.policy.state_dict().items():
        assert np.array_equal(parameter, other.policy.state_dict()[name]), name
    assert not np.array_equal(mine.policy.state_dict()[name], before.policy.state_dict()[name])


def test_evaluate_policy():
    model = A2C("MlpPolicy", ours(), seed=0, device="cpu")

    def score(env):
        model.set_random_seed(0)
        env.seed(5)
        return evaluate_policy(model, env, n_eval_episodes=10, deterministic=False, return_episode_rewards=True)

    returns, lengths = score(VecMonitor(ours()))
    assert (returns, lengths) == score(VecMonitor(dummy()))
    assert len(returns) == 10 and len(set(lengths)) > 1
    with pytest.warns(UserWarning, match="not wrapped with a ``Monitor``"):
        evaluate_policy(model, ours(), n_eval_episodes=1)


def test_eval_callback(tmp_path):
    callback = EvalCallback(VecMonitor(ours()), eval_freq=100, log_path=str(tmp_path), verbose=0)
    A2C("MlpPolicy", VecMonitor(ours()), seed=0, device="cpu").learn(1000, callback=callback)
    assert np.load(tmp_path / "evaluations.npz")["results"].shape == (3, 5)


# ---- wrappers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrapper",
    [
        lambda env: VecNormalize(env, clip_obs=3.0),
        lambda env: VecFrameStack(env, 4),
        lambda env: VecCheckNan(env, raise_exception=True),
    ],
    ids=["VecNormalize", "VecFrameStack", "VecCheckNan"],
)
def test_wrappers_give_what_they_give_around_dummy_vec_env(wrapper):
    mine, other = (wrapper(make(max_episode_steps=20)) for make in (ours, dummy))
    for env in (mine, other):
        env.seed(1)
    assert_same(mine.reset(), other.reset())
    ends = same_steps(mine, other, np.zeros((N, 4)), balancing, 200)
    assert any("terminal_observation" in info for info in ends)


def test_vec_monitor(tmp_path):
    mine, other = (VecMonitor(make(max_episode_steps=20), str(tmp_path / make.__name__)) for make in (ours, dummy))
    episodes = []
    for env in (mine, other):
        env.seed(2)
        obs, rng = env.reset(), np.random.default_rng(0)
        infos = []
        for _ in range(200):
            obs, _, dones, step = env.step(balancing(rng, obs))
            infos += [step[i]["episode"] for i in np.flatnonzero(dones)]
        env.close()
        episodes.append([(info["r"], info["l"]) for info in infos])
    assert episodes[0] == episodes[1] and len(episodes[0]) > 20
    assert f'"env_id": "{ENV_ID}"' in (tmp_path / "ours.monitor.csv").read_text()


# ---- one env by itself --------------------------------------------------------------------------------------------


def test_attributes_of_each_env():
    mine, other = ours(), dummy()
    for env in (mine, other):
        env.seed(3)
        env.reset()
        env.step(np.ones(N, int))
    for name in ("observation_space", "action_space", "render_mode", "np_random_seed"):
        assert mine.get_attr(name) == other.get_attr(name), name
    assert np.array_equal(mine.get_attr("state"), other.get_attr("state"))
    assert not np.shares_memory(mine.get_attr("state")[0], mine.envs.native.state)
    assert mine.get_attr("spec")[0].id == ENV_ID
    assert mine.get_attr("np_random")[2].random() == other.get_attr("np_random")[2].random()
    assert mine.get_attr("np_random_seed", 1) == mine.get_attr("np_random_seed", indices=[1]) == [4]
    with pytest.raises(AttributeError):
        mine.get_attr("difficulty")
    mine.set_attr("difficulty", "low")
    mine.set_attr("difficulty", "high", indices=[0, 2])
    assert mine.get_attr("difficulty") == ["high", "low", "high"]
    with pytest.raises(AttributeError):
        mine.env_method("action_masks")
    assert mine.env_is_wrapped(Monitor) == [False] * N and mine.env_is_wrapped(Monitor, 1) == [False]
    assert mine.unwrapped is mine


@pytest.mark.filterwarnings("ignore:pkg_resources is deprecated", "ignore:Deprecated call to `pkg_resources")
def test_render(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    mine, other = (make(render_mode="rgb_array") for make in (ours, dummy))
    for env in (mine, other):
        env.seed(3)
        env.reset()
    picture = mine.render()
    assert picture.shape == (800, 1200, 3)
    assert_same(picture, other.render())
    assert_same(mine.env_method("render", indices=[1]), other.env_method("render", indices=[1]))
    assert mine.metadata["render_fps"] == other.metadata["render_fps"] == 50
    assert mine.render_mode == "rgb_array"


def test_render_without_a_mode():
    vec_env = ours()
    vec_env.reset()
    with pytest.warns(UserWarning, match="no `render_mode`"):
        assert vec_env.render() is None
    with pytest.warns(UserWarning, match="without a render mode"):
        assert vec_env.get_images() == [None] * N
    with pytest.warns(UserWarning, match="without a render mode"):
        assert vec_env.env_method("render", indices=0) == [None]


# ---- errors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["NextStep", "Disabled"])
def test_another_autoreset_mode(mode):
    with pytest.raises(ValueError, match=r"expected SAME_STEP.*, got .*num_envs=2, autoreset_mode='SameStep'"):
        as_vec_env(CartPoleVectorEnv(2, autoreset_mode=mode))
    with pytest.raises(ValueError, match="expected SAME_STEP"):
        as_vec_env(ENV_ID, 2, env_kwargs={"autoreset_mode": mode})


def test_other_envs():
    with pytest.raises(ValueError, match="expected 'fastac/CartPole-v1' or a CartPoleVectorEnv, got 'CartPole-v1'"):
        as_vec_env("CartPole-v1")
    envs = CartPoleVectorEnv(2, autoreset_mode="SameStep")
    with pytest.raises(TypeError, match="without wrappers, got RecordEpisodeStatistics"):
        as_vec_env(gymnasium.wrappers.vector.RecordEpisodeStatistics(envs))
    for given in ({"n_envs": 2}, {"env_kwargs": {}}):
        with pytest.raises(ValueError, match="n_envs, env_kwargs: expected None"):
            as_vec_env(envs, **given)
    with pytest.raises(ValueError, match="num_envs: expected at least 1, got 0"):
        as_vec_env(n_envs=0)
    assert as_vec_env(f"fastac:{ENV_ID}").num_envs == 1


def test_wrong_use():
    vec_env = ours()
    with pytest.raises(ResetNeeded):
        vec_env.step(np.zeros(N, int))
    vec_env.reset()
    for actions in (np.zeros(N), None):
        with pytest.raises(TypeError, match="actions: expected integers"):
            vec_env.step(actions)
    with pytest.raises(ValueError):
        vec_env.step(np.zeros(N + 1, int))
    vec_env.set_options([{"low": 0.0}, {}, {}])
    with pytest.raises(ValueError, match="expected the same options for all envs"):
        vec_env.reset()


def test_stable_baselines3_comes_in_with_its_room_and_missing_is_named():
    code = "import sys, fastac, fastac.interop; assert 'stable_baselines3' not in sys.modules; "
    code += "sys.modules['stable_baselines3'] = None; import fastac.interop.sb3"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert last == "ImportError: fastac.interop.sb3 needs Stable-Baselines3: pip install 'fastac[sb3]'"
