"""Nodes and server without Ray: nothing is lost or applied twice over a link that loses, repeats and delays, and one
node alone, or nodes in rounds, end with the bits of one machine."""

import dataclasses
import threading
import time

import numpy as np
import pytest
from clusters import (
    FATES,
    Chaos,
    ChaosLink,
    Place,
    begin_when_ready,
    run_nodes,
    server_of,
    small_a3c,
    task_of,
    terms_of,
)

import fastac
from fastac.cluster.books import Books
from fastac.cluster.courier import Courier, Patience, ServerLostError
from fastac.cluster.messages import Delivery, Hello, Refused, Unknown, fingerprint
from fastac.cluster.node import Node, take_part


def check_counts(report):
    its = report.books.counts
    lost = sum(report.lost.values())
    assert its["begun"] == its["published"] + its.get("aborted", 0)
    consumed = sum(its.get(name, 0) for name in ("applied", "rejected_nonfinite", "rejected_stale"))
    assert its["published"] == consumed + lost
    assert report.env_steps == its.get("env_steps", 0)


def check_books(report, deaths=False):
    check_counts(report)
    its = report.books.counts
    for name in ("applied", "env_steps"):
        tallied = sum(tally[name] for tally in report.tallies)
        # Of a node that did not come to its end they were read a moment later than the books.
        assert tallied >= its[name] if deaths else tallied == its[name]


def test_one_node_with_one_worker_trains_to_the_bits_of_one_machine():
    model, alone = small_a3c(), small_a3c()
    terms = terms_of(model, nodes=1)
    place = Place(server_of(terms, model))
    run_nodes(place, terms, model)
    alone.learn(terms.total_timesteps)
    state = place.server.checkpoint()
    assert np.array_equal(state.params, alone.params)
    assert np.array_equal(state.state, alone.state)
    assert (state.version, state.env_steps) == (alone.version, alone.num_timesteps)


@pytest.mark.parametrize("split", [1, 2])
def test_one_node_in_rounds_is_a2c(split):
    options = {"n_envs": 8, "split": split, "hidden_sizes": (8,), "seed": 5}
    model, alone = fastac.A2C(**options), fastac.A2C(**options)
    terms = terms_of(model, nodes=1, total_timesteps=10_000)
    place = Place(server_of(terms, model))
    run_nodes(place, terms, model)
    alone.learn(terms.total_timesteps)
    state = place.server.checkpoint()
    assert np.array_equal(state.params, alone.params)
    assert np.array_equal(state.state, alone.state)
    assert (state.version, state.env_steps) == (alone.version, alone.num_timesteps)


@pytest.mark.parametrize("optimizer", ["rmsprop", "adam"])
def test_two_nodes_in_rounds_end_with_the_bits_of_one_machine(optimizer):
    """Each has one block of 8 envs, and the mean of two is exact: the sum has the same order."""
    options = {"n_envs": 16, "hidden_sizes": (8,), "seed": 5, "optimizer": optimizer, "lr_schedule": "linear"}
    model, alone = fastac.A2C(**options), fastac.A2C(**options)
    terms = terms_of(model, nodes=2, total_timesteps=30_000)
    place = Place(server_of(terms, model))
    run_nodes(place, terms, model)
    alone.learn(terms.total_timesteps)
    state = place.server.checkpoint()
    assert np.array_equal(state.params, alone.params)
    assert np.array_equal(state.state, alone.state)
    assert (state.version, state.env_steps) == (alone.version, alone.num_timesteps)


@pytest.mark.parametrize("engine", ["native", "torch"])
def test_three_nodes_in_rounds_are_one_machine_to_1e_6(engine):
    """Where the order of the sum is another one, an update differs by rounding."""
    options = {"n_envs": 24, "hidden_sizes": (8,), "seed": 5, "engine": engine}
    model, alone = fastac.A2C(**options), fastac.A2C(**options)
    terms = terms_of(model, nodes=3, total_timesteps=24 * model.config.n_steps)
    place = Place(server_of(terms, model))
    run_nodes(place, terms, model)
    alone.learn(terms.total_timesteps)
    params = place.server.checkpoint().params
    assert place.server.checkpoint().version == alone.version == 1
    assert np.abs(params - alone.params).max() <= 1e-6 * np.abs(alone.params).max()
    assert not np.array_equal(params, model.params)


