// What the gates have in common: arguments, numbers as people read them, gradients whose sum is known, the one line.
#pragma once

#include <array>
#include <charconv>
#include <cstdio>
#include <functional>
#include <iostream>
#include <map>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "harness.hpp"

namespace gates {

/// 1234567 -> 1,234,567
inline std::string thousands(std::uint64_t n) {
    std::string digits = std::to_string(n);
    for (std::size_t at = digits.size(); at > 3; at -= 3) digits.insert(at - 3, 1, ',');
    return digits;
}

inline std::string decimals(double x, int n) {
    std::array<char, 64> text{};
    std::snprintf(text.data(), text.size(), "%.*f", n, x);
    return text.data();
}

/// What stands on the command line: name=value, each name one of those that the gate has a default for.
class Arguments {
public:
    using Values = std::map<std::string, std::string>;

    Arguments(int argc, char** argv, Values defaults) : values_(std::move(defaults)) {
        for (int i = 1; i < argc; ++i) {
            const std::string word = argv[i];
            const std::size_t equals = word.find('=');
            const auto found = values_.find(word.substr(0, equals));
            if (equals == std::string::npos || found == values_.end()) throw std::invalid_argument("expected name=value of\n  " + text() + "\ngot " + word);
            found->second = word.substr(equals + 1);
        }
    }

    [[nodiscard]] const std::string& word(const std::string& name) const { return values_.at(name); }

    [[nodiscard]] std::uint64_t number(const std::string& name, std::uint64_t least, std::uint64_t most) const {
        const std::string& value = word(name);
        std::uint64_t n = 0;
        const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), n);
        if (error != std::errc() || end != value.data() + value.size() || n < least || n > most)
            throw std::invalid_argument(name + ": expected " + thousands(least) + " to " + thousands(most) + ", got " + value);
        return n;
    }

    /// A scheme that keeps every gradient: hogwild, which loses some by design, has no place in these gates.
    [[nodiscard]] fastac::UpdateScheme scheme() const {
        static const std::map<std::string, fastac::UpdateScheme> schemes{
            {"lockfree", fastac::UpdateScheme::lockfree}, {"lock", fastac::UpdateScheme::lock}, {"queue", fastac::UpdateScheme::queue}};
        const auto found = schemes.find(word("scheme"));
        if (found == schemes.end()) throw std::invalid_argument("scheme: expected lockfree, lock or queue, got " + word("scheme"));
        return found->second;
    }

    /// Everything, as it would be typed.
    [[nodiscard]] std::string text() const {
        std::string all;
        for (const auto& [name, value] : values_) all += (all.empty() ? "" : " ") + name + "=" + value;
        return all;
    }

private:
    Values values_;
};

/// A time that was missed, with nothing else wrong: on a machine with other work to do it says little.
struct TooSlow : std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// main of a gate: prints the one line that `body` returns and how long it took; after a failed check also the arguments,
/// the seed among them. Exit status 0: passed, 1: failed, 2: wrong arguments, 3: only a time was missed.
inline int run(int argc, char** argv, Arguments::Values defaults, const std::function<std::string(const Arguments&)>& body) {
    const auto start = fastac::Clock::now();
    std::string line, asked;
    bool too_slow = false;
    try {
        const Arguments arguments(argc, argv, std::move(defaults));
        asked = arguments.text();
        line = body(arguments);
    } catch (const std::invalid_argument& e) {
        std::cerr << e.what() << '\n';
        return 2;
    } catch (const TooSlow& e) {
        too_slow = true;
        line = e.what();
    } catch (const std::exception& e) {
        check::fail(e.what(), __FILE__, __LINE__);
        line = e.what();
    }
    const std::chrono::duration<double> took = fastac::Clock::now() - start;
    const int failures = check::failures.load();
    std::cout << line << " (" << decimals(took.count(), 1) << " s)" << (failures == 0 ? "" : "; FAILED " + std::to_string(failures) + " checks with " + asked) << std::endl;
    return failures > 0 ? 1 : too_slow ? 3 : 0;
}

/// Gradients float32[P] of small whole numbers, a pure function of (worker, sequence): spans of one table, at an offset of
/// their own. A loss, a gradient applied twice, or both at once, leaves a sum that is wrong nearly everywhere.
///
/// The table repeats itself with changed sign after `half` entries, a divisor of 2048. So the sum over all 4096 offsets is zero, and the
/// parameters stay small and exact in float32 after any number of pushes. With half = P / 2 also each gradient, and
/// with it every whole parameter vector, is its own negative half a length on (`whole`); as no entry is zero, a mixture of two
/// versions is not.
class GradientTable {
public:
    static constexpr std::size_t offsets = 4096;

