"""The Python side of the shared region: what it refuses, and that no thread or process loses a gradient."""

from __future__ import annotations

import copy
import errno
import fcntl
import functools
import multiprocessing
import os
import pickle
import re
import resource
import struct
import subprocess
import sys
import threading
import time
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import region_worker

from fastac import _core

SCHEMES = ("lockfree", "lock", "queue", "hogwild")
NONCE = 2**63 + 11


def create(workers: int = 2, parameters: int = 5, **options: Any) -> _core.Region:
    options = {"optimizer": "sgd", "nonce": NONCE, **options}
    return _core.Region.create(workers=workers, parameters=parameters, **options)


def ones(n: int = 5) -> np.ndarray:
    return np.ones(n, np.float32)


TAG = {"version_read": 0, "env_steps": 1, "learning_rate": 1.0}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_version_and_env_steps_count_on(scheme: str) -> None:
    region = create(1, scheme=scheme)
    observer, worker = _core.Session(region, 1), _core.Session(region, 0)
    observer.initialize(ones(), version=7, env_steps=300)
    assert worker.read(ones()) == (7, 300)
    if scheme != "queue":  # there a learner would apply it
        worker.submit(ones(), version_read=7, env_steps=20, learning_rate=1.0)
        assert worker.read(ones()) == (8, 320) and observer.ledger()["applied"] == 1


# ---- what is refused -------------------------------------------------------------------------------------


def read_only() -> np.ndarray:
    array = ones()
    array.flags.writeable = False
    return array


def misaligned() -> np.ndarray:
    return np.frombuffer(bytearray(21), np.uint8)[1:].view(np.float32)


BAD_ARRAYS = [
    (np.ones(5), TypeError, "expected float32[5], got float64"),
    (np.ones(5, ">f4"), TypeError, "got >f4"),
    ([1.0] * 5, TypeError, "got list"),
    (None, TypeError, "got NoneType"),
    (ones(6), ValueError, "got shape [6]"),
    (ones(5).reshape(1, 5), ValueError, "got shape [1, 5]"),
    (np.array(1.0, np.float32), ValueError, "got shape []"),
    (ones(10)[::2], ValueError, "got an array that is not C-contiguous and aligned"),
    (ones(5)[::-1], ValueError, "got an array that is not C-contiguous and aligned"),
    (misaligned(), ValueError, "got an array that is not C-contiguous and aligned"),
]


@pytest.mark.parametrize(("array", "error", "words"), BAD_ARRAYS)
def test_arrays_are_checked(array: Any, error: type[Exception], words: str) -> None:
    region = create()
    worker = _core.Session(region, 0)
    state = np.empty((0, 5), np.float32)
    calls = {
        "grad": [
            lambda: worker.submit(array, **TAG),
            lambda: worker.push(array, **TAG),
        ],
        "params": [
            lambda: worker.read(array),
            lambda: worker.initialize(array),
            lambda: worker.copy_record(array, state),
        ],
    }
    for name, refused in calls.items():
        for call in refused:
            with pytest.raises(error, match="^" + name + ": .*" + re.escape(words)):
                call()
    assert worker.ledger()["begun"] == 0


def test_read_only_arrays() -> None:
    worker = _core.Session(create(), 0)
    assert worker.submit(read_only(), **TAG) == "applied"  # a gradient is only read
    with pytest.raises(ValueError, match=r"params: .*got a read-only array"):
        worker.read(read_only())
    with pytest.raises(ValueError, match=r"grad: .*got a read-only array"):
        _core.clip_grad_norm(read_only(), 1.0)


