// dense.hpp: the wide version against the narrow one, to the last bit, over shapes that leave all kinds of remainders; and both
// against the plainest loops.
#include "fastac/dense.hpp"

#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "check.hpp"

using namespace fastac;
using namespace fastac::dense;

namespace {

constexpr float untouched = 12345.0F;  // around what a function may write

bool same_bits(float a, float b) { return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b); }

/// Whether the narrow version multiplies and adds with one rounding here. A sanitizer's build has no clones, so it does not.
bool narrow_is_fused() {
    Floats a(lanes), b(lanes), c(lanes);
    std::fill_n(a.at(0), lanes, 1.0F + 0x1p-12F);
    std::fill_n(b.at(0), lanes, -1.0F - 0x1p-11F);
    narrow::multiply(1, lanes, 1, {a.at(0), 1, 1}, {a.at(0), lanes}, {b.at(0), lanes}, {c.at(0), lanes});
    CHECK(*c.at(0) == 0x1p-24F || *c.at(0) == 0.0F);
    return *c.at(0) != 0.0F;
}

struct Draw {
    std::mt19937 random{1};
    std::normal_distribution<float> normal{};

    void fill(Floats& floats, std::size_t n) {
        for (std::size_t i = 0; i < n; ++i) *floats.at(i) = normal(random);
    }
};

enum class Start { zeros, row, matrix, itself };

/// c = start + a b by all three. `shift`: what is read by vectors begins as many floats after a whole cache line.
void one_product(std::size_t rows, std::size_t cols, std::size_t depth, bool transposed, Start kind, std::size_t shift, bool bits, Draw& draw) {
    const std::size_t pitch = cols + lanes * (depth % 3);
    const auto room = [&](std::size_t n) { return n * pitch + shift + lanes; };
    Floats a(rows * depth + 1), b(room(depth)), start(room(rows)), c(room(rows)), d(room(rows));
    draw.fill(a, rows * depth), draw.fill(b, room(depth)), draw.fill(start, room(rows));
    std::fill_n(c.at(0), room(rows), untouched);
    std::fill_n(d.at(0), room(rows), untouched);
    if (kind == Start::itself)
        for (std::size_t i = 0; i < rows; ++i)
            for (std::size_t j = 0; j < cols; ++j) *c.at(shift + i * pitch + j) = *d.at(shift + i * pitch + j) = *start.at(shift + i * pitch + j);
    const Elements elements = transposed ? Elements{a.at(0), 1, rows} : Elements{a.at(0), depth, 1};
    const auto from = [&](Floats& result) -> Rows<const float> {
        if (kind == Start::zeros) return {nullptr, 0};
        return {kind == Start::itself ? result.at(shift) : start.at(shift), kind == Start::row ? 0 : pitch};
    };
    multiply(rows, cols, depth, elements, {b.at(shift), pitch}, from(c), {c.at(shift), pitch});
    narrow::multiply(rows, cols, depth, elements, {b.at(shift), pitch}, from(d), {d.at(shift), pitch});
    for (std::size_t at = 0; at < room(rows); ++at) {
        const std::size_t i = (at - shift) / pitch, j = (at - shift) % pitch;
        if (at < shift || i >= rows || j >= cols) {
            CHECK_EQ(*c.at(at), untouched);
            CHECK_EQ(*d.at(at), untouched);
            continue;
        }
        double sum = kind == Start::zeros ? 0.0 : static_cast<double>(*start.at(shift + (kind == Start::row ? 0 : i * pitch) + j)), size = std::abs(sum);
        for (std::size_t k = 0; k < depth; ++k) {
            const double product = static_cast<double>(elements.at[i * elements.row + k * elements.step]) * static_cast<double>(*b.at(shift + k * pitch + j));
            sum += product, size += std::abs(product);
        }
        CHECK(std::abs(static_cast<double>(*c.at(at)) - sum) <= 1e-6 * size);
        CHECK(bits ? same_bits(*c.at(at), *d.at(at)) : std::abs(static_cast<double>(*d.at(at)) - sum) <= 1e-6 * size);
    }
}

void products() {
    Draw draw;
    const bool bits = narrow_is_fused();
    for (const std::size_t rows : {1U, 2U, 3U, 4U, 5U, 6U, 7U, 8U, 9U, 10U, 11U, 15U, 16U, 17U, 18U, 40U})
        for (const std::size_t cols : {8U, 16U, 24U, 32U, 40U, 56U, 64U, 72U, 104U, 128U, 136U})
            for (const std::size_t depth : {0U, 1U, 3U, 4U, 5U, 64U})
                for (const Start start : {Start::zeros, Start::row, Start::matrix, Start::itself})
                    one_product(rows, cols, depth, (rows + depth) % 2 == 0, start, (rows + cols / lanes) % 3 * lanes, bits, draw);
}

/// A literal one: [1 2; 3 4] with rows of ones and twos, and one row that all begin with.
void a_product_by_hand() {
    const float a[] = {1.0F, 2.0F, 3.0F, 4.0F};
    Floats b(2 * lanes), start(lanes), c(2 * lanes);
    std::fill_n(b.at(0), lanes, 1.0F);
    std::fill_n(b.at(lanes), lanes, 2.0F);
    std::fill_n(start.at(0), lanes, 10.0F);
    multiply(2, lanes, 2, {a, 2, 1}, {b.at(0), lanes}, {start.at(0), 0}, {c.at(0), lanes});
    for (std::size_t j = 0; j < lanes; ++j) {
        CHECK_EQ(*c.at(j), 15.0F);
        CHECK_EQ(*c.at(lanes + j), 21.0F);
    }
}

