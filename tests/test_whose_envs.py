"""Envs of Gymnasium have one master each: nobody else steps them, and who made them closes them."""

import copy
import gc
import pickle
from typing import ClassVar

import gymnasium
import pytest
from test_any_env import SMALL, Tape

import fastac
from fastac import ConfigError

SAME_STEP = gymnasium.vector.AutoresetMode.SAME_STEP


class Closed(Tape):
    """Counts how often each was closed."""

    made: ClassVar[list["Closed"]] = []

    def __init__(self, **options):
        super().__init__(**options)
        self.closed = 0
        self.made.append(self)

    def close(self):
        self.closed += 1


@pytest.fixture(autouse=True)
def nothing_made_yet():
    Closed.made.clear()


def vector_of(*envs):
    return gymnasium.vector.SyncVectorEnv([lambda env=env: env for env in envs], autoreset_mode=SAME_STEP)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_is_without_the_users_own_envs(copied, tmp_path):
    """Also where the native env has the same spaces."""
    model = fastac.A2C(gymnasium.make("CartPole-v1"), **SMALL).learn(50)
    other = copied(model)
    for plays in (lambda: other.learn(50), lambda: fastac.evaluate_policy(other, n_eval_episodes=1)):
        with pytest.raises(
            ConfigError, match=r"env: expected the env that the model was made with, .*load\(\.\.\., env="
        ):
            plays()
    assert other.unfinished is None and other.num_timesteps == model.num_timesteps
    assert other.predict([0.0] * 4, True)[0] == model.predict([0.0] * 4, True)[0]
    loaded = fastac.A2C.load(other.save(tmp_path), env=gymnasium.make("CartPole-v1"))
    assert loaded.learn(50).num_timesteps == model.learn(50).num_timesteps


def test_a_model_is_not_evaluated_in_the_env_that_it_trains_in():
    env, another = Tape(length=20), Tape(length=20)
    own, several = fastac.A2C(env, **SMALL).learn(16), vector_of(Tape(), another)
    limited = gymnasium.wrappers.TimeLimit(env, 5)
    for given in (env, limited, vector_of(Tape(), limited)):
        with pytest.raises(ConfigError, match=r"env: expected another env than the model's own, .*: give another one"):
            fastac.evaluate_policy(own, given, 2)
    together = fastac.A2C(several, **SMALL).learn(16)
    for given in (several, another):
        with pytest.raises(ConfigError, match="env: expected another env than the model's own"):
            together.learn(160, callback=fastac.EvalCallback(given, eval_freq=16))
    assert fastac.evaluate_policy(own, Tape(length=20), 2) == (210.0, 0.0)
    assert set(own.learn(64).history.episodes["episode_length"]) == {20}


@pytest.mark.parametrize(("kind", "n_envs"), [(fastac.A2C, 1), (fastac.A2C, 3), (fastac.A3C, 1)])
def test_a_function_that_gives_the_same_env_again(kind, n_envs):
    env = Tape()
    with pytest.raises(ConfigError, match="env: expected a function that makes another env each time"):
        kind(lambda: env, n_envs=n_envs)
    model = kind(Tape, n_envs=n_envs, **SMALL)
    with pytest.raises(ConfigError, match="env: expected a function that makes another env each time"):
        fastac.evaluate_policy(model, lambda: gymnasium.wrappers.TimeLimit(env, 9))


def test_the_same_env_twice_in_a_batch():
    env, pool = Tape(), [Tape(), Tape()]
    with pytest.raises(ConfigError, match="env: expected a function that makes another env each time"):
        fastac.A2C(vector_of(env, env))
    turns = iter(range(1_000))
    model = fastac.A2C(lambda: pool[next(turns) % 2], n_envs=4, **SMALL)
    with pytest.raises(ConfigError, match="env: expected a function that makes another env each time"):
        model.learn(50)


def test_what_a2c_has_made_is_closed_with_the_model():
    model = fastac.A2C(Closed, n_envs=3, **SMALL).learn(50)
    assert [env.closed for env in Closed.made] == [1, 0, 0, 0]  # one was tried
    model.learn(50)
    del model
    gc.collect()
    assert [env.closed for env in Closed.made] == [1] * 4


@pytest.mark.parametrize("fails", [False, True])
def test_what_a_worker_has_made_is_closed_with_its_work(fails):
    class Failing(Closed):
        def step(self, action):
            if fails and len(self.taken) == 20:
                raise RuntimeError("broken")
            return super().step(action)

    model = fastac.A3C(Failing, workers=2, n_envs=2, backend="thread", **SMALL)
    if fails:
        with pytest.raises(fastac.WorkerError, match="broken"):
            model.learn(1_000)
    else:
        model.learn(100)
    assert len(Closed.made) == 5 and [env.closed for env in Closed.made] == [1] * 5


@pytest.mark.parametrize("broken", [None, "step", "reset"])
def test_what_an_evaluation_has_made_is_closed(broken):
    class Failing(Closed):
        pass

    model = fastac.A2C(Failing, **SMALL)
    if broken is not None:
        setattr(Failing, broken, lambda *given, **named: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            fastac.evaluate_policy(model, n_eval_episodes=2)
    else:
        fastac.evaluate_policy(model, n_eval_episodes=2)
    assert [env.closed for env in Closed.made] == [1] * 3


def test_the_users_own_are_left_open():
    env, elsewhere = Closed(), Closed()
    model = fastac.A2C(env, **SMALL).learn(50)
    fastac.evaluate_policy(model, elsewhere, 2)
    del model
    gc.collect()
    assert (env.closed, elsewhere.closed) == (0, 0)


@pytest.mark.parametrize("policy", ["MlpPolicy", "MlpGruPolicy"])
def test_sampled_actions_repeat_with_the_seed(policy):
    """Whatever was predicted before, and without touching what is predicted after."""
    model, other = (fastac.A2C(policy, "CartPole-v1", **SMALL) for _ in range(2))
    options = {"n_eval_episodes": 3, "deterministic": False, "return_episode_rewards": True}
    first = fastac.evaluate_policy(model, seed=0, **options)
    obs = [[0.0] * 4] * 50
    assert model.predict(obs)[0].tolist() == other.predict(obs)[0].tolist()
    assert fastac.evaluate_policy(model, seed=0, **options) == first != fastac.evaluate_policy(model, seed=1, **options)
