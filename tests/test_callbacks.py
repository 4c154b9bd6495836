"""Callbacks: when they are called, what they see, what they may do, under A2C and A3C, by both engines."""

import itertools
import math
import time

import pytest

import fastac
from fastac import ConfigError
from fastac.training import BaseCallback

SMALL = {"n_steps": 8, "hidden_sizes": (16,), "seed": 3}
KINDS = [
    (fastac.A2C, {"n_envs": 2, "engine": "native"}),
    (fastac.A2C, {"n_envs": 2, "engine": "torch"}),
    (fastac.A3C, {"workers": 2, "backend": "thread", "engine": "torch"}),
    (fastac.A3C, {"workers": 2, "backend": "process", "engine": "native"}),
]
kinds = pytest.mark.parametrize(
    ("kind", "options"), KINDS, ids=["a2c native", "a2c torch", "a3c threads", "a3c processes"]
)


class Diary(BaseCallback):
    def __init__(self, **every):
        self.told = []
        for name, value in every.items():
            setattr(self, name, value)

    def on_training_start(self, training):
        self.told.append(("start", training.n_updates, training.num_timesteps))

    def on_step(self, training):
        self.told.append(("step", training.n_updates, training.num_timesteps))

    def on_training_end(self, training):
        self.told.append(("end", training.n_updates, training.num_timesteps))


@kinds
def test_start_steps_end(kind, options):
    diary = Diary()
    model = kind(**SMALL, **options).learn(4_000, callback=diary)
    assert [what for what, *_ in diary.told] == ["start", *["step"] * (len(diary.told) - 2), "end"]
    assert diary.told[0] == ("start", 0, 0) and diary.told[-1] == ("end", model.version, model.num_timesteps)
    counts = [updates for _, updates, _ in diary.told]
    assert counts == sorted(counts)
    diary.told.clear()
    before = model.num_timesteps
    model.learn(4_000, callback=diary)
    assert diary.told[0] == ("start", model.version - model.ledger.applied, before)
    assert diary.told[-1] == ("end", model.version, model.num_timesteps)


@pytest.mark.parametrize("options", [options for kind, options in KINDS if kind is fastac.A2C])
def test_a2c_keeps_to_the_update(options):
    ten, seven = Diary(every_updates=10), Diary(every_updates=7)
    fastac.A2C(**SMALL, **options).learn(16 * 50, callback=[ten, seven])
    assert [updates for what, updates, _ in ten.told if what == "step"] == [10, 20, 30, 40, 50]
    assert [updates for what, updates, _ in seven.told if what == "step"] == [7, 14, 21, 28, 35, 42, 49]


@pytest.mark.parametrize("options", [options for kind, options in KINDS if kind is fastac.A2C])
@pytest.mark.parametrize("split", [1, 2])
def test_a2c_keeps_to_the_env_steps(split, options):
    """The first update after as many: an update has 16 env steps, or 8 of each of two groups."""
    fifty, both = Diary(every_timesteps=50), Diary(every_timesteps=50, every_updates=8)
    fastac.A2C(split=split, **SMALL, **options).learn(320, callback=[fifty, both])
    expected = [64, 112, 160, 208, 256, 304] if split == 1 else [56, 104, 152, 200, 256, 304]
    assert [env_steps for what, _, env_steps in fifty.told if what == "step"] == expected
    expected = [128, 256] if split == 1 else [64, 128, 192, 256, 320]
    assert [env_steps for what, _, env_steps in both.told if what == "step"] == expected


