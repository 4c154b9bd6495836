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

enum class OptimizerKind : std::uint32_t { sgd = 0, rmsprop = 1, adam = 2 };

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
    return kind == OptimizerKind::adam ? 2U : kind == OptimizerKind::rmsprop ? 1U : 0U;
}

/// Where a step reads or writes: parameters and up to two vectors of state, float32[P] each.
template <class Float>
struct OptimizerVectors {
    Float* params = nullptr;
    Float* state[2] = {nullptr, nullptr};
};

/// The scalars of one step, rounded to float32 where torch rounds them.
class OptimizerStep {
public:
    /// `step` is the number of this optimizer step, from 1 (Adam's bias correction).
    OptimizerStep(const OptimizerConfig& config, double learning_rate, std::uint64_t step) noexcept
        : kind_(config.kind),
          eps_inside_root_(config.eps_inside_root != 0),
          eps_(static_cast<float>(config.eps)),
          minus_lr_(static_cast<float>(-learning_rate)) {
        if (kind_ == OptimizerKind::rmsprop) {
            decay_ = static_cast<float>(config.alpha);
            fresh_ = static_cast<float>(1.0 - config.alpha);
        } else if (kind_ == OptimizerKind::adam) {
            const double t = static_cast<double>(step);
            const double correction1 = 1.0 - std::pow(config.beta1, t);
            const double correction2 = 1.0 - std::pow(config.beta2, t);
            minus_lr_ = static_cast<float>(-(learning_rate / correction1));
            root_correction2_ = static_cast<float>(std::sqrt(correction2));
            weight1_ = static_cast<float>(1.0 - config.beta1);
            decay_ = static_cast<float>(config.beta2);
            fresh_ = static_cast<float>(1.0 - config.beta2);
        }
    }

    /// The whole vector: grad float32[P]; `to` <- step(`from`, grad).
    void apply(std::size_t n, const float* grad, OptimizerVectors<const float> from, OptimizerVectors<float> to) const noexcept {
        switch (kind_) {
            case OptimizerKind::sgd:
FASTAC_INDEPENDENT
                for (std::size_t i = 0; i < n; ++i) {
                    float p = from.params[i];
                    sgd(grad[i], p);
                    to.params[i] = p;
                }
                break;
            case OptimizerKind::rmsprop:
                eps_inside_root_ ? apply_rmsprop<true>(n, grad, from, to) : apply_rmsprop<false>(n, grad, from, to);
                break;
            case OptimizerKind::adam:
FASTAC_INDEPENDENT
                for (std::size_t i = 0; i < n; ++i) {
                    float p = from.params[i], m = from.state[0][i], v = from.state[1][i];
                    adam(grad[i], p, m, v);
                    to.params[i] = p;
                    to.state[0][i] = m;
                    to.state[1][i] = v;
                }
                break;
        }
    }

private:
    void sgd(float g, float& p) const noexcept { p = p + minus_lr_ * g; }

    template <bool EpsInside>
    void rmsprop(float g, float& p, float& v) const noexcept {
        v = v * decay_ + fresh_ * g * g;
        const float root = EpsInside ? std::sqrt(v + eps_) : std::sqrt(v) + eps_;
        p = p + minus_lr_ * g / root;
    }

    void adam(float g, float& p, float& m, float& v) const noexcept {
        m = m + weight1_ * (g - m);
        v = v * decay_ + fresh_ * g * g;
        p = p + minus_lr_ * m / (std::sqrt(v) / root_correction2_ + eps_);
    }

    template <bool EpsInside>
    void apply_rmsprop(std::size_t n, const float* grad, OptimizerVectors<const float> from, OptimizerVectors<float> to) const noexcept {
FASTAC_INDEPENDENT
        for (std::size_t i = 0; i < n; ++i) {
            float p = from.params[i], v = from.state[0][i];
            rmsprop<EpsInside>(grad[i], p, v);
            to.params[i] = p;
            to.state[0][i] = v;
        }
    }

    OptimizerKind kind_;
    bool eps_inside_root_;
    float eps_;
    float minus_lr_;
    float decay_ = 0.0F;
    float fresh_ = 0.0F;
    float weight1_ = 0.0F;
    float root_correction2_ = 1.0F;
};

/// The l2 norm of grad float32[n], summed in double in eight fixed lanes: the same on every machine.
inline double grad_norm(const float* grad, std::size_t n) noexcept {
    double lane[8] = {};
    std::size_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (std::size_t k = 0; k < 8; ++k) lane[k] += static_cast<double>(grad[i + k]) * static_cast<double>(grad[i + k]);
    for (std::size_t k = 0; i < n; ++i, ++k) lane[k] += static_cast<double>(grad[i]) * static_cast<double>(grad[i]);
    return std::sqrt(((lane[0] + lane[4]) + (lane[1] + lane[5])) + ((lane[2] + lane[6]) + (lane[3] + lane[7])));
}

/// Scales grad in place so that its norm is at most max_norm, as torch.nn.utils.clip_grad_norm_ does
/// (factor max_norm / (norm + 1e-6), at most 1). max_norm <= 0: measured, not clipped. Returns the norm before.
inline double clip_grad_norm(float* grad, std::size_t n, double max_norm) noexcept {
    const double norm = grad_norm(grad, n);
    if (max_norm > 0.0) {
        const double factor = max_norm / (norm + 1e-6);
        if (factor < 1.0) {
            const float scale = static_cast<float>(factor);
            for (std::size_t i = 0; i < n; ++i) grad[i] *= scale;
        }
    }
    return norm;
}

}  // namespace fastac