@pytest.mark.parametrize(("send", "update"), [("steps", "lockfree"), ("steps", "queue"), ("gradients", "lock")])
def test_nothing_is_lost_or_applied_twice_over_a_bad_link(send, update):
    model = small_a3c(update=update, workers=2)
    terms = terms_of(model, send=send, total_timesteps=200_000)
    place = Place(server_of(terms, model))
    chaos = [Chaos(0.1, 0.1, 0.1, 0.1, delay_s=0.02, seed=k) for k in range(2)]
    ends = run_nodes(place, terms, model, chaos, sync_s=0.001)
    report = place.server.report()
    check_books(report)
    assert report.env_steps >= terms.total_timesteps
    assert all(its.seen[fate] for its in chaos for fate in FATES)
    assert report.books.applied == sum(end.books.applied for end in ends)
    if send == "steps":
        assert report.version == report.books.applied


def test_rounds_over_a_bad_link_end_with_the_same_bits():
    options = {"n_envs": 16, "hidden_sizes": (8,), "seed": 6}
    model, alone = fastac.A2C(**options), fastac.A2C(**options)
    terms = terms_of(model, total_timesteps=10_000)
    place = Place(server_of(terms, model))
    run_nodes(place, terms, model, [Chaos(0.05, 0.05, 0.1, 0.05, seed=k) for k in range(2)])
    alone.learn(terms.total_timesteps)
    assert np.array_equal(place.server.checkpoint().params, alone.params)


def test_steps_of_two_nodes_add_up():
    """What the server has is what both have done: each one's differences, whatever was in between."""
    model = small_a3c()
    terms = terms_of(model)
    server = server_of(terms, model)
    expected = fingerprint(terms.config, terms.parameters)
    one, other = (server.join(Hello(f"node {k}", str(k), expected)) for k in range(2))
    server.begin()

    def books(applied):
        n = {"env_steps": 10 * applied, "applied": applied, "published": applied, "begun": applied, "aborted": 0}
        return Books({**n, "rejected_nonfinite": 0, "rejected_stale": 0})

    def rows():
        return np.zeros((0, fastac._core.LOG_COLUMNS))

    d1, d2 = np.float32(0.25), np.float32(-0.5)
    first = server.deliver(Delivery(one.member, 1, one.params + d1, books(3), rows()))
    assert np.array_equal(first.values, one.params + d1) and first.others_env_steps == 0
    second = server.deliver(Delivery(other.member, 1, other.params + d2, books(2), rows()))
    assert np.allclose(second.values, model.params + d1 + d2, atol=1e-6) and second.others_env_steps == 30
    shares = {share.name: share for share in server.report().nodes}
    assert shares["node 0"].staleness_mean == 0 and shares["node 1"].staleness_mean == 3  # of the 3 it had not seen
    # The same again is answered again, and changes nothing; one that comes out of its turn is refused.
    assert server.deliver(Delivery(other.member, 1, other.params + d2, books(2), rows())) is second
    with pytest.raises(Refused, match="expected delivery 2, got 3"):
        server.deliver(Delivery(other.member, 3, other.params, books(2), rows()))
    assert server.report().version == 5
    with pytest.raises(Unknown):
        server.deliver(Delivery(99, 1, other.params, books(2), rows()))


@pytest.mark.parametrize("field", ["fastac", "layout", "python", "parameters", "config.gamma"])
def test_another_version_or_configuration_is_refused(field):
    model = small_a3c()
    terms = terms_of(model)
    server = server_of(terms, model)
    theirs = {**fingerprint(terms.config, terms.parameters), field: "another"}
    with pytest.raises(Refused, match=f"node 0 does not fit: {field}: expected .*, got 'another'"):
        server.join(Hello("node 0", "a", theirs))


def test_a_node_that_was_given_up_is_refused_and_what_it_had_published_is_lost():
    model = small_a3c()
    terms = terms_of(model, nodes=1)
    server = server_of(terms, model)
    hello = Hello("node 0", "a", fingerprint(terms.config, terms.parameters))
    member = server.join(hello).member
    n = {"env_steps": 70, "applied": 7, "published": 9, "begun": 10, "aborted": 0}
    books = Books({**n, "rejected_nonfinite": 0, "rejected_stale": 0})
    server.deliver(Delivery(member, 1, model.params, books, np.zeros((0, fastac._core.LOG_COLUMNS))))
    assert server.give_up("a") == 2
    its = server.report()
    assert its.lost == {"node 0": 2} and its.books.counts["published"] == 9 and its.books.counts["begun"] == 9
    with pytest.raises(Unknown):
        server.deliver(Delivery(member, 2, model.params, books, np.zeros((0, fastac._core.LOG_COLUMNS))))
    with pytest.raises(Refused, match="taken for dead"):
        server.join(dataclasses.replace(hello, attempt=1))
    assert server.join(dataclasses.replace(hello, token="b")).joined == 1  # other random streams


