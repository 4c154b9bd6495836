// Stage 5. Published gradient, parameters and optimizer state in -> new parameters and state out.
// Before it: grad_buffer.hpp. After it: param_store.hpp.
//
// One optimizer step over flat float32[P] vectors, the same arithmetic in the same order as torch.optim.
// A step reads `from` and writes `to`; the two may be the same vectors (in place) or not overlap at all.
// No FMA (-ffp-contract=off), so the scalar and the vectorised loop agree to the last bit.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>

#include "fastac/clones.hpp"

namespace fastac {

// sum: no step; gradients are added up in the state, for whoever makes a step of many.
enum class OptimizerKind : std::uint32_t { sgd = 0, rmsprop = 1, adam = 2, sum = 3 };

struct OptimizerConfig {
    OptimizerKind kind = OptimizerKind::rmsprop;
    std::uint32_t eps_inside_root = 0;  // rmsprop: sqrt(v + eps), as in the A3C paper, instead of sqrt(v) + eps
    double alpha = 0.99;                // rmsprop: decay of the squared gradient
    double beta1 = 0.9;                 // adam
    double beta2 = 0.999;               // adam
    double eps = 1e-8;
    double max_grad_norm = 0.0;  // clipping when a gradient is applied; 0: none
};

/// Throws std::invalid_argument for numbers with which a step makes NaN of finite gradients, or a clipping that clips nothing.
inline void expect_usable(const OptimizerConfig& c) {
    const auto expect = [](bool usable, const char* name, const char* range, double got) {
        if (!usable) throw std::invalid_argument(std::string(name) + ": expected a number " + range + ", got " + std::to_string(got));
    };
    expect(c.alpha >= 0.0 && c.alpha < 1.0, "alpha", "in [0, 1)", c.alpha);
    expect(c.beta1 >= 0.0 && c.beta1 < 1.0, "beta1", "in [0, 1)", c.beta1);
    expect(c.beta2 >= 0.0 && c.beta2 < 1.0, "beta2", "in [0, 1)", c.beta2);
    expect(c.eps >= 0.0 && std::isfinite(c.eps), "eps", ">= 0", c.eps);
    expect(c.max_grad_norm >= 0.0 && std::isfinite(c.max_grad_norm), "max_grad_norm", ">= 0 (0: no clipping)", c.max_grad_norm);
}

/// How many float32[P] vectors of state an optimizer keeps beside the parameters.
constexpr std::uint32_t state_vectors(OptimizerKind kind) noexcept {
    return kind == OptimizerKind::adam ? 2U : kind == OptimizerKind::sgd ? 0U : 1U;
}

/// Where a step reads or writes: parameters and up to two vectors of state, float32[P] each.
template <class Float>
struct OptimizerVectors {
    Float* params = nullptr;
    Float* state[2] = {nullptr, nullptr};
};

/// The scalars of one step, rounded to float32 where torch rounds them.
struct OptimizerScalars {
    bool eps_inside_root = false;
    float eps = 0.0F;
    float minus_lr = 0.0F;
    float decay = 0.0F;
    float fresh = 0.0F;
    float weight1 = 0.0F;
    float root_correction2 = 1.0F;
};

// One step of n floats, as vector code: `to` <- step(`from`, grad).

[[maybe_unused]] FASTAC_CLONES static void step_sgd(std::size_t n, const float* grad, OptimizerVectors<const float> from, OptimizerVectors<float> to,
                                                    const OptimizerScalars& s) noexcept {
    const float minus_lr = s.minus_lr;
FASTAC_INDEPENDENT
    for (std::size_t i = 0; i < n; ++i) to.params[i] = from.params[i] + minus_lr * grad[i];
}

[[maybe_unused]] FASTAC_CLONES static void step_rmsprop(std::size_t n, const float* grad, OptimizerVectors<const float> from, OptimizerVectors<float> to,
                                                        const OptimizerScalars& s) noexcept {
    const float minus_lr = s.minus_lr, decay = s.decay, fresh = s.fresh;
    // Added inside the root or to it: the other one is 0, which changes no bit of a number that is not negative.
    const float inside = s.eps_inside_root ? s.eps : 0.0F, outside = s.eps_inside_root ? 0.0F : s.eps;
FASTAC_INDEPENDENT
    for (std::size_t i = 0; i < n; ++i) {
        const float g = grad[i], v = from.state[0][i] * decay + fresh * g * g;
        to.params[i] = from.params[i] + minus_lr * g / (std::sqrt(v + inside) + outside);
        to.state[0][i] = v;
    }
}

[[maybe_unused]] FASTAC_CLONES static void step_adam(std::size_t n, const float* grad, OptimizerVectors<const float> from, OptimizerVectors<float> to,
                                                     const OptimizerScalars& s) noexcept {
    const float minus_lr = s.minus_lr, decay = s.decay, fresh = s.fresh, weight1 = s.weight1, root_correction2 = s.root_correction2, eps = s.eps;
FASTAC_INDEPENDENT
    for (std::size_t i = 0; i < n; ++i) {
        const float g = grad[i], m = from.state[0][i] + weight1 * (g - from.state[0][i]), v = from.state[1][i] * decay + fresh * g * g;
        to.params[i] = from.params[i] + minus_lr * m / (std::sqrt(v) / root_correction2 + eps);
        to.state[0][i] = m;
        to.state[1][i] = v;
    }
}

[[maybe_unused]] FASTAC_CLONES static void step_sum(std::size_t n, const float* grad, OptimizerVectors<const float> from, OptimizerVectors<float> to) noexcept {
FASTAC_INDEPENDENT
    for (std::size_t i = 0; i < n; ++i) {
        to.params[i] = from.params[i];
        to.state[0][i] = from.state[0][i] + grad[i];
    }
}

/// One optimizer step.
class OptimizerStep {
public:
    /// `step` is the number of this optimizer step, from 1 (Adam's bias correction).
    OptimizerStep(const OptimizerConfig& config, double learning_rate, std::uint64_t step) noexcept : kind_(config.kind) {
        scalars_.eps_inside_root = config.eps_inside_root != 0;
        scalars_.eps = static_cast<float>(config.eps);
        scalars_.minus_lr = static_cast<float>(-learning_rate);
        if (kind_ == OptimizerKind::rmsprop) {
            scalars_.decay = static_cast<float>(config.alpha);
            scalars_.fresh = static_cast<float>(1.0 - config.alpha);
        } else if (kind_ == OptimizerKind::adam) {
            const double t = static_cast<double>(step);
            const double correction1 = 1.0 - std::pow(config.beta1, t);
            const double correction2 = 1.0 - std::pow(config.beta2, t);
            scalars_.minus_lr = static_cast<float>(-(learning_rate / correction1));
            scalars_.root_correction2 = static_cast<float>(std::sqrt(correction2));
            scalars_.weight1 = static_cast<float>(1.0 - config.beta1);
            scalars_.decay = static_cast<float>(config.beta2);
            scalars_.fresh = static_cast<float>(1.0 - config.beta2);
        }
    }

