"""Benchmarks: tests check what they compute; how long it took is theirs to say."""

import importlib.util
import math
import mmap
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fastac import _core
from fastac._core import UPDATE_SCHEMES
from fastac.bench import env, memory, pace, peers, plots, racer, scaling, solve, train, updates
from fastac.bench.pace import Pace, Solved
from fastac.bench.racer import Racer, RacerError, closing, cores
from fastac.bench.rounds import Spread, as_json, interleave, ratio
from fastac.config import A2CConfig, A3CConfig
from fastac.metrics import History
from fastac.returns import gae, successor_values

NO_PEERS = [peer for peer in vars(peers).values() if isinstance(peer, peers.Peer)]


def needs(package):
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"{package}: fastac[peers]")


def test_rounds_are_interleaved_after_a_warm_up():
    calls = []
    ticks = []
    cases = {"a": lambda: calls.append("a") or len(calls), "b": lambda: calls.append("b") or len(calls)}
    figures = interleave(cases, 2, lambda: ticks.append(len(calls)))
    assert ticks == [4, 6]
    assert calls == ["a", "b"] * 3 and figures == {"a": [3, 5], "b": [4, 6]}


def test_spread_and_ratio():
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(1.0, 2.0, 3.0)
    assert ratio([2.0, 9.0, 4.0], [1.0, 3.0, 4.0]) == Spread(1.0, 2.0, 3.0)
    assert Spread(1.0, 2.5, 1234.0).text(1) == "2.5\n[dim]1.0-1,234.0[/dim]"


def test_json():
    nested = {1: {"form": {"ns": Spread(1.0, 2.0, 3.0)}, "seeds": 2}}
    assert as_json(nested) == {"1": {"form": {"ns": {"minimum": 1.0, "median": 2.0, "maximum": 3.0}}, "seeds": 2}}


# ---- racers -----------------------------------------------------------------------------------------------------


def test_a_racer_answers_from_its_own_process_and_cores():
    racers = {}
    with closing(racers):
        racers["a"] = Racer("racing:adder", 10, on=cores())
        racers["b"] = Racer("racing:teller", on=cores(1))
        assert racers["a"](1, 2) == 13
        racers["a"].send(5)  # both at work at once
        bound, flags = racers["b"]()
        assert racers["a"].receive() == 15
        assert bound == {max(os.sched_getaffinity(0))} and "multi_thread_eigen=false" in flags
        assert racers["a"].ready_s > 0


@pytest.mark.parametrize(("what", "message"), [("raise", "a bad round"), ("die", "its process ended, exit code -9")])
def test_a_racer_that_fails_says_so(what, message):
    racers = {"x": Racer("racing:troubled", on=cores())}
    with closing(racers), pytest.raises(RacerError, match=message):
        racers["x"](what)


def test_a_racer_that_does_not_answer():
    racers = {"x": Racer("racing:troubled", on=cores())}
    with closing(racers), pytest.raises(RacerError, match=r"racing:troubled gave no answer within 0\.2 s"):
        racers["x"]("sleep", within_s=0.2)


def test_what_cannot_start_does_not_race():
    racers = {}
    with pytest.warns(UserWarning, match=r"(?s)Bad does not race: racing:failing failed:.*no such peer"):
        racer.enter(racers, "Bad", "racing:failing", on=cores())
    assert racers == {}


def test_a_racer_ends_with_its_parent():
    code = (
        "from fastac.bench.racer import Racer, cores; import time\n"
        "r = Racer('racing:troubled', on=cores()); r.send('sleep'); print(r._process.pid, flush=True); time.sleep(600)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment) as parent:
        child = Path("/proc") / parent.stdout.readline().strip()
        assert child.exists()
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 60
    while child.exists() and child.joinpath("stat").read_text().split(") ")[1][0] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("peer", NO_PEERS, ids=lambda peer: peer.target)
def test_a_peer_that_is_not_installed_does_not_race(peer, monkeypatch):
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda asked: None if asked == peer.package else asked)
    racers = {}
    message = rf"{peer.name} does not race: {peer.package} is not installed \(pip install 'fastac\[peers\]'\)"
    with pytest.warns(UserWarning, match=message):
        peers.enter(racers, peer, on=cores())
    assert racers == {}


# ---- what they measure ------------------------------------------------------------------------------------------


