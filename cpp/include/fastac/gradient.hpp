// Stage 3, second half. A rollout -> one flat gradient float32[P]; or the rollouts of several blocks of envs, each its own, and
// their sum: that of the whole batch.
// Before it: rollout.hpp. After it: the update scheme (updates.hpp), which publishes and applies it.
#pragma once

#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

#include "fastac/mlp.hpp"
#include "fastac/optimizer.hpp"
#include "fastac/rollout.hpp"

namespace fastac {

/// What the gradient was made of. Losses and entropy are means over the rollout, before their weights.
struct GradientStats {
    double grad_norm = 0.0;          // before clipping
    double grad_norm_clipped = 0.0;  // and after that of the worker
    double policy_loss = 0.0;
    double value_loss = 0.0;
    double entropy = 0.0;
    double return_mean = 0.0;
    double return_var = 0.0;
    double explained_variance = 0.0;  // NaN where the returns do not vary
};

struct LossConfig {
    double vf_coef = 0.5;
    double ent_coef = 0.0;
    double max_grad_norm = 0.0;  // 0: not clipped here
};

/// What a block of envs adds to the statistics of its batch.
struct BlockSums {
    std::size_t steps = 0;
    double policy_loss = 0.0, value_loss = 0.0, entropies = 0.0;
    double returns = 0.0, squares = 0.0;  // squares: of the deviations from the block's own mean
    double error = 0.0, error_squares = 0.0;  // of the values, as parts of the batch's means
};

/// Those of the batch, added up in the order of its blocks. The norms are left to who adds the gradients.
inline GradientStats stats_of(std::span<const BlockSums> blocks) noexcept {
    BlockSums all;
    for (const BlockSums& block : blocks) {
        all.steps += block.steps;
        all.policy_loss += block.policy_loss;
        all.value_loss += block.value_loss;
        all.entropies += block.entropies;
        all.returns += block.returns;
        all.error += block.error;
        all.error_squares += block.error_squares;
    }
    const double weight = 1.0 / static_cast<double>(all.steps), mean = all.returns * weight;
    for (const BlockSums& block : blocks) {
        const auto steps = static_cast<double>(block.steps);
        const double apart = block.returns * (1.0 / steps) - mean;
        all.squares += block.squares + steps * apart * apart;
    }
    GradientStats stats{0.0, 0.0, all.policy_loss * weight, all.value_loss * weight, all.entropies * weight, mean, all.squares * weight, 0.0};
    stats.explained_variance = 1.0 - (all.error_squares - all.error * all.error) / stats.return_var;
    if (stats.return_var == 0.0) stats.explained_variance = std::nan("");
    return stats;
}

/// Elements `from` to `to` of the first of `blocks` gradients, which lie `pitch` floats apart, become their sum, in their order.
inline void add_blocks(float* grads, std::size_t blocks, std::size_t pitch, std::size_t from, std::size_t to) noexcept {
    for (std::size_t b = 1; b < blocks; ++b) {
        const float* block = grads + b * pitch;
        for (std::size_t i = from; i < to; ++i) grads[i] += block[i];
    }
}

/// Delay compensation: grad float32[P], taken at parameters `read`, becomes an estimate of the gradient at `now`,
///     grad + strength grad^2 (now - read), element by element,
/// a Taylor step with the squared gradient for the diagonal of the Hessian: Zheng et al. 2017, arXiv:1609.08326, equation 10.
inline void compensate_delay(std::span<float> grad, std::span<const float> now, std::span<const float> read, double strength) noexcept {
    const auto s = static_cast<float>(strength);
    for (std::size_t i = 0; i < grad.size(); ++i) grad[i] += s * grad[i] * grad[i] * (now[i] - read[i]);
}

// The gradient of the advantage actor-critic loss over the M = T N steps of a rollout,
//     mean(-advantage log pi(action | obs)) + vf_coef mean((return - V(obs))^2) - ent_coef mean(entropy),
// with advantages and returns as constants: Mnih et al. 2016, arXiv:1602.01783. python/fastac/objective.py takes the same by autograd.
class ActorCriticGradient {
public:
    explicit ActorCriticGradient(std::size_t steps) : by_outputs_(steps * (Collector::n_actions + 1)) {}

    /// The part of one block of envs in the gradient of a batch of `batch_steps`. policy: as it is since it collected the block's
    /// rollout. grad float32[P].
    BlockSums compute(Mlp& policy, const Collector& rollout, const LossConfig& config, std::size_t batch_steps, std::span<float> grad) noexcept {
        const BlockSums sums = differentiate(rollout, config, 1.0 / static_cast<double>(batch_steps));
        policy.backward(rollout.steps(), rollout.obs().data(), by_outputs_.data(), grad);
        return sums;
    }

private:
    /// The loss by logits and values, to by_outputs_. weight: of a step in the batch's means.
    BlockSums differentiate(const Collector& rollout, const LossConfig& config, double weight) noexcept {
        constexpr std::size_t actions = Collector::n_actions;
        const float mean = static_cast<float>(weight), value_weight = static_cast<float>(2.0 * config.vf_coef * weight);
        const float entropy_weight = static_cast<float>(config.ent_coef * weight);
        BlockSums sums;
        sums.steps = rollout.steps();
        for (std::size_t k = 0; k < sums.steps; ++k) {
            const float* p = rollout.probabilities().data() + k * actions;
            const float* log_p = rollout.log_probabilities().data() + k * actions;
            const float advantage = rollout.advantages()[k], error = rollout.values()[k] - rollout.returns()[k];
            const auto taken = static_cast<std::size_t>(rollout.actions()[k]);
            float entropy = 0.0F;
            for (std::size_t a = 0; a < actions; ++a) entropy -= p[a] * log_p[a];
            float* by = by_outputs_.data() + k * (actions + 1);
            for (std::size_t a = 0; a < actions; ++a)
                by[a] = mean * advantage * (p[a] - (a == taken ? 1.0F : 0.0F)) + entropy_weight * p[a] * (log_p[a] + entropy);
            by[actions] = value_weight * error;
            sums.policy_loss -= static_cast<double>(advantage * log_p[taken]);
            sums.value_loss += static_cast<double>(error * error);
            sums.entropies += static_cast<double>(entropy);
            sums.returns += static_cast<double>(rollout.returns()[k]);
        }
        add_variances(rollout, weight, sums);
        return sums;
    }

    static void add_variances(const Collector& rollout, double weight, BlockSums& sums) noexcept {
        const double mean = sums.returns * (1.0 / static_cast<double>(sums.steps));
        for (std::size_t k = 0; k < sums.steps; ++k) {
            const double deviation = static_cast<double>(rollout.returns()[k]) - mean;
            const double error = static_cast<double>(rollout.returns()[k] - rollout.values()[k]);
            sums.squares += deviation * deviation;
            sums.error += error * weight;
            sums.error_squares += error * error * weight;
        }
    }

    std::vector<float> by_outputs_;
};

}  // namespace fastac
