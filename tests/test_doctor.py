"""`fastac doctor`: on this machine it finds no problem, and each of its findings can be something else than ok."""

import json
import multiprocessing
import os
import re
import resource
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner

from fastac import _core, doctor, env, limits
from fastac.cli import main

SUBJECTS = ["system", "packages", "cores", "load", "env", "update schemes", "torch", "shared memory"]
OF_WORKERS = ["processes", "threads", "memory", "descriptors", "pids"]
MIB = 2**20


@pytest.fixture(scope="session")
def need():
    return doctor.measure_worker()


# ---- a machine that is ready ----------------------------------------------------------------------------------


def test_this_machine_is_ready():
    findings = list(doctor.examine(1))
    assert [finding.subject for finding in findings] == SUBJECTS + OF_WORKERS
    assert [finding for finding in findings if finding.status == doctor.PROBLEM] == []
    assert all(bool(finding.remedy) == (finding.status != doctor.OK) for finding in findings)


def test_what_a_worker_needs_is_measured(need):
    assert need.cpus == len(os.sched_getaffinity(0)) and need.torch_threads == 1
    assert need.tasks >= 1
    # Its messages, the two ends by which parent and worker notice each other's end, and the pidfd.
    assert need.descriptors == 4
    assert MIB < need.private_bytes < 1000 * MIB and 0 < need.start_s < doctor._START_DEADLINE_S


# ---- each finding can be something else -----------------------------------------------------------------------


def test_an_untested_python(monkeypatch):
    monkeypatch.setattr(doctor.platform, "python_version_tuple", lambda: ("3", "99", "0"))
    finding = doctor.system()
    project = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    tested = re.findall(r"Programming Language :: Python :: (3\.\d+)", project)
    assert finding.status == doctor.NOTE and f"tested with Python {tested[0]} to {tested[-1]}:" in finding.remedy


@pytest.mark.parametrize("version", ["1.25.9rc1", None])
def test_an_old_or_missing_package(version, monkeypatch):
    known = doctor.importlib.metadata.version

    def version_of(name):
        if name != "numpy":
            return known(name)
        if version is None:
            raise PackageNotFoundError(name)
        return version

    monkeypatch.setattr(doctor.importlib.metadata, "version", version_of)
    finding = doctor.packages()
    assert finding.status == doctor.PROBLEM and f"numpy {version or 'missing'}" in finding.found
    assert finding.remedy == "pip install 'numpy>=1.26'"


def test_torch_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    findings = list(doctor.examine(1))
    assert [finding.subject for finding in findings] == SUBJECTS[:7]  # what needs torch is not tried
    assert findings[-1].status == doctor.PROBLEM and "pip install torch" in findings[-1].remedy