def test_a_round_has_about_the_length_that_was_asked_for():
    asked = []

    def case(env_steps):
        asked.append(env_steps)
        return Pace(env_steps, env_steps / 100_000.0, 1.0)

    assert pace.env_steps_in(case, 2.0) == 200_000
    assert max(asked) < 20_000


def test_a_pace_is_what_was_done_over_the_time_it_took():
    measured = pace.timed(lambda env_steps: (time.sleep(0.05), env_steps + 3)[1])(7)
    assert measured.env_steps == 10 and measured.wall_s >= 0.05 and measured.cpu_s < measured.wall_s
    assert Pace(100, 4.0, 8.0).per_wall_s == 25.0 and Pace(100, 4.0, 8.0).per_cpu_s == 12.5


def test_when_it_was_solved_is_read_off_the_history():
    episodes = {
        "wall_s": np.arange(1.0, 121.0),
        "env_steps": 500.0 * np.arange(1, 121),
        "updates": np.zeros(120),
        "episode_return": np.array([100.0] * 10 + [500.0] * 110),
    }
    # 100 episodes hold at most six returns of 100 for a mean of 476: the 104th is the first with no more than that.
    assert pace.solved(History(episodes=episodes), 208.0, 416.0) == Solved(52_000.0, 104.0, 208.0, 208.0)
    episodes["episode_return"][:] = 474.0
    assert pace.solved(History(episodes=episodes), 208.0, 416.0) == Solved(math.inf, math.inf, math.inf, 208.0)


def test_when_it_was_solved_inside_a_compiled_program():
    lengths = np.zeros((200, 2, 2), np.int32)  # updates, T, N
    lengths[:100, 1, 0] = 475
    # The 100th episode ends with the second step of update 100: after (99 * 2 + 2) * 2 of 800 env steps.
    assert pace.solved_in_program(lengths, 8.0, 4.0) == Solved(400.0, 4.0, 2.0, 8.0)


# ---- commands ---------------------------------------------------------------------------------------------------


def test_env():
    results = env.measure((1, 16), rounds=1, round_s=0.001, with_peers=False, tick=lambda: None)
    assert list(results) == [1, 16]
    assert list(results[1]) == [env.RAW, env.NATIVE, "gymnasium sync", "gymnasium async", "gymnasium vector"]
    assert list(results[16]) == [env.RAW, env.NATIVE, "gymnasium sync", "gymnasium vector"]
    assert results[1][env.NATIVE]["times_slower_than_fastac"] == Spread(1.0, 1.0, 1.0)
    assert env.table(results).row_count == 9
    assert as_json(results)["16"][env.RAW]["ns_per_env_step"]["median"] > 0


@needs("envpool")
def test_env_against_envpool():
    results = env.measure((4,), rounds=1, round_s=0.001, with_peers=True, tick=lambda: None)
    (name,) = [name for name in results[4] if name.startswith("EnvPool, ")]
    assert name.split(", ")[2] in ("sync", "async") and results[4][name]["ns_per_env_step"].median > 0


def test_updates():
    results = updates.measure((1, 2), n_params=100, rounds=1, n_updates=50, tick=lambda: None)
    assert list(results) == [1, 2] and list(results[1]) == list(UPDATE_SCHEMES)
    for schemes in results.values():
        for scheme, figures in schemes.items():
            assert figures["updates_per_s"].median > 0
            if scheme != "hogwild":
                assert figures["lost"] == Spread(0.0, 0.0, 0.0)
    assert results[1]["hogwild"]["lost"].median == 0.0
    assert updates.table(results, 100).row_count == 8


def test_a_push_beside_a_copy_and_an_addition(monkeypatch):
    asked = []

    def native(n_params, n):  # 1, 2, ... 21 us a push in the pieces of a round, and 10 us for the plain way
        asked.append((n_params, n))
        return (len(asked) - 1) % 21 * n * 1e-6 + n * 1e-6, n * 1e-5

    monkeypatch.setattr(updates._core, "push_beside_copy_and_add", native)
    push = updates.measure_push(4675, rounds=2, n_updates=100)
    assert asked == [(4675, 5)] * 42
    assert push["push_us"].median == pytest.approx(11.0) and push["copy_and_add_us"].median == pytest.approx(10.0)
    line = "A push of 4,675 floats that nobody contends for: 11.00 us, 1.10 (1.10-1.10) times a plain copy plus "
    assert updates.push_line(push, 4675).startswith(line)


