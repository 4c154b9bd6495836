"""Two threads at once, and a forked child, under the boundary gate."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from boundary_calls import Caller, failed
from boundary_sessions import NONCE
from boundary_values import Draw

from fastac import _core

P = 40


class Crowd:
    def __init__(self, call: Caller) -> None:
        self.call = call

    def together(self, *jobs: Callable[[Caller], None]) -> None:
        """Runs the jobs in threads of their own, which start together; what one of them raises is raised here."""
        start = threading.Barrier(len(jobs))
        raised: list[BaseException] = []
        callers = [Caller() for _ in jobs]

        def run(job: Callable[[Caller], None], caller: Caller) -> None:
            try:
                start.wait()
                job(caller)
            except BaseException as error:
                raised.append(error)

        threads = [threading.Thread(target=run, args=pair) for pair in zip(jobs, callers, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.call.calls += sum(caller.calls for caller in callers)
        self.call.refused += sum(caller.refused for caller in callers)
        if raised:
            raise raised[0]

    def one_session(self, d: Draw) -> None:
        """Two threads in one session: the second is refused, and what was not refused is in the parameters."""
        region = _core.Region.create(workers=2, parameters=P, optimizer="sgd", scheme=d.choice(["lockfree", "lock"]))
        session = _core.Session(region, 0)
        rounds = d.randint(1, 8)
        applied: list[int] = []
        grad = np.ones(P, np.float32)

        def submit(call: Caller) -> None:
            for _ in range(rounds):
                tag = {"version_read": 0, "env_steps": 1, "learning_rate": 1.0}
                outcome = call(session.submit, grad, **tag, may=_core.SessionInUse)
                applied.append(not failed(outcome))

        def everything_else(call: Caller) -> None:
            for _ in range(rounds):
                for verb, arguments in self.others(session):
                    call(verb, *arguments, may=_core.SessionInUse)

        self.together(submit, submit, everything_else)
        params = np.empty(P, np.float32)
        version, env_steps = self.call(session.read, params)
        assert version == env_steps == sum(applied) and (params == -sum(applied)).all()

    @staticmethod
    def others(session: _core.Session) -> list[tuple[Any, tuple[Any, ...]]]:
        params, state = np.empty(P, np.float32), np.empty((0, P), np.float32)
        verbs = [(session.drain, ()), (session.ledger, ()), (session.snapshot, ()), (session.read, (params,))]
        return [*verbs, (session.copy_record, (params, state)), (session.published, (0,)), (session.beat, ())]

    def used_while_it_waits(self, d: Draw) -> None:
        """A worker that waits for its learner without the GIL: nobody else may use or close its session meanwhile."""
        session = _core.Session(_core.Region.create(workers=1, parameters=P, scheme="queue"), 0)

        def wait(call: Caller) -> None:
            tag = {"version_read": 0, "env_steps": 1, "learning_rate": 1.0}
            assert call(session.submit, np.ones(P, np.float32), **tag) == "stopped"

        def meddle(call: Caller) -> None:
            while session.published(0) == 0:
                time.sleep(0)
            for verb in (session.close, session.drain, session.ledger, session.beat, session.snapshot):
                call(verb, raises=_core.SessionInUse)
            call(session.request_stop)

        self.together(wait, meddle)
        assert self.call(session.ledger)["pending"] == 1
        self.call(session.close)

    def closed_while_used(self, d: Draw) -> None:
        region = _core.Region.create(workers=1, parameters=P, scheme="queue", wait_deadline_ms=1)
        learner = _core.Session(region, 2)

        def serve(call: Caller) -> None:
            call(learner.serve, 3, may=(_core.SessionClosed, _core.SessionInUse))

        def close(call: Caller) -> None:
            while isinstance(call(learner.close, may=(_core.SessionInUse,)), _core.SessionInUse):
                pass

        self.together(serve, close, *[self.same_region(region, seat) for seat in range(2)])
        self.call(learner.drain, raises=_core.SessionClosed)

    @staticmethod
    def same_region(region: _core.Region, seat: int) -> Callable[[Caller], None]:
        def work(call: Caller) -> None:
            session = call(_core.Session, region, seat)
            for _ in range(3):
                call(session.drain)
                call(session.ledger)
            call(session.close)

        return work

    def one_env(self, d: Draw) -> None:
        """Threads may share an env and streams: each call is whole."""
        n = d.randint(1, 4)
        env, streams = _core.CartPole(n, 5), _core.UniformStreams(np.ones((n, 4), np.uint64))
        env.seed(np.arange(n), np.ones((n, 4), np.uint64))
        env.reset()
        rounds = d.randint(1, 8)

        def step(call: Caller) -> None:
            for _ in range(rounds):
                call(env.step, np.zeros(n, np.int64))
                call(env.set_state, call(env.get_state))
                assert ((call(streams.random) >= 0) & (env.reward >= 0)).all()
                call(setattr, streams, "state", call(getattr, streams, "state"))

        self.together(step, step)

    def forked(self, d: Draw) -> None:
        """A forked child may not touch its parent's session; it may open one of its own."""
        region = _core.Region.create(workers=2, parameters=P, optimizer="sgd", nonce=NONCE)
        session = _core.Session(region, 0)
        child = os.fork()
        if child == 0:
            os._exit(self.in_the_child(region, session))
        assert os.waitpid(child, 0)[1] == 0, "the forked child failed"
        self.call.calls += 6
        self.call.refused += 4
        assert self.call(session.snapshot)["applied"] == 1
        self.call(_core.Session, region, 0, raises=RuntimeError)

    def in_the_child(self, region: _core.Region, session: _core.Session) -> int:
        try:
            grad = np.ones(P, np.float32)
            tag = {"version_read": 0, "env_steps": 1, "learning_rate": 1.0}
            for verb in (session.close, session.ledger, session.request_stop):
                self.call(verb, raises=_core.SessionForked)
            self.call(session.submit, grad, **tag, raises=_core.SessionForked)
            own = self.call(_core.Session, region, 1)
            assert self.call(own.submit, grad, **tag) == "applied"
            own.close()
        except BaseException as error:
            print(f"in the forked child: {error!r}", flush=True)
            return 1
        return 0
