"""The verbs of a session under the boundary gate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from boundary_calls import Caller, failed
from boundary_sessions import UINT64, Holder, Place, Sessions
from boundary_values import Draw

from fastac import _core

FUTURE = 100  # beyond what all that is pending could make of it
FLAGS = ("seat", "go", "stop_requested")


class Verbs:
    """Every verb with arguments of every kind, on sessions that are open, closed, or have lost their seat."""

    def __init__(self, call: Caller, sessions: Sessions) -> None:
        self.call = call
        self.sessions = sessions

    def worker(self, d: Draw) -> tuple[Place, Holder, Any]:
        """Somebody, and what a worker's verb must raise of it."""
        place, h = self.sessions.someone(d)
        raises = self.sessions.refusal(h)
        if not h.closed and h.seat >= place.workers:
            raises = (RuntimeError,)
        return place, h, raises

    def initialize(self, d: Draw) -> None:
        place, h = self.sessions.someone(d)
        params = d.gradient(place.parameters)
        params[~np.isfinite(params)] = 0
        array, a = d.array("f4", params.shape, params)
        state, b = d.array("f4", (place.states, place.parameters), 0.5)
        b = b or state is None
        version, c = d.choice([(0, True), (7, True), (2**48 - 2, True), (2**63, True), (-1, False), (2**64, False)])
        env_steps, e = d.integer(0, 100, 2**64 - 1)
        begun = RuntimeError if any(place.published) else ()
        fits = a and b and c and e
        raises = self.sessions.refusal(h) or (begun if fits else ())
        arguments = (array, state, version, env_steps)
        if not failed(self.call(h.session.initialize, *arguments, fits=fits, raises=raises)):
            place.version = version
            place.expected = np.asarray(array, np.float64).copy()

    def read(self, d: Draw) -> None:
        place, h = self.sessions.someone(d)
        out, fits = d.array("f4", (place.parameters,), 99.0, write=True)
        self.call(h.session.read, out, fits=fits, raises=self.sessions.refusal(h))

    def tag(self, d: Draw, place: Place, h: Holder) -> tuple[dict[str, Any], bool]:
        """version_read, env_steps, learning_rate: of what is current, or wrong."""
        version = place.version
        if not self.sessions.refusal(h):
            version = self.call(h.session.snapshot)["version"]
        version_read, a = d.choice(
            [(version, True), ((version - 1) % UINT64, True), (version + FUTURE, False), (None, False), (-1, False)]
        )
        if self.sessions.refusal(h) and version_read == version + FUTURE:
            a = True  # nobody knows
        env_steps, b = d.integer(0, 100, 2**64 - 1)
        rate, c = (1.0, True) if place.plain else d.real(-1.0, 1.0)
        if d.random() < 0.1:
            rate, c = d.choice([None, np.nan, np.inf]), False
        return {"version_read": version_read, "env_steps": env_steps, "learning_rate": rate}, a and b and c

    def publish(self, place: Place, h: Holder, verb: Callable[[], Any], grads: Callable[[int], np.ndarray]) -> Any:
        """Calls; what was published by it, one gradient for each number, is added to the books."""
        outcome = verb()
        if h.closed or h.seat >= place.workers:
            return outcome, 0
        w = h.seat
        published = self.call(h.session.published, w)
        for number in range(place.published[w], published):
            grad = grads(number)
            if np.isfinite(grad).all():
                place.expected -= grad
        more = published - place.published[w]
        place.published[w] = published
        return outcome, more

    def submit(self, d: Draw) -> None:
        place, h, raises = self.worker(d)
        grad = d.gradient(place.parameters)
        array, a = d.array("f4", grad.shape, grad)
        tag, b = self.tag(d, place, h)
        n_summed, c = d.integer(1, 5, 2**32 - 1)
        may = _core.WaitTimeout if place.scheme == "queue" else ()
        fits = a and b and c

        def verb() -> Any:
            return self.call(h.session.submit, array, **tag, n_summed=n_summed, fits=fits, raises=raises, may=may)

        outcome, more = self.publish(place, h, verb, lambda _: np.asarray(array))
        waited = isinstance(outcome, _core.WaitTimeout) or outcome == "stopped"
        assert more == (not failed(outcome)) or (waited and more <= 1), f"{outcome!r}, but {more} more published"
        if not waited and not failed(outcome):
            finite = bool(np.isfinite(array).all())
            assert outcome == ("applied" if finite else "rejected_nonfinite") or (finite and not place.plain), outcome

    def push(self, d: Draw) -> None:
        place, h, raises = self.worker(d)
        grad = d.gradient(place.parameters)
        array, a = d.array("f4", grad.shape, grad)
        tag, b = self.tag(d, place, h)
        if place.scheme == "hogwild" and not h.closed:
            raises = (RuntimeError,)

        def verb() -> Any:
            return self.call(h.session.push, array, **tag, fits=a and b, raises=raises)

        outcome, more = self.publish(place, h, verb, lambda _: np.asarray(array))
        assert more == (isinstance(outcome, int)), f"{outcome!r}, but {more} more published"
        assert not more or outcome == place.published[h.seat]

    def settle(self, d: Draw) -> None:
        place, h, raises = self.worker(d)
        published = place.published[h.seat] if h.seat < place.workers else 0
        sequence = (published + d.choice([0, 0, 0, -1, 1, -place.slots, -2])) % UINT64
        fits = (published - sequence) % UINT64 < place.slots
        if place.scheme == "hogwild" and fits and not raises:
            raises = (RuntimeError,)
        may = _core.WaitTimeout if place.scheme == "queue" else ()
        self.call(h.session.settle, sequence, fits=fits, raises=raises, may=may)

    def submit_many(self, d: Draw) -> None:
        place, h, raises = self.worker(d)
        k = d.randint(1, 3)
        rows = np.array([d.gradient(place.parameters) for _ in range(k)])
        array, a = d.array("f4", (k, place.parameters), rows)
        if not a and isinstance(array, np.ndarray) and array.ndim == 2:  # another number of rows is fine
            a = array.shape[1] == place.parameters and len(array) > 0 and array.dtype == np.float32
            a = a and array.dtype.isnative and array.flags.c_contiguous and array.flags.aligned
        n, b = d.choice([(0, True), (1, True), (4, True), (-1, False), (2**64, False), (None, False), (1.5, False)])
        rate, c = d.choice([(1.0, True), (1.0, True), (np.nan, False), (np.inf, False), (None, False)])
        may = _core.WaitTimeout if place.scheme == "queue" else ()
        if raises == (_core.SeatLost,) and (place.stopped or n == 0):  # it may end before it looks at its seat
            raises, may = (), raises

        def verb() -> Any:
            return self.call(h.session.submit_many, array, n, rate, fits=a and b and c, raises=raises, may=may)

        outcome, more = self.publish(place, h, verb, lambda number: array[number % len(array)])
        assert failed(outcome) or place.stopped or more == n, f"{outcome!r} after {more} of {n}"
        assert not isinstance(outcome, TypeError | ValueError) or more == 0

    def log(self, d: Draw) -> None:
        place, h, raises = self.worker(d)
        number = d.random()
        row, fits = d.array("f8", (_core.LOG_COLUMNS,), number)
        logged = self.call(h.session.log, row, fits=fits, raises=raises)
        if not failed(logged):
            assert logged == (len(place.unread[h.seat]) < place.log_rows)
            if logged:
                place.unread[h.seat].append(float(np.asarray(row)[0]))

    def read_log(self, d: Draw) -> None:
        place, h = self.sessions.someone(d)
        w, fits = d.integer(0, place.workers - 1)
        raises = (_core.SessionClosed,) if h.closed else (RuntimeError,) if h.seat != place.workers else ()
        rows = self.call(h.session.read_log, w, fits=fits, raises=raises)
        if not failed(rows):
            assert rows.shape == (len(place.unread[w]), _core.LOG_COLUMNS) and rows[:, 0].tolist() == place.unread[w]
            place.unread[w] = []

    def statistics(self, d: Draw) -> None:
        place, h, raises = self.worker(d)
        values, fits = d.array("f8", (place.statistics,), d.random())
        if not failed(self.call(h.session.write_statistics, values, fits=fits, raises=raises)):
            place.told[h.seat] = np.asarray(values).tolist()
        place, h = self.sessions.someone(d)
        w, fits = d.integer(0, place.workers - 1)
        raises = (_core.SessionClosed,) if h.closed else ()
        got = self.call(h.session.statistics, w, fits=fits, raises=raises)
        assert failed(got) or got.tolist() == place.told[w]

    def serve(self, d: Draw) -> None:
        place, h = self.sessions.someone(d)
        raises = self.sessions.refusal(h)
        if d.random() < 0.5:
            self.call(h.session.drain, raises=raises)
        elif h.lost and not h.closed:
            self.call(h.session.serve, 1, raises=() if place.stopped else raises)
        else:
            duration, fits = d.choice([(0, True), (1, True), (2**32, False), (-1, False), (None, False)])
            self.call(h.session.serve, duration, fits=fits, raises=raises)

    def copy_record(self, d: Draw) -> None:
        place, h = self.sessions.someone(d)
        params, a = d.array("f4", (place.parameters,), 99.0, write=True)
        state, b = d.array("f4", (place.states, place.parameters), 99.0, write=True)
        record = self.call(h.session.copy_record, params, state, fits=a and b, raises=self.sessions.refusal(h))
        assert failed(record) or record["applied"] == record["staleness"].sum()

    def flags(self, d: Draw) -> None:
        place, h = self.sessions.someone(d)
        raises = (_core.SessionClosed,) if h.closed else ()
        for name in FLAGS:
            self.call(getattr, h.session, name, raises=raises)
        w, a = d.integer(0, place.workers - 1)
        published = self.call(h.session.published, w, fits=a, raises=raises)
        assert failed(published) or published == place.published[w]
        seat, b = d.integer(0, place.workers + 1)
        self.call(d.choice([h.session.heartbeat, h.session.incarnation]), seat, fits=b, raises=raises)
        self.call(h.session.beat, raises=self.sessions.refusal(h))

    def signal(self, d: Draw) -> None:
        place, h = self.sessions.someone(d)
        raises = self.sessions.refusal(h)
        self.call(h.session.give_go, raises=raises)
        if d.random() < 0.2 and not failed(self.call(h.session.request_stop, raises=raises)):
            place.stopped = True

    def balance(self, d: Draw) -> None:
        """The books balance, and nothing is missing from the parameters."""
        place, h = self.sessions.someone(d)
        raises = self.sessions.refusal(h)
        self.call(h.session.drain, raises=raises)
        ledger = self.call(h.session.ledger, raises=raises)
        if failed(ledger):
            return
        rejected = ledger["rejected_nonfinite"] + ledger["rejected_stale"]
        assert ledger["begun"] == ledger["published"] == sum(place.published) and ledger["aborted"] == 0, ledger
        assert ledger["published"] == ledger["applied"] + rejected and ledger["pending"] == 0, ledger
        assert ledger["version"] == (place.version + ledger["applied"]) % UINT64, ledger
        tallies = self.call(h.session.tallies, raises=raises)
        for name in ("applied", "merged", "rejected_nonfinite", "rejected_stale", "staleness_sum"):
            assert sum(tally[name] for tally in tallies) == ledger[name], name
        if place.plain:
            params = np.empty(place.parameters, np.float32)
            h.session.read(params)
            assert (params == place.expected).all(), f"parameters {params}, expected {place.expected}"
