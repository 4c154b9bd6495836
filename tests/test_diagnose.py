"""What a diagnosis measures: by hand, of gradients that are their own twins, by a second way. It changes nothing."""

import json
import math

import numpy as np
import pytest
from click.testing import CliRunner

import fastac
from fastac.cli import main
from fastac.groups import native_worker
from fastac.lab.diagnose import Diagnostics, cosine, every_of, spread_of, unclipped
from fastac.lab.diagnosis import diagnosis, sentences
from fastac.lab.replay import expect_equal, replay
from fastac.lab.statistics import in_blocks, mean_kl
from fastac.recording import ENTRY, Part, Recording

SMALL = {"n_steps": 8, "hidden_sizes": (16,), "seed": 11, "record": True, "backend": "thread"}


def in_turn(taus, updates, workers=2, **options):
    """A recording of workers in turn, each gradient as many updates late as `taus` says."""
    config = fastac.A3CConfig(**{**SMALL, "workers": workers, **options})
    model = fastac.A3C(**{**SMALL, "workers": workers, **options})
    entries = np.zeros(updates, ENTRY)
    entries["worker"] = np.arange(updates) % workers
    entries["read_at"] = np.maximum(np.arange(updates) - np.resize(taus, updates), 0)
    whole = updates * config.n_steps * config.n_envs
    return Recording(config, (Part(0, 0, 0, 0, whole, model.params, model.state, entries, "id"),))


def measured(recording, every=1):
    probe = Diagnostics(recording.config, every)
    return probe, replay(recording, probe=probe)


def test_by_hand():
    assert cosine(np.array([3.0, 4.0]), np.array([4.0, 3.0])) == pytest.approx(24 / 25)
    assert math.isnan(cosine(np.zeros(2), np.ones(2))) and math.isnan(cosine(np.array([np.inf, 1.0]), np.ones(2)))
    assert unclipped(np.array([0.6, 0.8], np.float32), 10.0) == pytest.approx([6.0, 8.0])
    # Mean (2, 2): deviations (2, -2) and (-2, 2), squares 8 and 8; |m|^2 = 8. At right angles: W - 1 = 1.
    assert spread_of([np.array([4.0, 0.0]), np.array([0.0, 4.0])]) == pytest.approx((1.0, 0.0))
    # Mean (2, 0): squares 1, 1, 0, mean 2/3; |m|^2 = 4.
    assert spread_of([np.array([1.0, 0.0]), np.array([3.0, 0.0]), np.array([2.0, 0.0])]) == pytest.approx((1 / 6, 1.0))
    assert all(map(math.isnan, spread_of([np.ones(3)])))
    p, q = np.array([[0.5, 0.5], [0.5, 0.5]], np.float32), np.array([[0.25, 0.75], [0.5, 0.5]], np.float32)
    assert mean_kl(p, q) == pytest.approx(0.5 * (0.5 * math.log(2.0) + 0.5 * math.log(2 / 3)))
    assert mean_kl(q, q) == 0.0
    assert mean_kl(np.array([[1.0, 0.0]], np.float32), p[:1]) == pytest.approx(math.log(2.0))


def test_intervals_of_blocks():
    assert math.isnan(in_blocks(np.arange(99.0), np.mean).low) and math.isnan(
        in_blocks(np.array([np.nan]), np.mean).value
    )
    estimate = in_blocks(np.resize([0.0, 1.0, 2.0, 3.0, np.nan], 500), np.mean)  # all blocks are alike
    assert (estimate.value, estimate.low, estimate.high) == (1.5, 1.5, 1.5)
    slow = in_blocks(np.repeat(np.arange(20.0), 10), np.mean)  # 20 different ones, not 200
    assert slow.value == 9.5 and slow.high - slow.low == pytest.approx(3.92 * 5.77 / math.sqrt(20), rel=0.2)


def test_one_worker_is_never_stale():
    model = fastac.A3C(**SMALL, workers=1).learn(1600)
    probe, replayed = measured(model.recording)
    expect_equal(replayed, model.params, model.state)
    table = probe.table()
    assert len(table["update"]) == 200 and (table["update"] == np.arange(1, 201)).all()
    assert (table["cosine"] == 1.0).all() and (table["kl"] == 0.0).all() and (table["staleness"] == 0).all()
    assert np.isnan(table["cosine_fresh"]).all() and np.isnan(table["spread"]).all()  # there is no other worker
    assert sentences(diagnosis("run", 200, 1, 8, table)) == ["No measured gradient was stale: each was its own twin."]