    /// The whole vector: grad float32[P]; `to` <- step(`from`, grad).
    void apply(std::size_t n, const float* grad, OptimizerVectors<const float> from, OptimizerVectors<float> to) const noexcept {
        switch (kind_) {
            case OptimizerKind::sgd: step_sgd(n, grad, from, to, scalars_); break;
            case OptimizerKind::rmsprop: step_rmsprop(n, grad, from, to, scalars_); break;
            case OptimizerKind::adam: step_adam(n, grad, from, to, scalars_); break;
            case OptimizerKind::sum: step_sum(n, grad, from, to); break;
        }
    }

private:
    OptimizerKind kind_;
    OptimizerScalars scalars_;
};

/// The l2 norm of grad float32[n], summed in double in sixteen fixed lanes: the same on every machine.
[[maybe_unused]] FASTAC_CLONES static double grad_norm(const float* grad, std::size_t n) noexcept {
    // One sum would wait for itself.
    double sums[16] = {};
    std::size_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (std::size_t k = 0; k < 16; ++k) sums[k] += static_cast<double>(grad[i + k]) * static_cast<double>(grad[i + k]);
    for (std::size_t k = 0; i < n; ++i, ++k) sums[k] += static_cast<double>(grad[i]) * static_cast<double>(grad[i]);
    for (std::size_t k = 0; k < 4; ++k) sums[k] = (sums[k] + sums[k + 4]) + (sums[k + 8] + sums[k + 12]);
    return std::sqrt((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

[[maybe_unused]] FASTAC_CLONES static void scale(float* grad, std::size_t n, float factor) noexcept {
    for (std::size_t i = 0; i < n; ++i) grad[i] *= factor;
}

/// The factor max_norm / (norm + 1e-6), at most 1, as in torch.nn.utils.clip_grad_norm_; 1 where max_norm <= 0.
inline double clip_factor(double norm, double max_norm) noexcept { return max_norm > 0.0 ? std::min(1.0, max_norm / (norm + 1e-6)) : 1.0; }

/// Scales grad in place so that its norm is at most max_norm. max_norm <= 0: measured, not clipped. Returns the norm before.
inline double clip_grad_norm(float* grad, std::size_t n, double max_norm) noexcept {
    const double norm = grad_norm(grad, n);
    if (const double factor = clip_factor(norm, max_norm); factor < 1.0) scale(grad, n, static_cast<float>(factor));
    return norm;
}

}  // namespace fastac
