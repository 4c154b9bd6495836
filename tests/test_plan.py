"""`fastac plan`: the model is held to a simulation of the protocol, and its constants to the protocol's own code. No
time of this machine decides anything here."""

import dataclasses
import json
import pickle
import re

import numpy as np
import pytest
from click.testing import CliRunner
from clusters import Place, run_nodes, server_of, small_a3c, terms_of

from fastac import ConfigError
from fastac.cli import main
from fastac.cli import plan as command
from fastac.cluster import measure
from fastac.cluster.advice import advice
from fastac.cluster.messages import SENDS, SYNCHRONOUS
from fastac.cluster.node import POLL_S, most_lag
from fastac.cluster.plan import OVERHEAD_BYTES, ROW_BYTES, Figures, held_from, plan, saturated_from
from fastac.cluster.simulate import simulate

MEASURED = ["env_steps_per_s", "exchanges_per_s", "period_s", "at_work", "server_use", "link_use"]
MOST = 60  # nodes that are simulated
STALENESS = ["staleness_inside", "staleness_between"]


def figures(**changes):
    values = {
        "parameters": 4675,
        "workers": 2,
        "update_s": 0.01,
        "env_steps_per_update": 32,
        "latency_s": 0.0002,
        "bandwidth_bytes_per_s": 125e6,
        "server_fixed_s": 0.0008,
    }
    return Figures(**{**values, **changes})


CASES = {
    "a server": {},
    "a slow server": {"server_fixed_s": 0.005},
    "gradients": {"send": "gradients", "server_fixed_s": 0.005},
    "bytes that cost": {"server_byte_s": 2e-7},
    "far away": {"latency_s": 0.05},
    "later than the lag limit": {"latency_s": 0.2},
    "often": {"sync_s": 0.001, "latency_s": 0.0},
    "seldom": {"sync_s": 0.2, "server_fixed_s": 0.008},
    "a thin link": {"bandwidth_bytes_per_s": 2e6},
    "a log that fills the link": {"bandwidth_bytes_per_s": 2e6, "update_s": 0.002, "parameters": 100},
}


def ratios(its, nodes, names, **options):
    (expected,) = plan(its, [nodes])
    duration_s = max(4.0, 15 * expected.period_s)
    played = simulate(its, nodes, duration_s=duration_s, **options)
    pairs = {name: (getattr(played, name), getattr(expected, name)) for name in names}
    return {name: got / want if want else 1.0 + got for name, (got, want) in pairs.items()}


