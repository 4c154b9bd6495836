"""Any env and any policy: spaces, batches, and whole trainings through both algorithms, threads and processes."""

import copy
import json
import math
import pickle
import threading

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces as gym_spaces
from torch import nn

import fastac
from fastac import ConfigError, a2c, seeding
from fastac.config import A2CConfig
from fastac.env.batch import GymnasiumBatch, spaces_of, vectorized
from fastac.problem import CARTPOLE_PROBLEM, Problem, make_batch
from fastac.spaces import CARTPOLE, Actions, Spaces

SMALL = {"n_steps": 8, "hidden_sizes": (16,), "seed": 3}


class Tape(gymnasium.Env):
    """Observations, rewards and ends that are known beforehand: what a batch makes of them can be worked out by hand.

    Step t of each episode shows t, rewards t, and ends the episode after `length` steps, truncated or terminated.
    """

    def __init__(self, length=3, truncated=False, actions=None, shape=(2,), dtype=np.float32):
        self.observation_space = gym_spaces.Box(0, 255, shape, dtype)
        self.action_space = gym_spaces.Discrete(2) if actions is None else actions
        self._length, self._truncated = length, truncated
        self.taken = []

    def _obs(self):
        return np.full(self.observation_space.shape, self._t, self.observation_space.dtype)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._t = 0
        return self._obs(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.taken.append(action)
        self._t += 1
        over = self._t == self._length
        return self._obs(), float(self._t), over and not self._truncated, over and self._truncated, {}


def two_of(number):
    return lambda: Tape(actions=gym_spaces.Discrete(number))


# ---- spaces -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("actions", "expected"),
    [
        (gym_spaces.Discrete(3), Actions("discrete", (3,))),
        (gym_spaces.Discrete(3, start=-1), Actions("discrete", (3,), start=-1)),
        (gym_spaces.MultiDiscrete([2, 5]), Actions("multi_discrete", (2, 5))),
        (gym_spaces.MultiBinary(3), Actions("multi_discrete", (2, 2, 2))),
        (gym_spaces.Box(-2, 2, (1,)), Actions("box", shape=(1,), low=(-2.0,), high=(2.0,))),
        (
            gym_spaces.Box(np.float32([[-1, 0]]), np.float32([[1, np.inf]])),
            Actions("box", shape=(1, 2), low=(-1.0, 0.0), high=(1.0, np.inf)),
        ),
    ],
)
def test_spaces_of_actions(actions, expected):
    assert spaces_of(gym_spaces.Box(-1, 1, (4, 2)), actions) == Spaces((4, 2), expected)
    assert spaces_of(gym_spaces.Box(0, 255, (8, 8, 3), np.uint8), actions) == Spaces((8, 8, 3), expected, "uint8")


@pytest.mark.parametrize(
    "actions",
    [
        gym_spaces.Text(3),
        gym_spaces.Box(0, 9, (2,), np.int64),
        gym_spaces.MultiBinary((2, 2)),
        gym_spaces.MultiDiscrete([[2, 2]]),
        gym_spaces.Tuple([gym_spaces.Discrete(2)]),
    ],
)
def test_actions_that_no_policy_is_for(actions):
    with pytest.raises(ConfigError, match=r"env: expected actions in a Discrete, .*, got "):
        fastac.A2C(lambda: Tape(actions=actions))


