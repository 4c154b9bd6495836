#include "fastac/dense.hpp"

#include <cstring>

#include "fastac/clones.hpp"

#ifdef FASTAC_WIDE
#include <immintrin.h>
#endif

namespace fastac::dense {
namespace {

// Eight floats: one register of AVX2 and later, two before.
struct Narrow {
    static constexpr std::size_t floats = lanes;
    static constexpr std::size_t most_rows = 6;  // of a tile: with two vectors in each, sixteen registers are full
    using Vector = float __attribute__((vector_size(floats * sizeof(float))));
};

#ifdef FASTAC_WIDE
// Sixteen: one register of AVX-512.
struct Wide {
    static constexpr std::size_t floats = 2 * lanes;
    static constexpr std::size_t most_rows = 8;
    using Vector = float __attribute__((vector_size(floats * sizeof(float))));
};
#endif

using Vector = Narrow::Vector;

// By reference: to pass wide vectors by value is another calling convention where there are none.
template <class V>
[[gnu::always_inline]] inline void load(const float* from, V& to) noexcept {
    std::memcpy(&to, from, sizeof to);
}
template <class V>
[[gnu::always_inline]] inline void store(const V& from, float* to) noexcept {
    std::memcpy(to, &from, sizeof from);
}

/// R rows by C vectors of c, held in registers from the first product to the last. Each number is summed in the order of k, however
/// many are summed together: all tiles of all widths agree to the last bit, where they round alike.
template <class Width, std::size_t R, std::size_t C>
[[gnu::always_inline]] inline void tile(std::size_t depth, Elements a, Rows<const float> b, Rows<const float> start, Rows<float> c) noexcept {
    constexpr std::size_t floats = Width::floats;
    typename Width::Vector sum[R][C] = {};
    if (start.at != nullptr)
FASTAC_UNROLL
        for (std::size_t i = 0; i < R; ++i)
FASTAC_UNROLL
            for (std::size_t j = 0; j < C; ++j) load(start.at + i * start.pitch + j * floats, sum[i][j]);
    for (std::size_t k = 0; k < depth; ++k) {
        typename Width::Vector row[C];
FASTAC_UNROLL
        for (std::size_t j = 0; j < C; ++j) load(b.at + k * b.pitch + j * floats, row[j]);
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
        for (std::size_t j = 0; j < C; ++j) store(sum[i][j], c.at + i * c.pitch + j * floats);
}

/// R rows of c, C vectors at a time, then half as many, then what no wide vector fits.
template <class Width, std::size_t R, std::size_t C>
[[gnu::always_inline]] inline void stripe(std::size_t first, std::size_t cols, std::size_t depth, Elements a, Rows<const float> b, Rows<const float> start, Rows<float> c) noexcept {
    std::size_t j = first;
    for (; j + C * Width::floats <= cols; j += C * Width::floats)
        tile<Width, R, C>(depth, a, {b.at + j, b.pitch}, {start.at == nullptr ? nullptr : start.at + j, start.pitch}, {c.at + j, c.pitch});
    if constexpr (C > 1) {
        if (j < cols) stripe<Width, R, C / 2>(j, cols, depth, a, b, start, c);
    } else if constexpr (Width::floats > lanes) {
        if (j < cols) stripe<Narrow, R, 1>(j, cols, depth, a, b, start, c);
    }
}

/// Few rows take more vectors: two multiply-adds a cycle, each four cycles long, keep busy only where eight sums do not wait for
/// each other. One row alone waits for the loads, of which wide ones are no faster.
template <class Width, std::size_t R>
[[gnu::always_inline]] inline void last_rows(std::size_t rows, std::size_t cols, std::size_t depth, Elements a, Rows<const float> b, Rows<const float> start, Rows<float> c) noexcept {
    if constexpr (R == 1) {
        if (rows == 1) stripe<Narrow, 1, 8>(0, cols, depth, a, b, start, c);
    } else {
        if (rows == R) stripe<Width, R, R == 2 ? 4 : 2>(0, cols, depth, a, b, start, c);
        else last_rows<Width, R - 1>(rows, cols, depth, a, b, start, c);
    }
}

template <class Width>
[[gnu::always_inline]] inline void multiply_in(std::size_t rows, std::size_t cols, std::size_t depth, Elements a, Rows<const float> b, Rows<const float> start, Rows<float> c) noexcept {
    constexpr std::size_t most = Width::most_rows;
    const auto take = [&](std::size_t n) {
        a.at += n * a.row;
        if (start.at != nullptr) start.at += n * start.pitch;
        c.at += n * c.pitch;
        rows -= n;
    };
    while (rows >= most + 2 || rows == most) stripe<Width, most, 2>(0, cols, depth, a, b, start, c), take(most);
    if (rows == most + 1) stripe<Width, most - 2, 2>(0, cols, depth, a, b, start, c), take(most - 2);
    last_rows<Width, most - 1>(rows, cols, depth, a, b, start, c);
}

template <class Width>
[[gnu::always_inline]] inline void relu(std::size_t n, float* x) noexcept {
    using V = typename Width::Vector;
    for (std::size_t i = 0; i < n; i += Width::floats) {
        V v;
        load(x + i, v);
        v = v > 0.0F ? v : V{};
        store(v, x + i);
    }
}

constexpr float tanh_end = 9.1F;  // beyond, a float cannot tell tanh from 1

/// tanh(v) = v P(v^2) / Q(v^2), fitted to the least relative error, 2.3e-8, on [0, tanh_end]; v is cut off there.
template <class V>
[[gnu::always_inline]] inline void tanh_in_range(V& v) noexcept {
    const V u = v * v;
    V p = u * 1.317758814e-08F + 2.048123796e-05F;
    p = p * u + 3.487814313e-03F;
    p = p * u + 1.337447798e-01F;
    p = p * u + 9.999999772e-01F;
    V q = u * 7.704074174e-07F + 3.272925424e-04F;
    q = q * u + 2.584740114e-02F;
    q = q * u + 4.670779176e-01F;
    q = q * u + 1.0F;
    v = v * p / q;
}

[[gnu::always_inline]] inline void tanh(std::size_t n, float* x) noexcept {
    const Vector end = Vector{} + tanh_end;
    for (std::size_t i = 0; i < n; i += lanes) {
        Vector v;
        load(x + i, v);
        // In this order a NaN stays one.
        v = v > end ? end : v;
        v = v < -end ? -end : v;
        tanh_in_range(v);
        store(v, x + i);
    }
}

#ifdef FASTAC_WIDE
/// A compiler makes two instructions of each comparison above.
FASTAC_WIDE void tanh_wide(std::size_t n, float* x) noexcept {
    constexpr __mmask16 all = 0xffff;
    const __m512 end = _mm512_set1_ps(tanh_end), begin = _mm512_set1_ps(-tanh_end);
    for (std::size_t i = 0; i < n; i += Wide::floats) {
        Wide::Vector v;
        load(x + i, v);
        // Of two numbers, one of them a NaN, both give the second. (g++ 12 warns of its own header where no mask is given.)
        v = _mm512_maskz_max_ps(all, begin, _mm512_maskz_min_ps(all, end, v));
        tanh_in_range(v);
        store(v, x + i);
    }
}
#endif

template <class Width>
[[gnu::always_inline]] inline void times_derivative_in(Activation activation, std::size_t n, const float* y, float* d) noexcept {
    using V = typename Width::Vector;
    for (std::size_t i = 0; i < n; i += Width::floats) {
        V result, v;
        load(y + i, result);
        load(d + i, v);
        if (activation == Activation::relu) v = result > 0.0F ? v : V{};
        else v = v * (1.0F - result * result);
        store(v, d + i);
    }
}

/// R rows of y, J outputs of each.
template <std::size_t R, std::size_t J>
[[gnu::always_inline]] inline void output_tile(std::size_t depth, Rows<const float> x, Rows<const float> w, const float* bias, float* y, std::size_t y_pitch) noexcept {
    Vector sum[R][J] = {};
    for (std::size_t k = 0; k < depth; k += lanes) {
        Vector weights[J];
FASTAC_UNROLL
        for (std::size_t j = 0; j < J; ++j) load(w.at + j * w.pitch + k, weights[j]);
FASTAC_UNROLL
        for (std::size_t i = 0; i < R; ++i) {
            Vector inputs;
            load(x.at + i * x.pitch + k, inputs);
FASTAC_UNROLL
            for (std::size_t j = 0; j < J; ++j) sum[i][j] += inputs * weights[j];
        }
    }
FASTAC_UNROLL
    for (std::size_t i = 0; i < R; ++i)
FASTAC_UNROLL
        for (std::size_t j = 0; j < J; ++j) {
            const Vector& s = sum[i][j];
            y[i * y_pitch + j] = bias[j] + (((s[0] + s[4]) + (s[1] + s[5])) + ((s[2] + s[6]) + (s[3] + s[7])));
        }
}

/// R rows of y: three outputs at a time, as two actions and a value are, then one.
template <std::size_t R>
[[gnu::always_inline]] inline void outputs_of(std::size_t outputs, std::size_t depth, Rows<const float> x, Rows<const float> w, const float* bias, float* y,
                                              std::size_t y_pitch) noexcept {
    std::size_t j = 0;
    for (; j + 3 <= outputs; j += 3) output_tile<R, 3>(depth, x, {w.at + j * w.pitch, w.pitch}, bias + j, y + j, y_pitch);
    for (; j < outputs; ++j) output_tile<R, 1>(depth, x, {w.at + j * w.pitch, w.pitch}, bias + j, y + j, y_pitch);
}

/// 8 by 8: pairs of numbers change places, then pairs of pairs, then halves.
[[gnu::always_inline]] inline void transpose_tile(Rows<const float> a, Rows<float> b) noexcept {
    static_assert(lanes == 8);
    Vector row[lanes], pairs[lanes], fours[lanes];
FASTAC_UNROLL
    for (std::size_t i = 0; i < lanes; ++i) load(a.at + i * a.pitch, row[i]);
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
        store(Vector(__builtin_shufflevector(fours[i], fours[i + 4], 0, 1, 2, 3, 8, 9, 10, 11)), b.at + i * b.pitch);
        store(Vector(__builtin_shufflevector(fours[i], fours[i + 4], 4, 5, 6, 7, 12, 13, 14, 15)), b.at + (i + 4) * b.pitch);
    }
}

#ifdef FASTAC_WIDE
FASTAC_WIDE void multiply_wide(std::size_t rows, std::size_t cols, std::size_t depth, Elements a, Rows<const float> b, Rows<const float> start, Rows<float> c) noexcept {
    multiply_in<Wide>(rows, cols, depth, a, b, start, c);
}

FASTAC_WIDE void activate_wide(Activation activation, std::size_t n, float* x) noexcept {
    const std::size_t whole = n / Wide::floats * Wide::floats;
    if (activation == Activation::relu) {
        relu<Wide>(whole, x);
        relu<Narrow>(n - whole, x + whole);
    } else {
        tanh_wide(whole, x);
        tanh(n - whole, x + whole);
    }
}

FASTAC_WIDE void times_derivative_wide(Activation activation, std::size_t n, const float* y, float* d) noexcept {
    const std::size_t whole = n / Wide::floats * Wide::floats;
    times_derivative_in<Wide>(activation, whole, y, d);
    times_derivative_in<Narrow>(activation, n - whole, y + whole, d + whole);
}
#define FASTAC_WIDEST(function) (has_wide() ? function##_wide : narrow::function)
#else
#define FASTAC_WIDEST(function) narrow::function
#endif

}  // namespace

namespace narrow {

FASTAC_CLONES void multiply(std::size_t rows, std::size_t cols, std::size_t depth, Elements a, Rows<const float> b, Rows<const float> start, Rows<float> c) noexcept {
    multiply_in<Narrow>(rows, cols, depth, a, b, start, c);
}

FASTAC_CLONES void activate(Activation activation, std::size_t n, float* x) noexcept {
    if (activation == Activation::relu) relu<Narrow>(n, x);
    else tanh(n, x);
}

FASTAC_CLONES void times_derivative(Activation activation, std::size_t n, const float* y, float* d) noexcept { times_derivative_in<Narrow>(activation, n, y, d); }

}  // namespace narrow

void multiply(std::size_t rows, std::size_t cols, std::size_t depth, Elements a, Rows<const float> b, Rows<const float> start, Rows<float> c) noexcept {
    FASTAC_WIDEST(multiply)(rows, cols, depth, a, b, start, c);
}

void activate(Activation activation, std::size_t n, float* x) noexcept { FASTAC_WIDEST(activate)(activation, n, x); }

void times_derivative(Activation activation, std::size_t n, const float* y, float* d) noexcept {
    FASTAC_WIDEST(times_derivative)(activation, n, y, d);
}

FASTAC_CLONES void few_outputs(std::size_t rows, std::size_t outputs, std::size_t depth, Rows<const float> x, Rows<const float> w, const float* bias, float* y,
                               std::size_t y_pitch) noexcept {
    std::size_t i = 0;
    for (; i + 4 <= rows; i += 4) outputs_of<4>(outputs, depth, {x.at + i * x.pitch, x.pitch}, w, bias, y + i * y_pitch, y_pitch);
    for (; i < rows; ++i) outputs_of<1>(outputs, depth, {x.at + i * x.pitch, x.pitch}, w, bias, y + i * y_pitch, y_pitch);
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

}  // namespace fastac::dense