@pytest.mark.parametrize("backend", ["thread", "process"])
@pytest.mark.parametrize("update", ["lockfree", "lock", "queue"])
def test_it_changes_no_bit(update, backend):
    options = {**SMALL, "backend": backend, "update": update, "n_envs": 2, "ent_schedule": "linear", "max_staleness": 3}
    model = fastac.A3C(**options, workers=3).learn(6_000)
    probe, replayed = measured(model.recording)
    expect_equal(replayed, model.params, model.state)
    plain = replay(model.recording)
    assert replayed.episodes.tobytes() == plain.episodes.tobytes() and replayed.rejected == plain.rejected
    assert probe.updates == replayed.updates == len(probe.table()["update"])  # rejected ones are not measured


def test_against_a_second_way():
    """The twin of a stale gradient is the one of a replay that is fresh up to there; the other one likewise."""
    late = in_turn([0, 0, 0, 0, 0, 2], 6)  # only the last one is stale: everything before it is as if none were
    (row,) = [dict(zip(measured(late)[0].table(), values, strict=True)) for values in last_row(late)]
    assert (row["update"], row["env_steps"], row["worker"], row["staleness"]) == (6, 40, 1, 2)
    config = late.config
    fresh, stale = (_gradients(late, tau) for tau in (0, 2))
    assert row["cosine"] == cosine(stale["grad"], fresh["grad"]) != 1.0
    # Another worker's: worker 0's fourth rollout, with the parameters after five updates.
    other = native_worker(config, 0, config.n_envs)
    for params in (*fresh["params"][0:5:2], fresh["params"][5]):
        other.collect(params)
    grad = np.empty_like(fresh["grad"])
    other.gradient(grad, vf_coef=config.vf_coef, ent_coef=config.ent_coef, max_grad_norm=config.max_grad_norm)
    assert row["cosine_fresh"] == cosine(fresh["grad"], grad) and row["cosine_other"] == cosine(stale["grad"], grad)
    obs = stale["obs"].reshape(-1, 4)
    acted, now = (fastac.mlp.act(config, params, obs)[0] for params in (fresh["params"][3], fresh["params"][5]))
    assert row["kl"] == mean_kl(acted, now) > 0.0


def last_row(recording):
    table = measured(recording)[0].table()
    return [[column[-1] for column in table.values()]]


def _gradients(recording, tau):
    """Of worker 1's third rollout, the sixth gradient, read `tau` updates late; and the parameters of all versions."""
    config = recording.config
    params = [replay(recording, at=k).params for k in range(6)]
    worker = native_worker(config, config.n_envs, config.n_envs)
    for read in (params[1], params[3], params[5 - tau]):
        worker.collect(read)
    grad = np.empty_like(params[0])
    worker.gradient(grad, vf_coef=config.vf_coef, ent_coef=config.ent_coef, max_grad_norm=config.max_grad_norm)
    return {"grad": grad, "params": params, "obs": worker.rollout()["obs"]}


def test_some_of_many():
    recording = in_turn([0, 1, 3], 100)
    table = measured(recording, every=7)[0].table()
    assert (np.ceil(table["update"] / 7) == np.arange(1, len(table["update"]) + 1)).all()  # one of each seven
    assert len(table["update"]) in (14, 15) and set(table["worker"]) == {0, 1}  # not always the same worker's
    whole = measured(recording)[0].table()
    for name, column in table.items():
        np.testing.assert_array_equal(column, whole[name][table["update"].astype(int) - 1])
    assert [every_of(n) for n in (1, 5_000, 5_001, 100_000)] == [1, 1, 2, 20]


