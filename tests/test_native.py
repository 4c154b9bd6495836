"""The native engine against the torch engine: rollouts step by step, gradients entry by entry, and whole runs."""

import copy
import dataclasses
import pickle
import signal
import threading

import numpy as np
import pytest
import torch

import fastac
from fastac import _core, engines
from fastac.config import A2CConfig
from fastac.mlp import initial_params
from fastac.objective import compute_gradient
from fastac.policy import FlatPolicy, make_policy
from fastac.returns import successor_values, v_trace
from fastac.rollout import Collector

SMALL = {"n_steps": 8, "hidden_sizes": (16,), "seed": 11, "engine": "native"}


def bits(model):
    return model.params.tobytes(), model.state.tobytes()


def worker_of(config, n_envs):
    return engines.native_worker(config, 0, n_envs)


# ---- against autograd -----------------------------------------------------------------------------------------


def draw(random):
    """A net, a loss and a way to cut rollouts, at random."""
    config = A2CConfig(
        seed=int(random.integers(1_000_000)),
        hidden_sizes=tuple(int(units) for units in random.integers(1, 100, random.integers(1, 4))),
        activation=str(random.choice(["tanh", "relu"])),
        shared_trunk=bool(random.integers(2)),
        n_steps=int(random.integers(1, 40)),
        max_episode_steps=int(random.integers(5, 60)),
        gamma=float(random.uniform(0.8, 1)),
        gae_lambda=float(random.uniform(0, 1)),
        reward_scale=float(random.uniform(0.1, 1)),
        vf_coef=float(random.uniform(0, 1)),
        clip_at=str(random.choice(["worker", "apply"])),
    )
    return config, int(random.integers(1, 9)), float(random.uniform(0, 0.1))


def at_a_kink(policy, obs):
    """Whether a relu is so close to zero that rounding decides on its slope."""
    x, near = torch.from_numpy(obs.reshape(-1, 4)), False
    for trunk in filter(None, (policy.module.policy_trunk, policy.module.value_trunk)):
        y = x
        for layer in trunk:
            y = torch.addmm(layer.bias, y, layer.weight).detach()
            near |= bool((y.abs() < 1e-5).any())
            y = torch.relu(y)
    return near


@pytest.mark.parametrize("seed", range(8))
def test_rollouts_and_gradients_are_those_of_the_torch_engine(seed):
    """Gradients: to 1e-5 of the largest entry."""
    random, compared = np.random.default_rng(seed), 0
    for _ in range(25):
        config, n_envs, ent_coef = draw(random)
        policy = make_policy(config)
        policy.params += random.normal(0, 0.2, policy.n_params).astype(np.float32)
        collector, worker = Collector(config, 0, n_envs), worker_of(config, n_envs)
        assert worker.parameters == policy.n_params
        for _ in range(2):
            expected = collector.collect(policy)
            worker.collect(policy.params)
            rollout = worker.rollout()
            assert np.array_equal(rollout["actions"], expected.actions)
            assert np.array_equal(rollout["obs"], expected.obs)
            assert worker.episodes() == expected.episodes
            largest = max(1.0, np.abs(expected.values).max(), np.abs(expected.returns).max())
            for name in ("values", "advantages", "returns"):
                np.testing.assert_allclose(rollout[name], getattr(expected, name), atol=1e-5 * largest, rtol=0)

            stats = compute_gradient(policy, expected, config, ent_coef)
            grad = np.empty_like(policy.grad)
            max_norm = config.max_grad_norm if config.clip_at == "worker" else 0.0
            told = worker.gradient(grad, vf_coef=config.vf_coef, ent_coef=ent_coef, max_grad_norm=max_norm)
            kink = config.activation == "relu" and at_a_kink(policy, expected.obs)
            if not kink:
                np.testing.assert_allclose(grad, policy.grad, atol=1e-5 * np.abs(policy.grad).max(), rtol=0)
            compared += not kink
            np.testing.assert_allclose(told, list(vars(stats).values()), rtol=1e-3, atol=1e-5 * largest**2)
            params = policy.params + grad  # so that the next rollout has another policy
            policy.params[:] = params
        saved, expected = worker.get_state(), collector.get_state()
        assert saved.keys() == expected.keys()
        for name, column in saved.items():
            assert column.dtype == expected[name].dtype and np.array_equal(column, expected[name]), name
    assert compared >= 25


