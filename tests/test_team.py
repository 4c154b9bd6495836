"""A2C whose batch is shared by several threads: the same bits for any number of them, whatever interrupts the run."""

import copy
import os
import signal
import threading

import numpy as np
import pytest

import fastac
from fastac import ConfigError, NonFiniteGradientError, _core, engines
from fastac.config import A2CConfig

SMALL = {"n_steps": 8, "hidden_sizes": (16,), "seed": 11, "lr_schedule": "linear"}


def all_of(model):
    """Everything that must not depend on the number of workers."""
    history = model.history
    tables = [history.updates[name] for name in history.updates if name != "wall_s"]
    tables += [history.episodes[name] for name in ("episode_return", "episode_length", "env_steps")]
    envs = [array.tobytes() for array in model._envs_state().values()]
    return model.params.tobytes(), model.state.tobytes(), *(table.tobytes() for table in tables), *envs


def bits(model):
    return model.params.tobytes(), model.state.tobytes()


@pytest.mark.parametrize(
    ("n_envs", "options"),
    [
        (9, {"shared_trunk": False, "optimizer": "adam"}),
        (32, {}),
        (61, {"clip_at": "apply", "activation": "relu", "ent_schedule": "linear", "max_episode_steps": 30}),
    ],
)
def test_any_number_of_workers_ends_with_the_same_bits(n_envs, options):
    options = {**SMALL, "n_envs": n_envs, **options}
    one = fastac.A2C(**options).learn(20_000)
    one_more = all_of(copy.deepcopy(one).learn(3_000))
    for workers in range(2, min(4, -(-n_envs // _core.BLOCK_ENVS)) + 1):
        team = fastac.A2C(**options, workers=workers).learn(20_000)
        assert all_of(team) == all_of(one)
        assert team.ledger.applied == one.version and team.num_timesteps == one.num_timesteps
        assert all_of(copy.deepcopy(team).learn(3_000)) == all_of(team.learn(3_000)) == one_more


def test_a3c_with_one_worker_adds_the_same_blocks():
    options = {**SMALL, "n_envs": 20}
    a3c = fastac.A3C(workers=1, backend="thread", **options).learn(10_000)
    assert bits(a3c) == bits(fastac.A2C(workers=3, **options).learn(10_000))


def test_a_run_is_resumed_by_another_number_of_workers(tmp_path):
    options = {**SMALL, "n_envs": 24, "hidden_sizes": (64, 64)}
    budget = 1_000_000
    whole = fastac.A2C(**options).learn(budget)
    model = fastac.A2C(**options, workers=3)
    told = []

    def stop(history):
        told.append(model.num_timesteps)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        model.learn(budget, checkpoint=tmp_path, checkpoint_every_s=0.001, on_checkpoint=stop)
    assert told and 0 < model.unfinished.env_steps < budget
    assert model.unfinished.env_steps % (24 * 8) == 0
    saved = fastac.A2C.load(tmp_path)
    assert saved.config.workers == 3 and bits(saved) == bits(model)
    for workers in (1, 2):
        other = fastac.A2C(**options, workers=workers)
        other.params[:], other.state[:] = saved.params, saved.state
        other._set_envs_state(saved._envs_state())
        other._standing = saved._standing
        assert bits(other.resume()) == bits(whole)
    assert bits(saved.resume()) == bits(model.resume()) == bits(whole)


def test_no_thread_is_left():
    before = threading.active_count(), len(os.listdir("/proc/self/task"))
    fastac.A2C(**SMALL, n_envs=32, workers=4).learn(5_000)
    assert (threading.active_count(), len(os.listdir("/proc/self/task"))) == before


def test_an_exploding_run_ends_with_its_update():
    with pytest.raises(NonFiniteGradientError, match="10 gradients in a row") as one:
        fastac.A2C(**SMALL | {"learning_rate": 1e30, "optimizer": "sgd", "n_envs": 16}).learn(100_000)
    model = fastac.A2C(**SMALL | {"learning_rate": 1e30, "optimizer": "sgd", "n_envs": 16}, workers=2)
    with pytest.raises(NonFiniteGradientError) as two:
        model.learn(100_000)
    assert str(one.value) == str(two.value)
    assert model.ledger.rejected_nonfinite == 10


def test_the_rollout_of_blocks_is_that_of_their_envs():
    """Each env plays what it would play alone: its streams are its own, and acting knows no batch."""
    config = A2CConfig(**SMALL, n_envs=19)
    whole = engines.native_worker(config, 0, 19)
    parts = [engines.native_worker(config, first, n) for first, n in ((0, 8), (8, 8), (16, 3))]
    params = fastac.A2C(**SMALL, n_envs=19).params
    grads = np.empty((3, len(params)), np.float32)
    total, loss = np.empty(len(params), np.float32), {"vf_coef": 0.5, "ent_coef": 0.01, "max_grad_norm": 0.0}
    for _ in range(5):
        whole.collect(params)
        for part, grad in zip(parts, grads, strict=True):
            part.collect(params)
            part.gradient(grad, **loss)
        rollouts = [part.rollout() for part in parts]
        for name, array in whole.rollout().items():
            assert np.array_equal(array, np.concatenate([rollout[name] for rollout in rollouts], axis=1)), name
        assert whole.episodes() == [episode for part in parts for episode in part.episodes()]
        states = [part.get_state() for part in parts]
        for name, rows in whole.get_state().items():
            assert np.array_equal(rows, np.concatenate([state[name] for state in states])), name
        norm = whole.gradient(total, **loss)[0]
        # The parts' gradients are means over their own env steps.
        expected = np.average(grads.astype(np.float64), axis=0, weights=(8, 8, 3))
        np.testing.assert_allclose(total, expected, atol=1e-6 * max(1.0, float(np.abs(expected).max())))
        assert norm == pytest.approx(np.linalg.norm(expected), rel=1e-6)


def test_a_state_is_taken_whole_or_not_at_all_over_several_blocks():
    config = A2CConfig(**SMALL, n_envs=19)
    worker, fresh = (engines.native_worker(config, 0, 19) for _ in range(2))
    worker.collect(fastac.A2C(**SMALL, n_envs=19).params)
    later = worker.get_state()
    for name in ("env_status", "action_stream", "env_stream"):
        bad = {key: array.copy() for key, array in later.items()}
        bad[name][-1] = 250 if name == "env_status" else 0  # in the last block
        before = fresh.get_state()
        with pytest.raises(ValueError, match=r"\w"):
            fresh.set_state(bad)
        for key, array in fresh.get_state().items():
            assert np.array_equal(array, before[key]), (name, key)
    fresh.set_state(later)
    for key, array in fresh.get_state().items():
        assert np.array_equal(array, later[key]), key


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"n_envs": 4, "workers": 2},
            "workers: expected at most 1 with n_envs=4, as each takes blocks of 8 envs, got 2",
        ),
        ({"n_envs": 17, "workers": 4}, "workers: expected at most 3 with n_envs=17"),
        ({"n_envs": 16, "workers": 2, "engine": "torch"}, "workers: expected 1 with engine=torch"),
        ({"n_envs": 16, "workers": 2, "split": 2}, "workers: expected 1 with split=2"),
        ({"n_envs": 1024, "workers": 65}, "workers: expected >= 1 and <= 64, got 65"),
        ({"workers": 0}, "workers: expected >= 1 and <= 64, got 0"),
    ],
)
def test_what_it_refuses(options, words):
    with pytest.raises(ConfigError, match=words):
        fastac.A2C(**options)


def test_more_members_than_blocks_are_refused():
    with pytest.raises(ValueError, match="members: expected 1 to 3, one for each 8 envs, got 4"):
        engines.native_worker(A2CConfig(**SMALL, n_envs=19), 0, 19, members=4)