def test_rows_and_sentences():
    n = 400
    table = dict.fromkeys(("worker", "spread", "pairwise"), np.zeros(n))
    table |= {"update": np.arange(1.0, n + 1), "env_steps": 8.0 * np.arange(n), "staleness": np.resize([0.0, 4.0], n)}
    noise = np.resize([-0.01, 0.0, 0.01], n)
    late = table["staleness"] > 0
    table |= {"cosine": np.where(late, 0.9 + noise, 1.0), "cosine_fresh": 0.2 + noise, "kl": np.where(late, 0.01, 0.0)}
    table["cosine_other"] = table["cosine_fresh"] - np.where(late, 0.1 + noise, 0.0)
    its = diagnosis("run", n, 1, 8, table)
    assert [(cell.label, cell.n, cell.stale) for cell in its.stale] == [("0", 200, 0), ("3-4", 200, 200)]
    assert [cell.label for cell in its.parts][:2] == ["0 to 632", "640 to 1,272"] and len(its.parts) == 5
    zero, four = its.stale
    assert [cell.cosine.value for cell in (*its.parts, its.late)] == pytest.approx([0.9] * 6)
    assert (zero.cosine.value, four.cosine.value, four.kl.value) == (1.0, pytest.approx(0.9), 0.01)
    assert four.cost.value == pytest.approx(-0.1, abs=1e-4)
    told = sentences(its)
    assert any("Staleness 3-4: the applied gradient is closer to its fresh twin" in line for line in told)
    assert any("Staleness 3-4: it agrees worse with another worker's fresh gradient" in line for line in told)
    table["cosine_other"] = table["cosine_fresh"] + np.where(late, np.resize([-0.1, 0.0, 0.1, 0.0], n), 0.0)
    assert any("measurably better or worse" in line for line in sentences(diagnosis("run", n, 1, 8, table)))
    assert math.isnan(diagnosis("run", n, 1, 8, {**table, "staleness": np.zeros(n)}).parts[0].cosine.value)
    few = {name: column[:40] for name, column in table.items()}
    assert sentences(diagnosis("run", 40, 1, 8, few))[0].startswith("20 stale gradients measured: too few")
    assert ["--every 1" in sentences(diagnosis("run", 40, n, 8, few))[0] for n in (1, 2)] == [False, True]


KL = (("0", 0.0), ("3-4", 0.00125))


def test_the_command_and_the_page(tmp_path):
    def run(*arguments):
        return CliRunner().invoke(main, [str(argument) for argument in arguments])

    train = ("train", "a3c", "--n-steps", 8, "--hidden-sizes", 16, "--seed", 1, "--total-timesteps", 4000)
    assert run(*train, "--workers", 2, "--record", "--runs", tmp_path, "--name", "run").exit_code == 0
    folder = tmp_path / "run"
    told = run("replay", folder, "--diagnose")
    assert told.exit_code == 0, told.output
    assert "cosine to twin" in told.output and "equal to the last bit" in told.output
    record = json.loads((folder / "diagnose.json").read_text())
    rows = (folder / "diagnose.csv").read_text().splitlines()
    assert rows[0].startswith("update,env_steps,worker,staleness,cosine,")
    assert len(rows) - 1 == record["updates"] == record["measured"] == fastac.A3C.load(folder).version
    assert (folder / "diagnose.png").read_bytes().startswith(b"\x89PNG")
    assert run("report", folder).exit_code == 0
    assert "cosine to twin" in (folder / "report.html").read_text()
    cells = [
        record["stale"][0] | {"label": label, "n": 10, "kl": {"value": kl, "low": kl / 2, "high": 2 * kl}}
        for label, kl in KL
    ]
    (folder / "diagnose.json").write_text(json.dumps(record | {"stale": cells}))
    assert run("report", folder).exit_code == 0
    page = (folder / "report.html").read_text()
    assert "updated: 0 at 0, 0.00125 at 3-4." in page and ">0.002</text>" in page  # in words, and in the picture
    (folder / "diagnose.json").write_text("{")
    assert run("report", folder).exit_code == 0
    assert "diagnose.json is damaged" in (folder / "report.html").read_text()
    told = run("replay", folder, "--diagnose", "--at", 100, "--every", 10, "--out", tmp_path / "there")
    assert told.exit_code == 0 and "10 of 100 updates measured" in told.output, told.output
    assert len((tmp_path / "there/diagnose.csv").read_text().splitlines()) == 11
    for wrong in (("--every", 2), ("--diagnose", "--staleness", 0), ("--diagnose", "--at", 0)):
        told = run("replay", folder, *wrong)
        assert told.exit_code == 2 and "expected" in told.output


def test_what_was_measured_is_kept_when_it_is_interrupted(tmp_path, monkeypatch):
    fastac.A3C(**SMALL, workers=1).learn(800, checkpoint=tmp_path / "model.safetensors")
    after = Diagnostics.after

    def stop(self, turn, grad, norm):
        after(self, turn, grad, norm)
        if self.measured == 30:
            raise KeyboardInterrupt

    monkeypatch.setattr(Diagnostics, "after", stop)
    told = CliRunner().invoke(main, ["replay", str(tmp_path), "--diagnose"])
    assert told.exit_code == 130 and "stopped: 30 of 100 updates replayed" in told.output
    assert len((tmp_path / "diagnose.csv").read_text().splitlines()) == 31
    assert "last bit" not in told.output