def test_the_native_side_of_a_push():
    spent = _core.push_beside_copy_and_add(parameters=33, n=50)
    assert min(spent) > 0 and _core.push_beside_copy_and_add(33, 0) == (0.0, 0.0)
    with pytest.raises(ValueError, match="parameters: expected at least 1, got 0"):
        _core.push_beside_copy_and_add(0, 1)


@pytest.mark.parametrize("scheme", UPDATE_SCHEMES)
def test_what_is_missing_from_the_sum_is_called_lost(scheme, monkeypatch):
    """The measure itself: with one addition in four withheld from the parameters it says a quarter."""
    sessions = []
    original = updates.observer_of

    def watched(region):
        sessions.append(original(region))
        return sessions[-1]

    class Quarter:
        def __init__(self, session):
            self._session = session

        def __getattr__(self, name):
            return getattr(self._session, name)

        def read(self, params):
            answer = self._session.read(params)
            params *= 0.75
            return answer

    monkeypatch.setattr(updates, "observer_of", lambda region: Quarter(watched(region)))
    assert updates.one_round("sgd", scheme, 1, 10, 40)["lost"] == pytest.approx(0.25)


def test_train():
    setups = (train.Setup("A3C", 1, 5, (8,), workers=2), train.Setup("A2C", 2, 4, (8,)))
    ticks = []
    results = train.measure(setups, 2, 0.001, False, lambda: ticks.append(1))
    assert list(results) == ["A3C, 2 workers, 1 env, T = 5, 8", "A2C, 2 envs, T = 4, 8"] and len(ticks) == 4
    for cases in results.values():
        assert list(cases) == [train.NATIVE, "fastac, torch"]
        assert cases[train.NATIVE]["times_slower_than_native"] == Spread(1.0, 1.0, 1.0)
        assert cases[train.NATIVE]["times_slower_than_native_wall"] == Spread(1.0, 1.0, 1.0)
        assert all(spread.minimum > 0 for figures in cases.values() for spread in figures.values())
    assert train.table(results).row_count == 6
    assert as_json(results)["A2C, 2 envs, T = 4, 8"]["fastac, torch"]["env_steps_per_s"]["median"] > 0


@pytest.mark.parametrize(
    ("workers", "counts"), [(1, (1,)), (2, (1, 2)), (3, (1, 2, 3)), (4, (1, 2, 4)), (6, (1, 2, 4, 6))]
)
def test_counts_of_workers(workers, counts):
    assert scaling.counts_up_to(workers) == counts


def test_runs_apart_add_up():
    class Run:
        def __init__(self, answer):
            self.answer = answer

        def send(self, env_steps):
            assert env_steps == 50

        def receive(self):
            return self.answer

    together = scaling.at_once([Run(Pace(100, 2.0, 1.0)), Run(Pace(100, 4.0, 3.0))])(100)
    assert together == Pace(200, 200 / 75, 4.0) and together.per_wall_s == pytest.approx(75.0)


def test_scaling(tmp_path):
    results = scaling.measure((1, 2), rounds=1, round_s=0.001, tick=lambda: None)
    forms = [scaling.THREADS, scaling.PROCESSES, scaling.A2C_THREADS, scaling.APART]
    assert list(results) == [form for form in forms if form in results] and len(results) >= 3
    for by_workers in results.values():
        assert list(by_workers) == [1, 2] and by_workers[1]["times_one_worker"] == Spread(1.0, 1.0, 1.0)
        assert all(spread.minimum > 0 for figures in by_workers.values() for spread in figures.values())
    assert scaling.table(results).row_count == 2 * len(results)
    plots.draw_scaling(tmp_path / "scaling.png", results, 2)
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")


def test_the_picture_of_the_env_has_a_line_for_each_form(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "save", lambda figure, path: drawn.append(figure.axes[0]))
    figures = {"ns_per_env_step": Spread(5.0, 10.0, 20.0)}
    plots.draw_env(tmp_path / "env.png", {1: {"ours": figures, "EnvPool, 2 threads": figures}, 8: {"ours": figures}})
    lines = {container.get_label(): container.lines[0] for container in drawn[0].containers}
    assert {name: len(line.get_xdata()) for name, line in lines.items()} == {"ours": 2, "EnvPool": 1}
    assert list(lines["ours"].get_ydata()) == [1e8, 1e8] and list(lines["ours"].get_xdata()) == [1, 8]