def test_what_an_env_gets_is_in_its_space():
    assert Actions("discrete", (3,), start=-1).for_env(np.array([0, 2])).tolist() == [-1, 1]
    box = Actions("box", shape=(2, 1), low=(-1.0, -np.inf), high=(1.0, 3.0))
    assert box.for_env(np.array([[-5.0, -5.0], [0.5, 9.0]], np.float32)).tolist() == [[[-1], [-5]], [[0.5], [3]]]
    assert (box.size, box.buffer) == (2, ((2,), np.float32))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_actions_have_the_dtype_of_the_env(dtype):
    """-0.1 is another number in each: a bound of one lies outside the space of another."""
    space = gym_spaces.Box(-0.1, 0.1, (1,), dtype)
    taken = spaces_of(gym_spaces.Box(0, 1, (2,)), space).actions.for_env(np.array([[-1e30], [0.05], [0.2]], np.float32))
    assert taken.dtype == dtype and all(space.contains(one) for one in taken)
    model = fastac.A2C(lambda: Tape(actions=space), **SMALL).learn(50)  # the env itself asserts it
    assert space.contains(model.predict(np.zeros(2))[0])
    assert fastac.evaluate_policy(model, lambda: Tape(actions=space), 1)


def test_the_native_env_is_cartpole():
    env = gymnasium.make("CartPole-v1")
    assert spaces_of(env.observation_space, env.action_space) == CARTPOLE


# ---- batches ----------------------------------------------------------------------------------------------------


def test_a_batch_resets_in_the_step_that_ends_an_episode():
    spaces = Spaces((2,), Actions("discrete", (2,)))
    batch = GymnasiumBatch(vectorized(lambda: Tape(2, truncated=True), 2), spaces)
    batch.reset(np.zeros((2, 4), np.uint64))
    assert batch.obs.tolist() == [[0, 0], [0, 0]] and batch.obs.dtype == np.float32
    batch.step(np.array([0, 1]))
    assert (batch.obs[0].tolist(), batch.reward.tolist(), batch.truncated.tolist()) == ([1, 1], [1, 1], [False] * 2)
    batch.step(np.array([0, 1]))
    assert batch.obs.tolist() == [[0, 0], [0, 0]] and batch.final_obs.tolist() == [[2, 2], [2, 2]]
    assert (batch.reward.tolist(), batch.truncated.tolist(), batch.terminated.any()) == ([2, 2], [True] * 2, False)


def test_the_native_batch_and_gymnasiums_have_the_same_face():
    """CartPole through both, from the same states: the same observations, rewards and ends."""
    words = seeding.env_words(0, 0, 0, 3)
    config = A2CConfig(max_episode_steps=20)
    native = make_batch(config, CARTPOLE_PROBLEM, words)
    envs = [gymnasium.make("CartPole-v1", max_episode_steps=20) for _ in range(3)]
    foreign = GymnasiumBatch(
        gymnasium.vector.SyncVectorEnv(
            [lambda env=env: env for env in envs], autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP
        ),
        CARTPOLE,
    )
    foreign.reset(words)
    for i, env in enumerate(envs):
        env.unwrapped.state = native.state[:, i].copy()
    random, running = np.random.default_rng(0), np.ones(3, np.bool_)
    for _ in range(20):
        actions = random.integers(0, 2, 3)
        native.step(actions)
        foreign.step(actions)
        done = native.terminated | native.truncated
        for name in ("reward", "terminated", "truncated"):
            assert (getattr(native, name) == getattr(foreign, name))[running].all()
        assert (native.obs == foreign.obs)[running & ~done].all()
        assert (native.final_obs == foreign.final_obs)[running & done].all()
        running &= ~done
    assert not running.any()


def test_seeds_of_envs_are_their_own():
    """Each env of each worker and each learn() has another one, below 2^31, as some envs want it."""
    seen = []

    class Seeded(Tape):
        def reset(self, *, seed=None, options=None):
            if seed is not None:
                seen.append(seed)
            return super().reset(seed=seed, options=options)

    problem = Problem(Spaces((2,), Actions("discrete", (2,))), Seeded)
    for call, first in ((0, 0), (0, 3), (1, 0)):
        make_batch(A2CConfig(), problem, seeding.env_words(7, call, first, 3))
    assert len(set(seen)) == 9 and all(0 <= seed < 2**31 for seed in seen)


# ---- training ---------------------------------------------------------------------------------------------------

