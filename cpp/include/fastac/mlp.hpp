// The policy: parameters float32[P] and observations in -> logits and a value out; and back, a gradient float32[P].
// Before it: param_store.hpp. After it: rollout.hpp (acting) and gradient.hpp.
//
// The flat vector holds, one after the other: for each trunk (the policy's, then the value's if it has its own) and each
// of its layers the weights [in, out] and the biases [out]; then the policy head's weights [A, hidden] and biases [A], and
// the value head's [hidden] and [1]. Trunk weights lie as [in, out] so that neither acting nor the gradient transposes them
// but for one product; python/fastac/policy.py lays the same vector under torch's modules.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "fastac/dense.hpp"

namespace fastac {

struct MlpShape {
    std::size_t inputs = 4;
    std::size_t actions = 2;
    std::vector<std::size_t> hidden;  // units of each layer, at least one layer
    Activation activation = Activation::tanh;
    bool shared_trunk = true;

    [[nodiscard]] std::size_t trunks() const noexcept { return shared_trunk ? 1 : 2; }
    [[nodiscard]] std::size_t outputs() const noexcept { return actions + 1; }  // logits, then the value

    /// P.
    [[nodiscard]] std::size_t parameters() const noexcept {
        std::size_t trunk = 0, in = inputs;
        for (const std::size_t out : hidden) trunk += (in + 1) * out, in = out;
        return trunks() * trunk + outputs() * (in + 1);
    }
};

/// Throws std::invalid_argument where a shape has no layer, or one of no units or of more than any machine can hold.
inline const MlpShape& checked(const MlpShape& shape) {
    constexpr std::size_t widest = std::size_t{1} << 16U;
    if (shape.hidden.empty()) throw std::invalid_argument("hidden: expected at least one layer");
    for (const std::size_t out : shape.hidden)
        if (out < 1 || out > widest) throw std::invalid_argument("hidden: expected 1 to 65536 units in each layer, got " + std::to_string(out));
    return shape;
}

// What it is: one policy's parameters and what its layers gave for up to `rows` observations, which the gradient needs. Layers
// whose widths fit vectors are used as they lie in the flat vector; the others, and the heads, are unpacked.
// Who may call: one thread at a time. After the constructor nothing allocates, waits or throws.
class Mlp {
public:
    Mlp(const MlpShape& shape, std::size_t rows)
        : shape_(checked(shape)),
          layers_(lay_out()),
          params_(shape_.parameters()),
          weights_(size_),
          grad_(size_),
          transposed_(transposed_size_),
          outputs_(rows * shape_.outputs()) {
        for (const Layer& layer : layers_) results_.emplace_back(rows * layer.pitch);
    }

    [[nodiscard]] const MlpShape& shape() const noexcept { return shape_; }

    /// float32[P]: where parameters are written before `take_params`.
    [[nodiscard]] std::span<float> params() noexcept { return {params_.at(0), shape_.parameters()}; }

    /// Those in `params` are the policy's from now on.
    void take_params() noexcept {
        each_piece([&](std::size_t flat, std::size_t at, std::size_t n) { std::memcpy(weights_.at(at), params_.at(flat), n * sizeof(float)); });
    }

    /// Both with params float32[P].
    void load(std::span<const float> from) noexcept {
        std::memcpy(params_.at(0), from.data(), from.size_bytes());
        take_params();
    }

    /// Logits and value [A + 1] of obs float32[n, inputs], as rows `first` and on; see `outputs`.
    void forward(std::size_t first, std::size_t n, const float* obs) noexcept {
        for (std::size_t trunk = 0; trunk < shape_.trunks(); ++trunk) {
            dense::Elements x{obs, shape_.inputs, 1};
            for (std::size_t l = trunk * depth(); l < (trunk + 1) * depth(); ++l) {
                const Layer& layer = layers_[l];
                float* y = results_[l].at(first * layer.pitch);
                dense::multiply(n, layer.pitch, layer.in, x, weights(layer), {weights(layer).at + layer.in * layer.pitch, 0}, {y, layer.pitch});
                dense::activate(shape_.activation, n * layer.pitch, y);
                x = {y, layer.pitch, 1};
            }
        }
        for (std::size_t trunk = 0; trunk < shape_.trunks(); ++trunk) {
            const auto [from, to] = heads_of(trunk);
            const std::size_t pitch = last(trunk).pitch;
            dense::few_outputs(n, to - from, pitch, {hidden(trunk, first), pitch}, {weights_.at(head(from)), pitch}, weights_.at(head_biases_ + from),
                               outputs_.at(first * shape_.outputs() + from), shape_.outputs());
        }
    }

