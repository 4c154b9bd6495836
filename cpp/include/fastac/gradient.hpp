// Stage 3, second half. A rollout -> one flat gradient float32[P].
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
    double grad_norm = 0.0;  // before clipping
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

// The gradient of the advantage actor-critic loss over the M = T N steps of a rollout,
//     mean(-advantage log pi(action | obs)) + vf_coef mean((return - V(obs))^2) - ent_coef mean(entropy),
// with advantages and returns as constants: Mnih et al. 2016, arXiv:1602.01783. python/fastac/objective.py takes the same by autograd.
class ActorCriticGradient {
public:
    explicit ActorCriticGradient(std::size_t steps) : by_outputs_(steps * (Collector::n_actions + 1)) {}

    /// policy: as it is since it collected the rollout. grad float32[P].
    GradientStats compute(Mlp& policy, const Collector& rollout, const LossConfig& config, std::span<float> grad) noexcept {
        GradientStats stats = differentiate(rollout, config);
        policy.backward(rollout.steps(), rollout.obs().data(), by_outputs_.data(), grad);
        stats.grad_norm = clip_grad_norm(grad.data(), grad.size(), config.max_grad_norm);
        return stats;
    }

private:
    /// The loss by logits and values, to by_outputs_.
    GradientStats differentiate(const Collector& rollout, const LossConfig& config) noexcept {
        constexpr std::size_t actions = Collector::n_actions;
        const std::size_t steps = rollout.steps();
        const double weight = 1.0 / static_cast<double>(steps);
        const float mean = static_cast<float>(weight), value_weight = static_cast<float>(2.0 * config.vf_coef * weight);
        const float entropy_weight = static_cast<float>(config.ent_coef * weight);
        double policy_loss = 0.0, value_loss = 0.0, entropies = 0.0, sum = 0.0;
        for (std::size_t k = 0; k < steps; ++k) {
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
            policy_loss -= static_cast<double>(advantage * log_p[taken]);
            value_loss += static_cast<double>(error * error);
            entropies += static_cast<double>(entropy);
            sum += static_cast<double>(rollout.returns()[k]);
        }
        GradientStats stats;
        stats.policy_loss = policy_loss * weight;
        stats.value_loss = value_loss * weight;
        stats.entropy = entropies * weight;
        stats.return_mean = sum * weight;
        add_variances(rollout, weight, stats);
        return stats;
    }

    static void add_variances(const Collector& rollout, double weight, GradientStats& stats) noexcept {
        double error_mean = 0.0, error_squares = 0.0, squares = 0.0;
        for (std::size_t k = 0; k < rollout.steps(); ++k) {
            const double deviation = static_cast<double>(rollout.returns()[k]) - stats.return_mean;
            const double error = static_cast<double>(rollout.returns()[k] - rollout.values()[k]);
            squares += deviation * deviation;
            error_mean += error * weight;
            error_squares += error * error * weight;
        }
        stats.return_var = squares * weight;
        stats.explained_variance = 1.0 - (error_squares - error_mean * error_mean) / stats.return_var;
        if (stats.return_var == 0.0) stats.explained_variance = std::nan("");
    }

    std::vector<float> by_outputs_;
};

}  // namespace fastac