KINDS = [
    (fastac.A2C, {"n_envs": 3}),
    (fastac.A3C, {"workers": 2, "n_envs": 2, "backend": "thread"}),
    (fastac.A3C, {"workers": 2, "backend": "process"}),
]
kinds = pytest.mark.parametrize(("kind", "sizes"), KINDS, ids=["a2c", "threads", "processes"])
PENDULUM = {"normalize_observation": True, "normalize_reward": True, "normalize_advantage": True}


@kinds
@pytest.mark.parametrize(
    ("env", "options"),
    [
        ("Acrobot-v1", {}),
        ("Pendulum-v1", PENDULUM),
        ("Pendulum-v1", {"policy": "MlpGruPolicy"}),
        ("Acrobot-v1", {"policy": "MlpLstmPolicy", "update": "lock"}),
        ("FrozenLake-v1", {"env_kwargs": {"is_slippery": False}, "update": "queue"}),
        ("MountainCar-v0", {"shared_trunk": False, "update": "hogwild"}),
        ("CartPole-v1", {"policy": "MlpLstmPolicy", "normalize_observation": True}),
    ],
)
def test_train_save_load_play(kind, sizes, env, options, tmp_path):
    if kind is fastac.A2C:
        options = {name: value for name, value in options.items() if name != "update"}
    model = kind(env=env, **SMALL, **sizes, **options)
    assert model.config.engine == "torch"
    model.learn(400)
    model.ledger.check()
    assert model.num_timesteps >= 400 and np.isfinite(model.params).all()
    loaded = kind.load(model.save(tmp_path / "m.safetensors"))
    assert loaded.params.tobytes() == model.params.tobytes()
    assert loaded.statistics.pack().tobytes() == model.statistics.pack().tobytes()
    played = [fastac.evaluate_policy(one, n_eval_episodes=3, seed=1) for one in (model, loaded)]
    assert played[0] == played[1] and np.isfinite(played[0]).all()
    loaded.learn(100)
    assert loaded.num_timesteps >= model.num_timesteps + 100


@kinds
@pytest.mark.parametrize(
    "actions",
    [
        gym_spaces.MultiDiscrete([2, 3]),
        gym_spaces.MultiBinary(2),
        gym_spaces.Box(-1, 1, (2, 2)),
        gym_spaces.Discrete(3, start=5),
    ],
)
def test_every_kind_of_action(kind, sizes, actions):
    """The env itself asserts that each action is in its space."""
    model = kind(lambda: Tape(actions=actions), **SMALL, **sizes).learn(100)
    obs = np.zeros((5, 2), np.float32)
    for deterministic in (True, False):
        taken, state = model.predict(obs, deterministic)
        assert len(taken) == 5 and all(actions.contains(one) for one in taken.astype(actions.dtype)) and state is None
    assert actions.contains(np.asarray(model.predict(obs[0])[0]).astype(actions.dtype))


class Numbers(Tape):
    """Shows 5, 6 or 7."""

    def __init__(self):
        super().__init__()
        self.observation_space = gym_spaces.Discrete(3, start=5)

    def _obs(self):
        return np.int64(5 + self._t % 3)


@pytest.mark.parametrize("env", [Numbers, Numbers()], ids=["class", "made"])
def test_observations_that_are_numbers_are_seen_one_hot(env):
    """As the env gives them, one or several; and as the policy sees them."""
    model = fastac.A2C("MlpPolicy", env, **SMALL).learn(50)
    seen = np.eye(3)[[2, 0, 1]]
    model.params[:] = np.random.default_rng(0).normal(0, 1, len(model.params))
    expected, _ = model.predict(seen, True)
    assert model.predict(np.array([7, 5, 6]), True)[0].tolist() == expected.tolist()
    assert [int(model.predict(number, True)[0]) for number in (7, 5, np.int64(6))] == expected.tolist()
    assert [int(model.predict(one, True)[0]) for one in seen] == expected.tolist()
    assert model.problem.spaces.seen(6).tolist() == [0.0, 1.0, 0.0]
    for number in (4, 8):
        with pytest.raises(ValueError, match=f"obs: expected whole numbers from 5 to 7, got {number}"):
            model.predict(number)


