"""Every bad value is refused before anything starts, with the field, the value and the allowed range."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastac import A2C, A3C, A2CConfig, A3CConfig, Config, ConfigError
from fastac.config import scheduled, spec_of


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("n_steps", 0, "n_steps: expected >= 1 and <= 100000, got 0"),
        ("n_steps", 10**12, "n_steps: expected >= 1 and <= 100000, got 1000000000000"),
        ("max_episode_steps", 10**23, f"max_episode_steps: expected >= 1 and <= 1e+09, got {10**23}"),
        ("gamma", 1.5, "gamma: expected >= 0 and <= 1, got 1.5"),
        ("learning_rate", 0.0, "learning_rate: expected > 0, got 0.0"),
        ("learning_rate", float("nan"), "learning_rate: expected > 0, got nan"),
        ("learning_rate", float("inf"), "learning_rate: expected > 0, got inf"),
        ("alpha", 1.0, "alpha: expected >= 0 and < 1, got 1.0"),
        ("optimizer", "lion", "optimizer: expected one of sgd, rmsprop, adam, got 'lion'"),
        ("env", 5, "env: expected a str, got 5"),
        ("seed", -1, "seed: expected >= 0, got -1"),
        ("hidden_sizes", (64, 0), "hidden_sizes: expected >= 1 and <= 4096, got (64, 0)"),
        ("hidden_sizes", (64, 10**7), "hidden_sizes: expected >= 1 and <= 4096, got (64, 10000000)"),
        ("hidden_sizes", (), "hidden_sizes: expected 1 to 16 layers, got 0"),
        ("hidden_sizes", (4,) * 17, "hidden_sizes: expected 1 to 16 layers, got 17"),
        ("hidden_sizes", 64, "hidden_sizes: expected a tuple of whole numbers, got 64"),
        ("n_steps", 2.5, "n_steps: expected a whole number, got 2.5"),
        ("n_steps", True, "n_steps: expected a whole number, got True"),
        ("gamma", 10**400, "gamma: expected a float, got a number beyond its range"),
        ("gamma", "0.9", "gamma: expected a float, got '0.9'"),
        ("shared_trunk", 1, "shared_trunk: expected a bool, got 1"),
    ],
)
def test_refused(field, value, message):
    with pytest.raises(ConfigError) as caught:
        Config(**{field: value})
    assert str(caught.value) == message


def test_refused_by_each_algorithm():
    with pytest.raises(ConfigError, match="workers: expected >= 1 and <= 64, got 65"):
        A3CConfig(workers=65)
    with pytest.raises(ConfigError, match="update: expected one of lockfree, lock, queue, hogwild, got 'sync'"):
        A3CConfig(update="sync")
    with pytest.raises(ConfigError, match="on_worker_death: expected one of restart, continue, fail, got 'ignore'"):
        A3CConfig(on_worker_death="ignore")
    with pytest.raises(ConfigError, match="max_staleness: expected >= 0 and <= 1e\\+09, got -1"):
        A3CConfig(max_staleness=-1)
    assert A3CConfig().max_staleness is None and A3CConfig(max_staleness=0).max_staleness == 0
    with pytest.raises(ConfigError, match=r"delay_compensation: expected >= 0, got -1\.0"):
        A3CConfig(delay_compensation=-1)
    with pytest.raises(ConfigError, match=r"delay_compensation: expected 0 with v_trace, .*, got 2"):
        A3CConfig(delay_compensation=2, v_trace=True)
    for name, value in (("delay_compensation", 1.0), ("v_trace", True)):
        with pytest.raises(ConfigError, match=f"{name}: expected engine=native, .*, got torch"):
            A3CConfig(**{name: value}, engine="torch")
        with pytest.raises(ConfigError, match=f"record: expected False with {name}, .*, got True"):
            A3CConfig(**{name: value}, record=True)
        with pytest.raises(TypeError, match=name):
            A2CConfig(**{name: value})
    with pytest.raises(ConfigError, match="split: expected a divisor of n_envs=4, got 3"):
        A2CConfig(split=3)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("learing_rate", "did you mean learning_rate?"), ("Gamma", "did you mean gamma?"), ("zzz", "known are env, ")],
)
def test_an_unknown_name_tells_the_nearest(name, hint):
    for refuse in (lambda: A2CConfig.from_dict({name: 1.0}), lambda: A2C(**{name: 1.0}), lambda: A3C(**{name: 1.0})):
        with pytest.raises(ConfigError) as caught:
            refuse()
        assert str(caught.value).startswith(f"expected a known field, got {name}: {hint}")


def test_numpy_scalars_and_lists_are_taken():
    config = Config(n_steps=np.int32(5), gamma=1, hidden_sizes=[8, np.int64(9)], shared_trunk=np.bool_(False))
    assert (config.n_steps, config.gamma, config.hidden_sizes, config.shared_trunk) == (5, 1.0, (8, 9), False)
    assert [type(x) for x in (config.n_steps, config.gamma, config.shared_trunk)] == [int, float, bool]


@given(st.integers(1, 100), st.floats(0, 1), st.lists(st.integers(1, 9), min_size=1, max_size=3))
def test_dict_round_trip(n_steps, gamma, hidden_sizes):
    config = A3CConfig(n_steps=n_steps, gamma=gamma, hidden_sizes=tuple(hidden_sizes))
    assert A3CConfig.from_dict(config.to_dict()) == config


def test_every_field_is_declared():
    for config_type in (A2CConfig, A3CConfig):
        for field in dataclasses.fields(config_type):
            spec = spec_of(field)
            free = field.name in ("env", "env_kwargs", "log_std_init")  # any that there is
            assert spec.help and (spec.choices or str(field.type) == "bool" or free or spec.allowed())


def test_a_missing_seed_is_drawn_and_kept():
    first, second = Config().resolve_seed(), Config().resolve_seed()
    assert first.seed is not None and first.seed != second.seed
    assert first.resolve_seed() is first


def test_schedules():
    assert [scheduled("constant", 2.0, p) for p in (0.0, 0.5, 1.0)] == [2.0, 2.0, 2.0]
    assert [scheduled("linear", 2.0, p) for p in (0.0, 0.25, 1.0, 1.2)] == [2.0, 1.5, 0.0, 0.0]