    /// float32[A + 1] for each row: logits, then the value.
    [[nodiscard]] const float* outputs(std::size_t row) const noexcept { return outputs_.at(row * shape_.outputs()); }

    /// The gradient float32[P] of a loss whose derivatives by the outputs of rows 0 to n are by_outputs float32[n, A + 1].
    /// obs: what those rows were the results of.
    void backward(std::size_t n, const float* obs, const float* by_outputs, std::span<float> grad) noexcept {
        transpose();
        std::fill_n(grad_.at(head_biases_), shape_.outputs(), 0.0F);
        // Some rows at a time: what goes back through the layers stays in the first caches.
        for (std::size_t first = 0; first < n; first += chunk) backward_some(first, std::min(chunk, n - first), obs, by_outputs, grad.data());
        each_piece([&](std::size_t flat, std::size_t at, std::size_t m) { std::memcpy(grad.data() + flat, grad_.at(at), m * sizeof(float)); });
    }

private:
    static constexpr std::size_t chunk = 64;

    // `in` rows of weights and one of biases, `pitch` floats apart: as they lie in the flat vector at `flat`, if their width fits
    // vectors, else at `unpacked` in weights_. Its gradient lies likewise in the flat one or in grad_.
    struct Layer {
        std::size_t in, out, in_pitch, pitch;
        std::size_t flat, unpacked;
        std::size_t transposed;  // in transposed_: `out` rows, in_pitch apart; unused by the first layer of a trunk
    };

    [[nodiscard]] std::size_t depth() const noexcept { return shape_.hidden.size(); }
    [[nodiscard]] const Layer& last(std::size_t trunk) const noexcept { return layers_[(trunk + 1) * depth() - 1]; }
    /// What the last layer of a trunk gave for a row and on.
    [[nodiscard]] const float* hidden(std::size_t trunk, std::size_t row) const noexcept { return results_[(trunk + 1) * depth() - 1].at(row * last(trunk).pitch); }
    /// The row of head weights of output j.
    [[nodiscard]] std::size_t head(std::size_t j) const noexcept { return heads_ + j * last(0).pitch; }
    /// Outputs that are read from a trunk: from, to.
    [[nodiscard]] std::pair<std::size_t, std::size_t> heads_of(std::size_t trunk) const noexcept {
        if (shape_.shared_trunk) return {0, shape_.outputs()};
        return trunk == 0 ? std::pair{std::size_t{0}, shape_.actions} : std::pair{shape_.actions, shape_.outputs()};
    }
    [[nodiscard]] static bool fits(const Layer& layer) noexcept { return layer.out == layer.pitch; }
    [[nodiscard]] dense::Rows<const float> weights(const Layer& layer) const noexcept {
        return {fits(layer) ? params_.at(layer.flat) : weights_.at(layer.unpacked), layer.pitch};
    }

    std::vector<Layer> lay_out() {
        std::vector<Layer> layers;
        std::size_t flat = 0;
        for (std::size_t trunk = 0; trunk < shape_.trunks(); ++trunk) {
            std::size_t in = shape_.inputs;
            for (const std::size_t out : shape_.hidden) {
                const std::size_t pitch = dense::padded(out);
                layers.push_back({in, out, dense::padded(in), pitch, flat, size_, transposed_size_});
                flat += (in + 1) * out;
                if (!fits(layers.back())) size_ += (in + 1) * pitch;
                transposed_size_ += out * dense::padded(in);
                in = out;
            }
        }
        heads_ = size_;
        head_biases_ = heads_ + shape_.outputs() * layers.back().pitch;
        size_ = head_biases_ + dense::padded(shape_.outputs());
        return layers;
    }

    /// Visits what is unpacked: (where in the flat vector, where in weights_, how many floats).
    template <class Visit>
    void each_piece(Visit visit) const noexcept {
        for (const Layer& layer : layers_)
            if (!fits(layer))
                for (std::size_t i = 0; i <= layer.in; ++i) visit(layer.flat + i * layer.out, layer.unpacked + i * layer.pitch, layer.out);
        const std::size_t actions = shape_.actions, width = last(0).out;
        const std::size_t flat = shape_.parameters() - shape_.outputs() * (width + 1);
        for (std::size_t j = 0; j < actions; ++j) visit(flat + j * width, head(j), width);
        visit(flat + actions * width, head_biases_, actions);
        visit(flat + actions * (width + 1), head(actions), width);
        visit(flat + actions * (width + 1) + width, head_biases_ + actions, std::size_t{1});
    }