def test_a2c_with_an_evaluation_is_reproducible():
    def run():
        stop = fastac.StopTrainingOnRewardThreshold(60)
        best = fastac.EvalCallback(eval_freq=2_000, n_eval_episodes=5, seed=0, callback_on_new_best=stop)
        return fastac.A2C(seed=0).learn(100_000, callback=best).num_timesteps, best.evaluations

    ended, evaluations = run()
    assert (ended, evaluations) == run() and ended == evaluations[-1][0] < 100_000
    assert [env_steps // 2_000 for env_steps, *_ in evaluations] == list(range(1, len(evaluations) + 1))


def test_a3c_is_asked_once_for_however_many_there_were():
    diary = Diary(every_timesteps=1_000)
    fastac.A3C(workers=2, **SMALL).learn(200_000, callback=diary)
    steps = [env_steps for what, _, env_steps in diary.told if what == "step"]
    assert steps and all(later // 1_000 > earlier // 1_000 for earlier, later in itertools.pairwise(steps))


@kinds
def test_training_is_the_same_with_them(kind, options):
    if kind is fastac.A3C:
        options = {**options, "workers": 1}
    plain, watched = (
        kind(**SMALL, **options).learn(4_000, callback=callback)
        for callback in (
            None,
            [fastac.EvalCallback(eval_freq=500, n_eval_episodes=2), lambda training: training.scalars() and None],
        )
    )
    assert plain.params.tobytes() == watched.params.tobytes()


@kinds
def test_false_ends_the_training(kind, options):
    said = []

    def until_twenty(training):
        said.append(training.n_updates < 20)
        return said[-1]

    model = kind(**SMALL, **options).learn(10**9, callback=until_twenty)
    assert model.version >= 20 and model.num_timesteps < 10**9 and model.unfinished is None
    assert said.count(False) == 1
    model.ledger.check()


@pytest.mark.parametrize("engine", ["native", "torch"])
def test_of_the_last_update_it_is_told_once(engine):
    seen = []
    fastac.A2C(engine=engine, **SMALL).learn(32 * 3, callback=lambda training: seen.append(training.n_updates))
    assert seen[-1] == 3 and len(seen) == len(set(seen))


@kinds
def test_stop_does_the_same(kind, options):
    model = kind(**SMALL, **options).learn(10**9, callback=lambda training: training.stop())
    assert model.num_timesteps < 10**9 and model.unfinished is None


@kinds
def test_what_it_raises_ends_the_training_and_the_model_can_go_on(kind, options):
    def fails(training):
        if training.n_updates >= 20:
            raise RuntimeError("enough")

    model = kind(**SMALL, **options)
    with pytest.raises(RuntimeError, match="enough"):
        model.learn(10**9, callback=fails)
    assert model.version >= 20 and model.unfinished is not None
    before = model.num_timesteps
    assert model.learn(100).num_timesteps >= before + 100


class Refuses(BaseCallback):
    def on_training_start(self, training):
        raise RuntimeError("not today")


@pytest.mark.parametrize("nest", [list, lambda callbacks: fastac.EveryNUpdates(1, callbacks)], ids=["list", "nested"])
def test_who_was_told_of_the_start_is_told_of_the_end(nest):
    diary = Diary()
    with pytest.raises(RuntimeError, match="not today"):
        fastac.A2C(**SMALL).learn(320, callback=nest([diary, Refuses(), Refuses()]))
    assert [what for what, *_ in diary.told] == ["start", "end"]


@kinds
def test_checkpoints_and_the_best_model(kind, options, tmp_path):
    best = fastac.EvalCallback(eval_freq=1_000, n_eval_episodes=3, seed=0, best_model_save_path=tmp_path / "best")
    keep = fastac.CheckpointCallback(4_000, tmp_path, name_prefix="a")
    model = kind(**SMALL, **options).learn(16_000, callback=[best, keep])
    assert best.evaluations and best.best_mean_reward == max(mean for _, mean, _ in best.evaluations)
    kept = kind.load(tmp_path / "best" / "best_model.safetensors")
    when = next(env_steps for env_steps, mean, _ in best.evaluations if mean == best.best_mean_reward)
    assert kept.num_timesteps == when <= model.num_timesteps
    assert (kept.unfinished is not None) == (when < 16_000)
    assert fastac.evaluate_policy(kept, n_eval_episodes=3, seed=0)[0] == best.best_mean_reward
    saved = {int(path.name.split("_")[1]): path for path in tmp_path.glob("a_*_steps.safetensors")}
    assert saved and all(kind.load(path).num_timesteps == env_steps >= 4_000 for env_steps, path in saved.items())


def test_what_a_callback_evaluates_is_what_it_saves(tmp_path):
    """A3C's workers make many updates in between; the next call sees another model."""
    seen = []

    def looks(training):
        if training.n_updates == 0:  # workers are starting
            return True
        params, path = training.model.params.copy(), tmp_path / f"{len(seen)}.safetensors"
        updates, deadline = training.n_updates, time.monotonic() + 60
        while training.ledger().applied < updates + 20:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        kept = fastac.A3C.load(training.model.save(path))
        assert kept.params.tobytes() == params.tobytes() == training.model.params.tobytes()
        assert (kept.version, kept.num_timesteps) == (updates, training.num_timesteps)
        seen.append(kept.version)
        return len(seen) < 3

    fastac.A3C(workers=2, backend="thread", **SMALL).learn(10**9, callback=looks)
    assert seen[0] < seen[1] < seen[2]


def test_a_threshold_ends_it():
    model = fastac.A2C(seed=0).learn(10**7, callback=fastac.StopTrainingOnRewardThreshold(100))
    assert model.history.time_to(100) is not None and model.num_timesteps < 10**6
    stop = fastac.StopTrainingOnRewardThreshold(200)
    best = fastac.EvalCallback(eval_freq=2_000, n_eval_episodes=5, seed=0, callback_on_new_best=stop)
    model = fastac.A2C(seed=0).learn(10**7, callback=best)
    assert best.last_mean_reward >= 200 and model.num_timesteps < 10**6


def test_a_threshold_is_of_a_hundred_episodes():
    seen = []

    def counted(training):
        seen.append((training.n_updates, training.ep_count))

    stop = fastac.EveryNUpdates(1, [counted, fastac.StopTrainingOnRewardThreshold(1)])  # any episode has more
    model = fastac.A2C(**SMALL).learn(100_000, callback=stop)
    counts = [count for _, count in seen]
    assert counts == sorted(counts) and counts[-2] < counts[-1] == 100
    assert (model.version, len(model.history.episodes["episode_return"]) >= 100) == (seen[-1][0], True)


def test_a_threshold_beside_an_evaluation_is_of_the_training():
    """Within 3,200 env steps an untrained policy has 100 episodes, and none of its evaluations comes to a billion."""
    best = fastac.EvalCallback(eval_freq=320, n_eval_episodes=2, seed=0)
    beside = fastac.StopTrainingOnRewardThreshold(1)
    model = fastac.A2C(**SMALL).learn(10**6, callback=[best, beside])
    assert len(model.history.episodes["episode_return"]) >= 100 and model.num_timesteps < 10**6
    best._evaluate = lambda model: (1e9, 0.0)
    model = fastac.A2C(**SMALL).learn(1_600, callback=[best, fastac.StopTrainingOnRewardThreshold(501)])
    assert model.num_timesteps == 1_600 and best.best_mean_reward == 1e9


def test_who_is_called_for_the_best_is_told_of_all():
    diary, other = Diary(), Diary()
    best = fastac.EvalCallback(eval_freq=320, n_eval_episodes=2, seed=0, callback_on_new_best=[diary, other])
    fastac.A2C(**SMALL).learn(640, callback=best)
    assert diary.told == other.told and diary.told[:2] == [("start", 0, 0), ("step", 10, 320)]
    assert diary.told[-1] == ("end", 20, 640)


def test_an_evaluation_without_a_number_is_no_best():
    best = fastac.EvalCallback(eval_freq=320, n_eval_episodes=2)
    means = iter([math.nan, 2.0, math.nan, 1.0, 3.0])
    best._evaluate = lambda model: (next(means), 0.0)
    told = []
    best._nested = [Diary()]
    best._nested[0].on_step = lambda training: told.append(training.eval_mean_reward)
    fastac.A2C(**SMALL).learn(1_600, callback=best)
    assert told == [2.0, 3.0] and best.best_mean_reward == 3.0


def test_every_n_updates_calls_another():
    seen, diary = [], Diary()
    fastac.A2C(**SMALL).learn(
        32 * 9,
        callback=[
            fastac.EveryNUpdates(3, lambda training: seen.append(training.n_updates)),
            fastac.EveryNUpdates(4, diary),
        ],
    )
    assert seen == [3, 6, 9]
    assert diary.told == [("start", 0, 0), ("step", 4, 128), ("step", 8, 256), ("end", 9, 288)]


def test_every_n_updates_calls_each_of_several():
    first, second = [], []
    both = [lambda training: first.append(training.n_updates) or False, lambda training: second.append(0)]
    fastac.A2C(**SMALL).learn(32 * 9, callback=fastac.EveryNUpdates(3, both))
    assert (first, second) == ([3], [0])


@kinds
def test_scalars(kind, options):
    rows = []
    model = kind(**SMALL, **options).learn(20_000, callback=lambda training: rows.append(training.scalars()))
    names = set(rows[0])
    assert {name.split("/")[0] for name in names} == {"rollout", "time", "train", "async"}
    assert all(set(row) == names for row in rows)
    last = rows[-1]
    if kind is fastac.A2C:  # else the last hundred are those that were told last
        assert last["rollout/ep_rew_mean"] == pytest.approx(model.history.final_return())
    assert last["rollout/ep_len_mean"] == last["rollout/ep_rew_mean"]  # of CartPole
    assert (last["time/total_timesteps"], last["train/n_updates"]) == (model.num_timesteps, model.version)
    assert last["async/staleness_mean"] == pytest.approx(model.ledger.staleness_mean)
    whole = next(row for row in rows if not math.isnan(row["train/value_loss"]))
    assert whole["train/learning_rate"] == pytest.approx(model.config.learning_rate) and whole["time/fps"] > 0
    assert -math.log(2) - 1e-6 <= whole["train/entropy_loss"] <= 0


@pytest.mark.parametrize("schedule", ["linear", lambda remaining: 0.01 * remaining**2])
@pytest.mark.parametrize("engine", ["native", "torch"])
def test_schedules_are_followed(engine, schedule):
    """As names and as functions of the progress that remains, by both engines."""
    options = {"lr_schedule": "linear", "learning_rate": 0.01} if schedule == "linear" else {"learning_rate": schedule}
    model = fastac.A2C(engine=engine, **SMALL, **options, ent_coef=lambda remaining: 0.1 * (1 - remaining)).learn(
        32 * 100
    )
    table = model.history.updates
    remaining = 1 - (table["env_steps"] - 32) / 3_200  # of what was read before the rollout
    expected = 0.01 * remaining if schedule == "linear" else 0.01 * remaining**2
    assert table["learning_rate"] == pytest.approx(expected, abs=1e-6)
    assert table["ent_coef"] == pytest.approx(0.1 * (1 - remaining), abs=1e-9)


def test_a_function_is_saved_with_the_model(tmp_path):
    model = fastac.A2C(**SMALL, learning_rate=lambda remaining: 1e-3 * remaining).learn(64)
    loaded = fastac.A2C.load(model.save(tmp_path))
    assert loaded.config == model.config and loaded.config.learning_rate == 1e-3
    assert loaded.learn(64).params.tobytes() == model.learn(64).params.tobytes()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"learning_rate": lambda remaining: "x"}, "learning_rate: expected numbers for the course of a run"),
        ({"learning_rate": lambda remaining: -1.0}, "learning_rate: expected finite numbers >= 0 for the course"),
        ({"learning_rate": lambda r: r, "lr_schedule": "linear"}, "lr_schedule: expected none beside learning_rate="),
        ({"learning_rate": lambda remaining: 0.0}, "learning_rate: expected > 0, got 0.0"),
        ({"ent_schedule": (1.0, math.nan)}, "ent_schedule: expected finite numbers >= 0 for the course of a run"),
        ({"ent_schedule": "cosine"}, "ent_schedule: expected one of constant, linear, got 'cosine'"),
        ({"lr_schedule": ()}, "lr_schedule: expected finite numbers >= 0 for the course of a run"),
    ],
)
def test_schedules_that_are_none(options, words):
    with pytest.raises(ConfigError, match=words):
        fastac.A2C(**options)


