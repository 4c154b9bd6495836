"""The comparison: matched arms, medians that know unsolved seeds, tidy tables, pictures that are there."""

import csv
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from fastac import machine
from fastac.compare import plots, tables
from fastac.compare.experiment import ARMS, Plan, make_model, run
from fastac.compare.statistics import CURVE_COLUMNS, Interval, curve, median_interval, time_to
from fastac.metrics import EPISODE, UPDATE, HistoryBuilder, row

PLAN = Plan(1500, (0, 1), 2, backend="thread", options={"n_steps": 8, "hidden_sizes": (16,)})


@pytest.fixture(scope="session")
def results():
    return list(run(PLAN))


def test_the_arms_start_from_the_same_weights_and_env_states():
    models = [make_model(PLAN, arm, seed=3) for arm in ARMS]
    weights = {model.params.tobytes() for model in models}
    assert len(weights) == 1
    assert weights != {make_model(PLAN, ARMS[0], seed=4).params.tobytes()}
    assert [model.config.n_envs * getattr(model.config, "workers", 1) for model in models] == [2, 2, 2]


def test_a_median_over_seeds_begins_where_all_have_a_value():
    nan = math.nan
    seeds, known = plots.where_all_are_known(np.array([[nan, 1.0, 2.0], [nan, nan, 4.0], [nan, nan, nan]]))
    assert seeds.tolist()[0][1:] == [1.0, 2.0] and len(seeds) == 2 and known.tolist() == [False, False, True]
    assert plots.where_all_are_known(np.full((2, 3), nan))[1].tolist() == [False] * 3


def test_all_arms_run_under_one_seed_before_the_next(results):
    assert [(result.arm, result.seed) for result in results] == [(arm, seed) for seed in (0, 1) for arm in ARMS]
    for result in results:
        assert result.history.updates["env_steps"][-1] >= 1500
        result.ledger.check()


def test_a_median_by_hand():
    assert median_interval([4.0, 2.0, 100.0]) == Interval(4.0, 2.0, 100.0)  # too few for an interval: the ends
    interval = median_interval([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 100.0])
    assert interval.median == 4.0 and 1.0 <= interval.low < 4.0 < interval.high <= 100.0
    assert median_interval([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 100.0]) == interval
    assert math.isnan(median_interval([1.0, math.nan]).median)


def test_an_unsolved_seed_is_later_than_every_solved_one():
    inf = math.inf
    assert median_interval([1.0, 2.0, 3.0, inf, inf]).median == 3.0
    assert median_interval([1.0, 2.0, 3.0, inf, inf]).high == inf
    assert median_interval([1.0, 2.0, inf, inf]).median == inf  # halfway between 2 and never
    assert median_interval([inf, inf, inf]) == median_interval([inf])
    assert median_interval([7.0]).low == median_interval([7.0]).high == 7.0
    assert math.isnan(median_interval([]).median)


@pytest.mark.parametrize("n", [6, 10, 20])
def test_the_interval_covers_the_median_about_as_often_as_it_says(n):
    """400 samples of n normal numbers; 0.05 is more than 4 standard deviations of the share that holds the median."""
    intervals = [median_interval(sample) for sample in np.random.default_rng(n).normal(size=(400, n))]
    covered = np.mean([interval.low <= 0.0 <= interval.high for interval in intervals])
    assert 0.90 <= covered < 1.0
    assert np.mean([interval.low <= 0.7 <= interval.high for interval in intervals]) < covered - 0.1


def test_a_curve_by_hand():
    builder = HistoryBuilder(0.0)
    rows = []
    for i in range(1, 11):  # ten updates of 10 env steps, one a second; an episode of return i ends in each
        staleness = math.nan if i == 2 else i
        rows += [
            row(UPDATE, i, 0, 10, 1, i - 1, 2.0 * i, 0, 0, 0, 0.5, 0, 0, 0, 0, 0, staleness, 1),
            row(EPISODE, i, 0, 0, 0, i, 10),
        ]
    builder.add_rows(np.stack(rows))
    columns = curve(builder.build(), 100, points=5, window=3)
    assert set(columns) == set(CURVE_COLUMNS)
    assert columns["env_steps"].tolist() == [20, 40, 60, 80, 100]
    assert columns["updates"].tolist() == [2, 4, 6, 8, 10] and columns["wall_s"].tolist() == [2, 4, 6, 8, 10]
    assert columns["return_mean"].tolist() == [1.5, 3.0, 5.0, 7.0, 9.0]
    assert columns["return_var"][1:].tolist() == pytest.approx([2 / 3] * 4)
    assert columns["grad_norm"].tolist() == [3.0, 7.0, 11.0, 15.0, 19.0]
    assert columns["entropy"].tolist() == [0.5] * 5
    assert columns["staleness_mean"].tolist() == [1.0, 3.5, 5.5, 7.5, 9.5]


