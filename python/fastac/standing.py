"""How far a model is, and where and how often a run of it is kept. algorithm.py saves and loads by it."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass

from fastac.errors import ConfigError
from fastac.metrics import History, Position
from fastac.updates import Moment, Periodic, Run

Pathlike = str | os.PathLike[str]
OnCheckpoint = Callable[[History], None]


@dataclass(frozen=True)
class Standing:
    """What a model has done so far."""

    version: int = 0
    num_timesteps: int = 0
    learn_calls: int = 0
    unfinished: Position | None = None
    recording: str = ""  # A3C: Part.id of the latest part that is recorded; empty where none is
    latest: tuple[tuple[float, float], ...] = ()  # (return, length) of the latest 100 episodes

    def after(self, begin: Position, last: Moment) -> Standing:
        """With a run that began at `begin` and is at `last`."""
        at = last.position
        return Standing(
            last.version,
            self.num_timesteps + at.env_steps - begin.env_steps,
            self.learn_calls + 1,
            None if last.solved or at.env_steps >= at.total_timesteps else at,
            self.recording,
            last.latest,
        )


@dataclass(frozen=True)
class Keeping:
    """Where and how often a run is saved. Raises ConfigError for an interval that is no finite number >= 0."""

    path: Pathlike | None
    every_s: float
    on_checkpoint: OnCheckpoint | None

    def __post_init__(self) -> None:
        if not isinstance(self.every_s, (int, float)) or not 0 <= self.every_s < math.inf:
            raise ConfigError(f"checkpoint_every_s: expected a number of seconds >= 0, got {self.every_s!r}")

    def jobs(self, run: Run, save: Callable[[Pathlike, Moment], object]) -> list[Periodic]:
        """What is done from time to time while it runs."""
        path, tell = self.path, self.on_checkpoint

        def keep() -> None:
            moment = run.moment()
            if tell is not None:
                # After the moment, so that what is told reaches as far, but for a row that a worker is just writing.
                run.tick(now=True)
                tell(run.history())
            if path is not None:
                save(path, moment)

        wanted = self.every_s > 0 and (path is not None or tell is not None)
        return [Periodic(self.every_s, keep)] if wanted else []
