"""Regions and sessions under the boundary gate, beside a model of what they must hold."""

from __future__ import annotations

import copy
import gc
import os
import pickle
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from boundary_calls import Caller, failed
from boundary_envs import OPTIMIZERS, SCHEMES, call_or_get
from boundary_values import Draw

from fastac import _core

NONCE = 2**63 + 11
HEADER_BYTES = 128
UINT64 = 2**64


@dataclass
class Holder:
    """A session and what is known of it."""

    session: _core.Session
    seat: int
    closed: bool = False
    lost: bool = False


@dataclass
class Place:
    """A region, its sessions, and the books that it must keep."""

    regions: list[_core.Region]  # mappings of it; may be empty while sessions go on
    workers: int
    parameters: int
    states: int
    scheme: str
    slots: int
    log_rows: int
    statistics: int
    plain: bool  # plain sgd: the parameters are what was there at the start, minus every gradient
    holders: list[Holder] = field(default_factory=list)
    stopped: bool = False
    version: int = 0
    published: list[int] = field(init=False)
    unread: list[list[float]] = field(init=False)
    told: list[list[float]] = field(init=False)  # statistics of each worker
    expected: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.published = [0] * self.workers
        self.unread = [[] for _ in range(self.workers)]
        self.told = [[0.0] * self.statistics for _ in range(self.workers)]
        self.expected = np.zeros(self.parameters)

    def taken(self, seat: int) -> Holder | None:
        return next((h for h in self.holders if h.seat == seat and not h.closed and not h.lost), None)