def test_state_and_rows_are_checked() -> None:
    region = create(optimizer="adam")
    worker = _core.Session(region, 0)
    with pytest.raises(ValueError, match=re.escape("state: expected float32[2, 5], got shape [1, 5]")):
        worker.initialize(ones(), np.zeros((1, 5), np.float32))
    with pytest.raises(TypeError, match=re.escape("row: expected float64[24], got float32")):
        worker.log(np.zeros(16, np.float32))
    with pytest.raises(ValueError, match=re.escape("got shape [15]")):
        worker.log(np.zeros(15))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"workers": 0}, "workers: expected 1 to 64, got 0"),
        ({"workers": 65}, "workers: expected 1 to 64, got 65"),
        ({"parameters": 0}, "parameters: expected at least 1, got 0"),
        ({"slots": 0}, "slots: expected a power of two up to 65536, got 0"),
        ({"slots": 3}, "slots: expected a power of two up to 65536, got 3"),
        ({"slots": 2**32 - 1, "parameters": 2**32 - 1}, "slots: expected a power of two up to 65536, got 4294967295"),
        ({"log_rows": 0}, "log_rows: expected a power of two, got 0"),
        ({"scheme": "sync"}, "scheme: expected one of lockfree, lock, queue, hogwild, got 'sync'"),
        ({"alpha": 1.0}, "alpha: expected a number in [0, 1), got 1.000000"),
        ({"beta1": -0.1}, "beta1: expected a number in [0, 1), got -0.100000"),
        ({"beta2": float("nan")}, "beta2: expected a number in [0, 1), got nan"),
        ({"eps": -1.0}, "eps: expected a number >= 0, got -1.000000"),
        ({"max_grad_norm": float("nan")}, "max_grad_norm: expected a number >= 0 (0: no clipping), got nan"),
        ({"optimizer": "lion"}, "optimizer: expected one of sgd, rmsprop, adam, sum, got 'lion'"),
    ],
)
def test_configs_are_checked(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(words) + "$"):
        create(**options)


def test_tags_are_checked() -> None:
    worker = _core.Session(create(), 0)
    for rate in (float("nan"), float("inf"), 1e300):
        with pytest.raises(ValueError, match="learning_rate: expected a finite number"):
            worker.submit(ones(), version_read=0, env_steps=1, learning_rate=rate)
        with pytest.raises(ValueError, match="learning_rate: expected a finite number"):
            worker.push(ones(), version_read=0, env_steps=1, learning_rate=rate)
    with pytest.raises(ValueError, match="n_summed: expected at least 1, got 0"):
        worker.submit(ones(), **TAG, n_summed=0)
    with pytest.raises(TypeError):
        worker.submit(ones(), version_read=-1, env_steps=1, learning_rate=1.0)
    assert worker.ledger()["begun"] == 0


def test_seats() -> None:
    region = create()
    first = _core.Session(region, 0)
    with pytest.raises(RuntimeError, match="seat 0 of this region is taken"):
        _core.Session(region, 0)
    with pytest.raises(RuntimeError, match="seat 0 of this region is taken"):
        _core.Session(_core.Region.attach(region.fd, NONCE), 0)  # another mapping, the same seat
    with pytest.raises(IndexError, match="seat: expected 0 to 3, got 4"):
        _core.Session(region, 4)
    first.close()
    assert _core.Session(region, 0).seat == 0
    for seat in (2, 3):  # the observer, the learner
        other = _core.Session(region, seat)
        for verb, arguments in ((other.submit, (ones(),)), (other.push, (ones(),)), (other.settle, (1,))):
            with pytest.raises(RuntimeError, match="only a worker's session can do this"):
                verb(*arguments, **(TAG if verb != other.settle else {}))
        other.close()
    observer, learner = _core.Session(region, 2), _core.Session(region, 3)
    with pytest.raises(IndexError, match="worker: expected 0 to 1, got 2"):
        observer.read_log(2)
    with pytest.raises(IndexError, match="seat: expected 0 to 3, got 4"):
        observer.reap(4)
    for call in (learner.reap, learner.read_log):
        with pytest.raises(RuntimeError, match="only the observer's session can do this"):
            call(0)


