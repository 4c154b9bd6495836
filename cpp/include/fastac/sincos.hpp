// Sine and cosine of many small angles at once, equal to the C library's to the last bit.
//
// A polynomial gives the result as a sum of two doubles, of which the second is small, and a bound of its error, to which the
// error of the C library is added. Where the sum rounds to the same double at both ends of the bound, that double is what the
// library returns: its own error is less than the bound, too. The other angles, some in a hundred, go to the library itself.
// The bounds are about twice what was measured (cpp/bench/sincos_error.cpp); `sincos_is_exact` looks whether they hold here.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "fastac/clones.hpp"

namespace fastac {

inline constexpr std::size_t sincos_tile = 64;  // angles taken at once: what lies between the passes stays in the first cache
inline constexpr std::size_t sincos_pays = 4;   // with fewer, the library alone is faster

/// sin x = x + sine_tail, cos x = cosine_head + cosine_tail, each but for an error of ours and of the library's together.
struct SinCosSum {
    double sine_tail, sine_error, cosine_head, cosine_tail, cosine_error;
};

[[gnu::always_inline]] inline SinCosSum sincos_sum(double x) noexcept {
    // Taylor series: beyond these terms nothing is left for |x| <= 0.4.
    const double z = x * x;
    const double sine_tail = x * z * (-1.0 / 6 + z * (1.0 / 120 + z * (-1.0 / 5040 + z * (1.0 / 362880 + z * (-1.0 / 39916800 + z * (1.0 / 6227020800))))));
    const double cosine_head = 1.0 - 0.5 * z;
    const double cosine_tail = ((1.0 - cosine_head) - 0.5 * z) +
                               z * z * (1.0 / 24 + z * (-1.0 / 720 + z * (1.0 / 40320 + z * (-1.0 / 3628800 + z * (1.0 / 479001600 + z * (-1.0 / 87178291200))))));
    // glibc takes another way to the sine from 0.126 on, with a larger error.
    const double sine_error = (0.001 + 0.9 * z + (z < 0.0155 ? 0.0 : 0.02)) * 0x1p-52 * std::fabs(x);
    const double cosine_error = (0.002 + 0.9 * z) * 0x1p-53;
    return {sine_tail, sine_error, cosine_head, cosine_tail, cosine_error};
}

inline constexpr double doubt_sine = 1.0, doubt_cosine = 2.0;  // 3: both

/// sine[i], cosine[i] of angle[i], rad; n at most `sincos_tile`. doubt[i]: which of them is not proved, ask the library.
[[gnu::always_inline]] inline void sincos_guess(std::size_t n, const double* angle, double* sine, double* cosine, double* doubt) noexcept {
    for (std::size_t i = 0; i < n; ++i) {
        const double x = angle[i], z = x * x;
        const SinCosSum sum = sincos_sum(x);
        sine[i] = x + (sum.sine_tail - sum.sine_error);
        cosine[i] = sum.cosine_head + (sum.cosine_tail - sum.cosine_error);
        const bool sine_proved = sine[i] == x + (sum.sine_tail + sum.sine_error);
        const bool cosine_proved = cosine[i] == sum.cosine_head + (sum.cosine_tail + sum.cosine_error);
        const bool in_range = (z <= 0.16) & (z >= 1e-16);  // NaN is not
        const double no_sine = (sine_proved & in_range) ? 0.0 : doubt_sine, no_cosine = (cosine_proved & in_range) ? 0.0 : doubt_cosine;
        doubt[i] = no_sine + no_cosine;
    }
}

/// The same, proved or asked for.
[[gnu::always_inline]] inline void sincos(std::size_t n, const double* angle, double* sine, double* cosine) noexcept {
    double doubt[sincos_tile];
    sincos_guess(n, angle, sine, cosine, doubt);
    // Gathered first: a branch for each angle would often be guessed wrong.
    std::uint8_t doubtful[sincos_tile];
    std::size_t m = 0;
    for (std::size_t i = 0; i < n; ++i) {
        doubtful[m] = static_cast<std::uint8_t>(i);
        m += static_cast<std::size_t>(doubt[i] != 0.0);
    }
    for (std::size_t k = 0; k < m; ++k) {
        const std::size_t i = doubtful[k];
        if (doubt[i] != doubt_cosine) sine[i] = std::sin(angle[i]);
        if (doubt[i] != doubt_sine) cosine[i] = std::cos(angle[i]);
    }
}

/// Of `tiles` * 64 angles, spread evenly over what a pole can reach, how many have a proved result that is not the library's.
[[maybe_unused]] FASTAC_CLONES static std::size_t sincos_mismatches(std::size_t tiles) noexcept {
    double angle[sincos_tile], sine[sincos_tile], cosine[sincos_tile];
    double doubt[sincos_tile];
    std::size_t wrong = 0;
    for (std::size_t k = 0; k < tiles; ++k) {
        for (std::size_t i = 0; i < sincos_tile; ++i) {
            // Multiples of the golden ratio, modulo 1: as even as can be, however many there are.
            const double golden = 0.618033988749894848 * static_cast<double>(k * sincos_tile + i + 1);
            angle[i] = 0.84 * (golden - std::floor(golden)) - 0.42;
        }
        sincos_guess(sincos_tile, angle, sine, cosine, doubt);
        for (std::size_t i = 0; i < sincos_tile; ++i) {
            wrong += (doubt[i] == 0.0 || doubt[i] == doubt_cosine) && sine[i] != std::sin(angle[i]);
            wrong += (doubt[i] == 0.0 || doubt[i] == doubt_sine) && cosine[i] != std::cos(angle[i]);
        }
    }
    return wrong;
}

/// Whether the proved results are the library's on this machine: 16,384 angles, once, in less than a millisecond. If not,
/// the library is asked for all of them.
inline bool sincos_is_exact() noexcept {
    static const bool exact = sincos_mismatches(256) == 0;
    return exact;
}

}  // namespace fastac
