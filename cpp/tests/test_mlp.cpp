// mlp.hpp against the plainest loops in double, for nets whose widths fit no vector, too.
#include "fastac/mlp.hpp"

#include <cmath>
#include <limits>
#include <random>

#include "check.hpp"

using namespace fastac;

namespace {

using Doubles = std::vector<double>;

/// The same net, one observation at a time, in double, on the flat vector.
class Reference {
public:
    Reference(const MlpShape& shape, const std::vector<float>& params) : shape_(shape), params_(params.begin(), params.end()), grad_(params.size()) {}

    /// Logits, then the value.
    Doubles forward(const float* obs) {
        at_ = 0;
        results_.clear();
        std::vector<Doubles> hidden;
        for (std::size_t trunk = 0; trunk < shape_.trunks(); ++trunk) {
            Doubles x(obs, obs + shape_.inputs);
            for (const std::size_t units : shape_.hidden) {
                results_.push_back(x);
                x = layer(x, units);
            }
            hidden.push_back(x);
        }
        results_.insert(results_.end(), hidden.begin(), hidden.end());
        Doubles outputs = head(hidden.front(), shape_.actions);
        outputs.push_back(head(hidden.back(), 1).front());
        return outputs;
    }

    /// Adds the gradient of one observation.
    void backward(const float* obs, const Doubles& by_outputs) {
        forward(obs);
        const std::size_t depth = shape_.hidden.size(), width = shape_.hidden.back(), trunks = shape_.trunks();
        std::size_t at = params_.size() - (shape_.actions + 1) * (width + 1);
        std::vector<Doubles> by_hidden(trunks, Doubles(width));
        for (std::size_t j = 0; j <= shape_.actions; ++j) {
            const bool value = j == shape_.actions;
            const std::size_t trunk = value ? trunks - 1 : 0;
            const std::size_t weights = value ? at + shape_.actions * (width + 1) : at + j * width;
            const std::size_t bias = value ? weights + width : at + shape_.actions * width + j;
            for (std::size_t k = 0; k < width; ++k) {
                grad_[weights + k] += by_outputs[j] * results_[trunks * depth + trunk][k];
                by_hidden[trunk][k] += by_outputs[j] * params_[weights + k];
            }
            grad_[bias] += by_outputs[j];
        }
        for (std::size_t trunk = trunks; trunk-- > 0;) {
            Doubles d = by_hidden[trunk];
            for (std::size_t l = depth; l-- > 0;) {
                const Doubles& x = results_[trunk * depth + l];
                const Doubles& y = l + 1 < depth ? results_[trunk * depth + l + 1] : results_[trunks * depth + trunk];
                at -= (x.size() + 1) * y.size();
                Doubles by_x(x.size());
                for (std::size_t j = 0; j < y.size(); ++j) {
                    const double by_sum = d[j] * (shape_.activation == Activation::tanh ? 1.0 - y[j] * y[j] : y[j] > 0.0 ? 1.0 : 0.0);
                    for (std::size_t i = 0; i < x.size(); ++i) {
                        grad_[at + i * y.size() + j] += x[i] * by_sum;
                        by_x[i] += params_[at + i * y.size() + j] * by_sum;
                    }
                    grad_[at + x.size() * y.size() + j] += by_sum;
                }
                d = by_x;
            }
        }
        CHECK_EQ(at, 0U);
    }

    [[nodiscard]] const Doubles& grad() const { return grad_; }

private:
    Doubles layer(const Doubles& x, std::size_t units) {
        Doubles y(units);
        for (std::size_t j = 0; j < units; ++j) {
            double sum = params_[at_ + x.size() * units + j];
            for (std::size_t i = 0; i < x.size(); ++i) sum += x[i] * params_[at_ + i * units + j];
            y[j] = shape_.activation == Activation::tanh ? std::tanh(sum) : std::max(sum, 0.0);
        }
        at_ += (x.size() + 1) * units;
        return y;
    }

    Doubles head(const Doubles& x, std::size_t outputs) {
        Doubles y(outputs);
        for (std::size_t j = 0; j < outputs; ++j) {
            y[j] = params_[at_ + outputs * x.size() + j];
            for (std::size_t i = 0; i < x.size(); ++i) y[j] += x[i] * params_[at_ + j * x.size() + i];
        }
        at_ += outputs * (x.size() + 1);
        return y;
    }

