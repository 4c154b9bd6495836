"""A2C and A3C as wholes: reproducible where promised, one worker equal to A2C under every scheme, books balanced."""

import signal

import numpy as np
import pytest

import fastac
from fastac._core import UPDATE_SCHEMES
from fastac.config import BACKENDS, ENGINES

SMALL = {"n_steps": 8, "hidden_sizes": (16,), "seed": 11}


def bits(model):
    return model.params.tobytes(), model.state.tobytes()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("split", [1, 4])
def test_a2c_is_reproducible_to_the_last_bit(split, engine):
    options = {**SMALL, "n_envs": 4, "split": split, "engine": engine}
    first, second = (fastac.A2C(**options).learn(3000) for _ in range(2))
    assert bits(first) == bits(second)
    assert first.history.episodes["episode_return"].tolist() == second.history.episodes["episode_return"].tolist()
    assert len(first.history.updates["wall_s"]) == first.version == first.ledger.applied
    other = fastac.A2C(**options | {"seed": 12}).learn(3000)
    assert bits(first) != bits(other)


@pytest.mark.parametrize(
    "options",
    [{"optimizer": "rmsprop"}, {"optimizer": "adam", "clip_at": "apply"}, {"n_envs": 3, "shared_trunk": False}],
)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("update", UPDATE_SCHEMES)
def test_one_worker_is_a2c_to_the_last_bit(update, backend, engine, options):
    options = {**SMALL, "engine": engine, "n_envs": 1, "lr_schedule": "linear", "ent_schedule": "linear", **options}
    a2c = fastac.A2C(**options).learn(1500)
    a3c = fastac.A3C(workers=1, update=update, backend=backend, **options).learn(1500)
    assert bits(a2c) == bits(a3c)
    assert a3c.ledger.staleness_max == 0
    assert a2c.history.episodes["episode_return"].tolist() == a3c.history.episodes["episode_return"].tolist()
    assert a2c.history.updates["learning_rate"].tolist() == a3c.history.updates["learning_rate"].tolist()


@pytest.mark.parametrize(("engine", "env_steps"), [("torch", 4000), ("native", 40_000)])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("update", UPDATE_SCHEMES)
def test_a3c_keeps_its_books(update, backend, engine, env_steps):
    model = fastac.A3C(workers=3, update=update, backend=backend, engine=engine, **SMALL).learn(env_steps)
    ledger, history = model.ledger, model.history
    ledger.check()
    assert ledger.applied == model.version == len(history.updates["wall_s"])
    assert ledger.pending == ledger.aborted == ledger.merged == ledger.rejected_nonfinite == 0
    # Every env step is behind exactly one update; the last updates of the workers may go over the budget.
    assert model.num_timesteps == 8 * ledger.applied == history.updates["env_steps"][-1]
    assert env_steps <= model.num_timesteps < env_steps + 3 * 8
    assert (
        set(history.updates["worker"]) == {0.0, 1.0, 2.0} or engine == "native"
    )  # one may have done all before another began
    assert history.episodes["episode_length"].sum() <= model.num_timesteps
    assert (ledger.lost_fraction is None) == (update != "hogwild")
    assert np.isfinite(model.params).all()


def test_more_workers_than_cores():
    model = fastac.A3C(workers=64, backend="thread", engine="torch", **SMALL).learn(3000)
    model.ledger.check()
    assert len(set(model.history.updates["worker"])) > 32


@pytest.mark.parametrize("kind", ["a2c", "thread", "process"])
def test_nothing_is_missing_from_the_history(kind):
    """More episodes end in one rollout than the log has rows: every one of them arrives all the same."""
    options = {**SMALL, "n_envs": 256, "max_episode_steps": 2, "n_steps": 16}
    model = fastac.A2C(**options) if kind == "a2c" else fastac.A3C(workers=2, backend=kind, **options)
    model.learn(3 * 256 * 16)
    assert model.history.updates["applied"].sum() == model.ledger.applied
    assert model.history.updates["env_steps"][-1] == model.num_timesteps
    assert len(model.history.episodes["wall_s"]) == model.num_timesteps / 2


