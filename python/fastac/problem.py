"""The env and the policy of a model, as far as its Config cannot name them: what goes to every worker.

In: what the user gave as `env` and `policy`. Out: a Config that names them in words, and a Problem that makes them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cloudpickle
import numpy as np
import numpy.typing as npt

from fastac import _core
from fastac.config import CUSTOM_POLICY, NATIVE_ENVS, POLICIES, Config
from fastac.errors import ConfigError
from fastac.spaces import CARTPOLE, Spaces

if TYPE_CHECKING:
    import gymnasium
    from torch import nn

    from fastac.env.batch import GymnasiumBatch
    from fastac.env.drawn import DrawnEnv

    Env = gymnasium.Env[Any, Any]
    VectorEnv = gymnasium.vector.VectorEnv[Any, Any, Any]


@dataclass(frozen=True)
class Problem:
    """Pickled by value where the user's own functions and classes are in it, those of a notebook too.

    Attributes:
        spaces: of one env.
        make_env: makes one, where the envs are fastac's to make.
        module: of the user's own, of which each policy is a copy; None for the config's.
        envs: A2C's, where the user has made them; they do not travel.
        native: it is the native CartPole that is played, and none of these.
    """

    spaces: Spaces
    make_env: Callable[[], Env] | None = None
    module: nn.Module | None = None
    envs: VectorEnv | None = None
    native: bool = False

    def __reduce__(self) -> tuple[Any, ...]:
        try:
            return _unpickled, (cloudpickle.dumps((self.spaces, self.make_env, self.module, None, self.native)),)
        except Exception as error:  # a user's own object may raise anything
            raise ConfigError(
                f"env, policy: expected what can be pickled, as each worker process gets its own, got {error!r}: have "
                "the function that makes the env make that, too, or use backend='thread'"
            ) from error

    def expect_envs(self) -> None:
        """Raises ConfigError where there is nothing to play: in a copy, which is without the user's own envs."""
        if not self.native and self.make_env is None and self.envs is None:
            raise ConfigError(
                "env: expected the env that the model was made with, got a copy of the model, which has none: save it "
                "and give the env again: load(..., env=...)"
            )


CARTPOLE_PROBLEM = Problem(CARTPOLE, native=True)


def _unpickled(pickled: bytes) -> Problem:
    return Problem(*cloudpickle.loads(pickled))


def make_batch(config: Config, problem: Problem, words: npt.NDArray[np.uint64]) -> _core.CartPole | GymnasiumBatch:
    """Envs at the start of their first episodes, one for each row of seed words uint64[N, 4]."""
    problem.expect_envs()
    if problem.native:
        envs = _core.CartPole(len(words), config.native_episode_steps, "same_step")
        envs.seed(np.arange(len(words)), words)
        envs.reset()
        return envs
    from fastac.env.batch import GymnasiumBatch, vectorized

    if problem.envs is not None:
        batch = GymnasiumBatch(problem.envs, problem.spaces)
    else:
        assert problem.make_env is not None
        batch = GymnasiumBatch(vectorized(problem.make_env, len(words)), problem.spaces, owned=True)
    try:
        batch.reset(words)
    except BaseException:
        batch.close()
        raise
    return batch


def close_batch(envs: _core.CartPole | GymnasiumBatch) -> None:
    """Closes what make_batch made: not the user's own, and native ones have nothing to close."""
    if not isinstance(envs, _core.CartPole):
        envs.close()


def make_drawn(config: Config, problem: Problem) -> DrawnEnv:
    """One env that draws itself. Raises ConfigError where none can be made."""
    from fastac.env.batch import Maker, spec_of
    from fastac.env.common import ENV_ID
    from fastac.env.drawn import DrawnEnv

    maker = Maker(spec_of(ENV_ID), config.max_episode_steps, {}) if problem.native else problem.make_env
    if maker is None:
        raise ConfigError("env: expected one that can be made anew, by its id, got one that the user has made")
    assert isinstance(maker, Maker)
    return DrawnEnv(maker)


def names_an_env(env: str) -> bool:
    """Whether it is the id of a registered env, and not what a Config shows of another."""
    try:
        expect_env(env)
    except ConfigError:
        return False
    return True