# ---- the model against the simulation -------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_the_plan_is_what_a_simulation_does(case):
    """From one node to far beyond saturation; near the knee, where queues come and go, less closely."""
    its = figures(**CASES[case])
    knee = saturated_from(its)
    for nodes in sorted({1, 3, min(knee // 2, MOST), min(knee, MOST), MOST}):
        tolerance = 0.25 if 0.8 * knee <= nodes <= 1.25 * knee else 0.1
        for name, ratio in ratios(its, nodes, MEASURED + STALENESS, seed=nodes).items():
            assert ratio == pytest.approx(1.0, abs=tolerance), (nodes, name)


@pytest.mark.parametrize("case", ["a slow server", "a thin link", "later than the lag limit"])
def test_whether_updates_take_equally_long_does_not_matter(case):
    its = figures(**CASES[case])
    for nodes in (1, 10, MOST):
        for name, ratio in ratios(its, nodes, MEASURED, constant_updates=True).items():
            assert ratio == pytest.approx(1.0, abs=0.1), (nodes, name)


@pytest.mark.parametrize(
    "changes",
    [{}, {"bandwidth_bytes_per_s": 2e6}, {"latency_s": 0.02}, {"server_fixed_s": 0.01}, {"server_fixed_s": 1e-5}],
    ids=str,
)
def test_rounds_are_what_a_simulation_of_equal_nodes_does(changes):
    its = figures(send=SYNCHRONOUS, update_s=0.02, **changes)
    for nodes in (1, 2, 8, 40, 100, 400):
        for name, ratio in ratios(its, nodes, MEASURED, constant_updates=True).items():
            assert ratio == pytest.approx(1.0, abs=0.1), (nodes, name)


def test_rounds_of_nodes_that_are_not_equal_are_slower_than_planned():
    its = figures(send=SYNCHRONOUS, update_s=0.02)
    assert ratios(its, 10, ["env_steps_per_s"])["env_steps_per_s"] < 0.6


def test_a_simulation_is_of_its_seed():
    its = figures()
    one, same, other = (simulate(its, 3, duration_s=2.0, seed=seed) for seed in (1, 1, 2))
    assert one == same != other


# ---- the model by hand ----------------------------------------------------------------------------------------


def test_one_node_alone():
    (its,) = plan(figures(), [1])
    assert its.env_steps_per_s == pytest.approx(2 / 0.01 * 32)
    assert its.period_s == pytest.approx(0.02 + POLL_S / 2)
    assert (its.at_work, its.staleness_inside, its.staleness_between, its.bottleneck) == (1.0, 1, 0, "workers")


def test_beyond_saturation_the_server_sets_the_period_and_workers_go_on():
    its = figures(server_fixed_s=0.005)
    assert saturated_from(its) == 5  # of 21 ms
    (ten,) = plan(its, [10])
    assert ten.period_s == pytest.approx(10 * 0.005) and ten.server_use == pytest.approx(1.0)
    assert ten.at_work == 1.0 and ten.env_steps_per_s == pytest.approx(10 * 200 * 32)
    assert ten.staleness_between == pytest.approx(9 * 200 * 0.05)
    assert ten.bottleneck == "server"


def test_once_workers_are_held_more_nodes_bring_nothing():
    its = figures(server_fixed_s=0.005)
    assert its.lag_s == 0.25 and held_from(its) == 51
    at, twice, ten_times = plan(its, [51, 102, 510])
    assert at.env_steps_per_s == pytest.approx(twice.env_steps_per_s, rel=0.05)
    assert twice.env_steps_per_s == pytest.approx(ten_times.env_steps_per_s)
    assert ten_times.at_work == pytest.approx(0.25 / (510 * 0.005))


def test_a_round_by_hand():
    its = figures(send=SYNCHRONOUS, update_s=0.02, latency_s=0.001, server_fixed_s=0.004)
    few, many = plan(its, [3, 100])
    way_s = 2 * its.link_s()
    assert few.period_s == pytest.approx(0.02 + 2 * 0.001 + way_s + 0.004 + 2 * 0.002)
    assert many.period_s == pytest.approx(100 * 0.004) and many.server_use == pytest.approx(1.0)
    assert (few.bottleneck, many.bottleneck) == ("workers", "server")


@pytest.mark.parametrize(
    ("changes", "nodes", "bottleneck"),
    [
        ({}, 1, "workers"),
        ({}, 100, "server"),
        ({"latency_s": 0.05}, 1, "latency"),
        ({"server_fixed_s": 0.05}, 1, "server"),
        ({"bandwidth_bytes_per_s": 5e5}, 1, "network"),
        ({"bandwidth_bytes_per_s": 5e6}, 100, "network"),
        ({"send": SYNCHRONOUS}, 1, "workers"),
        ({"send": SYNCHRONOUS, "latency_s": 0.05}, 1, "latency"),
        ({"send": SYNCHRONOUS, "bandwidth_bytes_per_s": 5e6}, 100, "network"),
        ({"send": SYNCHRONOUS}, 100, "server"),
    ],
)
def test_bottlenecks_have_names(changes, nodes, bottleneck):
    (its,) = plan(figures(**changes), [nodes])
    assert its.bottleneck == bottleneck


@pytest.mark.parametrize("case", CASES)
def test_saturation_and_holding_begin_where_it_is_said(case):
    its = figures(**CASES[case])
    knee, held = saturated_from(its), held_from(its)
    before, at = plan(its, [knee - 1, knee])
    assert before.period_s == pytest.approx(plan(its, [1])[0].period_s, rel=1e-6) and at.period_s > before.period_s
    assert at.bottleneck in ("server", "network")
    assert plan(its, [held])[0].at_work < 1.0
    assert held == 1 or plan(its, [held - 1])[0].at_work == pytest.approx(1.0)


def test_a_round_is_half_work_where_it_is_said():
    its = figures(send=SYNCHRONOUS, update_s=0.05)
    knee = saturated_from(its)
    before, at = plan(its, [knee - 1, knee])
    assert before.at_work >= 0.5 > at.at_work
    assert saturated_from(dataclasses.replace(its, latency_s=1.0)) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"workers": 0}, "workers: expected a number > 0, got 0"),
        ({"latency_s": -1.0}, "latency_s: expected a number >= 0, got -1.0"),
        ({"update_s": float("nan")}, "update_s: expected a number > 0, got nan"),
        ({"send": "all"}, "send: expected one of steps, gradients, round, got 'all'"),
    ],
)
def test_figures_that_are_none(changes, message):
    with pytest.raises(ConfigError) as error:
        figures(**changes)
    assert str(error.value) == message


