// What a schedule must have come to: every gradient with its fate, and the checks of everything that is read.
//
// Gradient `id` is -2^id in every parameter, the optimizer is sgd with learning rate 1, and the parameters begin at 0. So a
// parameter is the set of the gradients in it: what is lost, applied twice or mixed of two versions is visible.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "scenario.hpp"

namespace schedules {

inline void expect(bool holds, const char* what) {
    if (!holds) violated(what);
}

/// The newest value of an atomic, unseen by the model.
template <class T>
T peek(const fastac::Atomic<T>& atomic) noexcept {
    T value;
    std::memcpy(&value, &atomic, sizeof value);
    return value;
}

enum class Fate { begun, aborted, published, applied, rejected_nonfinite, rejected_stale };

class Books {
public:
    static constexpr std::size_t most_gradients = 24;  // bits that a float32 holds

    explicit Books(const Scenario& scenario) : scenario_(&scenario) {}

    /// A new gradient of worker w: its id.
    std::size_t begin(std::size_t w, bool nonfinite) {
        expect(gradients_.size() < most_gradients, "the scenario has too many gradients for a float32");
        gradients_.push_back({w, nonfinite, Fate::begun});
        return gradients_.size() - 1;
    }
    void fill(std::size_t id, std::span<float> grad) const {
        for (float& g : grad) g = -static_cast<float>(1U << id);
        if (gradients_[id].nonfinite) grad.back() = std::numeric_limits<float>::quiet_NaN();
    }
    static std::uint32_t n_summed(std::size_t id) noexcept { return 1 + static_cast<std::uint32_t>(id % 3); }

    void published(std::size_t id) { gradients_[id].fate = Fate::published; }
    /// The ring was full.
    void refused(std::size_t id) { gradients_[id].fate = Fate::aborted; }
    /// A submit has returned.
    void submitted(std::size_t id, fastac::Submitted result) {
        expect(result != fastac::Submitted::stopped, "a submit was stopped and nobody has asked for it");
        expect(gradients_[id].nonfinite == (result == fastac::Submitted::rejected_nonfinite), "a finite gradient was rejected as not finite, or the other way round");
        gradients_[id].fate = result == fastac::Submitted::rejected_stale ? Fate::rejected_stale : gradients_[id].nonfinite ? Fate::rejected_nonfinite : Fate::applied;
    }
    /// A settle has returned, which does not say what became of the gradient.
    void consumed(std::size_t id) {
        if (gradients_[id].nonfinite) gradients_[id].fate = Fate::rejected_nonfinite;
        else if (scenario_->config.max_staleness == fastac::no_staleness_limit) gradients_[id].fate = Fate::applied;
    }
    /// Worker w is dead or gone: what it had begun is published if its counter says so, else aborted.
    void resolve(std::size_t w, std::uint64_t sequence) {
        std::uint64_t n = sequence - scenario_->first_sequence - published_by(w);
        for (Gradient& g : gradients_) {
            if (g.worker != w || g.fate != Fate::begun) continue;
            g.fate = n > 0 ? Fate::published : Fate::aborted;
            n -= n > 0 ? 1 : 0;
        }
        expect(n == 0, "a worker has published more than it has begun");
    }

    /// What somebody in `seat` has read of one version.
    void check_read(std::size_t seat, std::span<const float> params, const fastac::Snapshot& at) {
        const std::uint32_t bits = bits_of(params[0]);
        for (const float p : params) expect(bits_of(p) == bits, "a read mixes versions: its parameters differ");
        check_snapshot(at);
        expect(at.counts.applied == static_cast<std::uint64_t>(std::popcount(bits)), "a gradient is counted and not in the parameters, or the other way round");
        expect((seen_[seat] & ~bits) == 0, "a version read goes back");
        seen_[seat] = bits;
        std::uint64_t merged = 0;
        for (std::size_t id = 0; id < most_gradients; ++id)
            if ((bits >> id & 1U) != 0) {
                expect(id < gradients_.size() && !gradients_[id].nonfinite, "the parameters hold a gradient that nobody has pushed");
                merged += n_summed(id) - 1;
            }
        expect(merged == at.counts.merged, "merged counts gradients of another version");
        for (std::size_t id = 0; id < gradients_.size(); ++id) check_fate(seat, id, (bits >> id & 1U) != 0);
    }

    void check_snapshot(const fastac::Snapshot& at) const {
        const fastac::Counts& c = at.counts;
        expect(at.version - scenario_->first_version == c.applied, "version and applied differ");
        expect(at.env_steps == c.applied + c.rejected_nonfinite + c.rejected_stale, "env_steps and counts are of two versions");
        std::uint64_t histogram = 0;
        for (const std::uint64_t n : c.staleness) histogram += n;
        expect(histogram == c.applied, "the histogram of staleness and applied differ");
    }

