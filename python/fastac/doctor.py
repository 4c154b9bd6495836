"""Whether this machine is ready for a run with W workers, and what to do where it is not.

In: the number of workers. Out: findings, each from something that was tried here and not only looked up.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import re
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastac import _core, limits
from fastac._core import UPDATE_SCHEMES
from fastac.bench.updates import one_round
from fastac.config import A3CConfig
from fastac.engines import at_work, preload
from fastac.env import ENV_ID, make_vec
from fastac.launch import launch
from fastac.mlp import initial_params
from fastac.shared import create_region, observer_of
from fastac.signals import signals_deferred
from fastac.words import counted
from fastac.worker import READY, Report

OK, NOTE, PROBLEM = "ok", "note", "problem"
_START_DEADLINE_S = 30.0
_CONFIG = A3CConfig(seed=0, engine="torch")  # whose workers need the most
_PASSING_DESCRIPTORS = 8  # the region's, a file's, and those that hand the region's to a starting worker
_MIB = 2**20


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        status: "ok"; "note": it works, but not as well as it could; "problem": a run would fail, or be wrong.
        subject: what was looked at.
        found: what was found.
        remedy: what to do; empty where the status is "ok".
    """

    status: str
    subject: str
    found: str
    remedy: str = ""


def examine(workers: int, root: Path = limits.ROOT) -> Iterator[Finding]:
    """The findings for a run of `workers` worker processes, one after the other as they are made.

    Takes some seconds, most of them for two imports of torch. /proc and /sys are read below `root`.
    """
    cpus = len(os.sched_getaffinity(0))  # before torch is imported: its OpenMP may tie this process to a core
    yield system()
    yield packages()
    yield cores(workers, cpus, limits.cpu_quota(root))
    yield load(cpus)
    yield env()
    yield update_schemes()
    build = torch_build()
    yield build
    if build.status != PROBLEM:
        yield shared_memory(workers)
        yield from worker_processes(workers, cpus, root)


# ---- what is installed ----------------------------------------------------------------------------------------


def system() -> Finding:
    """Kernel, processor architecture and Python; a note for a Python that fastac is not tested with."""
    here = ".".join(platform.python_version_tuple()[:2])
    found = f"{platform.system()} {platform.release()}, {platform.machine()}, Python {platform.python_version()}"
    classifiers = importlib.metadata.metadata("fastac").get_all("Classifier") or []
    tested = [match[1] for line in classifiers if (match := re.search(r":: Python :: (\d+\.\d+)$", line))]
    if here in tested:
        return Finding(OK, "system", found)
    return Finding(NOTE, "system", found, f"fastac is tested with Python {tested[0]} to {tested[-1]}: use one of these")


def packages() -> Finding:
    """The versions of what fastac needs, torch excepted, which has a finding of its own."""
    versions, unmet = [], []
    for requirement in importlib.metadata.requires("fastac") or []:
        match = re.fullmatch(r"([\w-]+)>=([\d.]+)", requirement)
        if match is None or match[1] == "torch":  # an extra
            continue
        try:
            version = importlib.metadata.version(match[1])
        except importlib.metadata.PackageNotFoundError:
            version = "missing"
        versions.append(f"{match[1]} {version}")
        if version == "missing" or _numbers(version) < _numbers(match[2]):
            unmet.append(requirement)
    if unmet:
        return Finding(PROBLEM, "packages", ", ".join(versions), f"pip install {' '.join(map(repr, unmet))}")
    return Finding(OK, "packages", ", ".join(versions))


def torch_build() -> Finding:
    """Version and kind of torch, and the vector instructions that it uses."""
    try:
        with signals_deferred():  # torch aborts the process where its import is interrupted
            import torch
    except ImportError as error:
        return Finding(
            PROBLEM,
            "torch",
            f"cannot be imported: {error}",
            "pip install torch; its CPU build is enough: torch's installation page names the package index for it",
        )
    accelerator = torch.version.cuda or torch.version.hip
    instructions = torch.backends.cpu.get_cpu_capability()
    found = f"{torch.__version__}, {'GPU' if accelerator else 'CPU'} build, vector instructions: {instructions}"
    if platform.machine() == "x86_64" and instructions == "DEFAULT":
        remedy = "it will be slow: unset ATEN_CPU_CAPABILITY, or use a processor with AVX2"
        return Finding(NOTE, "torch", found, remedy)
    if accelerator:
        remedy = "fastac uses the CPU alone: torch's CPU build does the same and is smaller"
        return Finding(NOTE, "torch", found, remedy)
    return Finding(OK, "torch", found)


# ---- what the machine grants ----------------------------------------------------------------------------------


