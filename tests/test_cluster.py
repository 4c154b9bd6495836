"""Training over Ray: a cluster of several Ray nodes on this machine, which CI has, too."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest

import fastac
from fastac.cluster.options import MAX_NODES
from fastac.cluster.ray_cluster import RayCluster
from fastac.metrics import Position
from fastac.report.commands import train_command

ray = pytest.importorskip("ray", reason="fastac[ray]")
GATE = Path(__file__).parent / "gates" / "cluster_killed.py"


@pytest.fixture(autouse=True)
def nothing_is_left_behind():
    """Ray keeps processes and sockets as long as it is there; none of these is an actor of fastac's."""
    yield
    if ray.is_initialized():
        until = time.monotonic() + 20
        while (left := ray.util.list_named_actors()) and time.monotonic() < until:
            time.sleep(0.1)
        assert not left


@pytest.fixture(scope="module")
def machines():
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        cluster.add_node(num_cpus=2)
    ray.init(address=cluster.address, namespace="fastac", log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def on(machines, **options):
    return RayCluster(**{"address": machines.address, "nodes": 2, **options})


def test_two_nodes_solve_cartpole(machines):
    model = fastac.A3C(workers=2, seed=0, learning_rate=5e-4)
    model.learn(3_000_000, solve=475, cluster=on(machines))
    assert model.history.time_to(475) is not None
    its = model.ledger
    its.check()
    assert [node.name for node in its.nodes] == ["node 0", "node 1"] and its.lost == its.deaths == 0
    assert all(node.updates > 0 and node.deliveries > 1 for node in its.nodes)
    assert sum(node.updates for node in its.nodes) == its.applied == model.version
    assert len(its.workers) == 4 and sum(worker.env_steps for worker in its.workers) == model.num_timesteps


def test_a2c_over_two_nodes_ends_with_the_bits_of_one_machine(machines):
    options = {"n_envs": 16, "hidden_sizes": (16,), "seed": 4}
    alone = fastac.A2C(**options).learn(30_000)
    model = fastac.A2C(**options).learn(30_000, cluster=on(machines))
    assert np.array_equal(model.params, alone.params) and np.array_equal(model.state, alone.state)
    assert (model.version, model.num_timesteps) == (alone.version, alone.num_timesteps)
    its = model.ledger
    assert its.applied == 2 * model.version and its.merged == model.version  # two gradients make one step
    assert len(model.history.updates["updates"]) == 2 * model.version
    assert model.history.updates["updates"][-1] == model.version


@pytest.mark.parametrize("algorithm", ["a2c", "a3c"])
def test_parameters_may_be_spread_over_several_servers(algorithm, machines):
    if algorithm == "a2c":
        options = {"n_envs": 16, "hidden_sizes": (16,), "seed": 4}
        alone = fastac.A2C(**options).learn(5_000)
        model = fastac.A2C(**options).learn(5_000, cluster=on(machines, most_shard_mb=0.0005))
        assert np.abs(model.params - alone.params).max() <= 1e-6 * np.abs(alone.params).max()
    else:
        model = fastac.A3C(workers=1, seed=0).learn(50_000, cluster=on(machines, most_shard_mb=0.005))
        assert model.ledger.applied == model.version
    model.ledger.check()


def test_a2c_that_was_on_a_cluster_goes_on_here_in_new_episodes(machines, tmp_path):
    model = fastac.A2C(n_envs=2, hidden_sizes=(8,), seed=4).learn(1_000, cluster=on(machines))
    fresh = fastac.A2C(n_envs=2, hidden_sizes=(8,), seed=4)
    fresh._standing = model._standing
    again = fastac.A2C.load(model.save(tmp_path / "model"))
    states = [one._envs_state()["env_stream"] for one in (model, again)]
    assert np.array_equal(*states) and not np.array_equal(states[0], fresh._envs_state()["env_stream"])
    model.learn(1_000)
    again.learn(1_000)
    assert np.array_equal(model.params, again.params)


def test_gradients_are_summed_and_make_steps_of_the_server(machines):
    model = fastac.A3C(workers=1, seed=0, engine="torch", hidden_sizes=(8,))
    model.learn(10_000, cluster=on(machines, send="gradients", sync_updates=5))
    its = model.ledger
    its.check()
    assert 0 < model.version < its.applied and its.merged == its.applied - model.version


def test_other_envs_with_statistics_that_all_nodes_share(machines):
    model = fastac.A3C(
        "MlpPolicy",
        "Pendulum-v1",
        workers=1,
        seed=0,
        n_steps=50,
        hidden_sizes=(8,),
        normalize_observation=True,
        normalize_reward=True,
    )
    model.learn(4_000, cluster=on(machines))
    assert model.statistics.obs.count == model.num_timesteps >= 4_000
    assert np.all(np.isfinite(model.statistics.obs.mean)) and len(model.history.episodes["episode_return"]) >= 10


def test_callbacks_checkpoints_and_a_run_that_goes_on(machines, tmp_path):
    """All of it in the program that started the run."""
    path = tmp_path / "model.safetensors"
    seen = []
    model = fastac.A3C(workers=1, seed=0)

    def step(training):
        seen.append(training.num_timesteps)
        return training.num_timesteps < 30_000

    model.learn(10**9, cluster=on(machines), callback=step, checkpoint=path, checkpoint_every_s=0.2)
    assert 30_000 <= seen[-1] <= model.num_timesteps < 10**9
    again = fastac.A3C.load(path)
    assert again.num_timesteps == model.num_timesteps and np.array_equal(again.params, model.params)
    again.learn(20_000, cluster=on(machines))
    assert again.num_timesteps >= model.num_timesteps + 20_000 and again.learn_calls == 2
    again.learn(5_000)  # on this machine alone
    assert again.num_timesteps >= model.num_timesteps + 25_000


def test_an_interrupted_run_is_resumed(machines, tmp_path):
    model = fastac.A3C(workers=1, seed=0)

    def interrupt(training):
        if training.num_timesteps > 20_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.learn(2_000_000, cluster=on(machines), callback=interrupt)
    assert model.unfinished is not None and model.num_timesteps > 20_000
    model.ledger.check()
    model.resume(cluster=on(machines))
    assert model.unfinished is None and model.num_timesteps >= 2_000_000


def test_what_fails_on_a_node_is_raised_here(machines):
    class Broken(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
        action_space = gymnasium.spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            return np.zeros(2, np.float32), {}

        def step(self, action):
            raise RuntimeError("this env is broken")

    with pytest.raises(fastac.WorkerError, match="this env is broken"):
        fastac.A3C(Broken, workers=1, seed=0).learn(1000, cluster=on(machines))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nodes": 0}, "nodes: expected a whole number from 1 to 1,000, got 0"),
        ({"nodes": MAX_NODES + 1}, "nodes: expected"),
        ({"workers_per_node": 64}, "workers_per_node: expected a whole number from 1 to 63, got 64"),
        ({"sync_ms": 0}, "sync_ms: expected a number > 0, got 0"),
        ({"sync_ms": 6000}, "sync_ms: expected at most 5,000, got 6000"),
        ({"sync_updates": 1.5}, "sync_updates: expected a whole number"),
        ({"send": "parameters"}, "send: expected one of steps, gradients, got 'parameters'"),
        ({"address": 5}, "address: expected a text or None, got 5"),
        ({"call_retries": -1}, "call_retries: expected"),
        ({"outage_s": float("inf")}, "outage_s: expected a number > 0"),
    ],
)
def test_what_is_no_cluster(options, message):
    with pytest.raises(fastac.ConfigError) as error:
        RayCluster(**options)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: fastac.A2C(n_envs=4), "nodes: expected a divisor of n_envs=4, as each node has as many, got 3"),
        (lambda: fastac.A3C(update="hogwild"), "update: expected lockfree, lock or queue on a cluster, got hogwild"),
        (lambda: fastac.A3C(record=True), "record: expected False on a cluster"),
        (
            lambda: fastac.A2C("MlpPolicy", gymnasium.make("CartPole-v1"), n_envs=1),
            "env: expected an id or what makes one, as each node has its own, got an env",
        ),
        (lambda: fastac.A3C(workers=64), "workers_per_node: expected a whole number from 1 to 63, got 64"),
    ],
)
def test_what_cannot_be_spread(model, message):
    with pytest.raises(fastac.ConfigError) as error:
        model().learn(1000, cluster=RayCluster(nodes=1 if "got an env" in message else 3))
    assert message in str(error.value)


