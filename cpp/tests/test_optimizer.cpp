// optimizer.hpp: numbers worked out by hand, then properties.
#include "fastac/optimizer.hpp"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "check.hpp"

using namespace fastac;

namespace {

struct One {  // a vector of one parameter
    float p, s0 = 0.0F, s1 = 0.0F;
    void step(const OptimizerConfig& c, double lr, std::uint64_t t, float g) {
        OptimizerStep(c, lr, t).apply(1, &g, {&p, {&s0, &s1}}, {&p, {&s0, &s1}});
    }
};

OptimizerConfig of(OptimizerKind kind) {
    OptimizerConfig c;
    c.kind = kind;
    return c;
}

bool near(float a, double b) { return std::abs(static_cast<double>(a) - b) <= 1e-6 * std::abs(b); }

void sgd_by_hand() {
    One x{1.0F};
    x.step(of(OptimizerKind::sgd), 0.5, 1, 3.0F);
    CHECK_EQ(x.p, -0.5F);
}

// alpha 0.75, eps 1, lr 0.5, p 3, g 4: v = 0.25 * 16 = 4. All exact in binary but the last root.
void rmsprop_by_hand() {
    OptimizerConfig c = of(OptimizerKind::rmsprop);
    c.alpha = 0.75;
    c.eps = 1.0;
    One outside{3.0F};
    outside.step(c, 0.5, 1, 4.0F);
    CHECK_EQ(outside.s0, 4.0F);
    CHECK(near(outside.p, 3.0 - 2.0 / 3.0));  // 0.5 * 4 / (sqrt(4) + 1)
    outside.step(c, 0.25, 2, 0.0F);           // no gradient: p stays, v decays
    CHECK_EQ(outside.s0, 3.0F);
    CHECK(near(outside.p, 3.0 - 2.0 / 3.0));

    c.eps_inside_root = 1;
    One inside{3.0F};
    inside.step(c, 0.5, 1, 4.0F);
    CHECK_EQ(inside.s0, 4.0F);
    CHECK(near(inside.p, 3.0 - 2.0 / std::sqrt(5.0)));  // 0.5 * 4 / sqrt(4 + 1)
}

// beta1 0.5, beta2 0.75, eps 1, lr 1.
//   t = 1, g = 2: m = 1, v = 1; m / (1 - 0.5) = 2, v / (1 - 0.75) = 4; p = 5 - 2 / (2 + 1)
//   t = 2, g = 0: m = 0.5, v = 0.75; corrected 2/3 and 12/7; p -= (2/3) / (sqrt(12/7) + 1)
void adam_by_hand() {
    OptimizerConfig c = of(OptimizerKind::adam);
    c.beta1 = 0.5;
    c.beta2 = 0.75;
    c.eps = 1.0;
    One x{5.0F};
    x.step(c, 1.0, 1, 2.0F);
    CHECK_EQ(x.s0, 1.0F);
    CHECK_EQ(x.s1, 1.0F);
    const double first = 5.0 - 2.0 / 3.0;
    CHECK(near(x.p, first));
    x.step(c, 1.0, 2, 0.0F);
    CHECK_EQ(x.s0, 0.5F);
    CHECK_EQ(x.s1, 0.75F);
    CHECK(near(x.p, first - (2.0 / 3.0) / (std::sqrt(12.0 / 7.0) + 1.0)));
}

void clip_by_hand() {
    float grad[] = {3.0F, 0.0F, -4.0F};
    CHECK_EQ(grad_norm(grad, 3), 5.0);
    CHECK_EQ(clip_grad_norm(grad, 3, 0.0), 5.0);  // measured only
    CHECK_EQ(clip_grad_norm(grad, 3, 6.0), 5.0);  // short enough
    CHECK_EQ(grad[0], 3.0F);
    CHECK_EQ(clip_grad_norm(grad, 3, 2.5), 5.0);
    CHECK(near(grad[0], 3.0 * 2.5 / (5.0 + 1e-6)));
    CHECK_EQ(grad[1], 0.0F);
    CHECK(near(grad[2], -4.0 * 2.5 / (5.0 + 1e-6)));
    // Every length around the eight lanes; ones, so that the norm is exact.
    for (std::size_t n = 0; n <= 18; ++n) CHECK_EQ(grad_norm(std::vector<float>(n, 1.0F).data(), n), std::sqrt(static_cast<double>(n)));
    // Squares that float32 could not hold.
    const float huge[] = {3e30F, 4e30F};
    CHECK(std::abs(grad_norm(huge, 2) / 5e30 - 1.0) < 1e-6);
}

/// `step` in place, `step` apart, and element by element (no vector loop) are the same to the last bit.
void in_place_equals_apart() {
    std::mt19937 random(7);
    std::normal_distribution<float> normal;
    for (const OptimizerKind kind : {OptimizerKind::sgd, OptimizerKind::rmsprop, OptimizerKind::adam}) {
        for (const std::size_t n : {1U, 7U, 16U, 33U, 1001U}) {
            OptimizerConfig c = of(kind);
            std::vector<float> from[3], to[3], here[3], single[3];
            for (int k = 0; k < 3; ++k) {
                from[k].resize(n);
                for (float& x : from[k]) x = std::abs(normal(random));
                to[k].assign(n, -1.0F);
                here[k] = from[k];
                single[k] = from[k];
            }
            std::vector<float> grad(n);
            for (float& g : grad) g = normal(random);
            const OptimizerStep step(c, 1e-3, 3);
            step.apply(n, grad.data(), {from[0].data(), {from[1].data(), from[2].data()}}, {to[0].data(), {to[1].data(), to[2].data()}});
            step.apply(n, grad.data(), {here[0].data(), {here[1].data(), here[2].data()}}, {here[0].data(), {here[1].data(), here[2].data()}});
            for (std::size_t i = 0; i < n; ++i) {
                float *p = &single[0][i], *a = &single[1][i], *b = &single[2][i];
                step.apply(1, &grad[i], {p, {a, b}}, {p, {a, b}});
            }
            for (std::size_t k = 0; k < 1 + state_vectors(kind); ++k) {
                CHECK(std::memcmp(to[k].data(), here[k].data(), n * sizeof(float)) == 0);
                CHECK(std::memcmp(to[k].data(), single[k].data(), n * sizeof(float)) == 0);
                CHECK(to[k] != from[k]);
            }
            for (std::size_t k = 1 + state_vectors(kind); k < 3; ++k) CHECK_EQ(to[k][0], -1.0F);  // state it does not have
        }
    }
}

}  // namespace

int main() {
    sgd_by_hand();
    rmsprop_by_hand();
    adam_by_hand();
    clip_by_hand();
    in_place_equals_apart();
    return check_result();
}
