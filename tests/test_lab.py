"""The laboratory: virtual workers against plain arithmetic, A2C and real threads; statistics by hand; the commands."""

import csv
import json
import math
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import fastac
from fastac import ConfigError
from fastac.cli import main
from fastac.compare.verdicts import Estimate
from fastac.config import A3CConfig, scheduled
from fastac.engines import native_worker
from fastac.lab import crew, mitigations, staleness, stragglers, tables
from fastac.lab.player import Player, draw_taus, play
from fastac.lab.statistics import fraction, mean_interval, median_time, paired_ratio
from fastac.mlp import initial_params

SMALL = {"n_steps": 8, "hidden_sizes": (16,), "seed": 7}
NOT_NATIVE = [
    ({"env": "Acrobot-v1"}, "env=Acrobot-v1"),
    ({"policy": "MlpGruPolicy"}, "policy=MlpGruPolicy"),
    ({"normalize_observation": True}, "normalize_observation"),
]


# ---- the player -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["rmsprop", "adam"])
@pytest.mark.parametrize("n_envs", [1, 4])
def test_one_worker_without_staleness_is_a2c_bit_for_bit(n_envs, optimizer):
    options = {"seed": 5, "n_envs": n_envs, "optimizer": optimizer, "lr_schedule": "linear", "ent_schedule": "linear"}
    a2c = fastac.A2C(**options).learn(20_001)
    player = play(A3CConfig(**options), 1, 20_001, [0])
    assert player.now.params.tobytes() == a2c.params.tobytes() and player.now.version == a2c.version
    assert player.now.env_steps == a2c.num_timesteps
    for name in ("episode_return", "episode_length", "env_steps", "updates"):
        assert player.history().episodes[name].tolist() == a2c.history.episodes[name].tolist(), name
    assert player.ledger() == a2c.ledger


@pytest.mark.parametrize("max_staleness", [None, 2])
@pytest.mark.parametrize("staleness_lr", ["constant", "inverse"])
def test_the_player_is_plain_arithmetic_on_old_parameters(staleness_lr, max_staleness):
    """SGD in numpy, a native worker for each virtual one, and every version of the parameters kept."""
    limits = {"max_staleness": max_staleness, "staleness_lr": staleness_lr, "lr_schedule": "linear"}
    config = A3CConfig(**SMALL, optimizer="sgd", learning_rate=0.1, **limits)
    taus = [0, 3, 1, 2, 5]
    native = [native_worker(config, w, 1) for w in range(3)]
    versions, steps, grad, applied = (
        [initial_params(config)],
        [0],
        np.empty(len(initial_params(config)), np.float32),
        [],
    )
    for turn in range(40):
        late = min(taus[turn % 5], len(versions) - 1)
        native[turn % 3].collect(versions[-1 - late])
        native[turn % 3].gradient(grad, vf_coef=0.5, ent_coef=1e-3, max_grad_norm=0.5)
        rate = scheduled("linear", 0.1, steps[-1 - late] / 320)
        rate /= late if staleness_lr == "inverse" and late > 1 else 1
        if max_staleness is None or late <= max_staleness:
            versions.append(versions[-1] + np.float32(-rate) * grad)
            steps.append(8 * (turn + 1))
            applied.append(late)
        else:
            steps[-1] = 8 * (turn + 1)
    player = play(config, 3, 320, taus)
    assert np.array_equal(player.now.params, versions[-1]) and not np.array_equal(versions[-1], versions[0])
    assert player.now.version == len(applied) == player.ledger().applied
    assert player.ledger().staleness_mean == np.mean(applied)
    assert player.ledger().rejected_stale == 40 - len(applied) and (max_staleness is None) == (len(applied) == 40)


def test_in_lockstep_each_worker_reads_what_its_own_update_made():
    """tau = W - 1 in turn is the event queue of workers that are equally fast."""
    config = A3CConfig(**SMALL)
    player, readings = Player(config, 4, 960), None
    readings = [player.now] * 4
    for turn in range(120):
        player.update(turn % 4, readings[turn % 4])
        readings[turn % 4] = player.now
    assert player.now.params.tobytes() == play(config, 4, 960, [3]).now.params.tobytes()
    assert player.ledger().staleness_max == 3


