"""A node of A2C: its share of the envs, and one update of all nodes for each rollout.

In: a NodeTask and a link. Out: rollouts until the env steps of all nodes are done. The loop is A2C's own, on a region
whose optimizer adds gradients up instead of making a step: the server takes the sum, makes the step for all nodes, and
everybody gets the same parameters.
"""

from __future__ import annotations

import dataclasses
import time

from fastac import _core
from fastac.cluster.courier import Courier
from fastac.cluster.messages import Welcome
from fastac.cluster.node import POLL_S, Agent, NodeEnd, NodeTask
from fastac.config import A2CConfig
from fastac.engines import at_work, make_engine


class RoundNode(Agent):
    """One membership of a node of A2C."""

    def __init__(self, task: NodeTask, courier: Courier, welcome: Welcome, notes: list[str]) -> None:
        # Nothing is clipped here: the server clips what all have found.
        terms = dataclasses.replace(task.terms, config=dataclasses.replace(task.terms.config, clip_at="worker"))
        super().__init__(dataclasses.replace(task, terms=terms), courier, welcome, notes, 1, "sum")
        config = task.terms.config
        assert isinstance(config, A2CConfig)
        self._config = config
        self._members = task.terms.nodes  # of the latest round

    def run(self) -> NodeEnd:
        """Raises ServerLostError or Unknown where it has to join again."""
        task, n_envs = self.task, self._config.n_envs
        unclipped = dataclasses.replace(self._config, max_grad_norm=0.0)  # the server clips what all have found
        with at_work(self._config):
            engine = make_engine(
                unclipped,
                n_envs,
                first=task.slot * n_envs,
                split=self._config.split,
                call=task.call,
                incarnation=self.welcome.joined,
                members=self._config.workers,
                problem=task.problem,
            )
            try:
                session = _core.Session(self.region, 0)
                loop = engine.begin(session, 2, self.before)
                while not self._courier.ask("ready", self.welcome.member):
                    time.sleep(POLL_S)
                while loop.run(task.terms.total_timesteps, 1):
                    self._exchange()
                loop.flush(self.read_logs)
                session.close()
            finally:
                engine.close()
            self._exchange(last=True)
        return NodeEnd(self.welcome.member, self.books)

    def _exchange(self, last: bool = False) -> None:
        """A round: what this node has found, against what comes of it with what all others have found."""
        self.read_logs(1.0 / self._members)
        answer = self._courier.ask("deliver", self.delivery(last=last))
        self._members = answer.members
        if not last:
            self.take(answer)