def test_one_hot_by_a_wrapper_is_the_same():
    model = fastac.A2C("MlpPolicy", Numbers, **SMALL)
    assert fastac.evaluate_policy(model, gymnasium.wrappers.FlattenObservation(Numbers()), 2) == (6.0, 0.0)


def test_a_lake():
    env = gymnasium.make("FrozenLake-v1")
    action, _ = fastac.A3C("MlpPolicy", "FrozenLake-v1", **SMALL).predict(env.reset()[0])
    assert env.action_space.contains(action)


@kinds
@pytest.mark.parametrize("shape", [(40, 40, 3), (3, 36, 40), (10, 12)])
@pytest.mark.parametrize("policy", ["CnnPolicy", "CnnLstmPolicy"])
def test_images(kind, sizes, shape, policy):
    model = kind(policy, lambda: Tape(shape=shape, dtype=np.uint8), **SMALL, **sizes).learn(50)
    assert model.predict(np.zeros(shape, np.uint8))[0] in (0, 1)


@kinds
def test_it_learns(kind, sizes):
    """Which of two actions is right is shown; a policy that has learned it gets all of the reward."""

    class Shown(gymnasium.Env):
        observation_space = gym_spaces.Box(0, 1, (2,))
        action_space = gym_spaces.Discrete(2)

        def _show(self):
            self._right = int(self.np_random.integers(2))
            return np.eye(2, dtype=np.float32)[self._right]

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self._t = 0
            return self._show(), {}

        def step(self, action):
            reward, self._t = float(action == self._right), self._t + 1
            return self._show(), reward, self._t == 10, False, {}

    model = kind(Shown, **SMALL, **sizes, gamma=0.0, learning_rate=0.01, reward_scale=1.0).learn(6_000)
    assert fastac.evaluate_policy(model, n_eval_episodes=5, seed=0) == (10.0, 0.0)


@kinds
@pytest.mark.parametrize("policy", ["MlpLstmPolicy", "MlpGruPolicy"])
def test_what_is_remembered_is_learned(kind, sizes, policy):
    """The right action was shown in the first step only: without a memory half of the reward is all one can get."""

    class ShownOnce(gymnasium.Env):
        observation_space = gym_spaces.Box(-1, 1, (1,))
        action_space = gym_spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self._right, self._t = int(self.np_random.integers(2)), 0
            return np.float32([2 * self._right - 1]), {}

        def step(self, action):
            reward, self._t = float(action == self._right), self._t + 1
            return np.float32([0]), reward, self._t == 5, False, {}

    options = {**SMALL, **sizes, "gamma": 0.5, "learning_rate": 0.01, "reward_scale": 1.0, "n_steps": 5}
    model = kind(policy, ShownOnce, **options).learn(15_000)
    assert fastac.evaluate_policy(model, n_eval_episodes=20, seed=0) == (5.0, 0.0)


# ---- reproducibility and copies -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "options"),
    [("Acrobot-v1", {}), ("Pendulum-v1", {**PENDULUM, "policy": "MlpLstmPolicy"}), ("CartPole-v1", PENDULUM)],
)
def test_the_same_seed_gives_the_same_bits(env, options):
    first, second = (fastac.A2C(env, **SMALL, **options).learn(300) for _ in range(2))
    assert first.params.tobytes() == second.params.tobytes()