# ---- advice ---------------------------------------------------------------------------------------------------


def test_advice_before_saturation():
    assert advice(figures(), 10) == (
        "All workers stay at work; from 27 nodes on exchanges would queue for the server's processor."
    )


def test_the_sync_ms_that_is_advised_carries_the_nodes():
    its = figures(server_fixed_s=0.005)
    sentence = advice(its, 200)
    assert "From 5 nodes on" in sentence and "from 51 on workers are held" in sentence
    assert "sync_ms=1000 for 200 nodes, or at most 4 nodes." in sentence
    longer = dataclasses.replace(its, sync_s=1.0)
    assert saturated_from(longer) > 200 and plan(longer, [200])[0].at_work == 1.0


def test_advice_where_workers_are_not_held_yet():
    sentence = advice(figures(server_fixed_s=0.005), 20)
    assert sentence.startswith(
        "From 5 nodes on exchanges queue for the server's processor; workers stay at work with fewer"
    )
    assert "than 51, but" in sentence and "sync_ms=100 for 20 nodes" in sentence


def test_a_wait_that_one_node_has_is_told():
    its = figures(latency_s=0.2)
    sentence = advice(its, 4)
    assert sentence.startswith("Workers are held, however few nodes") and "sync_ms=41 " in sentence
    assert plan(dataclasses.replace(its, sync_s=0.041), [1])[0].at_work == 1.0


def test_shards_are_advised_where_bytes_cost_and_rollouts_where_the_log_does():
    parameters = figures(parameters=2**22, bandwidth_bytes_per_s=1e9)
    assert "most_shard_mb=4, for 4 shards" in advice(parameters, 100)
    log = figures(**CASES["a log that fills the link"])
    assert "longer rollouts, as 192 bytes of log" in advice(log, 100) and "sync_ms" not in advice(log, 100)
    assert "shard" not in advice(figures(), 100)


def test_advice_for_rounds():
    its = figures(send=SYNCHRONOUS, update_s=0.05)
    assert advice(its, 4) == "More than half of a round is work; with 123 nodes it would be less."
    assert "the server's processor that takes longest" in advice(its, 500) and "40,000 env steps" in advice(its, 500)


# ---- the figures against the protocol -------------------------------------------------------------------------


def test_what_a_delivery_carries_beside_parameters_is_in_the_model():
    """A row of the log for each update, and books that fit into the overhead."""
    model = small_a3c(workers=2)
    terms = terms_of(model)
    place = Place(server_of(terms, model))
    sizes = []
    deliver = place.server.deliver

    def weighed(delivery):
        rest = dataclasses.replace(delivery, values=None, rows=np.zeros(0))
        sizes.append((delivery.books.applied, len(delivery.rows), delivery.rows.nbytes, len(pickle.dumps(rest))))
        return deliver(delivery)

    place.server.deliver = weighed
    ends = run_nodes(place, terms, model)
    applied = sum(end.books.applied for end in ends)
    rows = sum(n for _, n, _, _ in sizes)
    assert applied <= rows <= 2 * applied  # and one for each episode
    assert all(nbytes == n * ROW_BYTES for _, n, nbytes, _ in sizes)
    with_state = 4 * len(model.params)  # of the optimizer, once a second: left out
    assert min(size for *_, size in sizes) <= OVERHEAD_BYTES
    assert max(size for *_, size in sizes) <= OVERHEAD_BYTES + with_state