@pytest.mark.parametrize("seed", range(4))
def test_a_reweighed_rollout_is_that_of_v_trace(seed):
    """Other parameters than those that acted, for up to 20 envs in blocks; returns and advantages in numpy."""
    random, cut = np.random.default_rng(seed), 0
    for _ in range(10):
        config, n_envs, _ = draw(random)
        config, n_envs = dataclasses.replace(config, max_episode_steps=9), n_envs * int(random.integers(1, 4))
        shape = {name: getattr(config, name) for name in ("hidden_sizes", "activation", "shared_trunk")}
        acted = initial_params(config) + random.normal(0, 0.2, len(initial_params(config))).astype(np.float32)
        now = acted + random.normal(0, 0.1, len(acted)).astype(np.float32)
        policy, worker = make_policy(config), worker_of(config, n_envs)
        policy.params[:] = acted
        collector, valued = Collector(config, 0, n_envs), []

        def values_of(obs, memory, policy=policy, valued=valued):
            valued.append(obs.copy())
            return FlatPolicy.values(policy, obs, memory)

        policy.values = values_of
        collector.collect(policy)
        worker.collect(acted)
        worker.reweigh(now)
        rollout = worker.rollout()
        obs, actions = rollout["obs"], rollout["actions"]

        def at(params, obs, shape=shape):
            probabilities, values = _core.act(params, obs.reshape(-1, 4), **shape)
            return probabilities.reshape(*obs.shape[:-1], 2), values.reshape(obs.shape[:-1])

        (then, _), (probabilities, values) = at(acted, obs), at(now, obs)
        ratios = np.take_along_axis(probabilities / then, actions[..., None], -1)[..., 0]
        ends, cuts = collector._terminated, collector._truncated
        final_values = np.zeros_like(values)
        final_obs = np.concatenate([np.empty((0, 4), np.float32), *valued[:-1]])  # the last is where it ends
        final_values[cuts & ~ends] = at(now, final_obs)[1]
        successors = successor_values(values, at(now, collector.envs.obs)[1], final_values, ends, cuts)
        rewards = collector._rewards * np.float32(config.reward_scale)
        expected = v_trace(rewards, values, successors, ends | cuts, ratios, config.gamma, config.gae_lambda)
        largest = max(1.0, np.abs(expected).max())
        np.testing.assert_allclose(rollout["values"], values, atol=1e-5 * largest)
        np.testing.assert_allclose(rollout["advantages"], expected[0], atol=1e-5 * largest)
        np.testing.assert_allclose(rollout["returns"], expected[1], atol=1e-5 * largest)
        assert ratios.min() < 0.99 and ratios.max() > 1.01
        cut += int(cuts.sum())
    assert cut > 5


@pytest.mark.parametrize("n_envs", [3, 20])
def test_the_same_parameters_twice_give_the_same_gradient(n_envs):
    config = A2CConfig(**SMALL, max_episode_steps=11)
    params, weights = initial_params(config), {"vf_coef": 0.5, "ent_coef": 0.01, "max_grad_norm": 0.5}
    worker, grads = worker_of(config, n_envs), np.empty((2, len(params)), np.float32)
    for _ in range(5):
        worker.collect(params)
        told = worker.gradient(grads[0], **weights)
        worker.reweigh(params)
        assert worker.gradient(grads[1], **weights) == told and np.array_equal(*grads)