    void transpose() noexcept {
        for (std::size_t l = 0; l < layers_.size(); ++l) {
            const Layer& layer = layers_[l];
            if (l % depth() != 0) dense::transpose(layer.in, layer.out, weights(layer), {transposed_.at(layer.transposed), layer.in_pitch});
        }
    }

    /// Adds what `n` <= chunk rows contribute to grad_ and grad; the first of them take the place of what is there.
    void backward_some(std::size_t first, std::size_t n, const float* obs, const float* by_outputs, float* grad) noexcept {
        by_outputs += first * shape_.outputs();
        for (std::size_t j = 0; j < shape_.outputs(); ++j)
            for (std::size_t i = 0; i < n; ++i) *grad_.at(head_biases_ + j) += by_outputs[i * shape_.outputs() + j];
        for (std::size_t trunk = 0; trunk < shape_.trunks(); ++trunk) {
            const auto [from, to] = heads_of(trunk);
            const std::size_t pitch = last(trunk).pitch;
            add_product(first > 0, to - from, pitch, n, {by_outputs + from, 1, shape_.outputs()}, {hidden(trunk, first), pitch}, grad_.at(head(from)));
            // by_hidden: the loss by what a layer gave, then by what came into it before the activation.
            float* by_hidden = deltas_[0].at(0);
            float* by_inputs = deltas_[1].at(0);
            dense::multiply(n, pitch, to - from, {by_outputs + from, shape_.outputs(), 1}, {weights_.at(head(from)), pitch}, {nullptr, 0}, {by_hidden, pitch});
            for (std::size_t l = (trunk + 1) * depth(); l-- > trunk * depth();) {
                const Layer& layer = layers_[l];
                const bool is_first = l == trunk * depth();
                dense::times_derivative(shape_.activation, n * layer.pitch, results_[l].at(first * layer.pitch), by_hidden);
                const dense::Rows<const float> by_sums{by_hidden, layer.pitch};
                const dense::Elements inputs = is_first ? dense::Elements{obs + first * shape_.inputs, 1, shape_.inputs}
                                                        : dense::Elements{results_[l - 1].at(first * layer.in_pitch), 1, layer.in_pitch};
                float* by_weights = fits(layer) ? grad + layer.flat : grad_.at(layer.unpacked);
                add_product(first > 0, layer.in, layer.pitch, n, inputs, by_sums, by_weights);
                add_product(first > 0, 1, layer.pitch, n, {&one, 0, 0}, by_sums, by_weights + layer.in * layer.pitch);
                if (is_first) break;
                dense::multiply(n, layer.in_pitch, layer.out, {by_hidden, layer.pitch, 1}, {transposed_.at(layer.transposed), layer.in_pitch}, {nullptr, 0},
                                {by_inputs, layer.in_pitch});
                std::swap(by_hidden, by_inputs);
            }
        }
    }

    /// c = a b, to which c is added if `onto`; c dense.
    static void add_product(bool onto, std::size_t rows, std::size_t cols, std::size_t n, dense::Elements a, dense::Rows<const float> b, float* c) noexcept {
        dense::multiply(rows, cols, n, a, b, {onto ? c : nullptr, cols}, {c, cols});
    }

    [[nodiscard]] std::size_t widest() const noexcept {
        std::size_t pitch = 0;
        for (const Layer& layer : layers_) pitch = std::max({pitch, layer.pitch, layer.in_pitch});
        return pitch;
    }

    static constexpr float one = 1.0F;

    MlpShape shape_;
    std::size_t size_ = 0, transposed_size_ = 0, heads_ = 0, head_biases_ = 0;  // set by lay_out
    std::vector<Layer> layers_;  // the first trunk's, then the second's
    dense::Floats params_, weights_, grad_, transposed_;
    std::vector<dense::Floats> results_;  // of each layer, [rows, pitch]
    dense::Floats outputs_;
    dense::Floats deltas_[2] = {dense::Floats(chunk * widest()), dense::Floats(chunk * widest())};
};

}  // namespace fastac
