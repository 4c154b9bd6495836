"""Stragglers in real time: the simulator agrees with real threads where both must say the same; the command."""

import csv
import json
import os

import numpy as np
import pytest
from click.testing import CliRunner
from crews import children
from PIL import Image

from fastac import ConfigError
from fastac.cli import main
from fastac.compare.verdicts import Estimate
from fastac.config import A3CConfig
from fastac.lab import crew, real, real_tables, stragglers
from fastac.lab.player import Player, play
from fastac.lab.stragglers import Run

SMALL = {"n_steps": 4, "n_envs": 8, "hidden_sizes": (16,)}
MS = 1e-3


def plan_of(**options):
    given = {"workers": (3,), "learning_rates": (1e-3,), "seeds": (7,), "step_s": MS / 4, "options": SMALL}
    return real.Plan(**given | {"total_timesteps": 4800} | options)


def task_of(plan, algorithm, spread=0.0):
    return stragglers.Task(plan, algorithm, plan.workers[0], (spread,), plan.learning_rates[0], plan.seeds[0])


def learned(task):
    model, costs = real.model_of(task)
    return model.learn(task.plan.total_timesteps), costs


# ---- the simulator and real threads -----------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", stragglers.ALGORITHMS)
def test_one_real_worker_is_the_virtual_one_bit_for_bit(algorithm):
    plan = plan_of(workers=(1,), total_timesteps=2000)
    model, _ = learned(task_of(plan, algorithm, spread=2.0))
    player = play(A3CConfig(**SMALL, seed=7, learning_rate=1e-3), 1, 2000, [0])
    assert player.now.params.tobytes() == model.params.tobytes()
    assert (player.now.version, player.now.env_steps) == (model.version, model.num_timesteps) == (63, 2016)
    for name in ("episode_return", "episode_length", "env_steps", "updates"):
        assert player.history().episodes[name].tolist() == model.history.episodes[name].tolist(), name
    assert player.ledger().staleness_max == model.ledger.staleness_max == 0


def test_a2c_of_three_sleepers_learns_what_the_virtual_one_learns():
    """Bit for bit, however long they sleep; and it cannot be over before the slowest have rolled out."""
    model, costs = learned(task_of(plan_of(), "A2C", spread=2.0))
    config = A3CConfig(**SMALL | {"n_envs": 24}, seed=7, learning_rate=1e-3)
    player = Player(config, 1, 4800)
    for _ in range(50):
        player.update(0, player.now)
    assert player.now.params.tobytes() == model.params.tobytes() and model.version == 50
    assert costs.shape == (50, 3) and model.history.train_s >= costs.max(axis=1).sum() - 1e-6


def test_equal_sleepers_have_the_staleness_of_virtual_ones():
    """Between two updates of its own a worker sees those of all others, once each. So the staleness of W workers has
    the mean W - 1, less what comes before a worker's first reading, after its last update, or between an update
    and the next reading: never more, and less by much only where a worker hardly gets to run.
    """
    workers, plan = 4, plan_of(workers=(4,), total_timesteps=32 * 400)
    model, _ = learned(task_of(plan, "A3C"))
    ledger = model.ledger
    assert ledger.begun == ledger.published == ledger.applied == model.version >= 400
    assert model.num_timesteps == 32 * ledger.applied
    assert (workers - 1) / 2 < ledger.staleness_mean <= workers - 1
    (virtual,) = stragglers.run_one(task_of(plan, "A3C"))
    assert virtual.staleness_mean == pytest.approx((0 + 1 + 2 + 397 * 3) / 400) and virtual.staleness_max == 3


def test_a3c_does_not_wait_for_one_that_takes_an_hour():
    plan = plan_of(costs="slow", spreads=(3.6e6,), total_timesteps=32 * 60)
    model, costs = learned(task_of(plan, "A3C", spread=3.6e6))
    assert costs.shape == (60, 3) and costs[59].tolist() == pytest.approx([3600.0, MS, MS])
    rollouts = np.bincount(model.history.updates["worker"].astype(int), minlength=3)
    assert rollouts[1:].sum() >= 60 and rollouts[0] <= 1  # that of the slow one comes when the run is over and stopped
    assert 0.0 <= real._waiting(model.history.updates, costs, "A3C") < 1.0


