"""The project's own exceptions and warnings: what can go wrong with a configuration, a worker, a run's books."""

from __future__ import annotations


class FastacError(Exception):
    """Base of every exception that fastac defines."""


class ConfigError(FastacError, ValueError):
    """A configuration value is outside its allowed range. Says the field, the value and the range."""


class EnvInUseError(FastacError, RuntimeError):
    """A thread called an env that another thread is inside of. Says which call."""


class WorkerError(FastacError):
    """An exception ended a worker. Its message carries the worker's own traceback."""


class WorkerDiedError(FastacError):
    """A worker process ended without a word, killed or crashed, and the run could not go on. Says why."""


class WorkerDeathWarning(UserWarning):
    """A worker process died and the run goes on. Says which, how, and what was done."""


class WorkerStuckWarning(UserWarning):
    """A worker, or the learner, gave no sign of life for a while. Says which, for how long, and its state."""


class NodeWarning(UserWarning):
    """Something that a node of a cluster has to tell: what it was warned of, or what was lost. Says which node."""


class StalenessWarning(UserWarning):
    """A worker's gradients are far staler than the number of workers explains. Says which, and what helps."""


class NonFiniteGradientError(FastacError, ArithmeticError):
    """Ten gradients in a row of one worker held NaN or infinity. Says the worker and the update."""


class LedgerError(FastacError):
    """The books of a run do not balance: a gradient was lost or applied twice."""


class NothingToResumeError(FastacError, RuntimeError):
    """resume() was called on a model whose learn() was not interrupted, or was never called."""


class ReplayError(FastacError):
    """A replay went another way than the run that was recorded. Says where that shows first, and possible reasons."""


class CheckpointError(FastacError):
    """A file is no checkpoint of fastac, is damaged, or does not fit the model."""


class ReportError(FastacError):
    """A folder is neither that of a run nor that of a comparison, or nothing in it can be read."""