@pytest.mark.parametrize("option", [{"v_trace": True}, {"delay_compensation": 1e3}])
def test_one_worker_has_nothing_to_make_up_for(option):
    """What it reads after its rollout is what it acted with: the same bits as without, with one and with two blocks."""
    for n_envs in (1, 12):
        plain, other = (
            fastac.A3C(**SMALL, workers=1, n_envs=n_envs, backend="thread", **more).learn(4000) for more in ({}, option)
        )
        assert bits(plain) == bits(other) and plain.ledger == other.ledger


@pytest.mark.parametrize("update", ["lockfree", "queue", "hogwild"])
@pytest.mark.parametrize("option", [{"v_trace": True}, {"delay_compensation": 1e3}])
def test_workers_that_read_twice_learn_and_lose_nothing(update, option):
    model = fastac.A3C(workers=3, backend="thread", seed=3, learning_rate=1e-3, update=update, **option).learn(60_000)
    assert model.ledger.begun == model.ledger.applied == model.version
    assert np.mean(model.history.episodes["episode_return"][-50:]) > 60


def test_the_first_update_of_both_engines_is_the_same_but_for_rounding():
    options = {**SMALL, "n_envs": 4, "optimizer": "sgd"}
    torch, native = (fastac.A2C(**options | {"engine": engine}) for engine in ("torch", "native"))
    start = torch.params.copy()
    assert np.array_equal(start, native.params)
    torch.learn(1)
    native.learn(1)
    change = torch.params - start
    assert np.abs(change).max() > 1e-6
    np.testing.assert_allclose(native.params - start, change, atol=1e-4 * np.abs(change).max())


def test_a_model_goes_from_one_engine_to_the_other(tmp_path):
    """They share the parameters, the optimizer's state and the envs' state."""
    native = fastac.A2C(**SMALL, n_envs=4).learn(800)
    torch = fastac.A2C(**SMALL | {"engine": "torch"}, n_envs=4)
    torch.params[:], torch.state[:] = native.params, native.state
    torch._set_envs_state(native._envs_state())
    obs = np.random.default_rng(0).normal(size=(50, 4))
    assert np.array_equal(torch.predict(obs, deterministic=True)[0], native.predict(obs, deterministic=True)[0])
    torch.learn(800)
    native.learn(800)
    first = [model.history.episodes["episode_return"][:3].tolist() for model in (torch, native)]
    assert first[0] == first[1]  # the same episodes go on


# ---- whole runs; those that both engines must pass: test_training.py ----------------------------------------


def test_schedules_are_those_of_the_torch_engine():
    options = {**SMALL, "n_envs": 2, "lr_schedule": "linear", "ent_schedule": "linear"}
    torch, native = (fastac.A2C(**options | {"engine": engine}).learn(800) for engine in ("torch", "native"))
    for name in ("learning_rate", "ent_coef", "env_steps", "version_read", "applied"):
        assert torch.history.updates[name].tolist() == native.history.updates[name].tolist(), name


@pytest.mark.parametrize("split", [1, 2])
def test_an_interrupted_run_ends_with_the_same_bits(split, tmp_path):
    options = {**SMALL, "n_envs": 2, "split": split, "lr_schedule": "linear"}
    whole = fastac.A2C(**options).learn(1_000_000)
    model = fastac.A2C(**options)

    def stop(history):
        if len(history.updates["wall_s"]):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        model.learn(1_000_000, checkpoint=tmp_path, checkpoint_every_s=0.001, on_checkpoint=stop)
    assert 0 < model.unfinished.env_steps < 1_000_000
    loaded = fastac.A2C.load(tmp_path)
    assert loaded.config.engine == "native" and bits(loaded) == bits(model)
    assert bits(loaded.resume()) == bits(model.resume()) == bits(whole)


def test_both_activations_learn():
    for activation in ("tanh", "relu"):
        model = fastac.A3C(workers=2, backend="thread", seed=3, activation=activation, engine="native").learn(60_000)
        assert np.mean(model.history.episodes["episode_return"][-50:]) > 100


