"""CartPole, UniformStreams and the module's functions under the boundary gate."""

from __future__ import annotations

import copy
import gc
import pickle
from typing import Any

import numpy as np
from boundary_calls import Caller, failed
from boundary_values import Draw, read_only

from fastac import _core

MODES = ("next_step", "same_step", "disabled")
VIEWS = ("obs", "reward", "terminated", "truncated", "final_obs")
SCHEMES, OPTIMIZERS = _core.UPDATE_SCHEMES, _core.OPTIMIZERS


class MadeUp(dict):
    """A dict whose entries nobody but the caller keeps alive."""

    def __getitem__(self, key: str) -> Any:
        return super().__getitem__(key).copy()


def everything(env: _core.CartPole) -> list[bytes]:
    return [a.tobytes() for a in (*env.get_state().values(), *(getattr(env, name) for name in VIEWS))]


class Envs:
    """Up to three envs, streams, and the views that outlive them."""

    def __init__(self, call: Caller) -> None:
        self.call = call
        self.envs: list[_core.CartPole] = []
        self.streams: list[_core.UniformStreams] = []
        self.views: list[np.ndarray] = []

    # ---- coming and going ----

    def make(self, d: Draw) -> None:
        (n, a), (limit, b) = d.integer(1, 6, 2**30), d.integer(1, 30, 2**63 - 1)
        mode, c = d.text(MODES)
        flag, e = d.choice([(True, True), (False, True), (np.True_, True), ("yes", False), (object(), False)])
        env = self.call(_core.CartPole, n, limit, mode, flag, fits=a and b and c and e)
        if not failed(env):
            self.envs = [*self.envs[-2:], env]

    def drop(self, d: Draw) -> None:
        if self.envs:
            self.envs.pop(d.randrange(len(self.envs)))
            gc.collect(0)

    def never_made(self, d: Draw) -> None:
        """Class.__new__(Class): memory that no __init__ has filled."""
        name, member = d.choice([("CartPole", "num_envs"), ("CartPole", "get_state"), ("UniformStreams", "random")])
        kind = getattr(_core, name)
        self.call(lambda: call_or_get(kind.__new__(kind), member), raises=TypeError)

    def some(self, d: Draw) -> _core.CartPole:
        if not self.envs:
            self.envs.append(_core.CartPole(d.randint(1, 4), d.randint(1, 30), d.choice(MODES)))
        return d.choice(self.envs)

    # ---- what an env is asked for ----

    def step(self, d: Draw) -> None:
        env = self.some(d)
        actions, fits = d.array("i8", (env.num_envs,), [d.randrange(2) for _ in range(env.num_envs)])
        if fits and d.random() < 0.1:
            actions = np.array(actions)
            actions[d.randrange(len(actions))] = d.choice([2, -1, 2**63 - 1, -(2**63)])
            fits = False
        if fits and d.random() < 0.1:
            actions = read_only(actions)
        status = self.call(env.get_state)["status"]
        waits = (status == 2).any() or (env.autoreset_mode == "disabled" and (status == 1).any())
        needed = _core.ResetNeeded if waits else ()
        self.change(d, env, env.step, actions, fits=fits, raises=needed if fits else (), may=needed)

    def reset(self, d: Draw) -> None:
        env = self.some(d)
        n = env.num_envs
        if d.random() < 0.5:
            self.seed_all(d, env)
        mask, fits = d.array("?", (n,), [d.random() < 0.6 for _ in range(n)])
        if d.random() < 0.2:
            mask, fits = np.frombuffer(d.randbytes(n), np.bool_), True  # bytes that are neither 0 nor 1
        elif mask is None:
            fits = True
        low, a = d.real(-0.1, 0.0)
        high, b = d.choice([d.real(0.0, 0.1), (1e300, True), (-1.0, False)])
        fits = fits and a and b
        self.change(d, env, env.reset, mask, low, high, fits=fits, may=_core.ResetNeeded)

    def seed_all(self, d: Draw, env: _core.CartPole) -> None:
        n = env.num_envs
        self.call(env.seed, np.arange(n), np.array([d.getrandbits(64) for _ in range(4 * n)], "u8").reshape(n, 4))

    def seed(self, d: Draw) -> None:
        env = self.some(d)
        k = d.randrange(4)
        chosen = [d.choice([0, env.num_envs - 1, d.randrange(env.num_envs)]) for _ in range(k)]
        if k and d.random() < 0.2:
            chosen[d.randrange(k)] = d.choice([env.num_envs, -1, 2**40, -(2**63)])
        indices, a = d.array("i8", (k,), np.array(chosen, "i8"))
        known = a and all(0 <= i < env.num_envs for i in indices.tolist())
        words, b = d.array("u8", (k, 4), d.getrandbits(64))
        if not a and isinstance(indices, np.ndarray):  # one that fits, of another length
            known = False
        self.change(d, env, env.seed, indices, words, fits=a and b and known, may=() if a else ValueError)

    def change(self, d: Draw, env: _core.CartPole, verb: Any, *arguments: Any, **expected: Any) -> None:
        """A call that changes the env if it comes through and nothing if not."""
        before = everything(env) if d.random() < 0.5 else None
        outcome = self.call(verb, *arguments, **expected)
        if before is not None and failed(outcome):
            assert everything(env) == before, f"{verb.__name__} was refused with {outcome!r} and changed the env"
        if not failed(outcome) and verb.__name__ != "seed":
            with np.errstate(over="ignore"):
                same_rows = env.obs == env.state.T.astype(np.float32)
            assert verb.__name__ == "reset" or same_rows.all(), "obs is not the state"

    def set_state(self, d: Draw) -> None:
        env = self.some(d)
        saved: Any = self.call(env.get_state)
        key = d.choice(list(saved))
        old = saved[key]
        fits = True
        pick = d.randrange(6)
        if pick == 0:
            saved[key], fits = d.array(old.dtype.str, old.shape, old)
        elif pick == 1:
            del saved[key]
            fits = False
        elif pick == 2:
            saved = MadeUp(saved)
        elif pick == 3:
            saved, fits = d.choice([[], None, 1, "state"]), False
        elif pick == 4:
            saved["elapsed"][d.randrange(env.num_envs)] = d.choice([0, 5, 2**63 - 2])
        else:
            bad = {"state": np.nan, "elapsed": -1, "status": 3, "rng": 2}[key]
            if key == "state":
                saved["status"][:] = 0
                saved["rng"][:] = 1
            saved[key][:] = bad
            fits = False
        # Zeros of the right shape may be no state, too.
        self.change(d, env, env.set_state, saved, fits=fits, may=ValueError if pick == 0 else ())

    def poke_state(self, d: Draw) -> None:
        env = self.some(d)
        value, fits = d.array("f8", (4, env.num_envs), d.choice([0.0, 0.01, -2.39, 1e300, np.nan]))
        fits = fits and bool(np.isfinite(value).all())

        def assign(state: Any) -> None:
            env.state = state

        self.change(d, env, assign, value, fits=fits)

    def look(self, d: Draw) -> None:
        """Views are kept, read and scribbled on, also when their env is gone."""
        env = self.some(d)
        self.views = [*self.views[-5:], self.call(getattr, env, d.choice(VIEWS))]
        for name in ("num_envs", "max_episode_steps", "autoreset_mode", "state"):
            self.call(getattr, env, name)
        view = d.choice(self.views)
        assert view.tobytes()
        view.view("u1")[...] = d.randrange(256)

    def copy(self, d: Draw) -> None:
        env = self.some(d)
        ways = [copy.copy, copy.deepcopy, *(lambda e, p=p: pickle.loads(pickle.dumps(e, p)) for p in range(6))]
        twin = self.call(d.choice(ways), env)
        assert [a.tobytes() for a in twin.get_state().values()] == [a.tobytes() for a in env.get_state().values()]
        assert not any(np.shares_memory(getattr(twin, name), getattr(env, name)) for name in VIEWS)
        self.envs = [*self.envs[-2:], twin]

    # ---- streams ----

    def make_streams(self, d: Draw) -> None:
        seeds, fits = d.array("u8", (None, 4), d.getrandbits(64))
        streams = self.call(_core.UniformStreams, seeds, fits=fits)
        if not failed(streams):
            assert len(streams) == len(seeds)
            self.streams = [*self.streams[-2:], streams]

    def draw(self, d: Draw) -> None:
        if not self.streams:
            self.streams.append(_core.UniformStreams(np.ones((2, 4), np.uint64)))
        streams = d.choice(self.streams)
        n = len(streams)
        saved = self.call(getattr, streams, "state")
        first = self.call(streams.random)
        assert first.shape == (n,) and ((first >= 0) & (first < 1)).all()
        wrong, fits = d.array("u8", (n, 4), d.choice([0, 2, saved]))
        fits = fits and bool((wrong == saved).all())
        self.call(setattr, streams, "state", wrong, fits=fits)
        self.call(setattr, streams, "state", saved)
        out, fits = d.array("f8", (n,), 7.0, write=True)
        if not failed(self.call(streams.random_into, out, fits=fits)):
            assert (np.asarray(out) == first).all()
        self.call(d.choice([copy.copy, pickle.dumps, lambda s: pickle.dumps(s, 0)]), streams, raises=TypeError)

    # ---- functions ----

    def functions(self, d: Draw) -> None:
        name, fits = d.text(OPTIMIZERS)
        vectors = self.call(_core.state_vectors, name, fits=fits)
        assert failed(vectors) or vectors == OPTIMIZERS.index(name)
        grad, a = d.array("f4", (None,), d.choice([0.0, 1.0, -3.0, 1e30, np.inf, np.nan]), write=True)
        max_norm, b = d.real(-1.0, 2.0)
        b = b or max_norm in (float("inf"), -float("inf"))
        norm = self.call(_core.clip_grad_norm, grad, max_norm, fits=a and b)
        if not failed(norm) and norm < 1e30 and max_norm > 0:
            assert np.linalg.norm(np.asarray(grad, np.float64)) <= max(max_norm * (1 + 1e-5), 0)
        parameters, a = d.choice([(1, True), (33, True), (0, False), (-1, False), (2**32, False), (None, False)])
        n, b = d.choice([(0, True), (5, True), (-1, False), (2**64, False), (None, False)])
        spent = self.call(_core.push_beside_copy_and_add, parameters, n, fits=a and b)
        assert failed(spent) or min(spent) >= 0


def call_or_get(thing: Any, member: str) -> Any:
    found = getattr(thing, member)
    return found() if callable(found) else found