@pytest.mark.parametrize("option", [{"delay_compensation": 50.0}, {"v_trace": True}])
def test_a_second_reading_is_plain_arithmetic(option):
    """Of `lag` updates ago: SGD in numpy, every version kept."""
    config, taus, lag = A3CConfig(**SMALL, **option, optimizer="sgd", learning_rate=0.5), [0, 3, 1, 5, 2], 2
    native, weights = native_worker(config, 0, 1), {"vf_coef": 0.5, "ent_coef": 1e-3, "max_grad_norm": 0.5}
    versions, grad = [initial_params(config)], np.empty(len(initial_params(config)), np.float32)
    moved, late = 0.0, []
    for turn in range(40):
        late.append(min(taus[turn % 5], turn))
        read, second = versions[-1 - late[-1]], versions[-1 - min(lag, late[-1])]
        native.collect(read)
        if config.v_trace:
            native.reweigh(second)
        native.gradient(grad, **weights)
        change = np.float32(config.delay_compensation) * grad * grad * (second - read)
        moved = max(moved, np.abs(change).max() / np.abs(grad).max())
        versions.append(versions[-1] + np.float32(-0.5) * (grad + change))
    player = play(config, 1, 320, taus, lag)
    assert np.array_equal(player.now.params, versions[-1])
    assert config.v_trace or moved > 0.01
    counted = np.minimum(late, lag) if config.v_trace else late
    assert player.ledger().staleness_mean == np.mean(counted) and player.ledger().applied == 40


def test_a_second_reading_that_is_the_first_changes_nothing():
    """As old as the first, or of staleness 0: the bits of no mitigation. A fresher one: others."""
    plain = {tau: play(A3CConfig(**SMALL), 4, 2000, [tau]).now.params.tobytes() for tau in (0, 3)}
    for option in ({"delay_compensation": 1e3}, {"v_trace": True}):
        config = A3CConfig(**SMALL, **option)
        assert play(config, 4, 2000, [3], lag=3).now.params.tobytes() == plain[3]
        assert play(config, 4, 2000, [0]).now.params.tobytes() == plain[0]
        assert play(config, 4, 2000, [3]).now.params.tobytes() != plain[3]
    with pytest.raises(ConfigError, match="lag: expected a whole number >= 0, got -1"):
        play(A3CConfig(**SMALL), 1, 100, [0], -1)


def test_a_run_is_a_function_of_its_seed_in_any_process():
    code = (
        "import hashlib\nfrom fastac.config import A3CConfig\nfrom fastac.lab.player import draw_taus, play\n"
        "config = A3CConfig(n_steps=8, hidden_sizes=(16,), seed=7)\n"
        "player = play(config, 5, 4000, draw_taus('geometric', 4, 500, 7))\n"
        "print(hashlib.sha256(player.now.params.tobytes()).hexdigest(), player.ledger().staleness_max)"
    )
    told = {subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout for _ in range(2)}
    assert len(told) == 1
    other, same = (play(A3CConfig(**SMALL | {"seed": seed}), 5, 4000, [4]).now.params for seed in (8, 7))
    assert same.tobytes() == play(A3CConfig(**SMALL), 5, 4000, [4]).now.params.tobytes() != other.tobytes()


def test_it_agrees_with_real_threads():
    """Four workers, by the clock of the machine and in lockstep: the same env steps to 475, within a fifth."""
    threads = [
        fastac.A3C(workers=4, backend="thread", seed=seed, learning_rate=1e-3).learn(120_000) for seed in range(6)
    ]
    virtual = [play(A3CConfig(seed=seed, learning_rate=1e-3), 4, 120_000, [3]) for seed in range(6)]
    real = np.median([model.history.time_to(475)["env_steps"] for model in threads])
    assert 0.8 < np.median([player.solved(475)["env_steps"] for player in virtual]) / real < 1.25


def test_a_thousand_workers_have_episodes_of_their_own():
    player = play(A3CConfig(**SMALL), 1024, 8 * 3 * 1024, [1023])
    episodes = player.history().episodes
    assert len(set(episodes["worker"])) > 500 and player.ledger().staleness_max == 1023
    assert len(set(episodes["episode_length"])) > 5