@pytest.mark.parametrize("algorithm", ["a3c", "a2c"])
def test_a_server_that_dies_costs_what_came_after_its_checkpoint(algorithm):
    """Three times: the nodes find the next one, begin from its checkpoint, and tell what was lost."""
    model = small_a3c(workers=2) if algorithm == "a3c" else fastac.A2C(n_envs=4, hidden_sizes=(8,), seed=3)
    terms = terms_of(model, total_timesteps=3_000_000 if algorithm == "a3c" else 60_000)
    place = Place(server_of(terms, model))
    told = []

    def kill_it():
        for _ in range(3):
            saved = None
            until = time.monotonic() + 20
            while time.monotonic() < until:
                time.sleep(0.02)
                with place.lock:
                    saved = place.server.checkpoint()
                    if place.server.began and saved.env_steps > 100 + sum(told[-1:]):
                        break
            time.sleep(0.05)
            with place.lock:
                told.append(place.server.report().env_steps)
                place.server = None
            time.sleep(0.05)
            with place.lock:
                place.server = server_of(terms, model, saved)
                place.server.begin()
            told[-1] = saved.env_steps

    killer = threading.Thread(target=kill_it)
    killer.start()
    run_nodes(place, terms, model, sync_s=0.002)
    killer.join(60)
    report = place.server.report()
    assert report.env_steps >= terms.total_timesteps
    check_books(report, deaths=True)


def test_a_call_to_join_that_comes_twice_makes_one_member():
    model = small_a3c()
    terms = terms_of(model, nodes=1)
    server = server_of(terms, model)
    hello = Hello("node 0", "a", fingerprint(terms.config, terms.parameters))
    welcome = server.join(hello)
    assert server.join(hello) is welcome
    n = {"env_steps": 70, "applied": 7, "published": 7, "begun": 7, "aborted": 0}
    books = Books({**n, "rejected_nonfinite": 0, "rejected_stale": 0})
    delivery = Delivery(welcome.member, 1, model.params, books, np.zeros((0, fastac._core.LOG_COLUMNS)))
    answer = server.deliver(delivery)
    with pytest.raises(Refused, match="came late"):
        server.join(hello)
    assert server.deliver(delivery) is answer  # and is a member still
    again = server.join(dataclasses.replace(hello, attempt=1))
    assert again.member != welcome.member and again.env_steps == 70


def books_with(applied, published):
    n = {"env_steps": 10 * applied, "applied": applied, "published": published, "begun": published, "aborted": 0}
    return Books({**n, "rejected_nonfinite": 0, "rejected_stale": 0})


def no_rows():
    return np.zeros((0, fastac._core.LOG_COLUMNS))


def test_who_joins_again_at_a_living_server_leaves_nothing_pending():
    model = small_a3c()
    terms = terms_of(model, nodes=1)
    server = server_of(terms, model)
    hello = Hello("node 0", "a", fingerprint(terms.config, terms.parameters))
    member = server.join(hello).member
    server.deliver(Delivery(member, 1, model.params, books_with(7, 9), no_rows()))
    again = dataclasses.replace(hello, attempt=1, before=member, books=books_with(8, 9))  # one more, that nobody knows
    server.join(again)
    report = server.report()
    assert report.lost == {"node 0": 1}
    check_counts(report)


def test_a_last_delivery_whose_answer_is_lost_is_not_lost():
    model = small_a3c()
    terms = terms_of(model, nodes=1)
    server = server_of(terms, model)
    hello = Hello("node 0", "a", fingerprint(terms.config, terms.parameters))
    member = server.join(hello).member
    server.deliver(Delivery(member, 1, model.params, books_with(9, 9), no_rows(), last=True))
    server.join(dataclasses.replace(hello, attempt=1, before=member, books=books_with(9, 9)))
    report = server.report()
    assert report.lost == {"node 0": 0} and report.books.applied == 9
    check_counts(report)


def test_what_is_lost_is_counted_once_however_often_servers_die():
    model = small_a3c()
    terms = terms_of(model, nodes=1)
    first = server_of(terms, model)
    hello = Hello("node 0", "a", fingerprint(terms.config, terms.parameters))
    member = first.join(hello).member
    saved = first.checkpoint()
    again = dataclasses.replace(hello, attempt=1, before=member, books=books_with(50, 50))
    second = server_of(terms, model, saved)
    second.join(again)
    third = server_of(terms, model, second.checkpoint())
    third.join(again)  # the welcome of the second never arrived
    assert third.report().lost == {"node 0": 50}
    check_counts(third.report())