def test_a_torch_for_gpus(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    finding = doctor.torch_build()
    assert finding.status == doctor.NOTE and "GPU build" in finding.found and "CPU alone" in finding.remedy


def test_a_torch_without_vector_instructions(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    monkeypatch.setattr(doctor.platform, "machine", lambda: "x86_64")
    finding = doctor.torch_build()
    assert finding.status == doctor.NOTE and "ATEN_CPU_CAPABILITY" in finding.remedy


@pytest.mark.parametrize(
    ("cpus", "quota", "status", "advice"),
    [
        (4, None, "ok", ""),
        (4, 6.0, "ok", ""),
        (2, None, "note", "use 2"),
        (8, 1.5, "note", "use 1"),
        (8, 0.5, "note", "use 1"),
    ],
)
def test_cores(cpus, quota, status, advice):
    finding = doctor.cores(4, cpus, quota)
    assert finding.status == status and advice in finding.remedy
    assert (f"{quota:g}" in finding.found) if quota else "quota" not in finding.found


@pytest.mark.parametrize(("load", "status"), [(1.0, "ok"), (1.1, "note")])
def test_load(load, status, monkeypatch):
    monkeypatch.setattr(doctor.os, "getloadavg", lambda: (load, 0.0, 0.0))
    assert doctor.load(2).status == status


def test_vector_code_that_is_not_the_librarys(monkeypatch):
    monkeypatch.setattr(_core, "sincos_mismatches", lambda: 3)
    finding = doctor.env()
    assert finding.status == doctor.NOTE and "the vector code differs" in finding.found


def test_another_env(monkeypatch):
    def heavier(env_id, n_envs, **options):
        made = env.make_vec(env_id, n_envs, **options)
        if env_id == "CartPole-v1":
            made.envs[3].unwrapped.gravity += 1e-6
        return made

    monkeypatch.setattr(doctor, "make_vec", heavier)
    finding = doctor.env()
    assert finding.status == doctor.PROBLEM and "differs" in finding.found


@pytest.mark.parametrize("bad", ["lock", "queue", "lockfree"])
def test_a_scheme_that_loses(bad, monkeypatch):
    monkeypatch.setattr(doctor, "one_round", lambda _, scheme, **sizes: {"lost": 0.01 * (scheme == bad)})
    finding = doctor.update_schemes()
    assert finding.status == doctor.PROBLEM and f"{bad}: 1.00% of the gradients were lost" in finding.found


def test_a_scheme_that_fails(monkeypatch):
    def no_mutex(*_, **__):
        raise RuntimeError("robust mutexes: not supported")

    monkeypatch.setattr(doctor, "one_round", no_mutex)
    assert "RuntimeError: robust mutexes" in doctor.update_schemes().found


def test_no_memory_for_the_region():
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        finding = doctor.shared_memory(2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert finding.status == doctor.PROBLEM and "cannot allocate" in finding.found and "seccomp" in finding.remedy


def test_seals_that_do_not_hold(monkeypatch):
    fd = os.memfd_create("unsealed")
    monkeypatch.setattr(doctor, "create_region", lambda *_, **__: SimpleNamespace(fd=fd, nbytes=4096))
    try:
        finding = doctor.shared_memory(2)
    finally:
        os.close(fd)
    assert finding.status == doctor.PROBLEM and "can be resized" in finding.found


def test_processes_cannot_be_started(monkeypatch):
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)
    (finding,) = doctor.worker_processes(2, 2, limits.ROOT)
    assert finding.status == doctor.PROBLEM and "daemonic processes" in finding.found and "thread" in finding.remedy


def test_a_worker_that_is_never_ready(monkeypatch):
    monkeypatch.setattr(doctor, "_START_DEADLINE_S", 0.0)
    (finding,) = doctor.worker_processes(2, 2, limits.ROOT)
    assert "TimeoutError: not ready within 0 s" in finding.found


def test_workers_tied_to_a_core(need):
    assert doctor.threads(need, need.cpus).status == doctor.OK
    finding = doctor.threads(need, need.cpus + 1)
    assert finding.status == doctor.PROBLEM and "OMP_PROC_BIND" in finding.remedy


def test_memory(need):
    region = doctor._region(3).nbytes
    total = region + 3 * need.private_bytes
    assert doctor.memory(3, need, None).status == doctor.memory(3, need, total).status == doctor.OK
    finding = doctor.memory(3, need, total - 1)
    assert finding.status == doctor.PROBLEM and "fewer workers" in finding.remedy
    unknown = replace(need, private_bytes=limits.private_bytes(Path("/nowhere")))
    assert doctor.memory(3, unknown, total).status == doctor.NOTE


@pytest.mark.parametrize(("more", "remedy"), [(10_000, "ulimit -n "), (0, "raise the hard limit of {}")])
def test_descriptors(more, remedy, need, monkeypatch):
    soft = len(os.listdir("/proc/self/fd")) + 30
    monkeypatch.setattr(doctor.resource, "getrlimit", lambda _: (soft, soft + more))
    assert doctor.descriptors(1, need).status == doctor.OK
    finding = doctor.descriptors(64, need)
    assert finding.status == doctor.PROBLEM and remedy.format(soft) in finding.remedy


def test_tasks(need):
    enough = 3 * need.tasks
    assert doctor.tasks(3, need, None, None).status == doctor.tasks(3, need, enough, enough).status == doctor.OK
    finding = doctor.tasks(3, need, enough - 1, enough)
    assert finding.status == doctor.PROBLEM and "pids.max" in finding.remedy
    finding = doctor.tasks(3, need, None, enough - 1)
    assert finding.status == doctor.PROBLEM and "ulimit -u" in finding.remedy


# ---- limits ---------------------------------------------------------------------------------------------------

V2 = {
    "proc/self/cgroup": "0::/a/b\n",
    "proc/self/mountinfo": "22 1 0:1 / / rw - ext4 x rw\n30 23 0:2 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw\n",
    "sys/fs/cgroup/a/cpu.max": "150000 100000\n",
    "sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
    "sys/fs/cgroup/a/memory.max": f"{100 * MIB}\n",
    "sys/fs/cgroup/a/memory.current": f"{70 * MIB}\n",
    "sys/fs/cgroup/a/memory.stat": f"anon 3\ninactive_file {10 * MIB}\n",
    "sys/fs/cgroup/a/b/memory.max": "max\n",
    "sys/fs/cgroup/a/b/pids.max": "50\n",
    "sys/fs/cgroup/a/b/pids.current": "8\n",
}
V1 = {  # as in a container that sees its own subtree as the mount
    "proc/self/cgroup": "9:cpu,cpuacct:/docker/x\n8:memory:/docker/x\n7:pids:/docker/x\n0::/\n",
    "proc/self/mountinfo": "".join(
        f"3{i} 23 0:2 /docker/x /sys/fs/cgroup/{name} ro - cgroup cgroup rw,{name}\n"
        for i, name in enumerate(("cpu,cpuacct", "memory", "pids"))
    ),
    "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "150000\n",
    "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{100 * MIB}\n",
    "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{70 * MIB}\n",
    "sys/fs/cgroup/memory/memory.stat": f"inactive_file 1\ntotal_inactive_file {10 * MIB}\n",
    "sys/fs/cgroup/pids/pids.max": "50\n",
    "sys/fs/cgroup/pids/pids.current": "8\n",
}


def lay_out(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize("files", [V1, V2], ids=["v1", "v2"])
def test_cgroup_limits(files, tmp_path):
    root = lay_out(tmp_path, files)
    assert limits.cpu_quota(root) == 1.5
    assert limits.memory_left(root) == 40 * MIB
    assert limits.tasks_left(root) == 42
    lay_out(root, {"proc/meminfo": f"MemTotal: 99999 kB\nMemAvailable:   {30 * 1024} kB\n"})
    assert limits.memory_left(root) == 30 * MIB


def test_no_limits(tmp_path):
    assert limits.cpu_quota(tmp_path) is limits.memory_left(tmp_path) is limits.tasks_left(tmp_path) is None
    root = lay_out(tmp_path, {name: "max 100000\n" if name.endswith("max") else text for name, text in V2.items()})
    assert limits.cpu_quota(root) is limits.memory_left(root) is limits.tasks_left(root) is None


def test_limits_reach_the_findings(tmp_path):
    found = {finding.subject: finding for finding in doctor.examine(64, lay_out(tmp_path, V2))}
    assert "the cgroup's quota grants 1.5" in found["cores"].found and found["cores"].status == doctor.NOTE
    assert "of 40 MiB that are left" in found["memory"].found and found["memory"].status == doctor.PROBLEM
    assert "of 42 left" in found["pids"].found and found["pids"].status == doctor.PROBLEM


PROCESSES = {  # two of user 1000, with 3 + 4 tasks, and one of somebody else
    "proc/self/status": "Name:\tpython\nUid:\t1000\t1000\t1000\t1000\nThreads:\t3\nCapEff:\t0000000000000000\n",
    "proc/10/status": "Uid:\t1000\t1000\t1000\t1000\nThreads:\t3\n",
    "proc/11/status": "Uid:\t1000\t0\t0\t0\nThreads:\t4\n",
    "proc/12/status": "Uid:\t1001\t1000\t1000\t1000\nThreads:\t90\n",
}


def test_the_limit_of_a_user(tmp_path, monkeypatch):
    root = lay_out(tmp_path, PROCESSES)
    monkeypatch.setattr(limits.resource, "getrlimit", lambda which: (49, 60))
    assert limits.user_tasks_left(root) == 42
    monkeypatch.setattr(limits.resource, "getrlimit", lambda which: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert limits.user_tasks_left(root) is None


@pytest.mark.parametrize(
    ("old", "new"), [("1000\t1000", "0\t0"), ("0000000000000000", "1000000"), ("0000000000000000", "200000")]
)
def test_root_is_exempt_from_the_limit_of_a_user(old, new, tmp_path, monkeypatch):
    own = {"proc/self/status": PROCESSES["proc/self/status"].replace(old, new, 1)}
    monkeypatch.setattr(limits.resource, "getrlimit", lambda which: (49, 60))
    assert limits.user_tasks_left(lay_out(tmp_path, PROCESSES | own)) is None


# ---- the command ----------------------------------------------------------------------------------------------


def test_lines_for_people_fit_into_80_columns(monkeypatch):
    findings = [
        doctor.Finding("ok", "one", "all [good]"),
        doctor.Finding("note", "two", "so " * 40, "do " * 40),
    ]
    monkeypatch.setattr(doctor, "examine", lambda workers: iter(findings))
    result = CliRunner(env={"COLUMNS": "80"}).invoke(main, ["doctor"])
    lines = result.output.splitlines()
    assert result.exit_code == 0 and max(map(len, lines)) <= 80
    assert lines[0].split() == ["ok", "one", "all", "[good]"] and lines[-1] == "ready for 4 workers"
    assert result.output.count("do") == 40 and "-> do" in result.output


def test_a_problem_is_exit_code_1(monkeypatch):
    monkeypatch.setattr(doctor, "examine", lambda workers: iter([doctor.Finding("problem", "x", "broken", "mend it")]))
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 1 and "-> mend it" in result.output and "not ready: problems found: 1" in result.output


def test_json_of_a_machine_with_few_descriptors():
    def few():
        resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))

    command = [sys.executable, "-m", "fastac", "doctor", "--workers", "64", "--json"]
    done = subprocess.run(command, preexec_fn=few, capture_output=True, text=True, cwd=Path.home())
    assert done.returncode == 1 and done.stderr == ""
    report = json.loads(done.stdout)
    assert report["workers"] == 64 and report["ready"] is False
    (descriptors,) = (finding for finding in report["findings"] if finding["subject"] == "descriptors")
    assert descriptors["status"] == "problem" and "raise the hard limit of 60" in descriptors["remedy"]
