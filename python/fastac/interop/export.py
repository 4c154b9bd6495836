"""A trained policy as others take it: a plain torch module with its state_dict, or an ONNX file.

In: a model. Out: a policy that needs nothing of fastac, normalisation of observations included.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from fastac.algorithm import Algorithm
from fastac.normalization import CLIP
from fastac.problem import Problem
from fastac.spaces import Actions


class ExportedPolicy(nn.Module):
    """forward(obs [B, *obs_shape]) -> (outputs [B, K], values [B]), of observations as the env gives them.

    Those of a Discrete or MultiDiscrete space come one-hot, as of gymnasium.spaces.flatten.

    Of a policy that remembers: forward(obs, memory [B, S]) -> (outputs, values, memory); zeros at an episode's start.

    Attributes:
        module: the policy's own module, a copy.
        mean, scale: what observations are normalised by, where they are: buffers, and so in the state_dict. float64,
            as in the model: of numbers far from zero float32 would lose what is normalised.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, model: Algorithm) -> None:
        super().__init__()
        self.module = copy.deepcopy(model.policy.module).eval()
        for parameter in self.module.parameters():
            parameter.grad = None
            parameter.data = parameter.data.clone()  # no longer of the model's flat vector
        self.normalizes = model.config.normalize_observation and model.statistics.obs.count > 0
        if self.normalizes:
            shape, its = model.problem.spaces.obs_shape, model.statistics.obs
            self.register_buffer("mean", torch.from_numpy(its.mean.reshape(shape)).clone())
            self.register_buffer("scale", torch.from_numpy(its.scale.reshape(shape)))

    def forward(self, obs: torch.Tensor, memory: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        if self.normalizes:
            obs = torch.clamp((obs - self.mean) / self.scale, -CLIP, CLIP).float()
        given: tuple[torch.Tensor, ...] = self.module(obs) if memory is None else self.module(obs, memory)
        return given


def export_torch(model: Algorithm) -> ExportedPolicy:
    """The policy as a plain torch module, a copy: its `state_dict()` is what torch saves and loads anywhere."""
    return ExportedPolicy(model)


def export_onnx(model: Algorithm, path: str | os.PathLike[str]) -> Path:
    """Writes the policy as an ONNX file, for batches of any size, and returns its path.

    Inputs are "obs" and, of a policy that remembers, "memory"; outputs "outputs", "values" and "memory_after". What the
    outputs mean, and the observations' shape, stand in the file's description. Needs `pip install 'fastac[onnx]'`.

    Raises:
        ImportError: onnx or onnxscript is not installed.
        OSError: the file could not be written.
    """
    try:
        import onnxscript  # noqa: F401  # what torch's exporter writes with
    except ImportError as error:
        raise ImportError("export_onnx needs onnx and onnxscript: pip install 'fastac[onnx]'") from error
    policy, spaces = ExportedPolicy(model), model.problem.spaces
    obs = torch.zeros(2, *spaces.obs_shape, dtype=getattr(torch, spaces.obs_dtype))
    memory = [] if not model.policy.memory_size else [torch.zeros(2, model.policy.memory_size)]
    with _quiet():
        program = torch.onnx.export(
            policy,
            (obs, *memory),
            input_names=["obs", "memory"][: 1 + len(memory)],
            output_names=["outputs", "values", "memory_after"][: 2 + len(memory)],
            dynamic_shapes=tuple({0: "batch"} for _ in (obs, *memory)),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.model.doc_string = _described(model.problem)
    program.save(os.fspath(path))
    return Path(path)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch's exporter says of its own parts, and of torchvision, which no policy here needs."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _described(problem: Problem) -> str:
    spaces = problem.spaces
    shape = ", ".join(map(str, spaces.obs_shape))
    one_hot = "" if spaces.obs_start is None else f", one-hot, of whole numbers from {spaces.obs_start} on"
    return f"obs: {spaces.obs_dtype}[batch, {shape}]{one_hot}; outputs: {_outputs(spaces.actions)}"


def _outputs(actions: Actions) -> str:
    if actions.kind == "discrete":
        return f"logits of {actions.nvec[0]} actions, from {actions.start} on"
    if actions.kind == "multi_discrete":
        return f"logits of the first choice, of the second, ...: of {list(actions.nvec)}, each from 0 on"
    return (
        f"means of the action's numbers, then logarithms of their standard deviations; shape {list(actions.shape)}, "
        f"bounded to low {list(actions.low)} and high {list(actions.high)}"
    )