def test_what_the_player_refuses():
    config = A3CConfig(**SMALL)
    for workers in (0, 1025):
        with pytest.raises(ConfigError, match="workers: expected 1 to 1,024"):
            Player(config, workers, 100)
    with pytest.raises(ConfigError, match="total_timesteps"):
        Player(config, 1, 0)
    with pytest.raises(ConfigError, match="expected a config with a seed"):
        Player(A3CConfig(), 1, 100)
    for taus in ([], [-1], [0.5], [[1]]):
        with pytest.raises(ConfigError, match="taus"):
            play(config, 1, 100, taus)
    for options, got in NOT_NATIVE:
        with pytest.raises(ConfigError, match=f"expected CartPole-v1, .* got {got}"):
            Player(A3CConfig(**SMALL, **options), 1, 100)
    player = Player(config, 1, 100)
    with pytest.raises(ValueError, match="read-only"):
        player.now.params[0] = 1.0


def test_a_run_of_nan_ends():
    config = A3CConfig(**SMALL, optimizer="sgd", learning_rate=1e38, max_grad_norm=0)
    with pytest.raises(fastac.NonFiniteGradientError):
        play(config, 1, 10_000, [0])


# ---- staleness ------------------------------------------------------------------------------------------------


def test_drawn_stalenesses_have_the_mean_asked_for():
    assert draw_taus("constant", 3, 4, 0).tolist() == [3, 3, 3, 3]
    uniform, geometric = draw_taus("uniform", 3, 100_000, 0), draw_taus("geometric", 3, 100_000, 0)
    assert set(uniform) == set(range(7)) and abs(uniform.mean() - 3) < 0.05
    assert geometric.min() == 0 and abs(geometric.mean() - 3) < 0.1 and abs(np.mean(geometric == 0) - 0.25) < 0.01
    assert draw_taus("uniform", 1.5, 1000, 0).max() == 3 and draw_taus("geometric", 0, 5, 0).tolist() == [0] * 5
    assert not np.array_equal(uniform[:50], draw_taus("uniform", 3, 50, 1))
    for bad in (("constant", 1.5), ("uniform", 0.3), ("geometric", -1), ("geometric", math.nan), ("zipf", 1)):
        with pytest.raises(ConfigError):
            draw_taus(*bad, 10, 0)


def test_a_trace_is_one_staleness_a_line(tmp_path):
    (tmp_path / "t").write_text("0\n2\n4\n")
    assert staleness.parse_distribution(f"trace:{tmp_path / 't'}") == ("trace", (0, 2, 4))
    (tmp_path / "updates.csv").write_text("updates,staleness\n1,0\n2,nan\n3,7\n")
    assert staleness.read_trace(tmp_path / "updates.csv") == (0, 7)
    (tmp_path / "lines.csv").write_text("3\n5\n")
    assert staleness.read_trace(tmp_path / "lines.csv") == (3, 5)
    for text, message in (
        ("updates,stale\n1,0\n", "got no column staleness"),
        ("updates,staleness\n1,2.5\n", "one whole number a line, or a run's updates.csv, got: 2.5"),
        ("updates,staleness\n1,0\n2,0\n", "one at least above 0"),
    ):
        (tmp_path / "updates.csv").write_text(text)
        with pytest.raises(ConfigError, match=message):
            staleness.read_trace(tmp_path / "updates.csv")
    plan = staleness.Plan(distribution="trace", trace=(0, 2, 4))
    assert plan.cells() == (0.0, 2.0) and plan.draw(2.0, 99, 0).tolist() == [0, 2, 4]
    assert plan.draw(0.0, 2, 0).tolist() == [0, 0]
    for text in ("", "1.5\n", "-1\n"):
        (tmp_path / "t").write_text(text)
        with pytest.raises(ConfigError, match="expected"):
            staleness.read_trace(tmp_path / "t")
    with pytest.raises(ConfigError, match=r"nope: expected a file that can be read, got: No such file"):
        staleness.parse_distribution(f"trace:{tmp_path / 'nope'}")
    with pytest.raises(ConfigError, match="trace:FILE"):
        staleness.parse_distribution("normal")
    with pytest.raises(ConfigError, match="trace"):
        staleness.Plan(distribution="trace")


def test_staleness_costs_env_steps_where_steps_are_large():
    """The textbook's trade-off: at 2.2e-3, 7 updates late ruin what 0 solve."""
    plan = staleness.Plan((0, 7), (2.2e-3,), seeds=(0, 1), total_timesteps=80_000)
    runs = list(staleness.run(plan, 1))
    assert [(r.seed, r.tau) for r in runs] == [(0, 0), (0, 7), (1, 0), (1, 7)]
    assert all((r.env_steps_to_475 is None) == (r.tau == 7) for r in runs)