@pytest.mark.parametrize("options", [PENDULUM, {"policy": "MlpGruPolicy", "split": 2}])
def test_on_the_native_env_a_copy_goes_on_with_the_same_bits(options, tmp_path):
    """Memory, discounted returns and statistics are saved with the envs."""
    model = fastac.A2C("CartPole-v1", n_envs=4, **SMALL, **options).learn(320)
    assert fastac.A2C.load(fastac.A2C("CartPole-v1", n_envs=4, **SMALL, **options).learn(1).save(tmp_path))
    loaded = fastac.A2C.load(model.save(tmp_path))
    copies = [loaded, copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    assert {one.learn(320).params.tobytes() for one in (model, *copies)} == {model.params.tobytes()}


def test_after_load_gymnasiums_envs_begin_other_episodes(tmp_path, monkeypatch):
    calls, make_engine = [], a2c.make_engine

    def noted(*arguments, call, **options):
        calls.append(call)
        return make_engine(*arguments, call=call, **options)

    monkeypatch.setattr(a2c, "make_engine", noted)
    model = fastac.A2C("Acrobot-v1", **SMALL).learn(50)
    copied = copy.deepcopy(model)
    model.learn(50)
    copied.learn(50)
    fastac.A2C.load(model.save(tmp_path)).learn(50)
    assert calls == [0, 1, 2]


# ---- the user's own ------------------------------------------------------------------------------------------------


class Own(nn.Module):
    def __init__(self, n_in=2, n_out=2):
        super().__init__()
        self.body = nn.Linear(n_in, 8)
        self.logits, self.value = nn.Linear(8, n_out), nn.Linear(8, 1)

    def forward(self, obs):
        x = torch.relu(self.body(obs.flatten(1)))
        return self.logits(x), self.value(x).squeeze(-1)


class OwnMemory(nn.Module):
    memory_size = 3

    def __init__(self):
        super().__init__()
        self.cell, self.logits, self.value = nn.GRUCell(2, 3), nn.Linear(3, 2), nn.Linear(3, 1)

    def forward(self, obs, memory):
        memory = self.cell(obs, memory)
        return self.logits(memory), self.value(memory).squeeze(-1), memory


@kinds
@pytest.mark.parametrize("make", [Own, OwnMemory])
def test_a_module_of_ones_own(kind, sizes, make, tmp_path):
    module = make()
    before = [p.detach().clone() for p in module.parameters()]
    model = kind(module, Tape, **SMALL, **sizes)
    assert model.params.tobytes() == torch.cat([p.flatten() for p in before]).numpy().tobytes()
    model.learn(100)
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))  # it is left alone
    assert (
        model.params.tobytes()
        == torch.cat([p.detach().flatten() for p in model.policy.module.parameters()]).numpy().tobytes()
    )
    assert model.config.policy == "CustomPolicy"
    path = model.save(tmp_path / "m.safetensors")
    with pytest.raises(ConfigError, match=r"the model's policy was a torch module: give it, load\(\.\.\., policy="):
        kind.load(path, env=Tape)
    with pytest.raises(ConfigError, match=r"Tape.*load\(\.\.\., env="):
        kind.load(path, policy=make())
    loaded = kind.load(path, env=Tape, policy=make())
    assert loaded.params.tobytes() == model.params.tobytes()


def test_a_function_makes_the_module_of_the_spaces():
    model = fastac.A2C(lambda spaces: Own(spaces.obs_size, spaces.actions.nvec[0]), "Acrobot-v1", **SMALL).learn(50)
    assert model.policy.module.logits.out_features == 3


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (nn.Linear(2, 2), r"policy: expected forward\(obs float32\[2, 2\]\) to give \(outputs float32\[2, 2\], values"),
        (Own(2, 3), r"values float32\[2\]\), got \[\(2, 3\), \(2,\)\]"),
        (nn.Identity(), "policy: expected a module with parameters"),
        (Own().double(), "policy: expected a module with parameters, all of them float32"),
        (nn.Sequential(nn.BatchNorm1d(2), Own()), r"no layer that keeps statistics of its own \(BatchNorm\)"),
        (5, "policy: expected a name, a torch module or a function that makes one, got 5"),
        (lambda spaces: 5, "policy: expected a function that returns a torch module, got 5"),
        ("CustomPolicy", "policy: expected one of MlpPolicy, .*, or a torch module, got 'CustomPolicy'"),
        ("MlpPolizy", "policy: expected one of MlpPolicy"),
        ("CnnGruPolicy", r"policy: expected an env that shows images, .*for CnnGruPolicy, got .* of shape \[2\]"),
    ],
)
def test_policies_that_are_none(policy, words):
    with pytest.raises(ConfigError, match=words):
        fastac.A2C(policy, Tape)


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ("Acrobat-v1", "env: expected the id of a registered Gymnasium env, got 'Acrobat-v1': .*Acrobot"),
        (5, "env: expected the id of a Gymnasium env, a function that makes one, or an env, got 5"),
        (lambda: 5, "env: expected a function that returns a gymnasium.Env, got int"),
        (Tape(), "env: expected the id of a Gymnasium env or a function that makes one, as each worker has its own"),
        (None, "env: expected the id of a Gymnasium env, a function that makes one, or an env, got None"),
        (nn.Linear(4, 2), r"env: expected an env, got the module Linear: give both, \(policy, env\)"),
        (lambda length: Tape(length), r"env_kwargs: expected the arguments of what makes the env, got {}: .*length"),
    ],
)
def test_envs_that_are_none(env, words):
    with pytest.raises(ConfigError, match=words):
        fastac.A3C(env)