def arguments_of(policy_and_env: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    """The policy, the env and what else was given: (env), or (policy, env) as in Stable-Baselines3, or by name."""
    if len(policy_and_env) > 2:
        raise TypeError(f"expected (env), (policy, env) and options by name, got {len(policy_and_env)} arguments")
    given = dict(zip(("env",) if len(policy_and_env) == 1 else ("policy", "env"), policy_and_env, strict=False))
    if twice := given.keys() & options.keys():
        raise TypeError(f"{', '.join(sorted(twice))}: given twice")
    options = {"policy": Config.policy, "env": Config.env, **given, **options}
    return options.pop("policy"), options.pop("env"), options


def solve_problem(config_type: type[Config], env: Any, policy: Any, options: dict[str, Any]) -> tuple[Any, Problem]:
    """The Config and the Problem of a model's arguments.

    Raises ConfigError for an env or a policy that is none, or that do not fit.
    """
    options = dict(options)
    if not isinstance(policy, str):
        options["policy"] = CUSTOM_POLICY
    elif policy == CUSTOM_POLICY:
        raise ConfigError(f"policy: expected one of {', '.join(POLICIES[:-1])}, or a torch module, got {policy!r}")
    else:
        options["policy"] = policy
    if isinstance(env, str):
        options["env"] = env
    else:
        options["env"] = _name_of(env)
        options |= _envs_in(env, config_type, options)
    config: Config = config_type.from_dict(options)
    if config.has_native_env and isinstance(env, str):
        problem = CARTPOLE_PROBLEM
    else:
        problem = _played_by_gymnasium(env, config.max_episode_steps, config.env_kwargs or {})
    if config.policy.startswith("Cnn") and len(problem.spaces.obs_shape) not in (2, 3):
        raise ConfigError(
            f"policy: expected an env that shows images, [height, width] or with channels first or last, for "
            f"{config.policy}, got observations of shape {list(problem.spaces.obs_shape)}"
        )
    if config.noise_steps > 1 and problem.spaces.actions.kind != "box":
        raise ConfigError(f"noise_steps: expected 1 for actions that are not continuous, got {config.noise_steps}")
    if not isinstance(policy, str):
        problem = dataclasses.replace(problem, module=_module(policy, problem.spaces))
    return config, problem


def _name_of(env: Any) -> str:
    """Of what is no id, for the record: what a Config shows."""
    named = env if hasattr(env, "__qualname__") else type(env)
    spec = None if isinstance(env, type) else getattr(env, "spec", None)  # of a class of wrappers it is a property
    return f"{named.__module__}.{named.__qualname__}" if spec is None else f"{named.__qualname__} of {spec.id}"


def expect_env(env: Any) -> None:
    """Raises ConfigError for what can be no `env`: neither an id, nor what makes an env, nor an env."""
    if isinstance(env, str):
        if env not in NATIVE_ENVS:
            from fastac.env.batch import spec_of

            spec_of(env)
    elif hasattr(env, "named_parameters"):  # of torch, whose modules can be called, too
        raise ConfigError(f"env: expected an env, got the module {type(env).__name__}: give both, (policy, env)")
    elif not callable(env) and not hasattr(env, "step"):
        raise ConfigError(f"env: expected the id of a Gymnasium env, a function that makes one, or an env, got {env!r}")


def is_made(env: Any) -> bool:
    """An env or a vector env, and not what makes one."""
    return hasattr(env, "step") and not callable(env)


def _envs_in(env: Any, config_type: type[Config], options: dict[str, Any]) -> dict[str, Any]:
    """n_envs of the user's own env or vector env. Raises ConfigError where that cannot be what trains."""
    expect_env(env)
    if callable(env):
        return {}
    n = getattr(env, "num_envs", 1)
    if not hasattr(config_type, "split"):
        raise ConfigError(
            "env: expected the id of a Gymnasium env or a function that makes one, as each worker has its own, "
            f"got {env!r}"
        )
    if options.get("n_envs", n) != n:
        raise ConfigError(f"n_envs: expected {n}, as many as the given env has, got {options['n_envs']}")
    for name in ("max_episode_steps", "env_kwargs"):
        if options.get(name) is not None:
            raise ConfigError(f"{name}: expected none for an env that is made already, got {options[name]!r}")
    if options.get("split", 1) != 1:
        raise ConfigError(
            f"split: expected 1 for envs that are made already, and step together, got {options['split']}"
        )
    return {"n_envs": n}


def other_envs(problem: Problem, env: Any) -> Problem:
    """With envs to play in: those of a model if None, or what the user names or has made.

    Raises ConfigError where there are none, they are not of the same spaces, or the model trains in them.
    """
    if env is None:
        problem.expect_envs()
        if problem.envs is not None:
            raise ConfigError("env: expected an env to play in, as the model's own is in use by its training")
        return problem
    other = CARTPOLE_PROBLEM if isinstance(env, str) and env in NATIVE_ENVS else _played_by_gymnasium(env, None, {})
    if other.spaces != problem.spaces:
        raise ConfigError(f"env: expected one of the model's spaces, {problem.spaces}, got {other.spaces}")
    if problem.envs is not None and other.envs is not None:
        from fastac.env.batch import bases_of

        if bases_of(problem.envs).keys() & bases_of(other.envs).keys():
            raise ConfigError(
                "env: expected another env than the model's own, whose episodes its training is in the midst of, got "
                "the same: give another one, or a function that makes one"
            )
    return dataclasses.replace(other, module=problem.module)


def _played_by_gymnasium(env: Any, max_episode_steps: int | None, options: Mapping[str, Any]) -> Problem:
    from fastac.env.batch import Maker, as_vector_env, spaces_made, spaces_of, spec_of

    if isinstance(env, str) or callable(env):
        if isinstance(env, str) and "max_episode_steps" in options:
            raise ConfigError(
                "env_kwargs: expected no max_episode_steps, which is an argument beside it, "
                f"got {options['max_episode_steps']!r}"
            )
        make_env = Maker(spec_of(env) if isinstance(env, str) else env, max_episode_steps, options)
        return Problem(spaces_made(make_env), make_env)
    envs = as_vector_env(env)
    return Problem(spaces_of(envs.single_observation_space, envs.single_action_space), envs=envs)


def _module(policy: Any, spaces: Spaces) -> nn.Module:
    """The user's module, or what the user's function makes of the spaces. Raises ConfigError."""
    from torch import nn

    from fastac.policy import expect_policy

    module = policy
    if not isinstance(policy, nn.Module):
        if not callable(policy):
            raise ConfigError(f"policy: expected a name, a torch module or a function that makes one, got {policy!r}")
        module = policy(spaces)
    if not isinstance(module, nn.Module):
        raise ConfigError(f"policy: expected a function that returns a torch module, got {module!r}")
    expect_policy(module, spaces)
    return module