    MlpShape shape_;
    Doubles params_, grad_;
    std::size_t at_ = 0;
    std::vector<Doubles> results_;  // what went into each layer of each trunk, then what came out of each trunk
};

double largest(const Doubles& values) {
    double most = 0.0;
    for (const double v : values) most = std::max(most, std::abs(v));
    return most;
}

void one_net(const MlpShape& shape, std::size_t rows, std::mt19937& random) {
    std::normal_distribution<float> normal;
    std::vector<float> params(shape.parameters()), obs(rows * shape.inputs), by_outputs(rows * shape.outputs()), grad(shape.parameters());
    for (float& p : params) p = 0.3F * normal(random);
    for (float& o : obs) o = normal(random);
    for (float& d : by_outputs) d = normal(random);
    Mlp net(shape, rows);
    net.load(params);
    // In two parts, as a rollout does.
    const std::size_t part = rows / 2;
    net.forward(part, rows - part, obs.data() + part * shape.inputs);
    net.forward(0, part, obs.data());
    net.backward(rows, obs.data(), by_outputs.data(), grad);

    Reference reference(shape, params);
    for (std::size_t i = 0; i < rows; ++i) {
        const float* its = obs.data() + i * shape.inputs;
        const Doubles expected = reference.forward(its);
        for (std::size_t j = 0; j < shape.outputs(); ++j) CHECK(std::abs(static_cast<double>(net.outputs(i)[j]) - expected[j]) <= 1e-5 * std::max(1.0, largest(expected)));
        reference.backward(its, Doubles(by_outputs.data() + i * shape.outputs(), by_outputs.data() + (i + 1) * shape.outputs()));
    }
    const double scale = largest(reference.grad());
    for (std::size_t i = 0; i < grad.size(); ++i) CHECK(std::abs(static_cast<double>(grad[i]) - reference.grad()[i]) <= 1e-5 * scale);
}

void nets_of_all_kinds() {
    std::mt19937 random(1);
    const std::vector<std::vector<std::size_t>> hidden{{1}, {8}, {64, 64}, {128}, {5, 3, 9}, {33, 7}, {16, 100, 24}};
    for (const auto& units : hidden)
        for (const Activation activation : {Activation::tanh, Activation::relu})
            for (const bool shared : {true, false})
                for (const std::size_t rows : {1U, 2U, 3U, 4U, 5U, 6U, 7U, 8U, 13U, 64U, 65U, 150U}) one_net({4, 2, units, activation, shared}, rows, random);
    one_net({3, 5, {20, 20}, Activation::tanh, true}, 31, random);
    one_net({9, 1, {20}, Activation::relu, false}, 31, random);
}

void parameters_are_counted() {
    CHECK_EQ((MlpShape{4, 2, {64, 64}, Activation::tanh, true}.parameters()), 4U * 64 + 64 + 64 * 64 + 64 + 3 * 65);
    CHECK_EQ((MlpShape{4, 2, {64, 64}, Activation::tanh, false}.parameters()), 2 * (4U * 64 + 64 + 64 * 64 + 64) + 3 * 65);
    CHECK_THROWS(std::invalid_argument, Mlp(MlpShape{4, 2, {}, Activation::tanh, true}, 1));
    CHECK_THROWS(std::invalid_argument, Mlp(MlpShape{4, 2, {0}, Activation::tanh, true}, 1));
    CHECK_THROWS(std::invalid_argument, Mlp(MlpShape{4, 2, {8, 65537}, Activation::tanh, true}, 1));
}

void tanh_is_tanh() {
    dense::Floats x(dense::lanes), y(dense::lanes);
    const auto look = [&](float from, float ratio) {
        for (float v = from; std::abs(v) < 1e30F; v *= ratio) {
            for (std::size_t i = 0; i < dense::lanes; ++i) *x.at(i) = *y.at(i) = v * static_cast<float>(i % 2 == 0 ? 1 : -1);
            dense::activate(Activation::tanh, dense::lanes, y.at(0));
            for (std::size_t i = 0; i < dense::lanes; ++i) {
                const double expected = std::tanh(static_cast<double>(*x.at(i)));
                CHECK(std::abs(static_cast<double>(*y.at(i)) - expected) <= 4e-7 * std::abs(expected));
            }
        }
    };
    look(1e-30F, 1.01F);
    look(0.5F, 1.0001F);
    for (std::size_t i = 0; i < dense::lanes; ++i) *x.at(i) = std::numeric_limits<float>::quiet_NaN();
    dense::activate(Activation::tanh, dense::lanes, x.at(0));
    CHECK(std::isnan(*x.at(0)));
}

}  // namespace

int main() {
    parameters_are_counted();
    tanh_is_tanh();
    nets_of_all_kinds();
    return check_result();
}