    /// hogwild: additions may be lost, but nothing else gets in.
    void check_subset(std::span<const float> params) const {
        for (const float p : params) expect(bits_of(p) >> gradients_.size() == 0, "a parameter holds what nobody has pushed");
    }

    /// The end: everybody has left and everything is drained.
    void check_end(const fastac::Ledger& l) const {
        std::array<std::uint64_t, 6> n{};
        for (const Gradient& g : gradients_) ++n[static_cast<std::size_t>(g.fate)];
        const std::uint64_t offset = scenario_->first_sequence * scenario_->workers();
        const std::uint64_t consumed = l.at.counts.applied + l.at.counts.rejected_nonfinite + l.at.counts.rejected_stale;
        expect(l.begun == l.published + l.aborted, "ledger: begun is not published + aborted");
        expect(l.published - offset == consumed + l.pending, "ledger: published is not applied + rejected + pending");
        expect(l.pending == 0, "ledger: something is pending after the last drain");
        check_snapshot(l.at);
        expect(consumed + n[static_cast<std::size_t>(Fate::aborted)] == gradients_.size(), "a gradient is lost or counted twice");
        for (const Gradient& g : gradients_) expect(g.fate != Fate::begun, "a gradient has no fate");
    }
    /// The workers' shares are the whole; so are their histograms, where `all_counted`, and never more.
    static void check_tallies(std::span<const fastac::Tally> tallies, const fastac::Snapshot& at, bool all_counted) {
        fastac::Tally sum{};
        for (const fastac::Tally& its : tallies) {
            sum.env_steps += its.env_steps;
            sum.counts.applied += its.counts.applied;
            sum.counts.merged += its.counts.merged;
            sum.counts.rejected_nonfinite += its.counts.rejected_nonfinite;
            sum.counts.rejected_stale += its.counts.rejected_stale;
            sum.counts.staleness_sum += its.counts.staleness_sum;
            for (std::size_t k = 0; k < fastac::staleness_buckets; ++k) {
                sum.counts.staleness[k] += its.counts.staleness[k];
                expect(sum.counts.staleness[k] <= at.counts.staleness[k], "a worker has counted a staleness that no gradient had");
                if (all_counted && &its == &tallies.back()) expect(sum.counts.staleness[k] == at.counts.staleness[k], "a worker has not counted the staleness of a gradient");
            }
        }
        const fastac::Counts& c = at.counts;
        expect(sum.env_steps == at.env_steps && sum.counts.applied == c.applied && sum.counts.merged == c.merged && sum.counts.rejected_nonfinite == c.rejected_nonfinite &&
                   sum.counts.rejected_stale == c.rejected_stale && sum.counts.staleness_sum == c.staleness_sum,
               "the workers' shares are not the whole");
    }
    /// Exactly the published, finite gradients are in the parameters, but for the stale ones.
    void check_last_read(std::uint32_t bits, const fastac::Counts& counts) const {
        std::uint64_t missing = 0, nonfinite = 0;
        for (std::size_t id = 0; id < gradients_.size(); ++id) {
            const Gradient& g = gradients_[id];
            const bool out = (bits >> id & 1U) == 0;
            if (g.fate == Fate::aborted) expect(out, "an aborted gradient is applied");
            else if (g.nonfinite) ++nonfinite;
            else if (out) ++missing;
        }
        expect(nonfinite == counts.rejected_nonfinite, "rejected_nonfinite is not what was pushed");
        expect(missing == counts.rejected_stale, "a published gradient is neither applied nor rejected as stale");
        expect(missing == 0 || scenario_->config.max_staleness != fastac::no_staleness_limit, "a gradient is rejected as stale without a limit");
    }

    static std::uint32_t bits_of(float parameter) {
        expect(parameter >= 0.0F && parameter < 16'777'216.0F, "a parameter that no set of gradients adds up to");
        return static_cast<std::uint32_t>(parameter);
    }

private:
    struct Gradient {
        std::size_t worker;
        bool nonfinite;
        Fate fate;
    };

    [[nodiscard]] std::uint64_t published_by(std::size_t w) const {
        std::uint64_t n = 0;
        for (const Gradient& g : gradients_) n += g.worker == w && g.fate != Fate::begun && g.fate != Fate::aborted ? 1 : 0;
        return n;
    }
    void check_fate(std::size_t seat, std::size_t id, bool in) const {
        const Gradient& g = gradients_[id];
        if (in) expect(g.fate != Fate::aborted && g.fate != Fate::rejected_stale && !g.nonfinite, "a gradient is applied and was rejected or aborted");
        else if (g.worker == seat) expect(g.fate != Fate::applied, "a worker's next read lacks its submitted gradient");
    }

    const Scenario* scenario_;
    std::vector<Gradient> gradients_;
    std::array<std::uint32_t, lanes> seen_{};  // by each seat, in its last read
};

}  // namespace schedules
