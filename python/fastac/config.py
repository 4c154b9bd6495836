"""What a run is asked to do: every hyper-parameter declared once, with default, range, unit and meaning.

In: keyword arguments, command-line options or a checkpoint. Out: a frozen, validated Config, read by every room.
The command line and the documentation are made from these declarations.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from fastac import seeding
from fastac._core import BLOCK_ENVS, MAX_WORKERS, OPTIMIZERS, STALENESS_LRS, UPDATE_SCHEMES
from fastac.errors import ConfigError
from fastac.words import unknown

BACKENDS = ("thread", "process")
ENGINES = ("native", "torch")
ON_WORKER_DEATH = ("restart", "continue", "fail")
MAX_LAYERS = 16
NATIVE_ENVS = ("CartPole-v1", "fastac/CartPole-v1", "fastac:fastac/CartPole-v1")
NATIVE_EPISODE_STEPS = 500  # Gymnasium's time limit of CartPole-v1
CUSTOM_POLICY = "CustomPolicy"  # a module of the user's
POLICIES = ("MlpPolicy", "CnnPolicy", "MlpLstmPolicy", "MlpGruPolicy", "CnnLstmPolicy", "CnnGruPolicy", CUSTOM_POLICY)
SCHEDULES = ("constant", "linear")
_SCHEDULE_POINTS = 257
_TUPLE = "__tuple__"

Schedule = str | tuple[float, ...]  # a name, or factors at equally spaced points of the run


@dataclass(frozen=True)
class Spec:
    """What a field accepts and means. `above`/`below` exclude the bound, `at_least`/`at_most` include it."""

    help: str
    unit: str = ""
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()

    def allowed(self) -> str:
        """The accepted values in words, for messages and `--help`."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        bounds = [(">=", self.at_least), (">", self.above), ("<=", self.at_most), ("<", self.below)]
        return " and ".join(f"{sign} {bound:g}" for sign, bound in bounds if bound is not None)

    def accepts(self, value: Any) -> bool:
        if self.choices:
            return value in self.choices
        if isinstance(value, float) and not math.isfinite(value):
            return False
        return (
            (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )


def _field(default: Any, help: str, **spec: Any) -> Any:
    return dataclasses.field(default=default, metadata={"spec": Spec(help, **spec)})


def spec_of(field: dataclasses.Field[Any]) -> Spec:
    """The declaration behind a Config field."""
    spec: Spec = field.metadata["spec"]
    return spec


@dataclass(frozen=True, kw_only=True)
class Config:
    """The hyper-parameters that A2C and A3C share. Raises ConfigError for a value outside its range."""

    env: str = _field("CartPole-v1", "Gymnasium id of the env; CartPole-v1 is played by the native env")
    env_kwargs: dict[str, Any] | None = _field(
        None, "keyword arguments of the env, none if not given; with any, Gymnasium's env plays"
    )
    policy: str = _field(
        "MlpPolicy", "what acts and values: an MLP or a CNN, without memory or with one", choices=POLICIES
    )
    max_episode_steps: int | None = _field(
        None,
        "episodes are truncated here; if not given, where the env says",
        unit="env steps",
        at_least=1,
        at_most=10**9,
    )
    seed: int | None = _field(None, "seed of everything random; drawn from the system if not given", at_least=0)
    n_steps: int = _field(32, "rollout length T between updates", unit="env steps per env", at_least=1, at_most=100_000)
    gamma: float = _field(0.99, "discount", at_least=0, at_most=1)
    gae_lambda: float = _field(0.8, "GAE(lambda); 1 gives n-step returns", at_least=0, at_most=1)
    learning_rate: float = _field(2.2e-3, "step size of the optimizer", above=0)
    lr_schedule: Schedule = _field("constant", "course of the learning rate", choices=SCHEDULES)
    ent_coef: float = _field(1e-3, "weight of the entropy bonus", at_least=0)
    ent_schedule: Schedule = _field("constant", "course of the entropy weight", choices=SCHEDULES)
    vf_coef: float = _field(0.5, "weight of the value loss", at_least=0)
    max_grad_norm: float = _field(0.5, "gradients are clipped to this global norm; 0 for never", at_least=0)
    clip_at: str = _field(
        "worker", "where the norm is clipped: before the push, or when applied", choices=("worker", "apply")
    )
    reward_scale: float = _field(0.1, "rewards are multiplied by this before returns are computed", above=0)
    optimizer: str = _field("rmsprop", "optimizer on the flat vector", choices=OPTIMIZERS)
    alpha: float = _field(0.99, "rmsprop: decay of the squared gradient", at_least=0, below=1)
    beta1: float = _field(0.9, "adam: decay of the gradient", at_least=0, below=1)
    beta2: float = _field(0.999, "adam: decay of the squared gradient", at_least=0, below=1)
    eps: float = _field(1e-3, "rmsprop, adam: added to the root", above=0)
    eps_inside_root: bool = _field(False, "rmsprop: sqrt(v + eps), as in the A3C paper, instead of sqrt(v) + eps")
    hidden_sizes: tuple[int, ...] = _field((64, 64), "units of each hidden layer", at_least=1, at_most=4096)
    activation: str = _field("tanh", "between the layers", choices=("tanh", "relu"))
    shared_trunk: bool = _field(True, "policy and value share their hidden layers")
    log_std_init: float = _field(0.0, "continuous actions: log of the standard deviation that the policy starts with")
    noise_steps: int = _field(
        1, "continuous actions: env steps for which an env keeps its noise, so that it explores further", at_least=1
    )
    normalize_observation: bool = _field(False, "observations minus their mean, by their standard deviation, so far")
    normalize_reward: bool = _field(False, "rewards by the standard deviation of the discounted return so far")
    normalize_advantage: bool = _field(False, "advantages of a rollout minus their mean, by their standard deviation")
    engine: str = _field(
        "auto",
        "what computes: native, C++ without the GIL; torch, autograd; auto: native where it can",
        choices=("auto", *ENGINES),
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = _coerce(field, getattr(self, field.name))
            spec = spec_of(field)
            elements = value if isinstance(value, tuple) else (value,)
            table = str(field.type) == "Schedule" and isinstance(value, tuple)  # checked where it was made
            if value is not None and not table and not all(spec.accepts(element) for element in elements):
                raise ConfigError(f"{field.name}: expected {spec.allowed() or 'a finite number'}, got {value!r}")
            object.__setattr__(self, field.name, value)
        if not 1 <= len(self.hidden_sizes) <= MAX_LAYERS:
            raise ConfigError(f"hidden_sizes: expected 1 to {MAX_LAYERS} layers, got {len(self.hidden_sizes)}")
        if self.has_native_env and self.max_episode_steps is None:
            object.__setattr__(self, "max_episode_steps", NATIVE_EPISODE_STEPS)
        if self.policy != "MlpPolicy" and not self.shared_trunk:
            raise ConfigError(f"shared_trunk: expected True with policy={self.policy}, got False")
        if self.policy.startswith("Cnn") and self.normalize_observation:
            raise ConfigError(
                f"normalize_observation: expected False with policy={self.policy}, which scales images itself, got True"
            )
        why_not = self.why_not_native
        if self.engine == "native" and why_not:
            raise ConfigError(f"engine: expected torch or auto with {why_not}, got native")
        if self.engine == "auto":
            object.__setattr__(self, "engine", "torch" if why_not else "native")

    @property
    def has_native_env(self) -> bool:
        """Whether the native CartPole plays."""
        return self.env in NATIVE_ENVS and not self.env_kwargs

    @property
    def native_episode_steps(self) -> int:
        """Where the native env truncates episodes."""
        return NATIVE_EPISODE_STEPS if self.max_episode_steps is None else self.max_episode_steps

    @property
    def can_be_native(self) -> bool:
        """Whether the C++ core can do all of it, whatever the engine is."""
        return not self.why_not_native

    @property
    def why_not_native(self) -> str:
        """What of this the native engine cannot do; empty where it can all of it."""
        if not self.has_native_env:
            return f"env={self.env}" + (" and env_kwargs" if self.env in NATIVE_ENVS else "")
        if self.policy != "MlpPolicy":
            return f"policy={self.policy}"
        names = ("normalize_observation", "normalize_reward", "normalize_advantage")
        return next((name for name in names if getattr(self, name)), "")

    def resolve_seed(self: ConfigT) -> ConfigT:
        """The same config with a seed: a missing one is drawn, so that the run can be repeated from its record."""
        if self.seed is not None:
            return self
        return dataclasses.replace(self, seed=seeding.drawn())

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**dataclasses.asdict(self), "env_kwargs": _for_json(self.env_kwargs)}

    @classmethod
    def from_dict(cls: type[ConfigT], values: Mapping[str, Any]) -> ConfigT:
        """The inverse of `to_dict`. Raises ConfigError for a key that is no field, with the nearest one."""
        known = [field.name for field in dataclasses.fields(cls)]
        for key in values:
            if key not in known:
                raise ConfigError(unknown("field", key, known))
        return cls(**{**values, "env_kwargs": _from_json(values.get("env_kwargs"))})


ConfigT = TypeVar("ConfigT", bound=Config)


@dataclass(frozen=True, kw_only=True)
class A2CConfig(Config):
    """A2C: all envs in one batch, one update for each rollout of all."""

    n_envs: int = _field(4, "envs in the batch", at_least=1, at_most=4096)
    split: int = _field(1, "groups of envs that update in turn instead of in one batch", at_least=1)
    workers: int = _field(
        1,
        f"threads that share the batch, one for each {BLOCK_ENVS} envs at most; the result is the same for any number",
        at_least=1,
        at_most=MAX_WORKERS,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_envs % self.split != 0:
            raise ConfigError(f"split: expected a divisor of n_envs={self.n_envs}, got {self.split}")
        if self.workers > 1:
            self._check_workers()

    def _check_workers(self) -> None:
        if self.engine != "native":
            raise ConfigError(
                f"workers: expected 1 with engine={self.engine}, whose gradient is one, got {self.workers}"
            )
        if self.split > 1:
            raise ConfigError(
                f"workers: expected 1 with split={self.split}, whose updates are small, got {self.workers}"
            )
        most = -(-self.n_envs // BLOCK_ENVS)
        if self.workers > most:
            raise ConfigError(
                f"workers: expected at most {most} with n_envs={self.n_envs}, as each takes blocks of {BLOCK_ENVS} "
                f"envs, got {self.workers}"
            )


@dataclass(frozen=True, kw_only=True)
class A3CConfig(Config):
    """A3C: each worker has envs of its own and updates the shared parameters by itself.

    Two ways to bear staleness read the parameters a second time, after the rollout:

    * delay_compensation (DC-ASGD: Zheng et al. 2017, arXiv:1609.08326): once the gradient of the version that acted is
      there, the worker reads again and pushes gradient + delay_compensation * gradient^2 * (w_now - w_read), element by
      element. What changed until that second reading is made up for; what happens between it and the update is not, and
      the staleness still counts from the first. The gradient is clipped before (`clip_at` worker): its square,
      unbounded, would make one strength mean something else in every update. With `clip_at` apply the clip comes when
      it is applied.
    * v_trace (Espeholt et al. 2018, arXiv:1802.01561): the worker reads again after its rollout and takes values,
      probabilities and the gradient with the newer parameters, returns and advantages by returns.v_trace. Staleness
      counts from the second reading; learning rate and entropy weight are those of the first.
    """

    workers: int = _field(4, "asynchronous workers", at_least=1, at_most=MAX_WORKERS)
    n_envs: int = _field(1, "envs of each worker", at_least=1, at_most=4096)
    update: str = _field("lockfree", "update scheme: who applies a gradient, and who waits", choices=UPDATE_SCHEMES)
    backend: str = _field("process", "where workers run", choices=BACKENDS)
    on_worker_death: str = _field(
        "restart", "when a worker process dies: another in its place, go on without it, or end", choices=ON_WORKER_DEATH
    )
    max_staleness: int | None = _field(
        None,
        "gradients staler than this are rejected; no limit if not given",
        unit="updates",
        at_least=0,
        at_most=10**9,
    )
    staleness_lr: str = _field(
        "constant", "learning rate of a gradient; inverse: divided by its staleness, if > 1", choices=STALENESS_LRS
    )
    delay_compensation: float = _field(
        0.0,
        "DC-ASGD: a gradient makes up for the updates during its rollout by this times its square times what they "
        "changed; native engine",
        at_least=0,
    )
    v_trace: bool = _field(
        False, "gradients are of parameters read after the rollout, corrected by V-trace; native engine"
    )
    record: bool = _field(False, "record the order of all updates, 16 bytes each, for `fastac replay`")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.record and self.update == "hogwild":
            raise ConfigError("record: expected lockfree, lock or queue, got hogwild, whose updates have no order")
        if self.record and self.engine != "native":
            raise ConfigError(f"record: expected the native engine, which is what replays, got {self.engine}")
        if self.delay_compensation and self.v_trace:
            raise ConfigError(
                f"delay_compensation: expected 0 with v_trace, whose gradient is of the newer parameters, "
                f"got {self.delay_compensation:g}"
            )
        for name in ("delay_compensation", "v_trace"):
            if getattr(self, name):
                self._check_second_reading(name)

    def _check_second_reading(self, name: str) -> None:
        """What needs the parameters a second time, after the rollout."""
        if self.engine != "native":
            raise ConfigError(f"{name}: expected engine=native, which reads the parameters twice, got {self.engine}")
        if self.record:
            raise ConfigError(f"record: expected False with {name}, whose second reading is not recorded, got True")


def schedule_points(schedule: Schedule) -> tuple[float, ...]:
    """A schedule as factors at equally spaced points of a run, from start to end, with straight lines between them."""
    if isinstance(schedule, str):
        return {"constant": (1.0,), "linear": (1.0, 0.0)}[schedule]
    return schedule


def scheduled(schedule: Schedule, value: float, progress: float) -> float:
    """`value` when `progress` (0 at the start, 1 at the end) of the env steps are done. The core's Schedule::at."""
    points = schedule_points(schedule)
    x = min(progress, 1.0) * (len(points) - 1)
    i = min(int(x), len(points) - 2)
    return value * (points[i] + (x - i) * (points[i + 1] - points[i])) if len(points) > 1 else value * points[0]


def with_functions_tabulated(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options in which a learning_rate or ent_coef that is a function is its largest value and a schedule of it.

    The function is of the progress that remains, 1 at the start and 0 at the end, as in Stable-Baselines3.
    Raises ConfigError.
    """
    plain = dict(options)
    for name, course in (("learning_rate", "lr_schedule"), ("ent_coef", "ent_schedule")):
        if not callable(function := plain.get(name)):
            continue
        if plain.get(course, "constant") != "constant":
            raise ConfigError(
                f"{course}: expected none beside {name}={function!r}, which is one, got {plain[course]!r}"
            )
        values = _tabulated(name, function)
        plain[name] = max(values)
        plain[course] = tuple(value / max(values) for value in values) if max(values) > 0 else "constant"
    return plain


def _tabulated(name: str, function: Callable[[float], Any]) -> tuple[float, ...]:
    """The values of a function of the progress that remains, from 1 down to 0."""
    values = [function(1.0 - i / (_SCHEDULE_POINTS - 1)) for i in range(_SCHEDULE_POINTS)]
    return _factors(name, values)


def _factors(name: str, values: Any) -> tuple[float, ...]:
    try:
        factors = tuple(float(value) for value in values)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name}: expected numbers for the course of a run, got {values!r}") from error
    if not factors or not all(math.isfinite(factor) and factor >= 0 for factor in factors):
        raise ConfigError(f"{name}: expected finite numbers >= 0 for the course of a run, got {factors!r}")
    return factors


def _coerce(field: dataclasses.Field[Any], value: Any) -> Any:
    """Numpy scalars, whole floats and lists become what the field declares; another type is an error."""
    declared = str(field.type)
    if value is None and "None" in declared:
        return None
    if declared == "Schedule":
        if callable(value):
            return _tabulated(field.name, value)
        return value if isinstance(value, str) else _factors(field.name, value)
    if declared.startswith("dict"):
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise ConfigError(f"{field.name}: expected a mapping from names to values, got {value!r}")
        return {key: _storable(f"{field.name}: {key}", one) for key, one in value.items()}
    if declared.startswith("tuple"):
        if not isinstance(value, (tuple, list)):
            raise ConfigError(f"{field.name}: expected a tuple of whole numbers, got {value!r}")
        return tuple(_whole(field.name, element) for element in value)
    if declared.startswith("int"):
        return _whole(field.name, value)
    kinds: dict[str, tuple[Callable[[Any], Any], tuple[type, ...]]] = {
        "float": (float, (int, float, np.integer, np.floating)),
        "bool": (bool, (bool, np.bool_)),
        "str": (str, (str,)),
    }
    convert, accepted = kinds[declared]
    if not isinstance(value, accepted) or (declared == "float" and isinstance(value, bool)):
        raise ConfigError(f"{field.name}: expected a {declared}, got {value!r}")
    try:
        return convert(value)
    except OverflowError:
        raise ConfigError(f"{field.name}: expected a {declared}, got a number beyond its range") from None


def _storable(name: str, value: Any) -> Any:
    """The same of Python's own types, which JSON can hold (tuples by `_for_json`), so that a model can be saved."""
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or isinstance(value, (int, str)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, (list, tuple)):
        several = [_storable(name, one) for one in value]
        return tuple(several) if isinstance(value, tuple) else several
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _storable(name, one) for key, one in value.items()}
    raise ConfigError(
        f"{name}: expected what can be saved, finite numbers, texts, and lists, tuples and mappings of them, got "
        f"{value!r}: give anything else inside a function that makes the env"
    )


def _for_json(value: Any) -> Any:
    """A value of `_storable` with tuples as {"__tuple__": [...]}, which JSON would give back as lists."""
    if isinstance(value, dict):
        return {key: _for_json(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        several = [_for_json(one) for one in value]
        return {_TUPLE: several} if isinstance(value, tuple) else several
    return value


def _from_json(value: Any) -> Any:
    """The inverse of `_for_json`."""
    if isinstance(value, Mapping):
        if value.keys() == {_TUPLE}:
            return tuple(_from_json(one) for one in value[_TUPLE])
        return {key: _from_json(one) for key, one in value.items()}
    return [_from_json(one) for one in value] if isinstance(value, list) else value


def _whole(name: str, value: Any) -> int:
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return int(value)
    raise ConfigError(f"{name}: expected a whole number, got {value!r}")