def test_the_picture_of_the_time_to_solve_says_what_was_not_solved(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "save", lambda figure, path: drawn.append(figure.axes[0]))
    ours = [Solved(1e5, 2.0, 1.0, 9.0), Solved(1e5, 4.0, 1.0, 9.0)]
    theirs = [Solved(math.inf, math.inf, math.inf, 50.0), Solved(math.inf, math.inf, math.inf, 60.0)]
    results = {name: solve._figures(runs, ours) | {"ready_s": 1.0} for name, runs in ((solve.A2C, ours), ("X", theirs))}
    plots.draw_solve(tmp_path / "solve.png", results)
    assert [text.get_text() for text in drawn[0].texts] == ["3 s", "not within 50 s"]
    assert [label.get_text() for label in drawn[0].get_yticklabels()] == [solve.A2C, "X"]


def test_memory_of_one_more_worker(monkeypatch):
    found = {memory.FEW: (50_000_000, 75_000, 1_500), memory.MANY: (54_800_000, 75_000, 1_500)}  # 16 take 4.8 MB
    monkeypatch.setattr(memory, "_resident", lambda workers, options: found[workers])
    figures = memory.measure({}, rounds=2)
    assert figures["resident"] == Spread(300_000, 300_000, 300_000)
    assert figures["beyond"] == Spread(223_500, 223_500, 223_500)
    line = (
        "One more worker thread (8 envs, T = 5), trained a little and idle: 300 kB resident, 224 kB (224-224) beyond "
    )
    assert memory.line(figures, scaling.A3C_OPTIONS).startswith(line)


def test_what_is_resident():
    before = memory._resident_bytes()
    with mmap.mmap(-1, 8_000_000) as held:  # new pages: an array may get some that were resident already
        held.write(b"1" * len(held))
        assert memory._resident_bytes() - before >= 0.9 * len(held)


def test_workers_hold_their_slots_and_rollout_while_their_memory_is_read():
    few, slots, rollout = memory.holder(1, {"n_envs": 2, "n_steps": 3, "hidden_sizes": (8,)})()
    # 67 parameters (4 to 8 to 2 + 1), in 4 slots; 6 steps of 4 floats, an action of 8 bytes, and 3 floats.
    assert (slots, rollout) == (4 * 67 * 4, 6 * (16 + 8 + 12)) and few > 10_000_000


def test_solve(monkeypatch):
    monkeypatch.setattr(solve, "_TIMES", 1)
    ticks = []
    results = solve.measure(solve.Plan(2, 300, 1, 1.0, with_peers=False), lambda: ticks.append(1))
    assert list(results) == [solve.A2C, solve.A3C, solve.COMMAND, solve.IMPORT] and len(ticks) == 2
    for name in (solve.A2C, solve.A3C):  # 300 env steps are too few
        assert (results[name]["seeds"], results[name]["solved"]) == (2, 0) and results[name]["ready_s"] > 0
        assert all(run["wall_s"] == math.inf and 0 < run["trained_s"] < math.inf for run in results[name]["runs"])
    assert all(results[name]["wall_s"]["median"] > 0 for name in solve.WHOLE_PROCESSES)
    assert solve.table(results).row_count == 4
    assert 10 < results[solve.COMMAND]["peak_mb"] < 1000 and solve.peak_memory(results).endswith("largest process.")
    lines = solve.censored(results)
    assert [line.split(" runs unsolved")[0] for line in lines] == [f"{solve.A2C}: 2 of 2", f"{solve.A3C}: 2 of 2"]


def test_a_whole_command_that_does_not_end():
    with pytest.raises(RuntimeError, match=r"fastac train a3c --solve 475 --seed 3 did not end within 0.2 s"):
        solve._train_command(3, within_s=0.2)


