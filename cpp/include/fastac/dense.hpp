// The arithmetic of the native policy: one matrix product in all its guises, and what is done element by element.
// Defined in cpp/kernels/dense.cpp, which is compiled by itself: here, unlike in the env and the optimizers, a fused
// multiply-add is welcome. So results differ in the last bits between processors that have it and those that have not.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

namespace fastac {

enum class Activation : std::uint32_t { tanh = 0, relu = 1 };

namespace dense {

inline constexpr std::size_t lanes = 8;  // floats in a vector; rows of matrices are padded to a multiple of it

constexpr std::size_t padded(std::size_t n) noexcept { return (n + lanes - 1) / lanes * lanes; }

/// Zeros at first, aligned for whole vectors.
class Floats {
public:
    explicit Floats(std::size_t n) : floats_(static_cast<float*>(::operator new[](n * sizeof(float), alignment))) { std::fill_n(floats_.get(), n, 0.0F); }
    [[nodiscard]] float* at(std::size_t i) noexcept { return floats_.get() + i; }
    [[nodiscard]] const float* at(std::size_t i) const noexcept { return floats_.get() + i; }

private:
    static constexpr std::align_val_t alignment{64};
    struct Free {
        void operator()(float* p) const noexcept { ::operator delete[](p, alignment); }
    };
    std::unique_ptr<float[], Free> floats_;
};

/// A matrix that is read element by element, so that its transpose is one, too: element (i, k) is at[i * row + k * step].
struct Elements {
    const float* at;
    std::size_t row, step;
};

/// A matrix whose rows are read by whole vectors, `pitch` floats apart. Fastest where they are aligned for them.
template <class Float>
struct Rows {
    Float* at;
    std::size_t pitch;
};

/// c[rows, cols] = start[rows, cols] + a[rows, depth] b[depth, cols]. `cols`: a multiple of `lanes`. `start`: nothing (zeros),
/// one row for all (pitch 0), or a matrix, which may be c itself.
void multiply(std::size_t rows, std::size_t cols, std::size_t depth, Elements a, Rows<const float> b, Rows<const float> start, Rows<float> c) noexcept;

/// y[i, j] = bias[j] + sum over k < depth of x[i, k] w[j, k], for few outputs j; y is dense, [rows, outputs].
void few_outputs(std::size_t rows, std::size_t outputs, std::size_t depth, Rows<const float> x, Rows<const float> w, const float* bias, float* y, std::size_t y_pitch) noexcept;

/// b[cols, rows] = a[rows, cols] transposed.
void transpose(std::size_t rows, std::size_t cols, Rows<const float> a, Rows<float> b) noexcept;

/// x[n] = activation(x[n]); n a multiple of `lanes`. tanh: within 4e-7.
void activate(Activation activation, std::size_t n, float* x) noexcept;

/// d[n] *= the activation's derivative where it gave y[n]; n a multiple of `lanes`.
void times_derivative(Activation activation, std::size_t n, const float* y, float* d) noexcept;

/// The same without what only processors with wide vectors have: equal to the last bit where both have a fused multiply-add.
namespace narrow {
void multiply(std::size_t rows, std::size_t cols, std::size_t depth, Elements a, Rows<const float> b, Rows<const float> start, Rows<float> c) noexcept;
void activate(Activation activation, std::size_t n, float* x) noexcept;
void times_derivative(Activation activation, std::size_t n, const float* y, float* d) noexcept;
}  // namespace narrow

}  // namespace dense
}  // namespace fastac