# ---- mitigations ----------------------------------------------------------------------------------------------


def mitigation_plan(**more):
    shape = {"n_steps": 4, "hidden_sizes": (8,)}
    return mitigations.Plan(**{"taus": (4,), "learning_rates": (1e-3, 2e-3, 3e-3), "options": shape} | more)


def test_all_mitigations_try_the_same_rates_and_strengths_take_turns():
    plan = mitigation_plan(compensations=(1e2, 1e3), limits=(0.5, 1, 2))
    tried = {name: plan.trials(4, name) for name in mitigations.MITIGATIONS}
    assert all([trial.learning_rate for trial in trials] == [1e-3, 2e-3, 3e-3] for trials in tried.values())
    assert [trial.strength for trial in tried["DC-ASGD"]] == [1e2, 1e3, 1e2]
    assert [trial.strength for trial in tried["max staleness"]] == [2, 4, 8]
    assert {trial.strength for name in ("none", "rate / staleness", "V-trace") for trial in tried[name]} == {None}


def test_each_mitigation_is_the_option_it_is_named_after():
    plan = mitigation_plan(compensations=(1e2,), limits=(0.5,))
    default = A3CConfig().to_dict()
    told = {}
    for tau, name in plan.cells():
        trial = plan.trials(tau, name)[0]
        config = plan.staleness_plan(tau, name, trial).config(1e-3, 0).to_dict()
        told[name] = {k: v for k, v in config.items() if v != default[k]}.items() - {"n_steps": 4}.items()
        told[name] = {k: v for k, v in told[name] if k not in ("hidden_sizes", "seed", "learning_rate")}
    assert told == {
        "none": {},
        "rate / staleness": {"staleness_lr": "inverse"},
        "DC-ASGD": {"delay_compensation": 1e2},
        "max staleness": {"max_staleness": 2},
        "V-trace": {"v_trace": True},
    }


def test_tuning_takes_what_solves_most_then_fastest_then_returns_most(monkeypatch):
    steps = {1e-3: (100, 100, None), 2e-3: (900, 800, 850), 3e-3: (900, 850, 990)}
    told = []

    def run_one(task):
        rate, k = task.trial.learning_rate, mitigations.TUNING_SEEDS.index(task.seed)
        time = None if task.mitigation == "V-trace" else steps[rate][k]
        figures = (time, 1e5 * rate, 0.0, 0, False)
        return mitigations.Run(task.tau, task.mitigation, rate, task.trial.strength, task.seed, *figures)

    monkeypatch.setattr(mitigations, "_run_one", run_one)
    choices = mitigations.tune(mitigation_plan(), 1, told.append)
    assert told[-1] == len(told) == 3 * 3 * 5
    assert {name: trial.learning_rate for (_, name), trial in choices.items()} == {
        **dict.fromkeys(mitigations.MITIGATIONS, 2e-3),
        "V-trace": 3e-3,
    }


def test_mitigations_repeat_on_any_number_of_processes():
    plan = mitigation_plan(seeds=(0, 1), total_timesteps=800)
    choices = {(tau, name): plan.trials(tau, name)[1] for tau, name in plan.cells()}
    one, two = (sorted(map(str, mitigations.run(plan, choices, jobs))) for jobs in (1, 2))
    assert one == two and len(set(one)) == 2 * 5


def test_what_a_plan_of_mitigations_refuses():
    for bad, words in [
        ({"taus": (0,)}, "tau: expected a number >= 1"),
        ({"seeds": (999, 1000)}, "seeds: expected none of 1000 to 1002"),
        ({"lag": -1}, "lag: expected a whole number >= 0, got -1"),
        ({"taus": (4, 7), "lag": 8}, "lag: expected a whole number from 0 to the largest tau, got 8"),
        ({"limits": (-1.0,)}, "limits"),
        ({"compensations": (-1.0,)}, "delay_compensation: expected >= 0"),
        ({"learning_rates": (0.0,)}, "learning_rate"),
        ({"workers": 1025}, "workers"),
        *(({"options": options}, got) for options, got in NOT_NATIVE),
    ]:
        with pytest.raises(ConfigError, match=words):
            mitigation_plan(**bad)