@pytest.mark.parametrize(
    ("env", "given", "words"),
    [
        ("Acrobot-v1", {"foo": 1}, r"env_kwargs: expected the arguments of what makes the env, got {'foo': 1}: .*foo"),
        (Tape, {"foo": 1}, r"env_kwargs: expected the arguments of what makes the env, got {'foo': 1}: .*foo"),
        ("Acrobot-v1", {"max_episode_steps": 10}, "env_kwargs: expected no max_episode_steps, which is an argument be"),
        (Tape, {"dtype": np.float32}, "env_kwargs: dtype: expected what can be saved, .*float32.*inside a function"),
        (Tape, {"length": math.inf}, "env_kwargs: length: expected what can be saved, finite numbers, .*got inf"),
        (Tape, {"shape": [(object(),)]}, "env_kwargs: shape: expected what can be saved"),
    ],
)
def test_arguments_of_envs_that_are_none(env, given, words):
    with pytest.raises(ConfigError, match=words):
        fastac.A2C(env, env_kwargs=given)


@kinds
def test_arguments_of_envs_are_saved_as_they_are(kind, sizes, tmp_path):
    """Tuples are tuples after load(), too, and numpy's numbers Python's."""
    given = {"shape": (np.int64(3),), "length": np.int32(4), "truncated": np.bool_(True)}
    model = kind(Tape, env_kwargs=given, **SMALL, **sizes)
    expected = {"shape": (3,), "length": 4, "truncated": True}
    for one in (model, kind.load(model.learn(20).save(tmp_path), env=Tape)):
        assert one.config.env_kwargs == expected and one.problem.spaces.obs_shape == (3,)
        assert [type(value) for value in one.config.env_kwargs.values()] == [tuple, int, bool]
    nested = {"a": [{"b": ((1.5, None), "x")}]}
    assert A2CConfig.from_dict(json.loads(json.dumps(A2CConfig(env_kwargs=nested).to_dict()))).env_kwargs == nested


@pytest.mark.parametrize("reward", [math.nan, math.inf])
def test_rewards_that_are_no_numbers_can_be_saved(reward, tmp_path):
    class Odd(Tape):
        def step(self, action):
            obs, _, terminated, truncated, info = super().step(action)
            return obs, reward, terminated, truncated, info

    path = tmp_path / "m.safetensors"
    saved = fastac.CheckpointCallback(32, tmp_path)
    fastac.A2C(Odd, n_envs=4, normalize_reward=False, learning_rate=1e-9, **SMALL).learn(
        64, callback=saved, checkpoint=path, checkpoint_every_s=0
    )
    kept = fastac.A2C.load(tmp_path / "rl_model_32_steps.safetensors", env=Odd)
    assert len(kept.unfinished.returns) == 8 and not np.isfinite(kept.unfinished.returns).any()


