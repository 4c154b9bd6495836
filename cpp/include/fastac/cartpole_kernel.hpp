// The step of N poles as vector code: physics, the ends of episodes, observations. What calls it: cartpole.hpp.
#pragma once

#include <algorithm>
#include <bit>
#include <cfloat>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <numbers>

#include "fastac/clones.hpp"
#include "fastac/sincos.hpp"

namespace fastac {

// Intermediate results wider than double (x87) would round differently from Gymnasium's.
static_assert(FLT_EVAL_METHOD == 0, "fastac needs double arithmetic that rounds after every operation");

// Barto, Sutton & Anderson 1983, with Gymnasium's constants. Units: m, kg, s, N, rad.
struct CartPolePhysics {
    static constexpr double gravity = 9.8;
    static constexpr double mass_pole = 0.1;
    static constexpr double mass_total = mass_pole + 1.0;  // pole + cart
    static constexpr double half_length = 0.5;
    static constexpr double mass_pole_length = mass_pole * half_length;
    static constexpr double force = 10.0;
    static constexpr double tau = 0.02;
    static constexpr double x_limit = 2.4;
    static constexpr double theta_limit = 12 * 2 * std::numbers::pi / 360;
    static constexpr double reset_low = -0.05;
    static constexpr double reset_high = 0.05;
};

// Structure-of-arrays: each points to N numbers.
struct CartPoleFields {
    double* x;          // m
    double* x_dot;      // m/s
    double* theta;      // rad
    double* theta_dot;  // rad/s
};

// The loops of a step have no branches and no data that crosses envs, so that they become vector code. Every env is
// taken along, finished ones too: their state is drawn anew afterwards.

// One Euler step of n envs in place. The order of operations is Gymnasium's and is part of the guarantee: no term
// may be regrouped, fused or narrowed.
[[maybe_unused]] FASTAC_CLONES static void advance(bool sincos_exact, std::size_t n, const std::int64_t* actions, const CartPoleFields& fields) noexcept {
    using P = CartPolePhysics;
    double sine[sincos_tile], cosine[sincos_tile];
    for (std::size_t first = 0; first < n; first += sincos_tile) {
        const std::size_t m = std::min(sincos_tile, n - first);
        double* x = fields.x + first;
        double* x_dot = fields.x_dot + first;
        double* theta = fields.theta + first;
        double* theta_dot = fields.theta_dot + first;
        if (sincos_exact && m >= sincos_pays) {
            sincos(m, theta, sine, cosine);
        } else {
            for (std::size_t i = 0; i < m; ++i) sine[i] = std::sin(theta[i]), cosine[i] = std::cos(theta[i]);
        }
FASTAC_INDEPENDENT
        for (std::size_t i = 0; i < m; ++i) {
            const double force = actions[first + i] == 1 ? P::force : -P::force;
            const double temp = (force + P::mass_pole_length * (theta_dot[i] * theta_dot[i]) * sine[i]) / P::mass_total;
            const double theta_acc = (P::gravity * sine[i] - cosine[i] * temp) /
                                     (P::half_length * (4.0 / 3.0 - P::mass_pole * (cosine[i] * cosine[i]) / P::mass_total));
            const double x_acc = temp - P::mass_pole_length * theta_acc * cosine[i] / P::mass_total;
            // Explicit Euler: positions move with the old velocities.
            x[i] = x[i] + P::tau * x_dot[i];
            x_dot[i] = x_dot[i] + P::tau * x_acc;
            theta[i] = theta[i] + P::tau * theta_dot[i];
            theta_dot[i] = theta_dot[i] + P::tau * theta_acc;
        }
    }
}

// Says which poles fell or left the track. Returns whether there is any.
[[maybe_unused]] FASTAC_CLONES static bool find_terminated(std::size_t n, const CartPoleFields& fields, bool* terminated) noexcept {
    using P = CartPolePhysics;
    const double* x = fields.x;
    const double* theta = fields.theta;
    bool any = false;
FASTAC_INDEPENDENT
    for (std::size_t i = 0; i < n; ++i)
        terminated[i] = (x[i] < -P::x_limit) | (x[i] > P::x_limit) | (theta[i] < -P::theta_limit) | (theta[i] > P::theta_limit);
    for (std::size_t i = 0; i < n; ++i) any |= terminated[i];
    return any;
}

struct Counted {
    std::int64_t most;  // env steps of the longest episode that goes on
    bool cut;           // whether any is truncated
};

// Adds `steps` to the count of each env and says which episodes reach their limit with them.
[[maybe_unused]] FASTAC_CLONES static Counted count_steps(std::size_t n, std::int64_t steps, std::int64_t limit, std::int64_t* elapsed, bool* truncated) noexcept {
    Counted counted{0, false};
FASTAC_INDEPENDENT
    for (std::size_t i = 0; i < n; ++i) {
        // A finished env's count may be the last that there is; it is drawn anew, and the sum is nobody's.
        elapsed[i] = static_cast<std::int64_t>(static_cast<std::uint64_t>(elapsed[i]) + static_cast<std::uint64_t>(steps));
        truncated[i] = elapsed[i] >= limit;
    }
    for (std::size_t i = 0; i < n; ++i) {
        counted.most = std::max(counted.most, truncated[i] ? 0 : elapsed[i]);
        counted.cut |= truncated[i];
    }
    return counted;
}

// Calls visit(i) where bytes[i] is not zero. Most are zero, so eight are looked at together.
template <class Byte, class Visit>
void where_set(std::size_t n, const Byte* bytes, Visit visit) noexcept {
    static_assert(sizeof(Byte) == 1);
    for (std::size_t first = 0; first < n; first += 8) {
        const std::size_t m = std::min<std::size_t>(8, n - first);
        std::uint64_t word = 0;
        std::memcpy(&word, bytes + first, m);
        while (word != 0) {
            const auto byte = static_cast<std::size_t>(std::countr_zero(word)) / 8;
            visit(first + byte);
            word &= ~(std::uint64_t{0xff} << 8 * byte);
        }
    }
}

// obs float32[N, 4].
[[maybe_unused]] FASTAC_CLONES static void observe(std::size_t n, const CartPoleFields& fields, float* obs) noexcept {
    const double* x = fields.x;
    const double* x_dot = fields.x_dot;
    const double* theta = fields.theta;
    const double* theta_dot = fields.theta_dot;
FASTAC_INDEPENDENT
    for (std::size_t i = 0; i < n; ++i) {
        obs[4 * i] = static_cast<float>(x[i]);
        obs[4 * i + 1] = static_cast<float>(x_dot[i]);
        obs[4 * i + 2] = static_cast<float>(theta[i]);
        obs[4 * i + 3] = static_cast<float>(theta_dot[i]);
    }
}

}  // namespace fastac