def test_split_updates_in_turn_from_one_env_each():
    batched = fastac.A2C(n_envs=4, **SMALL).learn(640)
    split = fastac.A2C(n_envs=4, split=4, **SMALL).learn(640)
    assert batched.version == 640 / (4 * 8) and split.version == 640 / 8
    assert split.ledger.staleness_max == 0


def test_learning_again_goes_on():
    once = fastac.A2C(**SMALL).learn(960)
    version, params = once.version, once.params.copy()
    once.learn(960)
    assert once.num_timesteps == 1920 and once.version == 2 * version and once.learn_calls == 2
    assert not np.array_equal(once.params, params)
    # The second call continues the optimizer's state and the episodes under way.
    again = fastac.A2C(**SMALL).learn(960).learn(960)
    assert bits(once) == bits(again)


@pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda number, frame: None], ids=["ignored", "noted"])
def test_a_signal_that_stops_nothing_does_not_end_the_run(handler):
    before = signal.signal(signal.SIGTERM, handler)
    try:
        model = fastac.A2C(**SMALL)
        model.learn(3000, checkpoint_every_s=0.01, on_checkpoint=lambda _: signal.raise_signal(signal.SIGTERM))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert model.num_timesteps >= 3000 and model.unfinished is None


@pytest.mark.parametrize("total", [0, -5, 2.5, "many", True])
def test_bad_budgets_are_refused(total):
    with pytest.raises(fastac.ConfigError, match="total_timesteps: expected a whole number >= 1"):
        fastac.A2C(**SMALL).learn(total)


def test_unknown_options_are_refused():
    with pytest.raises(fastac.ConfigError, match="expected a known field, got wrokers: did you mean workers"):
        fastac.A3C(wrokers=4)


def test_an_exploding_run_ends_with_worker_and_update():
    with pytest.raises(fastac.NonFiniteGradientError, match=r"worker 0, update \d+: 10 gradients in a row"):
        fastac.A2C(learning_rate=1e30, max_grad_norm=0, **SMALL).learn(100_000)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_an_exploding_worker_ends_the_run(backend, engine):
    model = fastac.A3C(workers=2, backend=backend, engine=engine, learning_rate=1e30, max_grad_norm=0, **SMALL)
    with pytest.raises(fastac.NonFiniteGradientError, match=r"worker [01], update \d+: 10 gradients in a row"):
        model.learn(10_000_000)
    model.ledger.check()
    assert model.ledger.rejected_nonfinite >= 10


def test_a_model_says_what_it_is():
    model = fastac.A3C(workers=1, backend="thread", **SMALL)
    assert repr(model) == "<A3C MlpPolicy on CartPole-v1, native engine, 0 env steps trained>"
    model.learn(1000)
    assert repr(model) == "<A3C MlpPolicy on CartPole-v1, native engine, 1,000 env steps trained>"
    other = fastac.A2C("MlpGruPolicy", "Acrobot-v1", n_envs=2, seed=0)
    assert repr(other) == "<A2C MlpGruPolicy on Acrobot-v1, torch engine, 0 env steps trained>"


def test_predict():
    model = fastac.A2C(**SMALL)
    batch = np.random.default_rng(0).normal(size=(6, 4))
    actions, state = model.predict(batch, deterministic=True)
    assert actions.shape == (6,) and actions.dtype == np.int64 and state is None
    single, _ = model.predict(batch[0], deterministic=True)
    assert single.shape == () and single == actions[0]
    assert set(model.predict(np.zeros((200, 4)))[0].tolist()) == {0, 1}
    with pytest.raises(ValueError, match=r"obs: expected shape \[4\] or \[N, 4\], got \[3\]"):
        model.predict(np.zeros(3))


def test_evaluation_plays_whole_episodes():
    model = fastac.A2C(**SMALL)
    returns, lengths = fastac.evaluate_policy(model, n_eval_episodes=30, seed=0, return_episode_rewards=True)
    assert len(returns) == 30 and returns == [float(n) for n in lengths]
    assert fastac.evaluate_policy(model, n_eval_episodes=30, seed=0) == (np.mean(returns), np.std(returns))
    with pytest.raises(fastac.ConfigError, match="n_eval_episodes"):
        fastac.evaluate_policy(model, n_eval_episodes=0)