def test_times_and_their_ratios_to_a2c():
    ours = [Solved(1e5, 2.0, 1.0, 9.0), Solved(1e5, 2.0, 1.0, 9.0)]
    theirs = [Solved(3e5, 10.0, 8.0, 10.0), Solved(math.inf, math.inf, math.inf, 60.0)]
    figures = solve._figures(theirs, ours)
    assert (figures["seeds"], figures["solved"]) == (2, 1)
    assert figures["times_wall_s"] == {"value": math.inf, "low": 5.0, "high": math.inf}
    assert figures["cpu_s"] == {"median": math.inf, "low": 8.0, "high": math.inf}
    assert solve.censored({"X": figures}) == ["X: 1 of 2 runs unsolved after 60 s: censored."]


# ---- peers ------------------------------------------------------------------------------------------------------


def test_the_plain_worker_counts_its_env_steps():
    plain = pytest.importorskip("fastac.bench.plain_a3c")
    assert plain.trainer(A3CConfig(seed=0, n_envs=1, n_steps=8, hidden_sizes=(4,)))(20).env_steps == 24


def test_the_loss_of_the_plain_worker():
    """Of five steps, the second cut and the fourth terminated, against returns.py."""
    import torch

    plain = pytest.importorskip("fastac.bench.plain_a3c")
    config = A3CConfig(gamma=0.9, gae_lambda=0.5, vf_coef=0.25, ent_coef=0.125)
    values, rewards = np.array([1.0, -2.0, 0.5, 3.0, 1.5]), np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    log_p, entropy = np.array([-0.1, -0.2, -0.3, -0.4, -0.5]), np.array([0.6, 0.5, 0.4, 0.3, 0.2])
    terminated, truncated = np.arange(5) == 3, np.arange(5) == 1
    final = np.where(truncated, 7.0, 0.0)

    def column(x):
        return x[:, None]

    successors = successor_values(column(values), np.array([4.0]), column(final), column(terminated), column(truncated))
    done = column(terminated | truncated)
    advantages, returns = (x[:, 0] for x in gae(column(rewards), column(values), successors, done, 0.9, 0.5))
    expected = (-advantages * log_p + 0.25 * (returns - values) ** 2 - 0.125 * entropy).mean()

    def tensor(x):
        return torch.tensor(x, dtype=torch.float64)

    steps = [
        plain.Step(*map(tensor, (values[t], log_p[t], entropy[t])), rewards[t], not done[t, 0], tensor(final[t]))
        for t in range(5)
    ]
    assert float(plain.loss_of(steps, tensor(4.0), config)) == pytest.approx(expected, rel=1e-12)


@needs("jax")
def test_a2c_in_jax_learns_and_counts_its_env_steps():
    from fastac.bench import jax_a2c

    when = jax_a2c.solver(150_000)(0)
    assert when.env_steps < 150_000 and 0 < when.wall_s < when.trained_s
    assert jax_a2c.trainer(A2CConfig(seed=0, n_envs=2, n_steps=4, hidden_sizes=(8,)))(100).env_steps == 104


@needs("jax")
def test_ppo_in_jax_learns():
    from fastac.bench import jax_ppo

    assert jax_ppo.solver()(0).env_steps < jax_ppo.TOTAL_TIMESTEPS


@needs("jax")
def test_cartpole_in_jax_is_gymnasiums():
    from gymnasium.envs.classic_control.cartpole import CartPoleEnv

    from fastac.bench.jax_cartpole import step

    single = CartPoleEnv()
    state, _ = single.reset(seed=3)
    for action in np.random.default_rng(0).integers(0, 2, 200):
        after, fell = step(np.asarray(state)[None], np.array([action]))
        state, _, terminated, _, _ = single.step(int(action))
        np.testing.assert_allclose(after[0], state, rtol=1e-5, atol=1e-6)
        assert bool(fell[0]) == terminated
        if terminated:
            state, _ = single.reset()


@needs("stable_baselines3")
def test_stable_baselines3():
    racers = {}
    with closing(racers):
        peers.enter(racers, peers.SB3_A2C, A2CConfig(seed=0, n_envs=2, n_steps=4), on=cores(1))
        assert racers[peers.SB3_A2C.name](100).env_steps == 104
    with closing(racers):
        peers.enter(racers, peers.SOLVE_SB3_A2C, 1_000_000, 0.2, on=cores(1))
        cut = racers[peers.SOLVE_SB3_A2C.name](0)
        assert cut.wall_s == math.inf and 0.2 <= cut.trained_s < math.inf