def test_sentences_on_mitigations():
    def cell(name, solved, ratio, mean=(math.nan,) * 3):
        key = {"tau": 7.0, "mitigation": name, "learning_rate": 1e-3, "strength": None}
        nothing = Estimate(math.nan, math.nan, math.nan)
        return tables.Cell(key, 10, solved, fraction(solved, 10), nothing, Estimate(*ratio), Estimate(*mean))

    nothing = (math.nan,) * 3
    cells = [cell("none", 10, nothing), cell("DC-ASGD", 9, (0.9, 0.7, 1.1)), cell("V-trace", 10, (0.5, 0.4, 0.6))]
    assert tables.mitigation_sentences(cells) == [
        "At staleness 7, V-trace takes 0.50 times (95 % interval 0.40 to 0.60) the env steps of no mitigation."
    ]
    (told,) = tables.mitigation_sentences(cells[:2])
    assert told.endswith("nothing is claimed.")
    (told,) = tables.mitigation_sentences([cell("none", 1, nothing), cell("V-trace", 9, nothing)])
    assert told == "At staleness 7, V-trace solves 9 of 10 seeds, no mitigation 1 of 10."
    (told,) = tables.mitigation_sentences(
        [cell("none", 9, nothing, (500, 490, 500)), cell("V-trace", 9, nothing, (400, 300, 480))]
    )
    assert told == (
        "At staleness 7, V-trace ends at a return of 400 (95 % interval 300 to 480), no mitigation at 500 (490 to 500)."
    )


# ---- stragglers -----------------------------------------------------------------------------------------------


def plan_of(**options):
    shape = {"n_steps": 4, "hidden_sizes": (8,)}
    return stragglers.Plan(**{"workers": (3,), "learning_rates": (1e-3,), "seeds": (0,), "options": shape} | options)


def test_costs_by_hand():
    slow = stragglers.Costs(plan_of(costs="slow", spreads=(5.0,), step_s=0.5), 5.0, 3, 0)
    assert slow.of_round(100).tolist() == [10.0, 2.0, 2.0]
    assert stragglers.Costs(plan_of(), 0.0, 3, 0).of_round(0).tolist() == pytest.approx([0.004] * 3)
    gamma = stragglers.Costs(plan_of(step_s=1.0), 2.0, 1000, 0)
    dealt = np.array([gamma.of_round(r) for r in range(200)])
    assert abs(dealt.mean() - 4) < 0.1 and abs(dealt.std() / dealt.mean() - 1) < 0.03  # 2 / sqrt(4 env steps)
    stalls = stragglers.Costs(plan_of(costs="stalls", step_s=1.0), 100.0, 1000, 0)
    assert set(stalls.of_round(0)) <= {4.0, 104.0, 204.0, 304.0} and stalls.of_round(0).max() > 100
    assert np.array_equal(stragglers.Costs(plan_of(step_s=1.0), 2.0, 1000, 0).of_round(5), dealt[5])


def task_of(plan, algorithm):
    return stragglers.Task(plan, algorithm, 3, plan.spreads, plan.learning_rates[0], 0)


def test_a2c_waits_for_the_slowest_and_a3c_for_nobody():
    """One of three is nine times slower, and 300 env steps are asked for."""
    plan = plan_of(costs="slow", spreads=(9.0,), total_timesteps=300, step_s=1.0)
    (a2c,), (a3c,) = (stragglers.run_one(task_of(plan, name)) for name in ("A2C", "A3C"))
    assert a2c.waiting == pytest.approx(1 - 44 / 108)  # (36 + 4 + 4) / 3 of 36
    assert a2c.time_s is None and a2c.staleness_mean == 0 and a3c.waiting == 0
    # A3C: while the slow one rolls out once, the other two make 9 updates each.
    assert a3c.staleness_max == 18 and 1 < a3c.staleness_mean < 2.5


def test_equally_fast_workers_update_in_turn():
    plan = plan_of(spreads=(0.0,), total_timesteps=1200)
    (run,) = stragglers.run_one(task_of(plan, "A3C"))
    assert run.staleness_max == 2 and run.staleness_mean == pytest.approx((0 + 1 + 298 * 2) / 300)