    GradientTable(std::size_t floats, std::size_t half, std::uint64_t seed) : floats_(floats), half_(half), table_(offsets + floats) {
        if (half == 0 || offsets / 2 % half != 0) throw std::invalid_argument("gradient table: expected half to divide 2048, got " + std::to_string(half));
        std::mt19937_64 random(seed);
        for (std::size_t i = 0; i < half && i < table_.size(); ++i) {
            const int size = static_cast<int>(random() % 3) + 1;
            table_[i] = static_cast<float>(random() % 2 == 0 ? size : -size);
        }
        for (std::size_t i = half; i < table_.size(); ++i) table_[i] = -table_[i - half];
    }

    [[nodiscard]] std::size_t floats() const noexcept { return floats_; }

    /// Gradient `sequence` of `worker`, a view of the table.
    [[nodiscard]] std::span<const float> gradient(std::size_t worker, std::uint64_t sequence) const noexcept {
        return {table_.data() + offset(worker, sequence), floats_};
    }

    /// Whether these parameters can be a sum of whole gradients.
    [[nodiscard]] bool whole(std::span<const float> params) const noexcept {
        bool same = true;
        for (std::size_t i = 0; i + half_ < params.size(); ++i) same &= params[i] == -params[i + half_];
        return same;
    }

    /// The parameters float32[P] after gradients 1 .. published[w] of each worker, with learning rate 1, from zeros.
    [[nodiscard]] std::vector<float> after(std::span<const std::uint64_t> published) const {
        std::array<std::int64_t, offsets> uses{};
        for (std::size_t w = 0; w < published.size(); ++w) {
            const std::uint64_t rounds = published[w] / offsets;  // a round uses each offset once: 37 is odd
            for (std::int64_t& n : uses) n += static_cast<std::int64_t>(rounds);
            for (std::uint64_t s = 1; s <= published[w] % offsets; ++s) ++uses[offset(w, s)];
        }
        std::vector<float> params(floats_);
        for (std::size_t i = 0; i < floats_; ++i) {
            std::int64_t sum = 0;
            for (std::size_t o = 0; o < offsets; ++o) sum -= uses[o] * static_cast<std::int64_t>(table_[o + i]);
            CHECK(std::abs(sum) < (1 << 24));
            params[i] = static_cast<float>(sum);
        }
        return params;
    }

private:
    static constexpr std::size_t offset(std::size_t worker, std::uint64_t sequence) noexcept { return (sequence * 37 + worker * 1009) % offsets; }

    std::size_t floats_;
    std::size_t half_;
    std::vector<float> table_;  // float32[4096 + P]
};

/// A region for whole-number gradients: sgd, learning rate 1.
inline fastac::RegionConfig config(std::size_t workers, std::size_t floats, fastac::UpdateScheme scheme) {
    return harness::config(static_cast<std::uint32_t>(workers), static_cast<std::uint32_t>(floats), scheme);
}

inline std::vector<std::uint64_t> published(const fastac::SharedRegion& region) {
    std::vector<std::uint64_t> counts;
    for (std::size_t w = 0; w < region.layout().workers; ++w) counts.push_back(region.worker(w).published.load());
    return counts;
}

/// What became of all gradients of a run.
struct Accounts {
    std::uint64_t pushes = 0;
    std::uint64_t lost = 0;   // published and not consumed, or consumed and not applied
    std::uint64_t twice = 0;  // consumed or applied more often than published
    std::uint64_t merged = 0;
    std::size_t floats = 0;
    std::size_t wrong = 0;  // parameters that are not the sum of what was published

    [[nodiscard]] std::string text() const {
        const std::string floats_are = wrong == 0 ? "every float exact" : thousands(wrong) + " of " + thousands(floats) + " floats wrong";
        return floats_are + ", " + thousands(lost) + " lost, " + thousands(twice) + " applied twice";
    }
};

/// Checks a run whose workers have left and whose gradients are all drained: each parameter, each worker's count, the ledger.
inline Accounts audit(const fastac::SharedRegion& region, fastac::Session& observer, const GradientTable& table) {
    const fastac::Ledger ledger = observer.ledger();
    harness::check_ledger(ledger);
    CHECK_EQ(ledger.pending, 0U);
    CHECK_EQ(ledger.at.counts.merged, 0U);
    Accounts sum;
    sum.pushes = ledger.published;
    sum.merged = ledger.at.counts.merged;
    sum.floats = table.floats();
    const auto difference = [&sum](std::uint64_t is, std::uint64_t should_be) {
        (is < should_be ? sum.lost : sum.twice) += is < should_be ? should_be - is : is - should_be;
        CHECK_EQ(is, should_be);
    };
    const std::vector<std::uint64_t> counts = published(region);
    const std::uint64_t* consumed = region.consumed(fastac::ParamStore::record_of(region.control().current.load()));
    for (std::size_t w = 0; w < counts.size(); ++w) difference(consumed[w], counts[w]);
    difference(ledger.at.counts.applied, sum.pushes);
    const std::vector<float> expected = table.after(counts);
    std::vector<float> params(table.floats());
    observer.read(params);
    for (std::size_t i = 0; i < params.size(); ++i) {
        CHECK_EQ(params[i], expected[i]);
        sum.wrong += params[i] != expected[i];
    }
    return sum;
}

}  // namespace gates