def test_an_observation_that_is_one_number():
    model = fastac.A2C(lambda: Tape(shape=()), **SMALL).learn(20)
    assert model.problem.spaces.obs_shape == (1,) and model.predict([0.0])[0] in (0, 1)
    mode = gymnasium.vector.AutoresetMode
    envs = gymnasium.vector.SyncVectorEnv([lambda: Tape(shape=())] * 2, autoreset_mode=mode.SAME_STEP)
    with pytest.raises(ConfigError, match="env: expected observations in a Box, of one dimension at least"):
        fastac.A2C(envs, **SMALL)


def test_dictionaries_are_refused_with_the_remedy():
    class Dictionary(Tape):
        def __init__(self):
            super().__init__()
            self.observation_space = gym_spaces.Dict(a=gym_spaces.Discrete(2))

    with pytest.raises(ConfigError, match=r"gymnasium\.wrappers\.FlattenObservation"):
        fastac.A2C(Dictionary)


def test_envs_that_the_user_has_made():
    model = fastac.A2C("MlpPolicy", Tape(), **SMALL).learn(50)
    assert model.config.n_envs == 1 and "Tape" in model.config.env
    with pytest.raises(ConfigError, match="env: expected an env to play in, as the model's own is in use"):
        fastac.evaluate_policy(model)
    assert fastac.evaluate_policy(model, Tape(), 2) == (6.0, 0.0)
    mode = gymnasium.vector.AutoresetMode
    envs = gymnasium.vector.SyncVectorEnv([Tape] * 3, autoreset_mode=mode.SAME_STEP)
    assert fastac.A2C(envs, **SMALL).learn(48).config.n_envs == 3
    with pytest.raises(ConfigError, match="n_envs: expected 3, as many as the given env has, got 4"):
        fastac.A2C(envs, n_envs=4)
    with pytest.raises(ConfigError, match=r"autoreset_mode=AutoresetMode\.SAME_STEP"):
        fastac.A2C(gymnasium.vector.SyncVectorEnv([Tape] * 3))
    for option in ({"max_episode_steps": 9}, {"env_kwargs": {"length": 9}}):
        with pytest.raises(ConfigError, match="expected none for an env that is made already, got "):
            fastac.A2C(envs, **option)
    with pytest.raises(ConfigError, match="split: expected 1 for envs that are made already, and step together, got 3"):
        fastac.A2C(envs, split=3)