def test_a_process_is_killed_in_the_midst_of_a_pause():
    """A2C's threads pause inside one native call, in which no signal is heard."""
    plan = plan_of(costs="slow", spreads=(3.6e6,))
    ticks = []

    def tick():
        ticks.append(children())
        if len(ticks) == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(crew.run_all(real.run_one, [task_of(plan, "A2C", 3.6e6)], 1, tick, apart=True))
    assert ticks[-1] and children() == []


def test_a_real_run_beside_its_prediction():
    plan = plan_of(
        workers=(2,), seeds=(0,), step_s=MS / 100, total_timesteps=200_000, options={"n_steps": 8, "n_envs": 8}
    )
    plan = real.Plan(**{**vars(plan), "learning_rates": (3e-3,), "spreads": (1.0,)})
    (predicted,), run = stragglers.run_one(task_of(plan, "A2C", 1.0)), real.run_one(task_of(plan, "A2C", 1.0))
    assert (run.clock, predicted.clock) == ("real", "virtual")
    assert (run.env_steps, run.updates) == (predicted.env_steps, predicted.updates) and run.updates > 100
    assert run.time_s > predicted.time_s - 1e-6 and run.waiting > predicted.waiting - 1e-6
    assert 0 < run.cores < (os.cpu_count() or 1) + 1 and predicted.cores is None


def test_waiting_by_hand():
    """Two workers; the second's last rollout, of 9 s, was cut after 1 s."""
    updates = {"worker": np.array([0.0, 1.0, 0.0, 1.0]), "wall_s": np.array([2.0, 3.0, 5.0, 4.0])}
    costs = np.array([[1.0, 3.0], [2.0, 9.0]])
    assert real._waiting(updates, costs, "A3C") == pytest.approx(1 - (1 + 2 + 3 + 1) / (5 + 4))
    of_one = {"worker": np.zeros(3), "wall_s": np.array([3.0, 12.0, 15.0])}
    assert real._waiting(of_one, costs, "A2C") == pytest.approx(1 - (1 + 3 + 2 + 9 + 1 + 3) / 30)


def test_what_a_plan_of_real_workers_refuses():
    for bad, words in [
        ({"workers": (65,)}, "workers: expected 1 to 64 real ones, got 65"),
        ({"options": {**SMALL, "n_envs": 4}}, "n_envs: expected 8 with real workers"),
        ({"total_timesteps": 320_001}, "timesteps: expected at most 320,000 with real workers"),
    ]:
        with pytest.raises(ConfigError, match=words):
            plan_of(**bad)
    with pytest.raises(ConfigError, match="solve: expected a mean return from 0 to 200"):
        plan_of(options={**SMALL, "max_episode_steps": 200})
    with pytest.raises(ConfigError, match="engine: expected native"):
        real.SlowA2C(np.zeros((1, 1)), engine="torch")


# ---- pairs ------------------------------------------------------------------------------------------------------


def runs_of(algorithm, spread, real_s, virtual_s, stale=(0.0, 0.0)):
    """Ten seeds whose times lie around these, in the same proportion."""
    made = []
    for seed in range(10):
        for clock, seconds, mean in zip(real.CLOCKS, (real_s, virtual_s), stale, strict=True):
            late = 1 + seed / 100
            made.append(
                Run(
                    algorithm,
                    8,
                    spread,
                    1e-3,
                    seed,
                    clock,
                    seconds * late,
                    1e5,
                    900,
                    mean,
                    9,
                    0.25,
                    *([0.5] * (clock == "real")),
                )
            )
    return made