def test_time_to_lists_unsolved_runs_as_infinity(results):
    builder = HistoryBuilder(0.0)
    builder.add_rows(np.stack([row(EPISODE, i, 0, 10, 0, 200.0, 10) for i in range(1, 101)]))
    solved = replace(results[0], history=builder.build())
    assert time_to([solved, results[0]], 195.0, "env_steps") == [1000.0, math.inf]
    assert time_to([solved, results[0]], 475.0, "wall_s") == [math.inf, math.inf]


def test_written_tables(results, tmp_path):
    tables.write(tmp_path, results, PLAN, machine.describe())
    with (tmp_path / "compare.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6 * 100 and set(rows[0]) == {"algorithm", "seed", *CURVE_COLUMNS}
    report = json.loads((tmp_path / "compare.json").read_text())
    assert set(report["summary"]) == set(ARMS)
    assert (
        report["summary"]["A3C"]["solved_475"] == 0 and report["summary"]["A3C"]["env_steps_to_475"]["median"] is None
    )
    assert len(report["runs"]) == 6 and report["machine"]["cores"] >= 1
    assert report["runs"][0]["ledger"]["pending"] == 0
    assert report["configs"]["A2C split"]["split"] == 2


def test_the_table_on_the_terminal(results):
    table = tables.terminal_table(results, PLAN)
    assert [column.header for column in table.columns] == ["", *ARMS]
    cells = {
        next(iter_): list(iter_) for iter_ in map(iter, zip(*(column._cells for column in table.columns), strict=True))
    }
    assert cells["solved (475)"] == ["0 of 2"] * 3 and cells["env steps to 475"] == ["unsolved"] * 3


def test_pictures(results, tmp_path):
    """Drawn for solved and unsolved seeds alike; what they look like is for eyes."""
    plots.draw_curves(tmp_path / "curves.png", results, PLAN)
    plots.draw_time_to_solve(tmp_path / "times.png", results, PLAN)
    for name in ("curves.png", "times.png"):
        with Image.open(tmp_path / name) as image:
            assert image.width > 1000 and len(image.convert("L").getcolors()) > 20


def test_where_nobody_solved_the_axis_is_that_of_the_budget():
    _, ax = plots.plt.subplots()
    runs = list(run(Plan(64, (0,), 1, backend="thread", options={"n_steps": 8, "hidden_sizes": (4,)})))
    plots._draw_times(ax, runs, ARMS, 475.0, "env_steps", replace(PLAN, total_timesteps=64))
    assert 64 < ax.get_xlim()[1] < 100 and [text.get_text() for text in ax.texts] == ["not solved"]
    plots.plt.close()


def test_a_run_in_which_no_episode_ended(tmp_path):
    plan = Plan(8, (0,), 1, backend="thread", options={"n_steps": 8, "hidden_sizes": (4,)})
    short = list(run(plan))
    assert all(len(result.history.episodes["wall_s"]) == 0 for result in short)
    plots.draw_curves(tmp_path / "curves.png", short, plan)
    plots.draw_time_to_solve(tmp_path / "times.png", short, plan)
    cells = [cell for column in tables.terminal_table(short, plan).columns for cell in column._cells]
    assert cells.count("-") == 9  # return, its interquartile mean and its variance are unknown for three arms


def test_another_env_has_its_own_name_and_no_threshold_of_cartpole(tmp_path):
    plan = Plan(2100, (0,), 2, backend="thread", options={"env": "MountainCar-v0", "hidden_sizes": (4,)})
    runs = list(run(plan))
    tables.write(tmp_path, runs, plan, machine.describe())
    text = (tmp_path / "compare.json").read_text()
    assert "_195" not in text and "_475" not in text and json.loads(text)["verdicts"] == []
    table = tables.terminal_table(runs, plan)
    cells = [cell for column in table.columns for cell in column._cells]
    assert str(table.title).startswith("MountainCar-v0, 1 seed") and not any("475" in cell for cell in cells)
    assert tables.sentences(runs, plan) == [
        "No mean return is known that solves MountainCar-v0: no times until then are compared."
    ]


def test_other_returns_are_within_their_picture(tmp_path, monkeypatch):
    """Those of MountainCar-v0, which are negative; and no lines of CartPole."""
    plan = Plan(2100, (0,), 2, backend="thread", options={"env": "MountainCar-v0", "hidden_sizes": (4,)})
    drawn = []
    monkeypatch.setattr(plots, "save", lambda figure, path: drawn.append(figure))
    plots.draw_curves(tmp_path / "curves.png", list(run(plan)), plan)
    (figure,) = drawn
    assert figure.get_suptitle().startswith("MountainCar-v0, ")
    ax = figure.axes[0]
    assert len(ax.lines) == 3 and ax.get_ylim()[0] < -200.0 < ax.get_ylim()[1] < 0.0
    plots.plt.close(figure)