def test_the_lag_limit_is_the_nodes():
    assert figures().lag_s == most_lag(0.02) == 0.25 and figures(sync_s=0.1).lag_s == most_lag(0.1) == 1.0


@pytest.mark.parametrize("send", [*SENDS, SYNCHRONOUS])
def test_what_is_measured_makes_figures(send, monkeypatch):
    monkeypatch.setattr(measure, "_SHORTEST_S", 0.001)
    monkeypatch.setattr(measure, "_TRAINING_S", 0.001)
    its = measure.measure(parameters=1000, workers=2, env_steps_per_update=8, send=send)
    assert its.update_s > 0 and its.server_fixed_s > measure.RAY_CALL_S
    assert its.server_byte_s >= measure.RAY_BYTE_S
    assert (its.parameters, its.workers, its.env_steps_per_update, its.send) == (1000, 2, 8, send)


def test_what_is_given_is_not_measured(monkeypatch):
    monkeypatch.setattr(measure, "_each_s", None)
    its = measure.measure(update_s=0.5, server_s=0.25)
    assert (its.update_s, its.server_s) == (0.5, 0.25)


def test_a_policy_that_is_too_large_to_be_measured():
    with pytest.raises(ConfigError, match=r"update_ms: expected a number with more than 16,814,083 parameters"):
        measure.measure(parameters=10**8, server_s=0.1)


# ---- the command ----------------------------------------------------------------------------------------------

GIVEN = ["--update-ms", "10", "--server-ms", "0.8", "--workers-per-node", "2", "--nodes", "1,100"]


def invoke(*words):
    return CliRunner().invoke(main, ["plan", *words])


def test_the_table_tells_what_the_model_says(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    result = invoke(*GIVEN, "--latency-ms", "0.2")
    rows = [re.split(r"[\s│┃]+", line.strip("│┃ ")) for line in result.output.splitlines()]
    assert result.exit_code == 0
    assert ["nodes", "per", "s", "work", "per", "s", "ms", "server", "link", "between", "neck"] in rows
    assert ["1", "6,400", "100%", "48", "21.0", "4%", "1%", "0", "workers"] in rows
    assert ["100", "640,000", "100%", "1,250", "80.0", "100%", "26%", "1,584", "server"] in rows
    assert "staleness inside a node: 1 on average" in result.output
    assert advice(figures(), 100) in result.output


def test_json():
    result = invoke(*GIVEN, "--latency-ms", "0.2", "--json")
    record = json.loads(result.output)
    assert record["figures"] == dataclasses.asdict(figures()) | {"server_s": 8e-4, "updates_per_s": 200, "lag_s": 0.25}
    assert [its["nodes"] for its in record["outcomes"]] == [1, 100]
    assert record["outcomes"][1]["bottleneck"] == "server" and record["advice"] == advice(figures(), 100)


@pytest.mark.parametrize(
    "words",
    [["--nodes", "0"], ["--update-ms", "0"], ["--latency-ms", "inf"], ["--send", "all"], ["--parameters", "100000000"]],
    ids=" ".join,
)
def test_wrong_values_are_usage_errors(words):
    assert invoke("--server-ms", "1", *words).exit_code == 2


def test_choices_and_defaults_of_the_options_are_those_of_the_library():
    """They are written down there, so that `fastac plan --help` imports little."""
    defaults = {option.name: option.default for option in command.plan.params}
    assert (*SENDS, SYNCHRONOUS) == command._SENDS
    assert defaults["parameters"] == measure.PARAMETERS
    assert defaults["latency_ms"] / 1000 == measure.LATENCY_S
    assert defaults["bandwidth_mbit"] * 1e6 / 8 == measure.BANDWIDTH_BYTES_PER_S