def test_without_ray_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(fastac.ConfigError, match=r"pip install 'fastac\[ray\]'"):
        fastac.A3C().learn(1000, cluster=RayCluster())


def test_what_is_no_cluster_at_all():
    with pytest.raises(fastac.ConfigError, match=r"cluster: expected a fastac\.RayCluster, got 'local'"):
        fastac.A3C().learn(1000, cluster="local")


def test_a_run_of_the_command_line_goes_on_where_it_was(machines, tmp_path, monkeypatch):
    """Its folder knows the cluster."""
    from click.testing import CliRunner

    from fastac.cli import main

    monkeypatch.chdir(tmp_path)
    words = ["train", "a3c", "--cluster", machines.address, "--nodes", "2", "--workers", "1", "--seed", "0"]
    done = CliRunner().invoke(main, [*words, "--total-timesteps", "20000", "--name", "one"])
    assert done.exit_code == 0 and "2 nodes" in done.output, done.output
    told = Path("runs/one/config.toml").read_text()
    assert 'cluster = "' in told and "nodes = 2" in told
    command = train_command(json.loads(Path("runs/one/run.json").read_text()))
    assert f"--cluster {machines.address} --nodes 2" in command
    again = CliRunner().invoke(main, ["train", "a3c", "--config", "runs/one/config.toml", "--name", "two"])
    assert again.exit_code == 0 and "2 nodes" in again.output, again.output
    model = fastac.A3C.load("runs/one")
    model._standing = dataclasses.replace(model._standing, unfinished=Position(60_000, env_steps=20_000))
    model.save("runs/one")
    resumed = CliRunner().invoke(main, ["resume", "runs/one"])
    assert resumed.exit_code == 0 and "2 nodes" in resumed.output, resumed.output


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "nonsense"])
def test_no_cluster_at_that_address(address):
    code = f"""
import fastac
try:
    fastac.A3C().learn(1000, cluster=fastac.RayCluster(address={address!r}))
except fastac.ConfigError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert f"cluster: expected a Ray cluster at {address!r}" in done.stdout, done.stderr


def test_a_machine_that_joins_and_one_that_leaves(machines):
    """Three places and two machines: the third place is taken as soon as there is one, and free again when it dies."""
    model = fastac.A3C(workers=2, seed=0, learning_rate=3e-4)
    joined = []

    def step(training):
        names = [node.name for node in training.ledger().nodes if node.deliveries > 3]
        if not joined and len(names) == 2:
            joined.append(machines.add_node(num_cpus=2))
        elif len(joined) == 1 and len(names) == 3:
            machines.remove_node(joined[0], allow_graceful=False)
            joined.append(training.num_timesteps)
        return not (len(joined) == 2 and training.num_timesteps > joined[1] + 200_000)

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model.learn(10**9, cluster=on(machines, nodes=3, outage_s=8.0), callback=step)
    model.ledger.check()
    texts = [str(warning.message) for warning in told]
    assert any("2 of 3 nodes begin" in text for text in texts), texts
    assert len(model.ledger.nodes) == 3


def test_sigkill_of_everything_a_cluster_is_made_of():
    """The gate, in small: in a program of its own, on a cluster of its own."""
    done = subprocess.run(
        [sys.executable, str(GATE), "each=1"], capture_output=True, text=True, timeout=240, cwd=GATE.parent
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert "1 worker, 1 agent, 1 node, 1 server killed" in done.stdout


def test_a_killed_program_leaves_nothing(tmp_path):
    """With a Ray of its own (address=None), which ends with it."""
    code = f"""
import fastac, pathlib
def step(training):
    if training.num_timesteps > 1000:
        pathlib.Path({str(tmp_path / "going")!r}).touch()
fastac.A3C(workers=1, seed=0).learn(10**12, cluster=fastac.RayCluster(nodes=1), callback=step)
"""
    with subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stderr=subprocess.DEVNULL) as run:
        until = time.monotonic() + 90
        while not (tmp_path / "going").exists() and time.monotonic() < until:
            time.sleep(0.05)
        assert (tmp_path / "going").exists()
        os.kill(run.pid, signal.SIGKILL)
    until = time.monotonic() + 30
    while (left := _ours_of(run.pid)) and time.monotonic() < until:
        time.sleep(0.2)
    for pid in _of_session(run.pid):  # Ray's own agents take their time
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    assert not left


def _ours_of(session):
    """Actors and workers of fastac's."""
    found = []
    for pid in _of_session(session):
        with contextlib.suppress(OSError):
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            if any(word in command for word in (b"NodeActor", b"ServerActor", b"forkserver", b"fastac")):
                found.append(command[:200])
    return found


def _of_session(session):
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = status.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(status.parent.name))
    return found
