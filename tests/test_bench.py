"""Benchmarks: tests check what they compute; how long it took is theirs to say."""

import numpy as np
import pytest

from fastac._core import UPDATE_SCHEMES
from fastac.bench import env, peers, train, updates
from fastac.bench.rounds import Spread, interleave, ratio
from fastac.config import A2CConfig


def test_rounds_are_interleaved_after_a_warm_up():
    calls = []
    ticks = []
    cases = {"a": lambda: calls.append("a") or len(calls), "b": lambda: calls.append("b") or len(calls)}
    figures = interleave(cases, 2, lambda: ticks.append(len(calls)))
    assert ticks == [4, 6]
    assert calls == ["a", "b"] * 3 and figures == {"a": [3, 5], "b": [4, 6]}


def test_spread_and_ratio():
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(1.0, 2.0, 3.0)
    assert ratio([2.0, 9.0, 4.0], [1.0, 3.0, 4.0]) == Spread(1.0, 2.0, 3.0)
    assert Spread(1.0, 2.5, 1234.0).text(1) == "2.5\n[dim]1.0-1,234.0[/dim]"


def test_env():
    results = env.measure((1, 16), rounds=1, round_s=0.001, tick=lambda: None)
    assert list(results) == [1, 16]
    assert list(results[1]) == [env.RAW, env.NATIVE, "gymnasium sync", "gymnasium async", "gymnasium vector"]
    assert list(results[16]) == [env.RAW, env.NATIVE, "gymnasium sync", "gymnasium vector"]
    assert results[1][env.NATIVE]["times_slower_than_fastac"] == Spread(1.0, 1.0, 1.0)
    assert env.table(results).row_count == 9
    assert env.as_json(results)["16"][env.RAW]["ns_per_env_step"]["median"] > 0


def test_updates():
    results = updates.measure((1, 2), n_params=100, rounds=1, n_updates=50, tick=lambda: None)
    assert list(results) == [1, 2] and list(results[1]) == list(UPDATE_SCHEMES)
    for schemes in results.values():
        for scheme, figures in schemes.items():
            assert figures["updates_per_s"].median > 0
            if scheme != "hogwild":
                assert figures["lost"] == Spread(0.0, 0.0, 0.0)
    assert results[1]["hogwild"]["lost"].median == 0.0
    assert updates.table(results, 100).row_count == 8


@pytest.mark.parametrize("scheme", UPDATE_SCHEMES)
def test_what_is_missing_from_the_sum_is_called_lost(scheme, monkeypatch):
    """The measure itself: with one addition in four withheld from the parameters it says a quarter."""
    sessions = []
    original = updates.observer_of

    def watched(region):
        sessions.append(original(region))
        return sessions[-1]

    class Quarter:
        def __init__(self, session):
            self._session = session

        def __getattr__(self, name):
            return getattr(self._session, name)

        def read(self, params):
            answer = self._session.read(params)
            params *= 0.75
            return answer

    monkeypatch.setattr(updates, "observer_of", lambda region: Quarter(watched(region)))
    assert updates.one_round("sgd", scheme, 1, 10, 40)["lost"] == pytest.approx(0.25)


def test_train():
    setups = (train.Setup("A3C", 1, 5, (8,)), train.Setup("A2C", 2, 4, (8,)))
    ticks = []
    results = train.measure(setups, 2, 0.001, False, lambda: ticks.append(1))
    assert list(results) == ["A3C, 1 env, T = 5, 8", "A2C, 2 envs, T = 4, 8"] and len(ticks) == 4
    for cases in results.values():
        assert list(cases) == [train.NATIVE, "fastac, torch"]
        assert cases[train.NATIVE]["times_slower_than_native"] == Spread(1.0, 1.0, 1.0)
        assert all(spread.minimum > 0 for figures in cases.values() for spread in figures.values())
    assert train.table(results).row_count == 6
    assert train.as_json(results)["A2C, 2 envs, T = 4, 8"]["fastac, torch"]["env_steps_per_s"]["median"] > 0


def test_a_round_has_about_the_length_that_was_asked_for():
    asked = []

    def case(env_steps):
        asked.append(env_steps)
        return train.Pace(per_wall_s=100_000.0, per_cpu_s=1.0)

    assert train._env_steps_in(case, 2.0) == 200_000 == asked[-1]
    assert max(asked[:-1]) < 20_000


@pytest.mark.parametrize(("name", "package"), [("jax_a2c", "jax"), ("stable_baselines3", "stable_baselines3")])
def test_a_peer_that_is_not_installed_does_not_race(name, package, monkeypatch):
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda asked: None if asked == package else asked)
    assert getattr(peers, name)(A2CConfig(seed=0)) is None


def test_the_jax_peer_learns():
    jax = pytest.importorskip("jax")
    config = A2CConfig(seed=0)
    begin, update = peers._program(config)
    _, lengths = jax.jit(lambda state: jax.lax.scan(update, state, None, length=1024))(begin(jax.random.key(0)))
    lengths = np.asarray(lengths)
    assert lengths[lengths > 0][-100:].mean() > 400


def test_stable_baselines3_counts_its_env_steps():
    pytest.importorskip("stable_baselines3")
    assert peers.stable_baselines3(A2CConfig(seed=0, n_envs=2, n_steps=4))(100) == 104
