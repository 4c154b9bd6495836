"""The staleness of every update: in the log, in each worker's histogram, in the ledger; and the alarm."""

import warnings

import numpy as np
import pytest

import fastac
from fastac import _core
from fastac.errors import StalenessWarning
from fastac.metrics import Position
from fastac.normalization import Statistics
from fastac.progress import WaitingProgress
from fastac.shared import Ledger, observer_of
from fastac.spaces import CARTPOLE
from fastac.staleness import FROM, StalenessAlarm, histogram, p95
from fastac.updates import LocalRun

SMALL = {"n_steps": 4, "n_envs": 1, "hidden_sizes": (8,), "seed": 5, "workers": 3}


def counts_of(*staleness):
    """The histogram of these, by the plain rule."""
    counts = np.zeros(len(FROM), np.uint64)
    for s in staleness:
        counts[max(k for k in range(len(FROM)) if FROM[k] <= s)] += 1
    return counts


def applied(history, worker):
    its = (history.updates["worker"] == worker) & (history.updates["applied"] == 1)
    return history.updates["staleness"][its].astype(int).tolist()


def test_figures_by_hand():
    assert FROM[[0, 47, 48, 49, 50, 63]].tolist() == [0, 47, 48, 64, 96, 8192]
    counts = counts_of(*[0] * 19, 46)
    assert (p95(counts, 46), histogram(counts)) == (0, {0: 19, 46: 1})  # 19 of 20 are 95 %
    assert p95(counts_of(*[0] * 18, 33, 46), 46) == 33
    assert p95(counts_of(0, 70), 70) == 70 and p95(counts_of(0, 70, 90), 90) == 90  # both in 64 .. 95
    assert p95(counts_of(*[70] * 99, 100), 100) == 95
    assert p95(counts_of(20_000), 20_000) == 20_000 and p95(counts_of(), 0) == 0


@pytest.mark.parametrize(
    "options",
    [
        {"max_staleness": 1},
        {"max_staleness": 1, "backend": "process"},
        {"backend": "process"},
        {"update": "lock"},
        {"update": "queue"},
    ],
    ids=str,
)
def test_the_log_says_what_the_recorded_schedule_says(options):
    """From the schedule follows each gradient's staleness: applied before it, less those before its worker read."""
    model = fastac.A3C(**{**SMALL, "backend": "thread", "record": True, **options}).learn(4_000)
    (part,) = model.recording.parts
    entries = part.entries
    before = np.concatenate([[0], np.cumsum(entries["outcome"] == 0)])  # applied before the k-th
    expected = before[:-1] - before[entries["read_at"]]
    for worker in range(3):
        rows = model.history.updates["worker"] == worker
        its = entries["worker"] == worker
        told = model.history.updates["staleness"][rows]
        was_applied = entries["outcome"][its] == 0
        assert told[was_applied].tolist() == expected[its][was_applied].tolist()
        assert np.isnan(told[~was_applied]).all()
        assert model.history.updates["version_read"][rows].tolist() == before[entries["read_at"]][its].tolist()
        assert model.ledger.workers[worker].rejected_stale == (~was_applied).sum()
    assert model.ledger.staleness == histogram(counts_of(*expected[entries["outcome"] == 0]))


@pytest.mark.parametrize(
    ("update", "backend"),
    [*((update, "thread") for update in _core.UPDATE_SCHEMES), ("lockfree", "process"), ("hogwild", "process")],
)
def test_histograms_are_those_of_the_log(update, backend):
    model = fastac.A3C(**SMALL, backend=backend, update=update).learn(4_000)
    ledger = model.ledger
    assert sum(ledger.staleness.values()) == ledger.applied >= 1_000
    for worker, its in enumerate(ledger.workers):
        told = applied(model.history, worker)
        assert its.staleness == histogram(counts_of(*told))
        assert (its.worker, its.updates, its.env_steps) == (worker, len(told), 4 * len(told))
        assert its.staleness_max == max(told, default=0)
        assert its.staleness_mean == (np.mean(told) if told else 0.0)
        assert its.env_steps_per_s == its.env_steps / model.history.train_s
    assert sum(its.updates for its in ledger.workers) == ledger.applied
    assert ledger.staleness_mean <= 2.0  # each update makes two others' staler, at most


@pytest.mark.parametrize("engine", ["native", "torch"])
def test_one_worker_is_never_stale_and_norms_are_clipped(engine):
    options = {"n_steps": 4, "n_envs": 2, "hidden_sizes": (8,), "seed": 1, "engine": engine}
    model = fastac.A2C(**options, max_grad_norm=0.25).learn(400)
    updates = model.history.updates
    assert updates["staleness"].tolist() == [0.0] * 50 and model.ledger.staleness == {0: 50}
    assert len(model.ledger.workers) == 1 and model.ledger.workers[0].env_steps == 400
    norms = updates["grad_norm"]
    assert (norms > 0.25).any()
    np.testing.assert_allclose(updates["grad_norm_clipped"], np.minimum(norms, 0.25), rtol=1e-5)
    at_apply = fastac.A2C(**options, max_grad_norm=0.25, clip_at="apply").learn(400).history.updates
    np.testing.assert_allclose(at_apply["grad_norm_clipped"], at_apply["grad_norm"], rtol=1e-12)