class Sessions:
    """Up to three regions."""

    def __init__(self, call: Caller) -> None:
        self.call = call
        self.places: list[Place] = []

    # ---- regions ----

    def create(self, d: Draw) -> None:
        (workers, a), (parameters, b) = d.integer(1, 3, 64), d.integer(1, d.choice([3, 20, 300]), 2**32 - 1)
        (scheme, c), (optimizer, e) = d.text(SCHEMES), d.text(OPTIMIZERS if d.random() < 0.4 else ("sgd",))
        options: dict[str, Any] = {"scheme": scheme, "optimizer": optimizer, "nonce": NONCE}
        options |= {"slots": d.choice([1, 2, 4]), "log_rows": d.choice([1, 4]), "wait_deadline_ms": d.randrange(2)}
        options["statistics"] = d.choice([0, 1, 7])
        extra = d.choice([{}, {}, {"max_staleness": 1}, {"staleness_lr": "inverse"}, {"max_grad_norm": 0.5}])
        wrong: dict[str, Any] = {}
        if d.random() < 0.2:
            wrong = d.choice(
                [
                    *({"slots": 3}, {"slots": 2**17}, {"log_rows": 0}, {"staleness_lr": "no"}, {"max_staleness": -1}),
                    *({"statistics": 2**22 + 1}, {"statistics": -1}, {"statistics": None}),
                    *({"alpha": None}, {"nonce": 2**64}, {"eps_inside_root": "no"}, {"lots": 1}, {"workers": 1.5}),
                ]
            )
        arguments = {"workers": workers, "parameters": parameters, **options, **extra, **wrong}
        # More than the memory that this process allows itself (RLIMIT_FSIZE) is refused by the system.
        too_much = OSError if b and parameters > 10_000 else ()
        fits = a and b and c and e and not wrong
        region = self.call(_core.Region.create, **arguments, fits=fits, raises=too_much if fits else ())
        if failed(region):
            return
        plain = optimizer == "sgd" and not extra
        states = _core.state_vectors(optimizer)
        sizes = (region.workers, region.parameters, states, scheme, options["slots"], options["log_rows"])
        sizes = (*sizes, options["statistics"])
        self.places = [*self.places[-2:], Place([region], *sizes, plain=plain)]

    def place(self, d: Draw) -> Place:
        if not self.places:
            region = _core.Region.create(workers=2, parameters=d.choice([1, 5, 300]), optimizer="sgd", nonce=NONCE)
            self.places.append(Place([region], 2, region.parameters, 0, "lockfree", 4, 1024, 0, plain=True))
        return d.choice(self.places)

    def attach(self, d: Draw) -> None:
        place = self.place(d)
        if not place.regions:
            return
        fd, good = place.regions[0].fd, True
        nonce, known = d.choice([(NONCE, True), (NONCE, True), (NONCE - 1, False), (0, False)])
        opened = -1
        pick = d.randrange(5)
        if pick == 0:
            fd, good = d.choice([-1, 10**6, 2**31 - 1]), False
        elif pick == 1:
            fd = opened = os.open(d.choice(["/dev/null", "/proc/self/exe", "/proc/self/maps", "/"]), os.O_RDONLY)
            good = False
        elif pick == 2:
            fd = opened = damaged_copy(d, fd)
            good = known = False
        elif pick == 3:
            fd, _ = d.choice([(None, 0), ("1", 0), (2**31, 0), (1.5, 0)])
            region = self.call(_core.Region.attach, fd, nonce, fits=False)
            return
        # A damaged copy may be whole where it counts.
        region = self.call(
            _core.Region.attach,
            fd,
            nonce,
            raises=() if (good and known) or pick == 2 else (RuntimeError, OSError),
            may=RuntimeError if pick == 2 else (),
        )
        if opened >= 0:
            os.close(opened)
        if not failed(region) and good:
            place.regions.append(region)
        del region

    def look(self, d: Draw) -> None:
        place = self.place(d)
        for region in place.regions:
            said = [self.call(getattr, region, name) for name in ("workers", "parameters", "state_vectors", "scheme")]
            assert said == [place.workers, place.parameters, place.states, place.scheme]
            assert self.call(getattr, region, "nonce") == NONCE
            assert self.call(getattr, region, "nbytes") == os.fstat(self.call(getattr, region, "fd")).st_size

    def forget(self, d: Draw) -> None:
        """A mapping goes, or a session that was not closed; the others go on."""
        place = self.place(d)
        chosen = place.regions if d.random() < 0.5 else place.holders
        if chosen:
            chosen.pop(d.randrange(len(chosen)))
        if not place.regions and not place.holders:
            self.places.remove(place)
        gc.collect(0)

    def never_made(self, d: Draw) -> None:
        kind, member = d.choice([(_core.Region, "fd"), (_core.Region, "scheme"), (_core.Session, "ledger")])
        self.call(lambda: call_or_get(kind.__new__(kind), member), raises=TypeError)
        self.call(_core.Session, kind.__new__(kind), 0, raises=(TypeError, RuntimeError))

    # ---- sessions ----

    def open(self, d: Draw) -> None:
        place = self.place(d)
        if not place.regions or len(place.holders) > 8:
            self.forget(d)
            return
        seats = place.workers + 2
        seat, fits = d.integer(0, seats - 1)
        if d.random() < 0.05:
            self.call(_core.Session, d.choice([None, 1, _core]), seat, fits=False)
        taken = fits and place.taken(int(seat)) is not None
        session = self.call(
            _core.Session, d.choice(place.regions), seat, fits=fits, raises=RuntimeError if taken else ()
        )
        if not failed(session):
            assert session.seat == seat
            place.holders.append(Holder(session, int(seat)))

    def someone(self, d: Draw) -> tuple[Place, Holder]:
        place = self.place(d)
        while not place.holders:
            if place.regions:
                place.holders.append(Holder(_core.Session(place.regions[0], 0), 0))
            else:
                self.places.remove(place)
                place = self.place(d)
        return place, d.choice(place.holders)

    def close(self, d: Draw) -> None:
        _, h = self.someone(d)
        self.call(h.session.close, raises=_core.SessionClosed if h.closed else ())
        h.closed = True

    def copies(self, d: Draw) -> None:
        place, h = self.someone(d)
        way = d.choice([copy.copy, copy.deepcopy, pickle.dumps, lambda x: pickle.dumps(x, 0)])
        self.call(way, d.choice([h.session, *place.regions]), raises=TypeError)

    def reap(self, d: Draw) -> None:
        place, h = self.someone(d)
        seat, fits = d.integer(0, place.workers + 1)
        raises = self.refusal(h)
        if not h.closed and h.seat != place.workers:
            raises = (RuntimeError,)
        if fits and seat == h.seat:
            raises = (*raises, ValueError)
        if not failed(self.call(h.session.reap, seat, fits=fits, raises=raises)) and (its := place.taken(int(seat))):
            its.lost = True

    @staticmethod
    def refusal(h: Holder) -> tuple[type[Exception], ...]:
        """What every verb of this session must raise, if any."""
        return (_core.SessionClosed,) if h.closed else (_core.SeatLost,) if h.lost else ()


def damaged_copy(d: Draw, fd: int) -> int:
    """A region of the same bytes, but for a few of its header or its length."""
    content = bytearray(os.pread(fd, os.fstat(fd).st_size, 0))
    for _ in range(d.randint(1, 3)):
        content[d.randrange(HEADER_BYTES)] = d.randrange(256)
    if d.random() < 0.3:
        content = content[: d.choice([0, 1, HEADER_BYTES, len(content) - 4096])]
    copied = os.memfd_create("damaged", os.MFD_ALLOW_SEALING)
    os.write(copied, content)
    if d.random() < 0.8:
        import fcntl

        fcntl.fcntl(copied, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    return copied