@pytest.mark.parametrize("callback", [5, [5], "x"])
def test_callbacks_that_are_none(callback):
    with pytest.raises(ConfigError, match="callback: expected a BaseCallback, a function or a list of them, got "):
        fastac.A2C().learn(1, callback=callback)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: fastac.EveryNUpdates(0, print), "n_updates: expected a whole number >= 1, got 0"),
        (lambda: fastac.CheckpointCallback(1.5, "x"), "save_freq: expected a whole number >= 1, got 1.5"),
        (lambda: fastac.EvalCallback(eval_freq=-1), "eval_freq: expected a whole number >= 1, got -1"),
        (lambda: fastac.EvalCallback(n_eval_episodes=0), "n_eval_episodes: expected a whole number >= 1, got 0"),
        (lambda: fastac.EvalCallback(5), "env: expected the id of a Gymnasium env, .*, or an env, got 5"),
        (lambda: fastac.EvalCallback("Acrobat-v1"), "env: expected the id of a registered Gymnasium env, got 'Acro"),
        (lambda: fastac.EveryNUpdates(2, None), "callback: expected a BaseCallback, .*, got None"),
        (lambda: fastac.EveryNUpdates(2, []), r"callback: expected a BaseCallback, .*, got \[\]"),
    ],
)
def test_arguments_that_are_none(make, words):
    with pytest.raises(ConfigError, match=words):
        make()