@pytest.mark.parametrize("split", [1, 2])
def test_a_long_run_logs_ever_fewer_updates_and_counts_them_all(split):
    model = fastac.A2C(n_envs=2, split=split, n_steps=1, hidden_sizes=(4,), seed=11).learn(50_000)
    updates, episodes = model.history.updates, model.history.episodes
    each = 2 // split
    workers = []
    for _ in range(split):
        of_one = np.arange(1, 50_000 // 2 + 1)
        workers.append(of_one[(of_one <= 10_000) | (of_one % 10 == 0)])
        assert of_one[-1] == workers[-1][-1]
    assert len(updates["wall_s"]) == sum(map(len, workers)) == split * 11_500
    assert updates["updates"][-1] == model.version == model.ledger.applied == split * 25_000
    assert updates["env_steps"][-1] == model.num_timesteps == 50_000
    # Nothing waits for the next row of its kind: an episode's row says what was done by then, too.
    late = episodes["updates"] > split * 10_000
    assert late.sum() > 10 and (episodes["updates"] * each == episodes["env_steps"]).all()
    assert (updates["updates"] * each == updates["env_steps"]).all()
    assert len(set(episodes["updates"][late] % 10)) > 5


# ---- the boundary ---------------------------------------------------------------------------------------------


def config_of(**options):
    return A2CConfig(seed=1, hidden_sizes=(8,), n_steps=4, **options)


def test_what_it_refuses():
    worker, config = worker_of(config_of(), 2), config_of()
    good = {"hidden_sizes": (8,), "activation": "tanh", "shared_trunk": True, "n_steps": 4, "max_episode_steps": 9}
    good |= {"gamma": 0.9, "gae_lambda": 0.9, "reward_scale": 1.0}
    good |= {name: np.ones((2, 4), np.uint64) for name in ("env_words", "action_words")}
    _core.NativeWorker(**good)
    for bad, words in [
        ({"hidden_sizes": ()}, "at least one layer"),
        ({"hidden_sizes": (0,)}, "1 to 65536 units"),
        ({"hidden_sizes": (70_000,)}, "1 to 65536 units"),
        ({"activation": "gelu"}, "activation: expected 'tanh' or 'relu', got 'gelu'"),
        ({"n_steps": 0}, "n_steps"),
        ({"n_steps": 2**62}, "n_steps"),
        ({"max_episode_steps": 0}, "max_episode_steps"),
        ({"gamma": float("nan")}, "finite"),
        ({"action_words": np.ones((3, 4), np.uint64)}, "action_words"),
        ({"pauses": np.zeros((3, 2))}, r"pauses: expected float64\[n, 1\], got shape"),
        ({"pauses": np.array([[-1.0]])}, "pauses: expected 0 to 86,400 s, got -1"),
        ({"pauses": np.array([[np.nan]])}, "pauses: expected 0 to 86,400 s, got nan"),
        ({"env_words": np.ones((0, 4), np.uint64), "action_words": np.ones((0, 4), np.uint64)}, "at least 1"),
    ]:
        with pytest.raises(ValueError, match=words):
            _core.NativeWorker(**good | bad)
    grad = np.empty(worker.parameters, np.float32)
    weights = {"vf_coef": 0.5, "ent_coef": 0.0, "max_grad_norm": 0.0}
    with pytest.raises(RuntimeError, match="expected a rollout first"):
        worker.gradient(grad, **weights)
    with pytest.raises(RuntimeError, match="reweigh: expected a rollout first, and once for each"):
        worker.reweigh(grad)
    worker.collect(initial_params(config))
    with pytest.raises(ValueError, match="params"):
        worker.reweigh(grad[:-1].copy())
    worker.reweigh(initial_params(config))
    with pytest.raises(RuntimeError, match="once for each"):
        worker.reweigh(initial_params(config))
    with pytest.raises(ValueError, match="params"):
        worker.collect(grad[:-1].copy())
    with pytest.raises(TypeError, match="params"):
        worker.collect(grad.astype(np.float64))
    with pytest.raises(TypeError, match="cannot copy or pickle"):
        worker.__reduce__()
    wrong = _core.Region.create(workers=1, parameters=worker.parameters + 1)
    run = {"total_timesteps": 8, "learning_rate": 0.1, "lr_points": [1.0], "ent_points": [1.0], "duration_ms": 10}
    with pytest.raises(ValueError, match=f"a region of {worker.parameters} parameters"):
        worker.run(_core.Session(wrong, 0), **run, **weights)
    region = _core.Region.create(workers=1, parameters=worker.parameters)
    session, observer = _core.Session(region, 0), _core.Session(region, 1)
    with pytest.raises(ValueError, match="learning_rate"):
        worker.run(session, **run | {"learning_rate": float("inf")}, **weights)
    with pytest.raises(ValueError, match="delay_compensation: expected a finite number"):
        worker.run(session, **run, **weights, delay_compensation=float("nan"))
    with pytest.raises(RuntimeError, match="only a worker's session"):
        worker.run(observer, **run, **weights)
    observer.initialize(initial_params(config))
    assert worker.run(session, **run, **weights) == "finished" and worker.updates == 1
    assert worker.run(session, **run | {"total_timesteps": 80}, **weights, most_updates=2) == "not yet"
    assert worker.updates == 3
    observer.request_stop()
    assert worker.run(session, **run | {"total_timesteps": 80}, **weights) == "stopped"
    session.close()
    with pytest.raises(_core.SessionClosed):
        worker.run(session, **run, **weights)


def test_a_state_is_taken_whole_or_not_at_all():
    worker, other = worker_of(config_of(), 2), worker_of(config_of(), 2)
    params = initial_params(config_of())
    worker.collect(params)
    before = other.get_state()
    for name, column in worker.get_state().items():
        for bad in ({name: column[:1].copy()}, {name: column.astype(np.complex128)}):
            with pytest.raises((TypeError, ValueError), match=name):
                other.set_state(worker.get_state() | bad)
        with pytest.raises(ValueError, match=f"expected the key '{name}'"):
            other.set_state({key: value for key, value in worker.get_state().items() if key != name})
        assert all(np.array_equal(before[key], value) for key, value in other.get_state().items())
    wrong = worker.get_state()
    wrong["env_state"][0, 0] = np.nan
    with pytest.raises(ValueError, match="state"):
        other.set_state(wrong)
    assert all(np.array_equal(before[key], value) for key, value in other.get_state().items())
    other.set_state(worker.get_state())
    for each in (worker, other):
        each.collect(params)
    assert np.array_equal(worker.rollout()["obs"], other.rollout()["obs"])


def test_a_second_thread_is_refused():
    config = A2CConfig(seed=1, hidden_sizes=(256, 256), n_steps=4000)
    worker, params = worker_of(config, 8), initial_params(config)
    thread = threading.Thread(target=worker.collect, args=(params,))
    thread.start()
    refused = False
    while thread.is_alive() and not refused:
        try:
            assert worker.updates == 0
        except _core.WorkerInUse:
            refused = True
    thread.join()
    assert refused
    worker.episodes()


def test_what_belongs_to_a_rollout_needs_one():
    """After set_state the envs are elsewhere, and the rollout that is still in memory is not theirs."""
    config = A2CConfig(seed=1, hidden_sizes=(16,), n_steps=4)
    worker, params = worker_of(config, 2), initial_params(config)

    def refused():
        for name, ask in (("rollout", worker.rollout), ("episodes", worker.episodes)):
            with pytest.raises(RuntimeError, match=f"{name}: expected a rollout first, by collect"):
                ask()

    refused()
    worker.collect(params)
    assert worker.rollout()["obs"].shape == (4, 2, 4) and worker.episodes() == []
    worker.set_state(worker.get_state())
    refused()


@pytest.mark.parametrize("how", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_goes_on_like_the_model(how):
    model = fastac.A2C(n_envs=4, split=2, **SMALL).learn(500)
    copied = how(model)
    assert bits(copied) == bits(model)
    assert bits(copied.learn(500)) == bits(model.learn(500))