def test_tuning_takes_the_rate_that_solves(monkeypatch):
    def run_one(task):
        late = abs(math.log10(task.learning_rate) + (2 if task.algorithm == "A2C" else 3))
        seconds = None if late > 1.5 else 10 + late
        return (
            stragglers.Run(task.algorithm, 3, 0.0, task.learning_rate, task.seed, "virtual", seconds, 1, 1, 0, 0, 0),
        )

    monkeypatch.setattr(stragglers, "run_one", run_one)
    plan = plan_of(learning_rates=(1e-4, 1e-3, 1e-2))
    assert stragglers.tune(plan, 1) == {("A2C", 3): 1e-2, ("A3C", 3): 1e-3}
    assert stragglers.tune(plan_of(), 1) == {("A2C", 3): 1e-3, ("A3C", 3): 1e-3}


def test_what_a_plan_refuses():
    for bad, words in [
        ({"costs": "pareto"}, "costs"),
        ({"costs": "slow", "spreads": (0.5,)}, "spread: expected a number >= 1"),
        ({"spreads": (math.nan,)}, "spread"),
        ({"workers": (1025,)}, "workers"),
        ({"learning_rates": (0.0,)}, "learning_rate"),
        *(({"options": options}, got) for options, got in NOT_NATIVE),
    ]:
        with pytest.raises(ConfigError, match=words):
            plan_of(**bad)


# ---- the crew -------------------------------------------------------------------------------------------------


def test_two_processes_do_what_one_does():
    plan = staleness.Plan((0, 2), (1e-3,), seeds=(0, 1), total_timesteps=2000, options={"hidden_sizes": (8,)})
    one, two = (sorted(staleness.run(plan, jobs), key=lambda r: (r.seed, r.tau)) for jobs in (1, 2))
    assert str(one) == str(two) and len(one) == 4


def test_an_exception_in_a_process_comes_out():
    with pytest.raises(fastac.WorkerError, match="math domain error"):
        list(crew.run_all(math.sqrt, [1.0, 4.0, -1.0], 2))


# ---- statistics -----------------------------------------------------------------------------------------------


def test_a_fraction_by_hand():
    """Wilson: (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n), z = 1.959964."""
    assert fraction(5, 10) == Estimate(0.5, pytest.approx(0.236593, abs=1e-6), pytest.approx(0.763407, abs=1e-6))
    assert fraction(0, 10).low == 0.0 and fraction(0, 10).high == pytest.approx(0.277533, abs=1e-6)


def test_a_censored_median_by_hand():
    inf = math.inf
    few = median_time([4.0, 1.0, 3.0, 2.0, 5.0], 9.0)
    assert few.value == 3.0 and math.isnan(few.low) and math.isnan(few.high)
    assert median_time([1.0, 2.0, 3.0, 4.0, inf, inf, inf, inf], 9.0).value == inf  # half are left
    assert median_time([1.0, 2.0, 3.0, 5.0, 6.0, inf], 9.0).value == 4.0  # level at 1/2 from 3 to 5
    censored = median_time([1.0, 2.0, 3.0, inf, inf, inf, inf], 9.0)
    assert censored.value == inf and censored.low == 1.0 and censored.high == inf
    assert median_time([7.0] * 8, 9.0) == Estimate(7.0, 7.0, 7.0)
    assert median_time([inf] * 8, 9.0) == Estimate(inf, inf, inf)
    whole = median_time([float(i) for i in range(1, 21)], 99.0)
    assert whole.value == 10.5 and 5 <= whole.low <= 7 and 13 <= whole.high <= 16


def test_ratios_only_where_the_data_carry_them():
    inf, base = math.inf, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    twice = paired_ratio([2 * x for x in base], base)
    assert twice == Estimate(2.0, 2.0, 2.0)  # paired: every resample has this ratio
    some = paired_ratio([2.0, 4.0, 6.0, 8.0, inf, inf], base)
    assert some.value == 2.0 and some.high == inf and some.low <= 2.0
    for above, below in ((base[:5], base[:5]), (base, [*base[:5], inf])):
        assert math.isnan(paired_ratio(above, below).value)
    assert paired_ratio([inf] * 6, base).low == inf