def cores(workers: int, cpus: int, quota: float | None) -> Finding:
    """Whether each worker has a core: `cpus` this process may run on, of which a cgroup may grant only a part."""
    found = f"{cpus} usable" + (f", of which the cgroup's quota grants {quota:g}" if quota else "")
    usable = min(cpus, quota or cpus)
    if usable >= workers:
        return Finding(OK, "cores", found)
    remedy = f"{counted(workers, 'workers')} will take turns: use {max(1, int(usable))}, or grant more cores"
    return Finding(NOTE, "cores", found, remedy)


def load(cpus: int) -> Finding:
    """Whether other work is going on."""
    minute = os.getloadavg()[0]
    found = f"{minute:.2f} over the last minute, on {counted(cpus, 'cores')}"
    if minute <= 0.5 * cpus:
        return Finding(OK, "load", found)
    return Finding(NOTE, "load", found, "other work slows a run: wait for its end before you measure times")


def shared_memory(workers: int) -> Finding:
    """Makes the region of a run, and tries to resize it, which its seals must forbid."""
    subject = "shared memory"
    try:
        region = _region(workers)
    except (OSError, RuntimeError) as error:
        remedy = (
            "the system must allow memfd_create and seals (a container's seccomp profile may not), and have memory free"
        )
        return Finding(PROBLEM, subject, f"no region for {counted(workers, 'workers')}: {error}", remedy)
    with contextlib.suppress(PermissionError):
        os.ftruncate(region.fd, 2 * region.nbytes)
        return Finding(
            PROBLEM, subject, "a sealed memfd can be resized", "use a kernel that honours the seals of a memfd"
        )
    return Finding(OK, subject, f"a region of {region.nbytes / _MIB:.1f} MiB in a sealed memfd")


def update_schemes() -> Finding:
    """Two threads submit under each exact scheme; mutexes, futexes and atomics are the real ones."""
    subject, exact = "update schemes", [scheme for scheme in UPDATE_SCHEMES if scheme != "hogwild"]
    for scheme in exact:
        try:
            lost = one_round("sgd", scheme, workers=2, n_params=64, n_updates=50)["lost"]
        except Exception as error:
            lost, why = 1.0, f"{type(error).__name__}: {error}"
        else:
            why = f"{lost:.2%} of the gradients were lost"
        if lost != 0.0:
            return Finding(PROBLEM, subject, f"{scheme}: {why}", "use another update scheme, and report this")
    return Finding(OK, subject, f"{', '.join(exact)}: every gradient of two threads applied once")


def env() -> Finding:
    """Plays the native env and Gymnasium's SyncVectorEnv with the same seed and actions, and compares every bit."""
    n_envs, n_steps = 8, 500
    gymnasium = importlib.metadata.version("gymnasium")
    native, reference = make_vec(ENV_ID, n_envs), make_vec("CartPole-v1", n_envs, vectorization_mode="sync")
    try:
        same = native.reset(seed=0)[0].tobytes() == reference.reset(seed=0)[0].tobytes()
        for actions in np.random.default_rng(0).integers(0, 2, (n_steps, n_envs)):
            ours, theirs = native.step(actions)[:4], reference.step(actions)[:4]
            same &= all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in zip(ours, theirs, strict=True))
    finally:
        native.close()
        reference.close()
    if same:
        words = f"{n_envs * n_steps:,} env steps are bit for bit those of gymnasium {gymnasium}"
        if _core.sincos_mismatches():
            remedy = "nothing is wrong, and envs step more slowly; tell us which C library it is"
            return Finding(
                NOTE, "env", f"{words}; the vector code differs from this C library, which does its work", remedy
            )
        return Finding(OK, "env", f"{words}; the vector code passes its self-test")
    remedy = "build fastac on this machine: pip install --force-reinstall --no-cache-dir . in its sources"
    return Finding(PROBLEM, "env", f"differs from CartPole-v1 of gymnasium {gymnasium}", remedy)


# ---- what a worker process needs ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Need:
    """What one worker process took here, once it was ready."""

    start_s: float
    cpus: int  # it may run on
    torch_threads: int
    tasks: int  # processes and threads
    private_bytes: int  # memory that it shares with nobody; 0: unknown
    descriptors: int  # in the parent


def worker_processes(workers: int, cpus: int, root: Path) -> Iterator[Finding]:
    """Starts one worker process as a run does; what it took, times `workers`, must be granted."""
    try:
        need = measure_worker()
    except Exception as error:
        found = f"a worker process did not start: {type(error).__name__}: {error}"
        yield Finding(PROBLEM, "processes", found, 'use --backend thread (in Python: backend="thread") until it does')
        return
    ready = f"was ready in {need.start_s:.1f} s (later ones start faster)"
    found = f"one, forked by a server (start method forkserver), {ready}"
    yield Finding(OK, "processes", found)
    yield threads(need, cpus)
    yield memory(workers, need, limits.memory_left(root))
    yield descriptors(workers, need)
    yield tasks(workers, need, limits.tasks_left(root), limits.user_tasks_left(root))