def test_the_seat_of_the_dead_is_taken_back() -> None:
    region = create()
    worker, observer, learner = (_core.Session(region, seat) for seat in (0, 2, 3))
    worker.submit(ones(), **TAG)
    for seat, session in ((0, worker), (3, learner)):
        observer.reap(seat)
        with pytest.raises(_core.SeatLost, match=f"seat {seat} was taken back"):
            session.drain()
        assert observer.incarnation(seat) == 1
        _core.Session(region, seat).close()  # free again
    with pytest.raises(ValueError, match="the caller's own seat"):
        observer.reap(2)
    assert observer.published(0) == 1


def test_a_forked_child_may_not_use_its_parents_session() -> None:
    region = create()
    worker = _core.Session(region, 0)
    child = os.fork()
    if child == 0:
        refused = 0
        for call in (
            lambda: worker.read(ones()),
            lambda: worker.submit(ones(), **TAG),
            worker.request_stop,
            worker.close,
        ):
            try:
                call()
            except _core.SessionForked as error:
                refused += "belongs to the process that opened it" in str(error)
        del call, worker  # and its end must not free the parent's seat
        os._exit(refused)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 4
    assert worker.submit(ones(), **TAG) == "applied"
    with pytest.raises(RuntimeError, match="seat 0 of this region is taken"):
        _core.Session(region, 0)


def test_a_forked_child_may_use_its_parents_region() -> None:
    """The mapping is shared: a session of its own at another seat is all that it needs."""
    region = create()
    worker = _core.Session(region, 0)
    child = os.fork()
    if child == 0:
        own = _core.Session(region, 1)
        how = own.submit(ones(), **TAG)
        own.close()
        os._exit(how != "applied")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert worker.snapshot()["applied"] == 1
    _core.Session(region, 1).close()


def test_stale_gradients_by_policy() -> None:
    region = create(max_staleness=0)
    a, b = _core.Session(region, 0), _core.Session(region, 1)
    assert a.submit(ones(), **TAG) == "applied"
    assert b.submit(ones(), **TAG) == "rejected_stale"
    assert b.ledger()["rejected_stale"] == 1 and b.ledger()["version"] == 1
    with pytest.raises(ValueError, match="version_read: expected at most the current version, 1, got 2"):
        b.submit(ones(), **(TAG | {"version_read": 2}))
    region = create(staleness_lr="inverse")
    worker = _core.Session(region, 0)
    for _ in range(5):
        worker.submit(ones(), **TAG)  # staleness 0 .. 4
    params = ones()
    worker.read(params)
    expected = np.float32(0)
    for divisor in (1, 1, 2, 3, 4):
        expected -= np.float32(1 / divisor)
    np.testing.assert_array_equal(params, np.full(5, expected))


def test_a_series_of_gradients() -> None:
    """The gradient with number s is row (s - 1) % M, whoever pushed those before it."""
    region = create()
    grads = np.arange(15, dtype=np.float32).reshape(3, 5)
    _core.Session(region, 0).submit_many(grads, 2, 1.0)
    worker = _core.Session(region, 0)
    worker.submit_many(grads, 2, 1.0)
    params = ones()
    worker.read(params)
    np.testing.assert_array_equal(params, -(grads.sum(axis=0) + grads[0]))
    with pytest.raises(ValueError, match="learning_rate: expected a finite number"):
        worker.submit_many(grads, 1, float("nan"))
    for _ in range(4):  # all slots taken: what is in them comes first, and nothing of the series is dropped
        worker.push(grads[0], **TAG)
    worker.submit_many(grads, 2, 1.0)
    assert worker.published(0) == 10
    for bad in (ones(), grads[:0], grads.astype(np.float64)):
        with pytest.raises((ValueError, TypeError), match=r"^grads: "):
            worker.submit_many(bad, 1, 1.0)


def test_heartbeats() -> None:
    region = create()
    worker, observer = _core.Session(region, 0), _core.Session(region, 2)
    before = observer.heartbeat(0)
    worker.beat()
    worker.read(ones())
    assert observer.heartbeat(0) - before == 2