def test_pairs_by_hand():
    plan = plan_of(workers=(8,), spreads=(0.0, 4.0))
    runs = [*runs_of("A2C", 0.0, 2.2, 2.0), *runs_of("A3C", 0.0, 4.0, 4.0, (6.5, 7.0))]
    runs += [*runs_of("A2C", 4.0, 9.2, 8.0), *runs_of("A3C", 4.0, 3.0, 4.0, (6.8, 7.0))]
    pairs = real_tables.pairs(runs, plan)
    assert [(p.real.key["spread"], p.real.key["algorithm"]) for p in pairs] == [
        (s, a) for s in (0, 4) for a in ("A2C", "A3C")
    ]
    assert [p.ratio.value for p in pairs] == pytest.approx([1.1, 1.0, 1.15, 0.75]) and all(p.same == 10 for p in pairs)
    assert pairs[0].ratio == Estimate(*[pytest.approx(1.1)] * 3)
    crossing, a2c, exactly, a3c, stale, cores = real_tables.pair_sentences(pairs, runs)
    assert crossing.startswith("8 workers: A2C is faster at spread 0, A3C at spread 4; the lines cross in between.")
    assert "A3C's real time" in crossing
    assert crossing.endswith("In virtual time: A2C is faster at spread 0, A3C at spread 4; the lines cross in between.")
    assert a2c.startswith("A2C: real times are 1.10 to 1.15 of the predicted ones, farthest with 8 workers at spread 4")
    assert exactly.startswith("A2C: 20 of 20 real runs took exactly")
    assert a3c.startswith("A3C: real times are 0.75 to 1.00") and stale.endswith(
        "at most 0.5 updates from the predicted one."
    )
    assert cores.startswith("A real run kept 0.50 cores busy, 0.50 at most")
    (half,) = [line for line in real_tables.pair_sentences(pairs[:1], runs[:2]) if line.startswith("A3C: no")]
    assert "enough seeds" in half
    assert real_tables.pairs([run for run in runs if run.clock == "virtual"], plan) == []  # stopped before the first


# ---- the command ------------------------------------------------------------------------------------------------


def test_fastac_stragglers_real(tmp_path):
    words = "stragglers --real --spread 0,2 --learning-rate 1e-3 --workers 2 --seeds 1 --timesteps 2000 --jobs 2"
    words += f" --step-s 1e-4 --hidden-sizes 8 --name one --runs {tmp_path}"
    result = CliRunner().invoke(main, words.split())
    assert result.exit_code == 0, result.output
    assert "2 of 2 real runs took exactly the predicted env steps" in result.output
    assert "0 | 0 of 1" in result.output and "Measured on " in result.output
    folder = tmp_path / "one"
    assert sorted(path.name for path in folder.iterdir()) == ["stragglers.csv", "stragglers.json", "stragglers.png"]
    with (folder / "stragglers.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["clock"] for row in rows] == ["real", "virtual"] * 4
    report = json.loads((folder / "stragglers.json").read_text())
    assert report["plan"]["options"]["n_envs"] == 8 and report["plan"]["options"]["n_steps"] == 8
    assert len(report["runs"]) == 8 and len(report["summary"]) == 4
    with Image.open(folder / "stragglers.png") as image:
        assert image.width > 400 and len(image.convert("L").getcolors()) > 20


def test_each_flag_has_defaults_of_its_own(monkeypatch, tmp_path):
    plans = []

    def tune(plan, jobs):
        plans.append(
            (type(plan), plan.workers, len(plan.seeds), plan.step_s, len(plan.spreads), plan.options["n_envs"])
        )
        raise ConfigError("enough")

    monkeypatch.setattr(stragglers, "tune", tune)
    for words in ("", "--quick", "--real", "--real --quick", "--real --quick --workers 3 --seeds 9 --step-s 0.1"):
        CliRunner().invoke(main, ["stragglers", *words.split(), "--runs", str(tmp_path)])
    assert plans == [
        (stragglers.Plan, (8, 64, 256), 20, 1e-3, 5, 1),
        (stragglers.Plan, (8, 32), 6, 1e-3, 3, 1),
        (real.Plan, (2, 8, 16), 20, 5e-4, 5, 8),
        (real.Plan, (4, 16), 6, 5e-4, 3, 8),
        (real.Plan, (3,), 9, 0.1, 3, 8),
    ]
    result = CliRunner().invoke(main, ["stragglers", "--real", "--n-envs", "4", "--runs", str(tmp_path)])
    assert result.exit_code == 2 and "--n-envs: expected 8" in result.output
