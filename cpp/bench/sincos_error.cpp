// How much of the bounds in sincos.hpp is used: the C library's and our own distance from the truth (long double), over random
// angles. The library's counts where it is more than half a unit in the last place away: there it may round to the other
// neighbour. Bounds and distances in units of 2^-52 times the angle (sine) and 2^-53 (cosine).
//
//     sincos_error [angles per row]
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>

#include "fastac/sincos.hpp"

namespace {

struct Worst {
    double library = 0.0, ours = 0.0, used = 0.0;

    void see(double unit, double returned, double ours_is_off, double bound, long double truth) {
        const double ulp = std::nextafter(returned, 2.0) - returned;
        const double library_is_off = static_cast<double>(std::max(std::abs(truth - returned) - 0.5L * ulp, 0.0L));
        library = std::max(library, library_is_off / unit);
        ours = std::max(ours, std::abs(ours_is_off) / unit);
        used = std::max(used, (library_is_off + std::abs(ours_is_off)) / bound);
    }
};

}  // namespace

int main(int argc, char** argv) {
    const long angles = argc > 1 ? std::strtol(argv[1], nullptr, 10) : 1'000'000;
    const double edges[] = {0.0, 0.02, 0.05, 0.08, 0.126, 0.16, 0.21, 0.3, 0.4};
    std::mt19937_64 random(1);
    std::printf("    angle, rad   sine: library    ours  of bound   cosine: library    ours  of bound   asked\n");
    for (std::size_t row = 0; row + 1 < std::size(edges); ++row) {
        std::uniform_real_distribution<double> draw(edges[row], edges[row + 1]);
        Worst sine, cosine;
        long asked = 0;
        for (long k = 0; k < angles; ++k) {
            const double x = draw(random);
            const auto true_sine = std::sin(static_cast<long double>(x)), true_cosine = std::cos(static_cast<long double>(x));
            const fastac::SinCosSum sum = fastac::sincos_sum(x);
            sine.see(0x1p-52 * x, std::sin(x), static_cast<double>(true_sine - x - sum.sine_tail), sum.sine_error, true_sine);
            cosine.see(0x1p-53, std::cos(x), static_cast<double>(true_cosine - sum.cosine_head - sum.cosine_tail), sum.cosine_error, true_cosine);
            double s, c, doubt;
            fastac::sincos_guess(1, &x, &s, &c, &doubt);
            asked += doubt != 0.0;
        }
        std::printf("%.3f to %.3f %15.4f %7.4f %9.2f %17.4f %7.4f %9.2f %6.1f%%\n", edges[row], edges[row + 1], sine.library, sine.ours, sine.used, cosine.library,
                    cosine.ours, cosine.used, 100.0 * static_cast<double>(asked) / static_cast<double>(angles));
    }
}
