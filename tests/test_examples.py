"""The examples, in a short form, as a user starts them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from fastac.env import ENV_ID

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
NATIVE = f"fastac:{ENV_ID}"
SPEED = re.compile(r"[\d,]+ env steps per second, .* included")


def run(name, *words):
    command = [sys.executable, EXAMPLES / name, *map(str, words)]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}  # more would wait for each other, and for other tests
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=one_thread)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout.splitlines()


def test_every_example_is_run_here():
    assert {path.name for path in EXAMPLES.iterdir()} == {"ppo.py", "random_policy.py", "sb3_ppo.py"}


def test_random_policy():
    counted, speed = run("random_policy.py", "--num-envs", 4, "--env-steps", 4000, "--seed", 3)
    assert SPEED.fullmatch(speed)
    envs = gymnasium.make_vec("CartPole-v1", num_envs=4, vectorization_mode="sync")
    envs.reset(seed=3)
    envs.action_space.seed(3)
    length, lengths = np.zeros(4), []
    for _ in range(1000):
        _, rewards, terminated, truncated, _ = envs.step(envs.action_space.sample())
        length += rewards
        ended = terminated | truncated
        lengths += length[ended].tolist()
        length[ended] = 0
    assert counted == f"{len(lengths)} episodes, mean return {np.mean(lengths):.2f}"
    assert 15 < np.mean(lengths) < 30  # about 22 for this policy


CURVE = re.compile(r"(\d+) env steps, (\d+) episodes, mean return of the last 100: ([\d.]+)")


def test_ppo_learns_the_same_on_gymnasiums_env_and_on_the_native_one():
    short = ("--total-timesteps", 20_480, "--seed", 1)
    *native, speed = run("ppo.py", *short, "--env-id", NATIVE)
    assert SPEED.fullmatch(speed)
    rows = [CURVE.fullmatch(row).groups() for row in native]
    assert [row[0] for row in rows] == ["5120", "10240", "15360", "20480"]
    assert float(rows[-1][2]) > 50  # a random policy has about 22
    *gymnasiums, _ = run("ppo.py", *short, "--env-id", "CartPole-v1", "--vectorization-mode", "sync")
    assert native == gymnasiums


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Acrobot-v1"])
def test_ppo_runs_on_other_envs_by_their_id_alone(env_id):
    *_, speed = run("ppo.py", "--env-id", env_id, "--total-timesteps", 1024, "--rollout", 32)
    assert SPEED.fullmatch(speed)


def test_sb3_ppo():
    before, after = run("sb3_ppo.py", "--total-timesteps", 8192)
    said = r"(before|after) training: mean return ([\d.]+), standard deviation [\d.]+, of 20 episodes"
    (first, low), (second, high) = (re.fullmatch(said, line).groups() for line in (before, after))
    assert (first, second) == ("before", "after") and float(high) > 2 * float(low)
