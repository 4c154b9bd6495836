#include "fastac/dense.hpp"

#include "fastac/clones.hpp"

namespace fastac::dense {
namespace {

// Eight floats: one register of AVX2 and later, two before.
using Vector = float __attribute__((vector_size(lanes * sizeof(float)), may_alias));

const Vector& vector_at(const float* p) noexcept { return *reinterpret_cast<const Vector*>(p); }
Vector& vector_at(float* p) noexcept { return *reinterpret_cast<Vector*>(p); }

/// R rows by C vectors of c, held in registers from the first product to the last.
template <std::size_t R, std::size_t C>
[[gnu::always_inline]] inline void tile(std::size_t depth, Elements a, Rows<const float> b, Rows<const float> start, Rows<float> c) noexcept {
    Vector sum[R][C];
FASTAC_UNROLL
    for (std::size_t i = 0; i < R; ++i)
FASTAC_UNROLL
        for (std::size_t j = 0; j < C; ++j) sum[i][j] = start.at == nullptr ? Vector{} : vector_at(start.at + i * start.pitch + j * lanes);
    for (std::size_t k = 0; k < depth; ++k) {
        Vector row[C];
FASTAC_UNROLL
        for (std::size_t j = 0; j < C; ++j) row[j] = vector_at(b.at + k * b.pitch + j * lanes);
FASTAC_UNROLL
        for (std::size_t i = 0; i < R; ++i) {
            const float factor = a.at[i * a.row + k * a.step];
FASTAC_UNROLL
            for (std::size_t j = 0; j < C; ++j) sum[i][j] += factor * row[j];
        }
    }
FASTAC_UNROLL
    for (std::size_t i = 0; i < R; ++i)
FASTAC_UNROLL
        for (std::size_t j = 0; j < C; ++j) vector_at(c.at + i * c.pitch + j * lanes) = sum[i][j];
}

/// 8 by 8: pairs of numbers change places, then pairs of pairs, then halves.
[[gnu::always_inline]] inline void transpose_tile(Rows<const float> a, Rows<float> b) noexcept {
    static_assert(lanes == 8);
    Vector row[lanes], pairs[lanes], fours[lanes];
FASTAC_UNROLL
    for (std::size_t i = 0; i < lanes; ++i) row[i] = vector_at(a.at + i * a.pitch);
FASTAC_UNROLL
    for (std::size_t i = 0; i < lanes; i += 2) {
        pairs[i] = __builtin_shufflevector(row[i], row[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        pairs[i + 1] = __builtin_shufflevector(row[i], row[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
FASTAC_UNROLL
    for (std::size_t i = 0; i < lanes; i += 4)
FASTAC_UNROLL
        for (std::size_t k = 0; k < 2; ++k) {
            fours[i + 2 * k] = __builtin_shufflevector(pairs[i + k], pairs[i + k + 2], 0, 1, 8, 9, 4, 5, 12, 13);
            fours[i + 2 * k + 1] = __builtin_shufflevector(pairs[i + k], pairs[i + k + 2], 2, 3, 10, 11, 6, 7, 14, 15);
        }
FASTAC_UNROLL
    for (std::size_t i = 0; i < lanes / 2; ++i) {
        vector_at(b.at + i * b.pitch) = __builtin_shufflevector(fours[i], fours[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        vector_at(b.at + (i + 4) * b.pitch) = __builtin_shufflevector(fours[i], fours[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
}

/// R rows of c, C vectors at a time, then half as many. Few rows take more vectors: two multiply-adds a cycle, each four cycles
/// long, keep busy only where eight sums do not wait for each other.
template <std::size_t R, std::size_t C>
[[gnu::always_inline]] inline void stripe(std::size_t first, std::size_t cols, std::size_t depth, Elements a, Rows<const float> b, Rows<const float> start, Rows<float> c) noexcept {
    std::size_t j = first;
    for (; j + C * lanes <= cols; j += C * lanes)
        tile<R, C>(depth, a, {b.at + j, b.pitch}, {start.at == nullptr ? nullptr : start.at + j, start.pitch}, {c.at + j, c.pitch});
    if constexpr (C > 1)
        if (j < cols) stripe<R, C / 2>(j, cols, depth, a, b, start, c);
}

}  // namespace

FASTAC_CLONES void multiply(std::size_t rows, std::size_t cols, std::size_t depth, Elements a, Rows<const float> b, Rows<const float> start, Rows<float> c) noexcept {
    const auto take = [&](std::size_t n) {
        a.at += n * a.row;
        if (start.at != nullptr) start.at += n * start.pitch;
        c.at += n * c.pitch;
        rows -= n;
    };
    while (rows >= 8 || rows == 6) stripe<6, 2>(0, cols, depth, a, b, start, c), take(6);
    if (rows >= 4 && rows != 5) stripe<4, 2>(0, cols, depth, a, b, start, c), take(4);
    switch (rows) {
        case 1: stripe<1, 8>(0, cols, depth, a, b, start, c); break;
        case 2: stripe<2, 4>(0, cols, depth, a, b, start, c); break;
        case 3: stripe<3, 2>(0, cols, depth, a, b, start, c); break;
        case 5: stripe<5, 2>(0, cols, depth, a, b, start, c); break;
        default: break;
    }
}

FASTAC_CLONES void few_outputs(std::size_t rows, std::size_t outputs, std::size_t depth, Rows<const float> x, Rows<const float> w, const float* bias, float* y,
                               std::size_t y_pitch) noexcept {
    for (std::size_t i = 0; i < rows; ++i)
        for (std::size_t j = 0; j < outputs; ++j) {
            Vector sum{};
            for (std::size_t k = 0; k < depth; k += lanes) sum += vector_at(x.at + i * x.pitch + k) * vector_at(w.at + j * w.pitch + k);
            y[i * y_pitch + j] = bias[j] + (((sum[0] + sum[4]) + (sum[1] + sum[5])) + ((sum[2] + sum[6]) + (sum[3] + sum[7])));
        }
}

FASTAC_CLONES void transpose(std::size_t rows, std::size_t cols, Rows<const float> a, Rows<float> b) noexcept {
    const std::size_t whole_rows = rows / lanes * lanes, whole_cols = cols / lanes * lanes;
    for (std::size_t i = 0; i < whole_rows; i += lanes)
        for (std::size_t j = 0; j < whole_cols; j += lanes) transpose_tile({a.at + i * a.pitch + j, a.pitch}, {b.at + j * b.pitch + i, b.pitch});
    const auto rest = [&](std::size_t first_row, std::size_t first_col, std::size_t end_col) {
        for (std::size_t j = first_col; j < end_col; ++j)
            for (std::size_t i = first_row; i < rows; ++i) b.at[j * b.pitch + i] = a.at[i * a.pitch + j];
    };
    rest(whole_rows, 0, whole_cols);
    rest(0, whole_cols, cols);
}

FASTAC_CLONES void activate(Activation activation, std::size_t n, float* x) noexcept {
    if (activation == Activation::relu) {
        for (std::size_t i = 0; i < n; i += lanes) {
            Vector& v = vector_at(x + i);
            v = v > 0.0F ? v : Vector{};
        }
        return;
    }
    // tanh(x) = x P(x^2) / Q(x^2), fitted to the least relative error, 2.3e-8, on [0, 9.1]; beyond, a float cannot tell it from 1.
    const Vector end = Vector{} + 9.1F;
    for (std::size_t i = 0; i < n; i += lanes) {
        Vector v = vector_at(x + i);
        // In this order a NaN stays one.
        v = v > end ? end : v;
        v = v < -end ? -end : v;
        const Vector u = v * v;
        Vector p = u * 1.317758814e-08F + 2.048123796e-05F;
        p = p * u + 3.487814313e-03F;
        p = p * u + 1.337447798e-01F;
        p = p * u + 9.999999772e-01F;
        Vector q = u * 7.704074174e-07F + 3.272925424e-04F;
        q = q * u + 2.584740114e-02F;
        q = q * u + 4.670779176e-01F;
        q = q * u + 1.0F;
        vector_at(x + i) = v * p / q;
    }
}

FASTAC_CLONES void times_derivative(Activation activation, std::size_t n, const float* y, float* d) noexcept {
    for (std::size_t i = 0; i < n; i += lanes) {
        const Vector result = vector_at(y + i);
        Vector& v = vector_at(d + i);
        if (activation == Activation::relu) v = result > 0.0F ? v : Vector{};
        else v = v * (1.0F - result * result);
    }
}

}  // namespace fastac::dense