def test_a_report_that_does_not_arrive_is_told_again():
    model = small_a3c()
    terms = terms_of(model, nodes=1)
    server = server_of(terms, model)
    member = server.join(Hello("node 0", "a", fingerprint(terms.config, terms.parameters))).member
    rows = np.ones((2, fastac._core.LOG_COLUMNS))
    server.deliver(Delivery(member, 1, model.params, books_with(1, 1), rows, notes=("told",)))
    assert len(server.report(0).rows) == 2  # and is lost
    server.deliver(Delivery(member, 2, model.params, books_with(2, 2), rows, notes=("more",)))
    report = server.report(0)
    assert len(report.rows) == 4 and report.notes == ("node 0: told", "node 0: more")
    assert len(server.report(report.number).rows) == 0


@pytest.mark.parametrize("clip_at", ["worker", "apply"])
def test_rounds_clip_what_all_have_found_wherever_it_is_clipped(clip_at):
    options = {"n_envs": 16, "hidden_sizes": (8,), "seed": 5, "max_grad_norm": 1e-3, "clip_at": clip_at}
    model, alone = fastac.A2C(**options), fastac.A2C(**options)
    terms = terms_of(model, nodes=2, total_timesteps=5_000)
    place = Place(server_of(terms, model))
    run_nodes(place, terms, model)
    alone.learn(terms.total_timesteps)
    assert np.array_equal(place.server.checkpoint().params, alone.params)


def test_a_node_may_join_later():
    model = small_a3c()
    terms = terms_of(model, total_timesteps=100_000)
    place = Place(server_of(terms, model))
    ends = {}

    def run(slot):
        ends[slot] = take_part(task_of(terms, model, slot), ChaosLink(place), Node)

    first = threading.Thread(target=run, args=(0,))
    first.start()
    begin_when_ready(place, 1)
    second = threading.Thread(target=run, args=(1,))
    second.start()
    for thread in (first, second):
        thread.join(60)
    check_books(place.server.report())
    assert set(ends) == {0, 1}


def test_workers_wait_for_a_server_that_does_not_answer():
    """And go on when it does: what they would do meanwhile would be old by then."""
    model = small_a3c()
    terms = terms_of(model, nodes=1, total_timesteps=10**9)
    place = Place(server_of(terms, model))
    chaos = Chaos()
    seen = []  # (held, gradients begun), at each look

    class Watched(Node):
        def _tick(self):
            super()._tick()
            seen.append((self.observer.held, self.observer.ledger()["begun"]))

    run = threading.Thread(target=lambda: take_part(task_of(terms, model, 0), ChaosLink(place, chaos), Watched))
    run.start()
    begin_when_ready(place, 1)
    time.sleep(0.2)
    chaos.lost = 1.0
    while not seen[-1][0]:
        time.sleep(0.01)
    time.sleep(0.3)
    first, last = next(begun for held, begun in seen if held), seen[-1][1]
    assert seen[-1][0] and last - first <= 1  # the update that was under way
    chaos.lost = 0.0
    while seen[-1][1] < last + 100:
        time.sleep(0.01)
    assert not seen[-1][0]
    place.server.stop()
    run.join(60)
    assert not run.is_alive()
    check_books(place.server.report())


def test_a_server_whose_parameters_are_no_numbers_ends_the_nodes():
    model = small_a3c()
    terms = terms_of(model, nodes=1, total_timesteps=10**9)
    place = Place(server_of(terms, model))
    place.server.state.params[:] = np.inf
    place.server._vectors.params[:] = np.inf
    with pytest.raises(fastac.NonFiniteGradientError, match="NaN or infinity"):
        run_nodes(place, terms, model)


def test_a_courier_gives_up_after_its_retries():
    class Nobody:
        def call(self, verb, message):
            return self

        def done(self, wait_s):
            time.sleep(wait_s)
            return False

        def reconnect(self):
            """There seems to be somebody."""

    courier = Courier(Nobody(), Patience(deadline_s=0.01, retries=3))
    with pytest.raises(ServerLostError, match=r"no answer to deliver within 0.01 s, 4 times"):
        courier.ask("deliver", None)
    assert courier.retried == 3
    with pytest.raises(ServerLostError):
        task = dataclasses.replace(task_of(terms_of(small_a3c()), small_a3c(), 0), patience=Patience(0.01, 1, 0.2))
        take_part(task, Nobody(), Node)


def test_what_a_node_notes_is_told_by_the_server():
    model = small_a3c()
    terms = terms_of(model, nodes=1)
    place = Place(server_of(terms, model))
    notes = ["WorkerDeathWarning: worker 3 died"]
    thread = threading.Thread(target=lambda: take_part(task_of(terms, model, 0), ChaosLink(place), Node, notes))
    thread.start()
    begin_when_ready(place, 1)
    thread.join(60)
    assert place.server.report().notes == ("node 0: WorkerDeathWarning: worker 3 died",)
