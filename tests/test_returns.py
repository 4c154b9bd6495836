"""Returns and advantages: literal numbers worked out by hand, then properties, then the slow reference."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fastac.returns import explained_variance, gae, successor_values, v_trace


def column(*numbers):
    return np.array(numbers, np.float64).reshape(-1, 1)


NO = np.zeros((3, 1), np.bool_)


def test_n_step_returns_by_hand():
    # gamma = 0.5, no episode ends, V after the rollout = 8: 1 + 0.5 (2 + 0.5 (3 + 0.5 * 8)) = 3.75, 5.5, 7
    values = column(1, 1, 1)
    successors = successor_values(values, np.array([8.0]), column(0, 0, 0), NO, NO)
    advantages, returns = gae(column(1, 2, 3), values, successors, NO, 0.5, 1.0)
    assert returns.ravel().tolist() == [3.75, 5.5, 7.0]
    assert advantages.ravel().tolist() == [2.75, 4.5, 6.0]


def test_gae_by_hand():
    # gamma = 0.5, lambda = 0.5: delta = 1 + 0.5*4 - 2 = 1, 1 + 0.5*6 - 4 = 0, 1 + 0.5*8 - 6 = -1
    values = column(2, 4, 6)
    successors = successor_values(values, np.array([8.0]), column(0, 0, 0), NO, NO)
    advantages, returns = gae(column(1, 1, 1), values, successors, NO, 0.5, 0.5)
    assert advantages.ravel().tolist() == [1.0 - 0.0625, -0.25, -1.0]
    assert returns.ravel().tolist() == [2.9375, 3.75, 5.0]


def test_termination_is_not_bootstrapped_and_truncation_is():
    terminated, truncated = NO.copy(), NO.copy()
    terminated[0], truncated[1] = True, True
    values = column(10, 20, 30)
    successors = successor_values(values, np.array([40.0]), column(0, 7, 0), terminated, truncated)
    assert successors.ravel().tolist() == [0.0, 7.0, 40.0]
    _, returns = gae(column(1, 1, 1), values, successors, terminated | truncated, 0.5, 1.0)
    # Nothing flows back over either end.
    assert returns.ravel().tolist() == [1.0, 1.0 + 0.5 * 7.0, 1.0 + 0.5 * 40.0]


def test_both_at_once_counts_as_terminated():
    both = np.ones((1, 1), np.bool_)
    assert successor_values(column(5), np.array([6.0]), column(7), both, both).item() == 0.0


def test_final_values_are_read_only_where_truncated():
    nan = np.full((3, 1), np.nan)
    successors = successor_values(column(1, 2, 3), np.array([4.0]), nan, NO, NO)
    assert successors.ravel().tolist() == [2.0, 3.0, 4.0]


def slow_returns(rewards, values, successors, done, gamma, gae_lambda):
    """Equation 16 as a double sum, one env at a time."""
    T, N = rewards.shape
    advantages = np.zeros((T, N))
    for n in range(N):
        for t in range(T):
            weight = 1.0
            for k in range(t, T):
                advantages[t, n] += weight * (rewards[k, n] + gamma * successors[k, n] - values[k, n])
                if done[k, n]:
                    break
                weight *= gamma * gae_lambda
    return advantages


@settings(deadline=None)
@given(st.data(), st.integers(1, 12), st.integers(1, 3), st.floats(0, 1), st.floats(0, 1))
def test_against_the_double_sum(data, T, N, gamma, gae_lambda):
    numbers = hnp.arrays(np.float64, (T, N), elements=st.floats(-10, 10))
    flags = hnp.arrays(np.bool_, (T, N))
    rewards, values, final_values = data.draw(numbers), data.draw(numbers), data.draw(numbers)
    terminated, truncated = data.draw(flags), data.draw(flags)
    last = data.draw(hnp.arrays(np.float64, N, elements=st.floats(-10, 10)))
    successors = successor_values(values, last, final_values, terminated, truncated)
    advantages, returns = gae(rewards, values, successors, terminated | truncated, gamma, gae_lambda)
    expected = slow_returns(rewards, values, successors, terminated | truncated, gamma, gae_lambda)
    np.testing.assert_allclose(advantages, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(returns, expected + values, rtol=1e-12, atol=1e-12)


def test_v_trace_by_hand():
    # gamma = 0.5, V = 4, 4, 4 and 8 after the rollout: delta = 1 + 2 - 4 = -1, -1 and 1 + 4 - 4 = 1.
    values, rewards, ratios = column(4, 4, 4), column(1, 1, 1), column(0.5, 3, 0.25)
    successors = successor_values(values, np.array([8.0]), column(0, 0, 0), NO, NO)
    # lambda = 1: 0.25 * 1; 1 * (-1 + 0.5 * 0.25) = -0.875; 0.5 * (-1 - 0.5 * 0.875) = -0.71875.
    advantages, targets = v_trace(rewards, values, successors, NO, ratios, 0.5, 1.0)
    assert advantages.ravel().tolist() == [-0.71875, -0.875, 0.25]
    assert targets.ravel().tolist() == [3.28125, 3.125, 4.25]
    # lambda = 0.5: -1 + 0.25 * 0.25 = -0.9375; 0.5 * (-1 - 0.25 * 0.9375) = -0.6171875.
    advantages, _ = v_trace(rewards, values, successors, NO, ratios, 0.5, 0.5)
    assert advantages.ravel().tolist() == [-0.6171875, -0.9375, 0.25]
    # Where an episode ends nothing flows back: 0.5 * -1.
    ends = np.array([[True], [False], [False]])
    assert v_trace(rewards, values, successors, ends, ratios, 0.5, 1.0)[0][0] == -0.5


def slow_v_trace(rewards, values, successors, done, ratios, gamma, gae_lambda):
    """Equation 1 of arXiv:1802.01561 as it stands: a sum of products, one env at a time; v_s - V(x_s)."""
    T, N = rewards.shape
    corrections = np.zeros((T, N))
    for n in range(N):
        for s in range(T):
            product = 1.0  # of gamma and c over s to t - 1
            for t in range(s, T):
                rho = min(1.0, ratios[t, n])
                corrections[s, n] += product * rho * (rewards[t, n] + gamma * successors[t, n] - values[t, n])
                if done[t, n]:
                    break
                product *= gamma * gae_lambda * min(1.0, ratios[t, n])
    return corrections


@settings(deadline=None)
@given(st.data(), st.integers(1, 12), st.integers(1, 3), st.floats(0, 1), st.floats(0, 1))
def test_v_trace_is_the_papers_sum(data, T, N, gamma, gae_lambda):
    numbers = hnp.arrays(np.float64, (T, N), elements=st.floats(-10, 10))
    rewards, values, successors = data.draw(numbers), data.draw(numbers), data.draw(numbers)
    ratios = data.draw(hnp.arrays(np.float64, (T, N), elements=st.floats(0, 3)))
    done = data.draw(hnp.arrays(np.bool_, (T, N)))
    # What follows a step that ends nothing is the next step's value.
    successors[:-1] = np.where(done[:-1], successors[:-1], values[1:])
    advantages, targets = v_trace(rewards, values, successors, done, ratios, gamma, gae_lambda)
    expected = slow_v_trace(rewards, values, successors, done, ratios, gamma, gae_lambda)
    np.testing.assert_allclose(targets, values + expected, rtol=1e-12, atol=1e-12)
    # The paper's advantage, rho (r + gamma v' - V), where lambda is 1: v' the target of the step that follows.
    advantages, targets = v_trace(rewards, values, successors, done, ratios, gamma, 1.0)
    following = np.where(done, successors, np.concatenate([targets[1:], successors[-1:]]))
    papers = np.minimum(ratios, 1) * (rewards + gamma * following - values)
    np.testing.assert_allclose(advantages, papers, rtol=1e-12, atol=1e-12)
    for equal in (np.ones((T, N)), np.full((T, N), 1.5)):  # never above 1
        here = v_trace(rewards, values, successors, done, equal, gamma, gae_lambda)
        assert all(map(np.array_equal, here, gae(rewards, values, successors, done, gamma, gae_lambda)))


def test_float32_stays_float32_and_inputs_stay_whole():
    rewards = np.ones((4, 2), np.float32)
    values = np.full((4, 2), 0.5, np.float32)
    done = np.zeros((4, 2), np.bool_)
    advantages, returns = gae(rewards, values, values, done, 0.9, 0.9)
    assert advantages.dtype == returns.dtype == np.float32
    assert (rewards == 1).all() and (values == 0.5).all()


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"one shape \[T, N\], got \(3, 1\), \(2, 1\)"):
        gae(column(1, 1, 1), column(1, 1), column(1, 1, 1), NO, 0.9, 0.9)
    with pytest.raises(ValueError, match=r"ratios of one shape \[T, N\], got .*\(2, 1\)$"):
        v_trace(column(1, 1, 1), column(1, 1, 1), column(1, 1, 1), NO, column(1, 1), 0.9, 0.9)


def test_explained_variance():
    returns = column(1, 2, 3)
    assert explained_variance(returns, returns) == 1.0
    assert explained_variance(column(2, 2, 2), returns) == 0.0
    assert np.isnan(explained_variance(returns, column(5, 5, 5)))