/// Element by element, tails included, beyond where tanh ends and for what is no number.
void activations() {
    Draw draw;
    const bool bits = narrow_is_fused();
    for (std::size_t n = 0; n <= 9 * lanes; n += lanes)
        for (const std::size_t shift : {std::size_t{0}, lanes})
            for (const Activation activation : {Activation::tanh, Activation::relu}) {
                const std::size_t room = n + shift + lanes;
                Floats x(room), wide(room), slim(room), by(room), by_wide(room), by_slim(room);
                draw.fill(x, room), draw.fill(by, room);
                for (std::size_t i = 0; i < n; ++i) *x.at(shift + i) *= i % 5 == 0 ? 20.0F : 1.0F;
                const float strange[] = {0.0F, -0.0F, 9.1F, -9.2F, 1e30F, std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(), std::nanf("")};
                for (std::size_t i = 0; i < n; i += 11) *x.at(shift + i) = strange[(i / 11 + n / lanes) % std::size(strange)];
                for (std::size_t i = 0; i < room; ++i) *wide.at(i) = *slim.at(i) = *x.at(i), *by_wide.at(i) = *by_slim.at(i) = *by.at(i);
                activate(activation, n, wide.at(shift));
                narrow::activate(activation, n, slim.at(shift));
                times_derivative(activation, n, wide.at(shift), by_wide.at(shift));
                narrow::times_derivative(activation, n, wide.at(shift), by_slim.at(shift));
                for (std::size_t i = 0; i < room; ++i) {
                    const double v = static_cast<double>(*x.at(i)), y = static_cast<double>(*wide.at(i)), d = static_cast<double>(*by.at(i));
                    if (i < shift || i >= shift + n) {
                        for (const Floats* result : {&wide, &slim}) CHECK(same_bits(*result->at(i), *x.at(i)));
                        for (const Floats* result : {&by_wide, &by_slim}) CHECK(same_bits(*result->at(i), *by.at(i)));
                        continue;
                    }
                    if (std::isnan(v)) {
                        CHECK(activation == Activation::relu ? y == 0.0 : std::isnan(y));
                        continue;
                    }
                    const bool tanh = activation == Activation::tanh;
                    CHECK(tanh ? std::abs(y - std::tanh(v)) <= 4e-7 : y == std::max(v, 0.0));
                    CHECK(std::abs(static_cast<double>(*by_wide.at(i)) - d * (tanh ? 1.0 - y * y : y > 0.0 ? 1.0 : 0.0)) <= 1e-6 * std::abs(d));
                    CHECK(bits || !tanh ? same_bits(*wide.at(i), *slim.at(i)) : std::abs(*wide.at(i) - *slim.at(i)) <= 4e-7F);
                    CHECK(bits || !tanh ? same_bits(*by_wide.at(i), *by_slim.at(i)) : std::abs(*by_wide.at(i) - *by_slim.at(i)) <= 1e-6F * std::abs(*by.at(i)));
                }
            }
}

/// Rows one by one and together: the same bits.
void outputs_do_not_depend_on_the_rows_beside_them() {
    Draw draw;
    for (const std::size_t rows : {1U, 2U, 3U, 4U, 5U, 7U, 8U, 13U})
        for (const std::size_t outputs : {1U, 2U, 3U, 4U, 5U, 6U, 7U})
            for (const std::size_t depth : {8U, 16U, 24U, 64U, 136U}) {
                Floats x(rows * depth), w(outputs * depth), bias(outputs), y(rows * (outputs + 1)), one(outputs);
                draw.fill(x, rows * depth), draw.fill(w, outputs * depth), draw.fill(bias, outputs);
                std::fill_n(y.at(0), rows * (outputs + 1), untouched);
                few_outputs(rows, outputs, depth, {x.at(0), depth}, {w.at(0), depth}, bias.at(0), y.at(0), outputs + 1);
                for (std::size_t i = 0; i < rows; ++i) {
                    few_outputs(1, outputs, depth, {x.at(i * depth), depth}, {w.at(0), depth}, bias.at(0), one.at(0), outputs);
                    for (std::size_t j = 0; j < outputs; ++j) {
                        double sum = static_cast<double>(*bias.at(j)), size = std::abs(sum);
                        for (std::size_t k = 0; k < depth; ++k) {
                            const double product = static_cast<double>(*x.at(i * depth + k)) * static_cast<double>(*w.at(j * depth + k));
                            sum += product, size += std::abs(product);
                        }
                        CHECK(std::abs(static_cast<double>(*one.at(j)) - sum) <= 1e-6 * size);
                        CHECK(same_bits(*one.at(j), *y.at(i * (outputs + 1) + j)));
                    }
                    CHECK_EQ(*y.at(i * (outputs + 1) + outputs), untouched);
                }
            }
}

}  // namespace

int main() {
    a_product_by_hand();
    products();
    activations();
    outputs_do_not_depend_on_the_rows_beside_them();
    return check_result();
}