def test_torch_workers_tell_theirs():
    model = fastac.A3C(**SMALL, engine="torch", backend="thread").learn(600)
    told = [s for worker in range(3) for s in applied(model.history, worker)]
    assert histogram(counts_of(*told)) == model.ledger.staleness


def test_what_a_killed_worker_left_is_counted():
    """Its last gradient is published and, by others, applied; whoever takes its seat counts it, or the ledger does."""
    region = _core.Region.create(workers=2, parameters=1, optimizer="sgd")
    observer, other = observer_of(region), _core.Session(region, 1)
    killed = _core.Session(region, 0)
    one = np.ones(1, np.float32)
    killed.push(one, version_read=0, env_steps=5, learning_rate=1.0)
    observer.reap(0)
    other.submit(one, version_read=0, env_steps=5, learning_rate=1.0)
    assert other.staleness == 1  # worker 0's comes first
    for heir in (None, _core.Session(region, 0)):
        ledger = Ledger.of(observer, "lockfree")
        assert [its.staleness for its in ledger.workers] == [{0: 1}, {1: 1}]
        assert [its.updates for its in ledger.workers] == [1, 1]
        assert heir is None or heir.staleness == 0


def tally(counts):
    return {"staleness": counts, "applied": int(counts.sum())}


def test_a_worker_far_behind_is_told_of_once_until_it_has_caught_up():
    alarm, fresh = StalenessAlarm(2), counts_of(*[1] * 500)
    slow = counts_of(*[20] * 99)
    alarm.look([tally(fresh), tally(slow)])  # too few to judge by
    slow += counts_of(*[20] * 10)
    with pytest.warns(
        StalenessWarning, match="worker 1 is far behind: half .* no. 109, .* 20 or more.* about 1.*inverse"
    ):
        alarm.look([tally(fresh), tally(slow)])
    slow = slow + counts_of(*[40] * 200)
    alarm.look([tally(fresh), tally(slow)])  # told of already
    slow = slow + counts_of(*[5] * 200)
    alarm.look([tally(fresh), tally(slow)])  # better, and not yet well
    slow = slow + counts_of(*[1] * 200)
    alarm.look([tally(fresh), tally(slow)])
    with pytest.warns(StalenessWarning, match="worker 1 "):
        alarm.look([tally(fresh), tally(slow + counts_of(*[9] * 100))])


def test_a_worker_that_was_stopped_or_shares_its_core_is_not_told_of():
    alarm = StalenessAlarm(4)
    stopped = counts_of(*[3] * 99, 1_000_000)
    in_turns = counts_of(*[0, 0, 500] * 200)  # three updates each time that it has the core
    at_the_limit = counts_of(*[16] * 100)
    alarm.look([tally(stopped), tally(in_turns), tally(at_the_limit), tally(counts_of())])


def test_a_run_warns_of_its_slow_worker():
    """Worker 1 reads, and worker 0 makes 20 updates before it submits; the parent looks as it does in every run."""
    config = fastac.A3CConfig(workers=2, hidden_sizes=(8,), seed=0)
    params = fastac.A3C(workers=2, hidden_sizes=(8,), seed=0).params
    with WaitingProgress(1, "", "", visible=False) as progress:
        run = LocalRun(
            config,
            params,
            np.zeros((_core.state_vectors(config.optimizer), len(params)), np.float32),
            0,
            workers=2,
            update="lockfree",
            progress=progress,
            begin=Position(10**9),
            statistics=Statistics.empty(config, CARTPOLE),
        )
        fast, slow = (_core.Session(run.region, w) for w in (0, 1))
        read, grad = np.empty_like(params), np.zeros_like(params)
        for _ in range(100):
            version, _ = slow.read(read)
            for _ in range(20):
                now, _ = fast.read(read)
                fast.submit(grad, version_read=now, env_steps=1, learning_rate=1e-3)
            slow.submit(grad, version_read=version, env_steps=1, learning_rate=1e-3)
            assert slow.staleness == 20
        run._next_alarm = 0.0  # the second is over
        with pytest.warns(StalenessWarning, match="worker 1 is far behind.* 20 or more"):
            run.tick(now=True)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ledger = run.close().ledger
    assert [its.staleness for its in ledger.workers] == [{0: 2000}, {20: 100}]
    assert ledger.staleness_mean == 2000 / 2100  # and no more than 1 is possible