def test_a_closed_session() -> None:
    worker = _core.Session(create(), 0)
    worker.close()
    with pytest.raises(_core.SessionClosed):
        worker.close()
    calls = [
        lambda: worker.read(ones()),
        lambda: worker.submit(ones(), **TAG),
        worker.ledger,
        worker.drain,
        worker.request_stop,
        lambda: worker.stop_requested,
        lambda: worker.settle(1),
    ]
    for call in calls:
        with pytest.raises(_core.SessionClosed, match="this session is closed"):
            call()


def test_a_session_is_for_one_thread() -> None:
    """A session that another thread is inside of, without the GIL, is neither used nor closed under it."""
    region = create(workers=1, scheme="queue")
    learner = _core.Session(region, 2)
    serving = threading.Thread(target=learner.serve, args=(60_000,))
    serving.start()
    refused = None
    while refused is None:  # until it is inside
        try:
            learner.snapshot()
        except RuntimeError as error:
            refused = str(error)
        time.sleep(0)
    assert "in use by another thread" in refused
    for call in (learner.close, learner.drain, learner.ledger):
        with pytest.raises(RuntimeError, match="in use by another thread"):
            call()
    learner.request_stop()  # the flags are for everybody
    serving.join()
    learner.close()


def test_settle_and_push() -> None:
    worker = _core.Session(create(slots=2), 0)
    with pytest.raises(
        ValueError, match=r"settle: expected a sequence number that push has returned, at most 0 and .*, got 1"
    ):
        worker.settle(1)
    assert [worker.push(ones(), **TAG) for _ in range(3)] == [1, 2, None]
    with pytest.raises(ValueError, match="at most 2 and one of the last 2, got 0"):
        worker.settle(0)
    params = ones()
    assert worker.read(params) == (0, 0)
    assert worker.submit(ones(), **TAG) == "applied"  # makes room for itself
    assert worker.settle(2)
    assert worker.read(params) == (3, 3)
    np.testing.assert_array_equal(params, -3 * ones())
    hogwild = _core.Session(create(scheme="hogwild"), 0)
    with pytest.raises(RuntimeError, match="hogwild applies in place"):
        hogwild.push(ones(), **TAG)


def test_attach_refuses() -> None:
    region = create()
    with pytest.raises(RuntimeError, match="belongs to another run"):
        _core.Region.attach(region.fd, NONCE + 1)
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        _core.Region.attach(-1, NONCE)
    assert caught.value.errno == errno.EBADF
    with (Path(__file__)).open("rb") as file, pytest.raises(RuntimeError, match="no fastac region"):
        _core.Region.attach(file.fileno(), NONCE)