@pytest.mark.parametrize("kind", [fastac.A2C, fastac.A3C])
def test_an_id_with_the_module_that_registers_it(kind, tmp_path, monkeypatch):
    name = f"registers_{kind.__name__}"
    lines = ["import gymnasium", f"gymnasium.register('{name}-v0', lambda **k: gymnasium.make('Acrobot-v1', **k))"]
    (tmp_path / f"{name}.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    model = kind(f"{name}:{name}-v0", **SMALL).learn(50)
    assert kind.load(model.save(tmp_path)).learn(50).config.env == f"{name}:{name}-v0"
    with pytest.raises(ConfigError, match="got 'no_such_module:Own-v0': No module named 'no_such_module'"):
        kind("no_such_module:Own-v0")


def test_the_native_envs_id_with_its_module():
    assert fastac.A2C("fastac:fastac/CartPole-v1").config.engine == "native"


def test_a_model_goes_on_in_other_envs(tmp_path):
    """Those that are given know best how many they are and how long their episodes."""
    path = fastac.A2C("CartPole-v1", **SMALL).learn(50).save(tmp_path)
    mode = gymnasium.vector.AutoresetMode
    envs = gymnasium.vector.SyncVectorEnv([lambda: gymnasium.make("CartPole-v1")] * 3, autoreset_mode=mode.SAME_STEP)
    config = fastac.A2C.load(path, env=envs).learn(50).config
    assert (config.engine, config.n_envs, config.max_episode_steps) == ("torch", 3, None)
    config = fastac.A2C.load(path, env=lambda: gymnasium.make("CartPole-v1")).learn(50).config
    assert (config.engine, config.n_envs, config.max_episode_steps) == ("torch", 4, 500)
    with pytest.raises(
        fastac.CheckpointError, match=r"whole, but not of this env and policy: .*params: expected shape"
    ):
        fastac.A2C.load(path, env=Tape)
    with pytest.raises(ConfigError, match=r"env: expected the id of a registered Gymnasium env, got 'Acrobat-v1'"):
        fastac.A2C.load(path, env="Acrobat-v1")
    with pytest.raises(ConfigError, match="policy: expected a name, a torch module or a function that makes one"):
        fastac.A2C.load(path, policy=5)


def test_what_cannot_be_pickled_is_told():
    lock = threading.Lock()

    def locked():
        with lock:
            return Tape()

    with pytest.raises(ConfigError, match=r"expected what can be pickled, .*lock.*backend='thread'"):
        fastac.A3C(locked, workers=1, **SMALL).learn(20)
    assert fastac.A3C(locked, workers=1, backend="thread", **SMALL).learn(20).num_timesteps >= 20


def test_arguments_as_in_stable_baselines3():
    model = fastac.A2C("MlpLstmPolicy", "Acrobot-v1", **SMALL)
    assert (model.config.policy, model.config.env) == ("MlpLstmPolicy", "Acrobot-v1")
    assert fastac.A2C("Acrobot-v1", **SMALL).config.env == "Acrobot-v1"
    assert fastac.A2C(env="Acrobot-v1", policy="MlpGruPolicy").config.policy == "MlpGruPolicy"
    with pytest.raises(TypeError, match="env: given twice"):
        fastac.A2C("MlpPolicy", "Acrobot-v1", env="CartPole-v1")
    with pytest.raises(TypeError, match="got 3 arguments"):
        fastac.A2C("MlpPolicy", "Acrobot-v1", 4)


def test_evaluation_elsewhere():
    model = fastac.A2C("Acrobot-v1", **SMALL)
    mean, std = fastac.evaluate_policy(model, "Acrobot-v1", 3, seed=0)
    assert (mean, std) == fastac.evaluate_policy(model, n_eval_episodes=3, seed=0)
    with pytest.raises(ConfigError, match="env: expected one of the model's spaces"):
        fastac.evaluate_policy(model, "CartPole-v1")
    native = fastac.A2C(**SMALL)
    there = fastac.evaluate_policy(native, gymnasium.make("CartPole-v1"), 4, seed=0, return_episode_rewards=True)
    assert len(there[0]) == 4 and there[0] == there[1]
    with pytest.raises(ConfigError, match="for a number of episodes use n_eval_episodes=5"):
        fastac.evaluate_policy(native, 5)


def test_predict_carries_a_memory():
    model = fastac.A2C("MlpLstmPolicy", "CartPole-v1", **SMALL)
    obs = np.random.default_rng(0).normal(0, 1, (2, 3, 4)).astype(np.float32)
    first, state = model.predict(obs[0], True)
    assert state.shape == (3, 32) and first.shape == (3,)
    _, carried = model.predict(obs[1], True, state=state)
    _, forgotten = model.predict(obs[1], True, state=state, episode_start=[True, False, True])
    _, fresh = model.predict(obs[1], True)
    assert (forgotten[[0, 2]] == fresh[[0, 2]]).all() and (forgotten[1] == carried[1]).all()
    assert not np.allclose(carried, fresh)


class ShortCartPole(gymnasium.Wrapper):
    """A class of wrappers, which makes its env itself."""

    def __init__(self):
        super().__init__(gymnasium.make("CartPole-v1", max_episode_steps=7))


def test_a_class_of_wrappers_is_an_env():
    model = fastac.A2C(ShortCartPole, n_envs=2, n_steps=8, seed=0).learn(64)
    assert model.config.env.endswith("ShortCartPole")
    assert model.history.episodes["episode_length"].max() <= 7