def threads(need: Need, cpus: int) -> Finding:
    """Whether workers may spread over the cores: OpenMP ties the process that imports torch, and all that it forks."""
    found = f"a worker has {need.torch_threads} torch thread, and may run on {need.cpus} of {counted(cpus, 'cores')}"
    if need.cpus == cpus:
        return Finding(OK, "threads", found)
    remedy = "all workers share these: unset OMP_PROC_BIND, OMP_PLACES, GOMP_CPU_AFFINITY and KMP_AFFINITY"
    return Finding(PROBLEM, "threads", found, remedy)


def memory(workers: int, need: Need, left: int | None) -> Finding:
    """Whether region and workers fit into what the machine and the cgroup have left."""
    if not need.private_bytes:
        found = "what a worker takes is unknown: there is no /proc/self/smaps_rollup"
        return Finding(NOTE, "memory", found, "watch the memory of the worker processes in a first, short run")
    total = _region(workers).nbytes + workers * need.private_bytes
    found = f"{counted(workers, 'workers need', 'worker needs')} {total / _MIB:,.0f} MiB"
    found += "" if left is None else f" of {left / _MIB:,.0f} MiB that are left"
    if left is None or total <= left:
        return Finding(OK, "memory", found)
    return Finding(PROBLEM, "memory", found, "use fewer workers, or --backend thread, or raise the cgroup's limit")


def descriptors(workers: int, need: Need) -> Finding:
    """Whether this process may open as many files as its workers need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    total = _open_descriptors() + workers * need.descriptors + _PASSING_DESCRIPTORS
    found = f"{counted(workers, 'workers need', 'worker needs')} {total} of {soft:,} that may be open"
    if total <= soft:
        return Finding(OK, "descriptors", found)
    how = f"ulimit -n {total}" if total <= hard else f"raise the hard limit of {hard} for this user"
    return Finding(PROBLEM, "descriptors", found, f"{how}, or use fewer workers")


def tasks(workers: int, need: Need, of_cgroup: int | None, of_user: int | None) -> Finding:
    """Whether the cgroup and the user's own limit leave as many processes and threads."""
    total = workers * need.tasks
    limits_left = [(of_cgroup, "the cgroup's pids.max"), (of_user, "this user's limit (ulimit -u)")]
    left, limit = min(((left, limit) for left, limit in limits_left if left is not None), default=(None, ""))
    found = f"{counted(workers, 'workers need', 'worker needs')} {total}" + (
        " of an unlimited number" if left is None else f" of {left:,} left"
    )
    if left is None or total <= left:
        return Finding(OK, "pids", found)
    return Finding(PROBLEM, "pids", found, f"use fewer workers, or raise {limit}")


def measure_worker() -> Need:
    """Starts a worker process, waits until it is ready, and sees it off. Raises what kept it from that."""
    region = _region(1)
    observer = observer_of(region)
    started = time.monotonic()

    def tick() -> None:
        if time.monotonic() > started + _START_DEADLINE_S:
            raise TimeoutError(f"not ready within {_START_DEADLINE_S:g} s")

    with launch("process", region, observer, report_need, [_CONFIG], tick, preload=preload(_CONFIG)) as crew:
        crew.wait_ready()
        start_s = time.monotonic() - started
        with_worker = _open_descriptors()
        observer.request_stop()
        crew.wait_done()
    del crew  # and with it the descriptors of its worker
    cpus, torch_threads, tasks, private_bytes = (int(word) for word in observer.read_log(0)[0, :4])
    return Need(start_s, cpus, torch_threads, tasks, private_bytes, with_worker - _open_descriptors())


def report_need(config: A3CConfig, session: _core.Session, report: Report) -> float:
    """The work of the worker process: gets ready as one of A3C does, and logs what that took."""
    with at_work(config):
        import torch

        from fastac.policy import make_policy

        make_policy(config).warm_up()
        row = np.zeros(_core.LOG_COLUMNS)
        row[:4] = (
            len(os.sched_getaffinity(0)),
            torch.get_num_threads(),
            len(os.listdir("/proc/self/task")),
            limits.private_bytes(),
        )
        session.log(row)
        report(READY)
        while not session.stop_requested:
            time.sleep(0.01)
        return 0.0


def _region(workers: int) -> _core.Region:
    """The region of such a run."""
    return create_region(_CONFIG, workers=workers, update=_CONFIG.update, n_params=len(initial_params(_CONFIG)))


def _open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) - 1  # one of them lists them


def _numbers(version: str) -> list[int]:
    """The release of a version, to compare: "2.13.0+cpu" -> [2, 13, 0]."""
    match = re.match(r"[\d.]*\d", version)
    return [int(number) for number in match[0].split(".")] if match else []