def test_a_mean_and_its_interval():
    assert mean_interval([1.0, 2.0]).value == 1.5 and math.isnan(mean_interval([1.0, 2.0]).low)
    assert mean_interval([4.0] * 6) == Estimate(4.0, 4.0, 4.0)
    it = mean_interval([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    assert 1 < it.low < 3 < it.value == 3.5 < 4 < it.high < 6
    assert mean_interval([5.0, 1.0, 6.0, 3.0, 2.0, 4.0]) == it
    assert math.isnan(mean_interval([]).value)


def test_sentences_claim_what_is_apart_from_one():
    def cell(spread, ratio, algorithm="A3C"):
        key = {"clock": "virtual", "workers": 8, "spread": spread, "algorithm": algorithm}
        nothing = Estimate(math.nan, math.nan, math.nan)
        return tables.Cell(key, 10, 10, nothing, nothing, Estimate(*ratio), nothing)

    crossing = [
        cell(0, (0.5, 0.4, 0.6)),
        cell(1, (0.9, 0.7, 1.2)),
        cell(2, (2.0, 1.5, 3.0)),
        cell(4, (4.0, 3.0, math.inf)),
    ]
    (told,) = tables.straggler_sentences(crossing)
    assert told.startswith(
        "8 workers: A2C is faster at spread 0, A3C from spread 2 on; the lines cross in between. At "
    )
    assert "0.50 times (95 % interval 0.40 to 0.60)" in told and "beyond the runs' end" in told
    assert "2.00 times" not in told and "A3C's virtual time" in told
    for cells, words in [
        (crossing[1:2], "no ratio at either end of the spreads is apart from 1"),
        (crossing[:1], "A2C is faster at spread 0"),
        (crossing[::-1], "A2C is faster at spread 0, A3C from spread 2 on; the lines cross in between"),
        (crossing[1:3], "A3C is faster at spread 2"),
        (crossing[2:], "A3C is faster from spread 2 on"),
        ([cell(0, (0.5, 0.4, 0.6)), cell(1, (0.6, 0.5, 0.7))], "A2C is faster up to spread 1"),
    ]:
        assert tables.who_is_faster(cells, 8) == words
    (told,) = tables.staleness_sentences(
        [tables.Cell({"tau": 3, "learning_rate": 1e-3}, 10, 10, *[Estimate(*[math.nan] * 3)] * 4)]
    )
    assert told.startswith("No runs of staleness 0 to compare with")


# ---- the commands ---------------------------------------------------------------------------------------------


def test_fastac_staleness(tmp_path):
    words = "staleness --tau 0,3 --learning-rate 1e-3 --workers 2 --seeds 2 --timesteps 3000 --jobs 1 --hidden-sizes 8"
    result = CliRunner().invoke(main, [*words.split(), "--runs", str(tmp_path), "--name", "one"])
    assert result.exit_code == 0, result.output
    assert "No ratio to staleness 0" in result.output and "0 of 2" in result.output
    assert "too stale" not in result.output
    folder = tmp_path / "one"
    assert sorted(path.name for path in folder.iterdir()) == ["staleness.csv", "staleness.json", "staleness.png"]
    with (folder / "staleness.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["tau"], row["seed"]) for row in rows] == [("0.0", "0"), ("0.0", "1"), ("3.0", "0"), ("3.0", "1")]
    report = json.loads((folder / "staleness.json").read_text())
    assert report["plan"]["options"]["hidden_sizes"] == [8] and len(report["summary"]) == 2
    with Image.open(folder / "staleness.png") as image:
        assert image.width > 800 and len(image.convert("L").getcolors()) > 20


def test_a_stop_in_tuning_is_told_as_one(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(mitigations, "tune", stop)
    result = CliRunner().invoke(main, ["mitigations", "--quick", "--runs", str(tmp_path)])
    assert result.exit_code == 130 and "stopped: in tuning, before the first of 30 runs" in result.output
    assert list(tmp_path.iterdir()) == []


def test_what_was_too_stale_is_told():
    plan = staleness.Plan(
        taus=(0, 3), learning_rates=(1e-3,), seeds=(0, 1), total_timesteps=100, options={"n_steps": 5}
    )
    runs = [
        staleness.Run(tau, 1e-3, seed, None, 20.0, tau, rejected, False)
        for tau, seed, rejected in ((0, 0, 0), (0, 1, 0), (3, 0, 10), (3, 1, 20))  # of 20 updates each
    ]
    told = tables.rejection_sentences(runs, plan)
    assert told == ["At learning rate 0.001, staleness 3, 75 % of the gradients were rejected as too stale."]


def test_fastac_mitigations(tmp_path):
    words = "mitigations --tau 3 --learning-rate 1e-3,2e-3 --workers 2 --seeds 2 --timesteps 1500 --hidden-sizes 8"
    told = []
    for name, jobs in (("one", "1"), ("two", "2")):
        where = ["--runs", str(tmp_path), "--name", name, "--jobs", jobs]
        result = CliRunner().invoke(main, [*words.split(), *where])
        assert result.exit_code == 0, result.output
        words_told = " ".join(result.output.split())
        assert "rate / staleness" in words_told and "0 of 2" in words_told and "2 trials each" in words_told
        told.append((tmp_path / name / "mitigations.csv").read_bytes())
    assert told[0] == told[1]
    folder = tmp_path / "one"
    assert sorted(path.name for path in folder.iterdir()) == ["mitigations.csv", "mitigations.json", "mitigations.png"]
    report = json.loads((folder / "mitigations.json").read_text())
    assert len(report["runs"]) == 10 and len(report["summary"]) == 5 and report["plan"]["lag"] == 0
    with Image.open(folder / "mitigations.png") as image:
        assert image.width > 800 and len(image.convert("L").getcolors()) > 20


def test_fastac_stragglers(tmp_path):
    words = "stragglers --spread 0,2 --learning-rate 1e-3 --workers 2,3 --seeds 2 --timesteps 2000 --jobs 1"
    result = CliRunner().invoke(main, [*words.split(), "--hidden-sizes", "8", "--runs", str(tmp_path), "--name", "one"])
    assert result.exit_code == 0, result.output
    folder = tmp_path / "one"
    assert sorted(path.name for path in folder.iterdir()) == ["stragglers.csv", "stragglers.json", "stragglers.png"]
    report = json.loads((folder / "stragglers.json").read_text())
    assert report["plan"]["options"]["n_steps"] == 8 and len(report["runs"]) == 2 * 2 * 2 * 2
    assert len(report["summary"]) == 8


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["staleness", "--tau", "0,x"], "expected numbers between commas"),
        (["staleness", "--tau", "1,1"], "each once"),
        (["staleness", "--tau", "0.5"], "expected a whole number for constant"),
        (["staleness", "--workers", "1025"], "workers: expected 1 to 1,024"),
        (["staleness", "--distribution", "normal"], "expected one of constant"),
        (["staleness", "--distribution", f"trace:{__file__}", "--tau", "3"], "expected one whole number a line"),
        (["staleness", "--distribution", "trace:TRACE", "--tau", "3"], "--tau: expected none with trace:FILE"),
        (["staleness", "--lag", "1"], "--lag: expected 0 without --v-trace and --delay-compensation"),
        (
            ["staleness", "--tau", "0,3", "--v-trace", "--lag", "4"],
            "--lag: expected a whole number from 0 to the largest",
        ),
        (["staleness", "--learning-rate", "0"], "--learning-rate: expected > 0"),
        (["mitigations", "--tau", "0"], "tau: expected a number >= 1"),
        (["mitigations", "--seeds", "1001"], "seeds: expected none of 1000 to 1002"),
        (["mitigations", "--delay-compensation", "-1"], "--delay-compensation: expected >= 0"),
        (["staleness", "--v-trace", "--record"], "--record: expected False with --v-trace"),
        (["stragglers", "--costs", "slow", "--spread", "0"], "expected a number >= 1"),
        (["stragglers", "--workers", "1025"], "workers: expected 1 to 1,024"),
        (["staleness", "--env", "Acrobot-v1"], "No such option"),
        (["mitigations", "--policy", "MlpGruPolicy"], "No such option"),
        (["stragglers", "--real", "--normalize-observation"], "No such option"),
    ],
)
def test_a_wrong_value_is_a_usage_error_before_anything_starts(words, message, tmp_path):
    (tmp_path / "trace").write_text("0\n2\n")
    words = [word.replace("TRACE", str(tmp_path / "trace")) for word in words]
    result = CliRunner().invoke(main, [*words, "--runs", str(tmp_path / "runs")])
    assert result.exit_code == 2 and message in " ".join(result.output.split()), result.output
    assert not (tmp_path / "runs").exists()