def test_attach_refuses_what_could_be_cut_off() -> None:
    """A copy of a region in memory that is not sealed: the owner could cut it off under us."""
    region = create()
    copied = os.memfd_create("copy", os.MFD_ALLOW_SEALING)
    os.write(copied, os.pread(region.fd, region.nbytes, 0))
    with pytest.raises(RuntimeError, match="no fastac region"):
        _core.Region.attach(copied, NONCE)
    fcntl.fcntl(copied, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    assert _core.Region.attach(copied, NONCE).nbytes == region.nbytes
    # A scheme that does not exist: the first number 1 that is followed by the deadline of 30,000 ms.
    at = os.pread(region.fd, 4096, 0).index(struct.pack("<I", 30_000)) - 4
    os.pwrite(copied, struct.pack("<I", 77), at)
    with pytest.raises(RuntimeError, match="another build of fastac"):
        _core.Region.attach(copied, NONCE)
    os.close(copied)


def test_a_region_without_room_is_the_systems_error() -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        with pytest.raises(OSError, match=r"cannot allocate \d+ bytes of shared memory"):
            create(parameters=10**6)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_no_copies() -> None:
    region = create()
    for thing, words in ((region, "attaches to it by its `fd`"), (_core.Session(region, 0), "a seat has one holder")):
        for way in (copy.copy, copy.deepcopy, *(functools.partial(pickle.dumps, protocol=p) for p in range(6))):
            with pytest.raises(TypeError, match=f"cannot copy or pickle a {type(thing).__name__}: .*{words}"):
                way(thing)


@pytest.mark.parametrize("name", ["Region", "Session", "CartPole", "UniformStreams"])
def test_an_object_that_was_never_made(name: str) -> None:
    kind = getattr(_core, name)
    with pytest.raises(TypeError, match="whose __init__ never ran"):
        len(kind.__new__(kind)) if name == "UniformStreams" else kind.__new__(kind).__getattribute__(FIRST[name])


FIRST = {"Region": "fd", "Session": "seat", "CartPole": "num_envs"}


def test_a_session_needs_a_region() -> None:
    for nothing in (None, 1, _core.Region.__new__(_core.Region)):
        with pytest.raises((TypeError, RuntimeError)):
            _core.Session(nothing, 0)


def test_timeout_and_stop() -> None:
    worker = _core.Session(create(scheme="queue", wait_deadline_ms=20), 0)
    with pytest.raises(_core.WaitTimeout, match="worker 0 waited 20 ms for the learner of the queue") as caught:
        worker.submit(ones(), **TAG)
    assert isinstance(caught.value, TimeoutError)
    worker.request_stop()
    assert worker.submit(ones(), **TAG) == "stopped"
    assert worker.ledger()["pending"] == 2
    assert worker.drain() == 2


def test_nonfinite_is_rejected_and_counted() -> None:
    for scheme in ("lockfree", "lock", "hogwild"):
        worker = _core.Session(create(scheme=scheme), 0)
        bad = ones()
        bad[3] = np.nan
        assert worker.submit(bad, **TAG) == "rejected_nonfinite"
        params = ones()
        assert worker.read(params)[0] == 0
        np.testing.assert_array_equal(params, np.zeros(5))
        check_ledger(worker.ledger(), rejected_nonfinite=1, published=1)


# ---- nothing is lost -------------------------------------------------------------------------------------


def check_ledger(ledger: dict[str, Any], **expected: int) -> None:
    rejected = ledger["rejected_nonfinite"] + ledger["rejected_stale"]
    assert ledger["begun"] == ledger["published"] + ledger["aborted"]
    assert ledger["published"] == ledger["applied"] + rejected + ledger["pending"]
    assert ledger["version"] == ledger["applied"] == ledger["staleness"].sum()
    for name, value in expected.items():
        assert ledger[name] == value, name


def check_sum(region: _core.Region, n: int) -> None:
    """After n gradients of each worker, seat + 1 in every entry, all of them are in the parameters."""
    observer = _core.Session(region, region.workers)
    observer.drain()
    check_ledger(observer.ledger(), published=region.workers * n, pending=0, aborted=0, env_steps=region.workers * n)
    params = np.empty(region.parameters, np.float32)
    observer.read(params)
    whole = -n * sum(range(1, region.workers + 1))
    if region.scheme == "hogwild":  # additions get lost, none is invented
        assert np.all(params >= whole)
        assert np.all(params < 0)
        assert 0 <= observer.ledger()["canaries_lost"] < observer.ledger()["canaries"]
    else:
        np.testing.assert_array_equal(params, np.full(region.parameters, whole, np.float32))
    observer.close()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_threads_lose_nothing(scheme: str) -> None:
    workers, n = 3, 2000 if scheme != "queue" else 500
    region = create(workers, 257, scheme=scheme)
    learner = _core.Session(region, workers + 1)
    start = threading.Barrier(workers)

    def work(seat: int) -> None:
        session = _core.Session(region, seat)
        start.wait()
        session.submit_many(np.full((1, 257), seat + 1, np.float32), n, 1.0)
        session.close()

    threads = [threading.Thread(target=work, args=(seat,)) for seat in range(workers)]
    serving = threading.Thread(target=learner.serve, args=(60_000,))
    serving.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    learner.request_stop()
    serving.join()
    check_sum(region, n)


@pytest.mark.parametrize(
    ("scheme", "method"),
    [*((scheme, "spawn") for scheme in SCHEMES), ("lockfree", "forkserver"), ("queue", "forkserver")],
)
def test_processes_lose_nothing(scheme: str, method: str) -> None:
    context = multiprocessing.get_context(method)
    workers, n = 2, 500
    region = create(workers, 257, scheme=scheme)
    observer = _core.Session(region, workers)
    children = [
        context.Process(target=region_worker.push_many, args=(Descriptor(region.fd), NONCE, seat, n))
        for seat in range(workers)
    ]
    serving = context.Process(target=region_worker.serve, args=(Descriptor(region.fd), NONCE))
    for process in [*children, serving]:
        process.start()
    for process in children:
        process.join()
    observer.request_stop()
    serving.join()
    assert [process.exitcode for process in [*children, serving]] == [0] * (workers + 1)
    for seat in range(workers):
        np.testing.assert_array_equal(observer.read_log(seat), np.full((1, _core.LOG_COLUMNS), seat))
    observer.close()
    check_sum(region, n)


class Descriptor:
    """A file descriptor to hand to a process: a DupFd belongs to the one that is just being started."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __reduce__(self) -> tuple[Any, ...]:
        return detach, (DupFd(self.fd),)


def detach(dup: Any) -> int:
    return dup.detach()


def test_an_inherited_descriptor() -> None:
    region = create()
    code = "import sys, region_worker; region_worker.attach_inherited(int(sys.argv[1]), int(sys.argv[2]))"
    subprocess.run(
        [sys.executable, "-c", code, str(region.fd), str(NONCE)],
        cwd=Path(__file__).parent,
        pass_fds=[region.fd],
        check=True,
    )
    observer = _core.Session(region, 2)
    params = ones()
    assert observer.read(params) == (1, 3)
    np.testing.assert_array_equal(params, -0.5 * ones())


def test_a_child_cannot_inherit_it_by_accident() -> None:
    assert not os.get_inheritable(create().fd)


# ---- the log, the memory ---------------------------------------------------------------------------------


def test_log_keeps_order_and_refuses_when_full() -> None:
    region = create(log_rows=4)
    workers, observer = [_core.Session(region, seat) for seat in (0, 1)], _core.Session(region, 2)
    row = np.arange(_core.LOG_COLUMNS, dtype=np.float64)
    assert observer.read_log(0).shape == (0, _core.LOG_COLUMNS)
    for turn in range(3):
        assert [workers[1].log(row + 100 * turn + i) for i in range(5)] == [True, True, True, True, False]
        rows = observer.read_log(1)
        np.testing.assert_array_equal(rows, [row + 100 * turn + i for i in range(4)])
        assert len(observer.read_log(1)) == 0
        assert len(observer.read_log(0)) == 0


def test_go_and_stop_are_seen_by_all() -> None:
    region = create()
    a, b = _core.Session(region, 0), _core.Session(_core.Region.attach(region.fd, NONCE), 1)
    assert (a.go, a.stop_requested) == (False, False)
    b.give_go()
    assert (a.go, a.stop_requested) == (True, False)
    b.request_stop()
    assert a.stop_requested


def mappings() -> int:
    return Path("/proc/self/maps").read_text().count("memfd:fastac")


def test_memory_is_given_back() -> None:
    descriptors, mapped = len(os.listdir("/proc/self/fd")), mappings()
    region = create(log_rows=8192)
    attached = _core.Region.attach(region.fd, NONCE)
    session = _core.Session(attached, 0)
    assert len(os.listdir("/proc/self/fd")) == descriptors + 2
    assert mappings() == mapped + 2
    assert os.readlink(f"/proc/self/fd/{region.fd}") == "/memfd:fastac (deleted)"  # it has no name
    del region, attached
    assert mappings() == mapped + 1  # the session keeps its own
    session.submit(ones(), **TAG)
    session.close()
    del session
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert mappings() == mapped


def test_what_a_region_says_of_itself() -> None:
    region = create(3, 7, scheme="lock", optimizer="adam")
    said = (region.workers, region.parameters, region.scheme, region.state_vectors, region.nonce)
    assert said == (3, 7, "lock", 2, NONCE)
    assert os.fstat(region.fd).st_size == region.nbytes
