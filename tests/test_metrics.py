"""Rows of several workers become one history in the order of time; solving is found where it happened."""

import numpy as np
import pytest

from fastac.metrics import EPISODE, UPDATE, HistoryBuilder, Position, row


def update(time_s, worker, new_env_steps, grad_norm, applied=1):
    return row(UPDATE, time_s, worker, new_env_steps, applied, 0, grad_norm, *[0] * 10, applied)


def test_a_rejected_gradient_is_no_update():
    builder = HistoryBuilder(0.0)
    builder.add_rows(
        np.stack([update(1, 0, 5, 1.0), update(2, 0, 5, np.nan, applied=0), row(EPISODE, 2, 0, 0, 0, 9.0, 9)])
    )
    history = builder.build()
    assert history.episodes["updates"].tolist() == [1.0]
    assert history.episodes["env_steps"].tolist() == [10.0]


def test_rows_tell_what_was_not_logged_in_between():
    builder = HistoryBuilder(0.0)
    builder.add_rows(np.stack([update(1, 0, 5, 1.0), row(EPISODE, 2, 0, 50, 10, 9.0, 9)]))
    builder.add_rows(np.stack([row(UPDATE, 3, 1, 500, 100, *[0.0] * 12, 1.0)]))
    history = builder.build()
    assert history.updates["updates"].tolist() == [1.0, 111.0]
    assert history.updates["env_steps"].tolist() == [5.0, 555.0]
    assert (history.episodes["updates"], history.episodes["env_steps"]) == (11.0, 55.0)


def history_of(returns, first_s=0.0):
    builder = HistoryBuilder(first_s)
    builder.add_rows(np.stack([row(EPISODE, first_s + i, 0, 10, 0, r, 10) for i, r in enumerate(returns)]))
    return builder.build()


def test_workers_are_put_in_the_order_of_time():
    builder = HistoryBuilder(100.0)
    # Worker 0 reports 5 env steps at 1 s and 5 more at 3 s; worker 1 reports 7 at 2 s, with an episode that ended then.
    builder.add_rows(np.stack([update(101.0, 0, 5, 0.5), update(103.0, 0, 5, 0.25)]))
    builder.add_rows(np.stack([update(102.0, 1, 7, 0.125), row(EPISODE, 102.0, 1, 0, 0, 33.0, 7)]))
    history = builder.build()
    assert history.updates["wall_s"].tolist() == [1.0, 2.0, 3.0]
    assert history.updates["worker"].tolist() == [0.0, 1.0, 0.0]
    assert history.updates["env_steps"].tolist() == [5.0, 12.0, 17.0]
    assert history.updates["grad_norm"].tolist() == [0.5, 0.125, 0.25]
    assert {name: column.tolist() for name, column in history.episodes.items()} == {
        "wall_s": [2.0],
        "env_steps": [12.0],
        "updates": [2.0],
        "worker": [1.0],
        "episode_return": [33.0],
        "episode_length": [7.0],
    }
    assert history.train_s == 3.0


def test_a_resumed_run_counts_on():
    builder = HistoryBuilder(100.0, Position(total_timesteps=900, env_steps=500, updates=40, wall_s=7.0))
    builder.add_rows(np.stack([update(101.0, 0, 5, 0.5), row(EPISODE, 101.0, 0, 0, 0, 33.0, 7)]))
    builder.add_moment(102.0, {"staleness_sum": 0, "applied": 1, "env_steps": 505, "staleness_max": 0}, 0)
    history = builder.build()
    assert [history.updates[name].tolist() for name in ("wall_s", "env_steps")] == [[8.0], [505.0]]
    assert [history.episodes[name].tolist() for name in ("wall_s", "env_steps", "updates")] == [[8.0], [505.0], [41.0]]
    assert [history.moments[name].tolist() for name in ("wall_s", "env_steps", "updates")] == [[9.0], [505.0], [41.0]]
    assert history.train_s == 1.0


def test_an_empty_run():
    history = HistoryBuilder(0.0).build()
    assert len(history.episodes["wall_s"]) == len(history.updates["wall_s"]) == 0
    assert history.time_to(195.0) is None and np.isnan(history.final_return())


def test_time_to_solve_is_where_the_mean_of_the_window_reaches_the_threshold():
    history = history_of([0.0] * 100 + [200.0] * 100)
    # After k episodes of 200 the mean of the last 100 is 2k: 195 is reached by the 98th, which is episode 198.
    assert history.time_to(195.0) == {"env_steps": 1980.0, "wall_s": 197.0, "updates": 0.0, "episodes": 198.0}
    assert history.time_to(200.0)["episodes"] == 200.0
    assert history.time_to(200.5) is None


def test_fewer_episodes_than_the_window_solve_nothing():
    assert history_of([500.0] * 99).time_to(195.0) is None
    assert history_of([500.0] * 100).time_to(195.0)["episodes"] == 100.0
    assert history_of([1.0, 2.0]).final_return() == 1.5


def test_staleness_of_a_moment_is_that_of_the_updates_since_the_one_before():
    builder = HistoryBuilder(0.0)
    for wall_s, stale, applied in [(1.0, 6, 3), (2.0, 6, 3), (3.0, 16, 5)]:
        builder.add_moment(wall_s, {"staleness_sum": stale, "applied": applied, "env_steps": 10, "staleness_max": 9}, 0)
    moments = builder.build().moments
    assert moments["staleness_mean"][[0, 2]].tolist() == [2.0, 5.0] and np.isnan(moments["staleness_mean"][1])
    assert moments["updates"].tolist() == [3.0, 3.0, 5.0]


@pytest.mark.parametrize(("kind", "fits"), [(UPDATE, 13), (EPISODE, 2)])
def test_a_row_of_another_length_is_an_error(kind, fits):
    row(kind, 0.0, 0, 0, 0, *range(fits))
    for n in (fits - 1, fits + 1):
        with pytest.raises(ValueError, match=f"row: expected {fits} values, got {n}"):
            row(kind, 0.0, 0, 0, 0, *range(n))
