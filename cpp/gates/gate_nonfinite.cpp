// A gradient that holds a NaN or an infinity leaves no trace: parameters and optimizer state are, bit for bit, those of the run
// that never had it. For each k = 1 .. N a run of N pushes in which push k is such a one.
#include <cstring>
#include <limits>

#include "gates.hpp"

using namespace fastac;

namespace {

constexpr std::size_t floats = 17;  // one more than a cache line holds

/// The pushes of one run: gradients, learning rates, and how many are published before they are applied together.
struct Pushes {
    Pushes(std::size_t n, std::mt19937_64& random) : gradients(n, std::vector<float>(floats)), learning_rates(n), together(n) {
        std::normal_distribution<float> normal;
        for (std::size_t i = 0; i < n; ++i) {
            for (float& g : gradients[i]) g = normal(random);
            learning_rates[i] = 0.001 * static_cast<double>(1 + random() % 9);
            together[i] = 1 + random() % 4;
        }
    }
    std::vector<std::vector<float>> gradients;
    std::vector<double> learning_rates;
    std::vector<std::size_t> together;  // [i]: the size of the group that begins with push i, if one does
};

/// What happens to one of the pushes: it carries another gradient, or (none) it is left out.
struct Change {
    std::size_t at;
    std::optional<std::vector<float>> gradient;
};

/// Parameters and optimizer state after all pushes by one worker.
std::vector<float> outcome(const Pushes& pushes, const Change& change, UpdateScheme scheme, OptimizerKind kind) {
    const SharedRegion region = harness::region(harness::config(1, floats, scheme, kind));
    const bool in_place = scheme == UpdateScheme::hogwild;
    const std::size_t n = pushes.gradients.size();
    Session worker(region, 0), learner(region, 2);
    std::vector<float> params(floats, 1.0F), state(floats * state_vectors(kind));
    worker.initialize(params, {}, 0);
    for (std::size_t i = 0; i < n;) {
        const std::size_t end = std::min(n, i + (in_place ? 1 : pushes.together[i]));
        const std::uint64_t version = worker.read(params).version;
        std::optional<std::uint64_t> last;
        for (; i < end; ++i) {
            if (i == change.at && !change.gradient) continue;
            const std::vector<float>& gradient = i == change.at ? *change.gradient : pushes.gradients[i];
            const GradientTag tag{version, 1, pushes.learning_rates[i], 1, false, false};
            if (in_place) worker.submit(gradient, tag);
            else last = worker.push(gradient, tag).value();
        }
        if (scheme == UpdateScheme::queue) learner.drain();
        if (last) CHECK(worker.settle(*last));
    }
    const Ledger ledger = worker.ledger();
    harness::check_ledger(ledger);
    CHECK_EQ(ledger.at.counts.rejected_nonfinite, change.gradient ? 1U : 0U);
    CHECK_EQ(ledger.at.counts.applied, n - 1);
    worker.copy_record(params, state);
    params.insert(params.end(), state.begin(), state.end());
    return params;
}

std::string nonfinite(const gates::Arguments& arguments) {
    const std::size_t n = arguments.number("pushes", 1, 100'000);
    constexpr float bad[] = {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                             -std::numeric_limits<float>::infinity()};
    std::mt19937_64 random(arguments.number("seed", 0, UINT64_MAX));
    const Pushes pushes(n, random);
    std::uint64_t runs = 0, same = 0;
    for (const UpdateScheme scheme : {UpdateScheme::lockfree, UpdateScheme::lock, UpdateScheme::queue, UpdateScheme::hogwild}) {
        for (const OptimizerKind kind : {OptimizerKind::adam, OptimizerKind::rmsprop}) {
            for (std::size_t k = 0; k < n; ++k, ++runs) {
                std::vector<float> spoilt = pushes.gradients[k];
                spoilt[random() % floats] = bad[random() % std::size(bad)];
                const std::vector<float> with = outcome(pushes, {k, spoilt}, scheme, kind), without = outcome(pushes, {k, std::nullopt}, scheme, kind);
                const bool equal = std::memcmp(with.data(), without.data(), with.size() * sizeof(float)) == 0;
                CHECK(equal);
                same += equal;
            }
        }
    }
    return "nonfinite: " + gates::thousands(runs) + " runs of " + gates::thousands(n) +
           " pushes, each with a NaN or an infinity in another push, all schemes, adam and rmsprop: in " + gates::thousands(same) +
           " parameters and optimizer state are bit for bit those without that push";
}

}  // namespace

int main(int argc, char** argv) { return gates::run(argc, argv, {{"pushes", "1000"}, {"seed", "1"}}, nonfinite); }
