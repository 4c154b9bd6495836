"""The native engine's Worker under the boundary gate."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
from boundary_calls import Caller, failed
from boundary_envs import MadeUp
from boundary_values import Draw

from fastac import _core

ACTIVATIONS = ("tanh", "relu")

# Courses of a learning rate or an entropy weight, and whether they are any.
POINTS: list[tuple[Any, bool]] = [
    *(([1.0], True), ((1.0, 0.0), True), ([1, 2.5, 0.0], True)),
    *(([], False), ([float("nan")], False), ([1.0, float("inf")], False), (None, False), (1.0, False), (["x"], False)),
]


class Workers:
    """Up to two workers, each with a region of its own to train in."""

    def __init__(self, call: Caller) -> None:
        self.call = call
        self.workers: list[tuple[_core.NativeWorker, _core.Session]] = []

    def make(self, d: Draw) -> None:
        hidden, a = d.choice(
            [
                ((3,), True),
                ([9, 5], True),
                ((16, 8, 1), True),
                ((), False),
                ((0,), False),
                ((2**40,), False),
                ("8", False),
            ]
        )
        activation, b = d.text(ACTIVATIONS)
        flag, c = d.choice([(True, True), (False, True), ("yes", False)])
        (steps, e), (limit, f) = d.integer(1, 6, 2**29), d.integer(1, 30, 2**63 - 1)
        (gamma, g), (gae_lambda, h), (scale, i) = (d.real(0.0, 1.0) for _ in range(3))
        n = d.randint(1, 4)
        (envs, j), (actions, k) = (d.array("u8", (n, 4), self.seeds(d, n)) for _ in range(2))
        same = j and k and len(envs) == len(actions) > 0
        worker = self.call(
            _core.NativeWorker,
            hidden_sizes=hidden,
            activation=activation,
            shared_trunk=flag,
            n_steps=steps,
            max_episode_steps=limit,
            gamma=gamma,
            gae_lambda=gae_lambda,
            reward_scale=scale,
            env_words=envs,
            action_words=actions,
            fits=a and b and c and e and f and g and h and i and same,
        )
        if not failed(worker):
            self.keep(worker)

    def seeds(self, d: Draw, n: int) -> np.ndarray:
        return np.array([d.getrandbits(64) for _ in range(4 * n)], "u8").reshape(n, 4)

    def keep(self, worker: _core.NativeWorker) -> None:
        region = _core.Region.create(workers=1, parameters=worker.parameters)
        _core.Session(region, 1).initialize(np.full(worker.parameters, 0.1, "f4"))
        self.workers = [*self.workers[-1:], (worker, _core.Session(region, 0))]

    def some(self, d: Draw) -> tuple[_core.NativeWorker, _core.Session]:
        if not self.workers:
            n = d.randint(1, 4)
            self.keep(
                _core.NativeWorker(
                    hidden_sizes=(d.randint(1, 20),),
                    activation=d.choice(ACTIVATIONS),
                    shared_trunk=d.choice([True, False]),
                    n_steps=d.randint(1, 6),
                    max_episode_steps=d.randint(1, 30),
                    gamma=0.9,
                    gae_lambda=0.9,
                    reward_scale=1.0,
                    env_words=self.seeds(d, n),
                    action_words=self.seeds(d, n),
                )
            )
        return d.choice(self.workers)

    def never_made(self, d: Draw) -> None:
        member = d.choice(["parameters", "updates"])
        self.call(lambda: getattr(_core.NativeWorker.__new__(_core.NativeWorker), member), raises=TypeError)

    def copies(self, d: Draw) -> None:
        how = d.choice([copy.copy, copy.deepcopy, *(lambda w, p=p: pickle.dumps(w, p) for p in range(5))])
        self.call(how, self.some(d)[0], raises=TypeError)

    def collect(self, d: Draw) -> None:
        worker, session = self.some(d)
        fill = d.choice([0.0, 0.5, np.nan, 1e38])
        params, fits = d.array("f4", (worker.parameters,), fill)
        given = d.choice([(), (None,), (session,), (1,), (worker,)])
        self.call(worker.collect, params, *given, fits=fits and given not in [(1,), (worker,)])

    def act(self, d: Draw) -> None:
        hidden, size = d.choice([((3,), 27), ([9, 5], 113), ("8", 0), ((), 0), ((0,), 0), ((2**40, 2**40), 0)])
        params, b = d.array("f4", (size,), d.choice([0.0, 0.5, np.nan, 1e38]))
        obs, c = d.array("f4", (None, 4), 0.5)
        activation, e = d.text(ACTIVATIONS)
        flag = d.choice([True, True, "yes"])
        self.call(
            _core.act,
            params,
            obs,
            hidden_sizes=hidden,
            activation=activation,
            shared_trunk=flag,
            fits=size > 0 and b and c and e and flag is True,
        )

    def gradient(self, d: Draw) -> None:
        worker, _ = self.some(d)
        grad, a = d.array("f4", (worker.parameters,), 0.0, write=True)
        (vf_coef, b), (ent_coef, c), (norm, e) = (d.real(0.0, 1.0) for _ in range(3))
        weights = {"vf_coef": vf_coef, "ent_coef": ent_coef, "max_grad_norm": norm}
        # Before a rollout there is none.
        self.call(worker.gradient, grad, **weights, fits=a and b and c and e, may=RuntimeError)

    def run(self, d: Draw) -> None:
        worker, session = self.some(d)
        if d.random() < 0.1:
            session, a = d.choice([None, 1, worker]), False
        else:
            a = True
        (total, b), (rate, c), (ent_coef, e) = d.integer(0, 10_000, 2**64 - 1), d.real(0.0, 0.1), d.real(0.0, 1.0)
        (vf_coef, f), (norm, g) = d.real(0.0, 1.0), d.real(0.0, 1.0)
        most, h = d.integer(0, 3, 2**64 - 1)
        (lr_points, i), (ent_points, j) = (d.choice(POINTS) for _ in range(2))
        self.call(
            worker.run,
            session,
            total_timesteps=total,
            learning_rate=rate,
            lr_points=lr_points,
            ent_coef=ent_coef,
            ent_points=ent_points,
            vf_coef=vf_coef,
            max_grad_norm=norm,
            duration_ms=d.choice([0, 1]),
            most_updates=most,
            fits=a and b and c and e and f and g and h and i and j,
        )

    def look(self, d: Draw) -> None:
        worker, session = self.some(d)
        self.call(worker.flush, session if d.random() < 0.8 else None, may=TypeError)
        self.call(worker.get_state)
        for name in ("rollout", "episodes"):  # before a rollout there is none
            self.call(getattr(worker, name), may=RuntimeError)

    def set_state(self, d: Draw) -> None:
        worker, _ = self.some(d)
        saved: Any = self.call(worker.get_state)
        before = {name: column.tobytes() for name, column in saved.items()}
        name = d.choice(list(saved))
        old = saved[name]
        fits = True
        pick = d.randrange(5)
        if pick == 0:
            saved[name], fits = d.array(old.dtype.str, old.shape, old)
        elif pick == 1:
            del saved[name]
            fits = False
        elif pick == 2:
            saved = MadeUp(saved)
        elif pick == 3:
            saved, fits = d.choice([[], None, 1, "state"]), False
        # Zeros of the right shape may be no state.
        outcome = self.call(worker.set_state, saved, fits=fits, may=ValueError if pick == 0 else ())
        if failed(outcome):
            after = {name: column.tobytes() for name, column in worker.get_state().items()}
            assert after == before, f"set_state was refused with {outcome!r} and changed the worker"
