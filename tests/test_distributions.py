"""Distributions: numbers worked out by hand, torch.distributions as the oracle, and samples against probabilities."""

import math

import numpy as np
import pytest
import torch
from torch import distributions as oracle

from fastac.distributions import Categorical, DiagonalGaussian, MultiCategorical, distribution_of
from fastac.spaces import Actions


def test_a_categorical_by_hand():
    outputs = torch.log(torch.tensor([[1.0, 3.0], [1.0, 1.0]]))
    surprise, negative_entropy = Categorical(2).score(outputs, torch.tensor([1, 0]))
    assert surprise.tolist() == pytest.approx([-math.log(0.75), math.log(2)])
    assert negative_entropy.item() == pytest.approx(0.25 * math.log(0.25) + 0.75 * math.log(0.75) - math.log(2))
    parameters = Categorical(2).parameters(outputs)
    assert parameters.tolist() == pytest.approx(np.array([[0.25, 0.75], [0.5, 0.5]]))
    assert Categorical(2).sample(parameters, np.array([[0.2], [0.5]])).tolist() == [0, 1]
    assert Categorical(2).mode(parameters).tolist() == [1, 0]


def test_a_gaussian_by_hand():
    outputs = torch.tensor([[1.0, -1.0, 0.0, math.log(2.0)]])
    surprise, negative_entropy = DiagonalGaussian(2).score(outputs, torch.tensor([[1.0, 1.0]]))
    assert surprise.item() == pytest.approx(math.log(2 * math.pi) + math.log(2) + 0.5)
    assert negative_entropy.item() == pytest.approx(-(1 + math.log(2 * math.pi) + math.log(2)))
    parameters = DiagonalGaussian(2).parameters(outputs)
    assert DiagonalGaussian(2).mode(parameters).tolist() == [[1, -1]]
    # the median, and one standard deviation above
    assert DiagonalGaussian(2).sample(parameters, np.array([[0.5, 0.8413447460685429]])) == pytest.approx(
        np.array([[1, 1]]), abs=1e-6
    )


def of_torch(actions, outputs):
    """The same as one distribution of torch for each part, with the actions of each."""
    if actions.kind == "box":
        mean, log_std = outputs.chunk(2, -1)
        return [oracle.Normal(mean, log_std.exp())], lambda taken: [taken]
    pieces = outputs.split(list(actions.nvec), -1)
    each = [oracle.Categorical(logits=piece) for piece in pieces]
    return each, lambda taken: list(taken.unbind(-1)) if len(each) > 1 else [taken]


@pytest.mark.parametrize(
    "actions",
    [
        Actions("discrete", (5,)),
        Actions("multi_discrete", (2, 4, 3)),
        Actions("box", shape=(3,), low=(-1.0,) * 3, high=(1.0,) * 3),
    ],
    ids=lambda actions: actions.kind,
)
def test_score_and_gradient_are_torchs(actions):
    distribution, generator = distribution_of(actions), torch.Generator().manual_seed(0)
    outputs = torch.randn(64, distribution.n_outputs, generator=generator)
    uniforms = np.random.default_rng(0).random((64, distribution.n_uniforms))
    taken = torch.from_numpy(distribution.sample(distribution.parameters(outputs), uniforms))
    results = []
    for ours in (True, False):
        leaf = outputs.clone().requires_grad_()
        if ours:
            surprise, negative_entropy = distribution.score(leaf, taken)
        else:
            parts, split = of_torch(actions, leaf)
            logs = [part.log_prob(piece) for part, piece in zip(parts, split(taken), strict=True)]
            surprise = -sum(log.sum(-1) if log.dim() == 2 else log for log in logs)
            negative_entropy = -sum(part.entropy().sum() for part in parts)
        (surprise.dot(torch.arange(64.0)) + negative_entropy).backward()
        results.append((surprise.detach(), negative_entropy.detach(), leaf.grad))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("uniform", [0.0, 2.0**-53, 1.0 - 2.0**-53])
def test_no_uniform_number_gives_an_action_that_is_none(uniform):
    gaussian = DiagonalGaussian(1)
    assert np.isfinite(gaussian.sample(np.float32([[0, 0]]), np.array([[uniform]]))).all()
    assert 0 <= Categorical(3).sample(np.float32([[0.2, 0.3, 0.5]]), np.array([[uniform]]))[0] <= 2


def test_samples_have_the_probabilities():
    """A hundred thousand of each: within five standard errors."""
    n, random = 100_000, np.random.default_rng(1)
    multi = MultiCategorical((2, 3))
    outputs = torch.tensor([[0.0, 1.0, 0.5, -0.5, 0.0]]).expand(n, -1)
    parameters = multi.parameters(outputs)
    drawn = multi.sample(parameters, random.random((n, 2)))
    for column, probabilities in ((0, parameters[0, :2]), (1, parameters[0, 2:])):
        for action, p in enumerate(probabilities):
            assert abs((drawn[:, column] == action).mean() - p) < 5 * math.sqrt(p * (1 - p) / n)
    gaussian = DiagonalGaussian(2)
    x = gaussian.sample(np.tile(np.float32([[1, -2, 0, 1]]), (n, 1)), random.random((n, 2)))
    std = np.array([1, math.e])
    assert (np.abs(x.mean(0) - [1, -2]) < 5 * std / math.sqrt(n)).all()
    assert (np.abs(x.std(0) / std - 1) < 5 / math.sqrt(2 * n)).all()
    assert abs(np.corrcoef(x.T)[0, 1]) < 5 / math.sqrt(n)
