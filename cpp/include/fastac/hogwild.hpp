// Stages 4 to 6 in one, without any order: gradients go straight into record 0, whoever else is writing there. Racy by
// design, as in the paper (Recht et al. 2011, arXiv:1106.5730; Mnih et al. 2016): additions get lost, and counted.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "fastac/next_record.hpp"

namespace fastac {

/// Who may call: `apply` a worker; the rest anybody, at any time. Nothing waits: `snapshot` looks again where a worker has just published.
/// Counts are exact, whatever is lost: each worker keeps its own, in two copies; the store to `published` makes the next one
/// count. A worker killed inside `apply` has counted nothing and may have written its step, or a part of it.
class Hogwild {
public:
    Hogwild(const SharedRegion& region, std::size_t worker) : region_(&region), worker_(worker), grad_(region.layout().parameters) {}

    /// What became of a gradient float32[P].
    enum class Result { applied, nonfinite, stale };

    Result apply(std::span<const float> grad, const GradientTag& tag) noexcept {
        WorkerBlock& words = region_->worker(worker_);
        words.begun.store(words.begun.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
        const std::uint64_t published = words.published.load(std::memory_order_relaxed);
        Tally tally = read(words.tallies[published % 2]);
        tally.env_steps += tag.env_steps;
        const Result result = judge_and_step(grad, tag, tally.counts);
        write(tally, words.tallies[(published + 1) % 2]);
        words.published.store(published + 1, std::memory_order_release);
        return result;
    }

    /// What is published, of all workers.
    [[nodiscard]] Snapshot snapshot() const noexcept {
        const RecordHeader& begin = region_->record(0);
        Snapshot now{begin.version, begin.env_steps, Counts{}};
        Counts& sum = now.counts;
        for (std::size_t w = 0; w < region_->layout().workers; ++w) {
            const Tally its = tally(w);
            now.version += its.counts.applied;
            now.env_steps += its.env_steps;
            sum.applied += its.counts.applied;
            sum.merged += its.counts.merged;
            sum.rejected_nonfinite += its.counts.rejected_nonfinite;
            sum.rejected_stale += its.counts.rejected_stale;
            sum.staleness_sum += its.counts.staleness_sum;
            sum.staleness_max = std::max(sum.staleness_max, its.counts.staleness_max);
            for (std::size_t k = 0; k < staleness_buckets; ++k) sum.staleness[k] += its.counts.staleness[k];
        }
        return now;
    }

    /// What is published, of worker w.
    [[nodiscard]] Tally tally(std::size_t w) const noexcept {
        WorkerBlock& words = region_->worker(w);
        for (;;) {
            const std::uint64_t published = words.published.load(std::memory_order_acquire);
            const Tally tally = read(words.tallies[published % 2]);  // not written meanwhile: that begins only after the next `published`
            if (words.published.load(std::memory_order_relaxed) == published) return tally;
        }
    }

    /// Of the latest gradient that `apply` has applied.
    [[nodiscard]] std::uint64_t staleness() const noexcept { return staleness_; }

    /// Steps that were begun: what staleness is measured in, since each of them may be in what is read.
    [[nodiscard]] std::uint64_t version() const noexcept { return region_->control().hogwild_version.load(std::memory_order_acquire); }

    /// Additions watched by the canaries that are still there.
    [[nodiscard]] std::uint64_t canaries_kept() const noexcept {
        std::uint64_t kept = 0;
        for (std::size_t i = 0; i < region_->layout().canaries; ++i) kept += load(region_->canary(i));
        return kept;
    }

    /// Parameters or optimizer state as they stand, float by float.
    static void load_relaxed(float* from, std::span<float> to) noexcept {
        for (std::size_t i = 0; i < to.size(); ++i) to[i] = AtomicRef<float>(from[i]).load(std::memory_order_relaxed);
    }

private:
    Result judge_and_step(std::span<const float> grad, const GradientTag& tag, Counts& counts) noexcept {
        const RegionConfig& config = region_->config();
        if (has_nonfinite(grad.data(), grad.size())) {
            ++counts.rejected_nonfinite;
            return Result::nonfinite;
        }
        Atomic<std::uint64_t>& shared_version = region_->control().hogwild_version;
        if (shared_version.load(std::memory_order_relaxed) - tag.version_read > config.max_staleness) {
            ++counts.rejected_stale;
            return Result::stale;
        }
        std::copy(grad.begin(), grad.end(), grad_.begin());
        clip_to(config, grad_);
        const std::uint64_t version = shared_version.fetch_add(1, std::memory_order_relaxed);
        const std::uint64_t staleness = version - tag.version_read;
        step_in_place(OptimizerStep(config.optimizer, learning_rate_at(config, tag.learning_rate, staleness), version + 1));
        count_applied(counts, tag, staleness);
        ++counts.staleness[staleness_bucket(staleness)];
        staleness_ = staleness;
        return Result::applied;
    }

    /// A cache line at a time is read, stepped and written back; what another worker wrote in between is lost.
    void step_in_place(const OptimizerStep& step) noexcept {
        const auto shared = region_->vectors(0);
        const std::uint32_t states = state_vectors(region_->config().optimizer.kind);
        float params[hogwild_block], state0[hogwild_block], state1[hogwild_block];
        const OptimizerVectors<float> mine{params, {state0, state1}};
        for (std::size_t i = 0; i < grad_.size(); i += hogwild_block) {
            const std::size_t n = std::min(hogwild_block, grad_.size() - i);
            // A canary is one more addition of the same kind, to a word that only grows: what it lacks at the end was lost.
            std::uint64_t& canary = region_->canary(i / hogwild_block);
            const std::uint64_t count = load(canary);
            load_relaxed(shared.params + i, {params, n});
            for (std::uint32_t k = 0; k < states; ++k) load_relaxed(shared.state[k] + i, {mine.state[k], n});
            step.apply(n, grad_.data() + i, as_const(mine), mine);
            for (std::uint32_t k = 0; k < states; ++k) store_relaxed({mine.state[k], n}, shared.state[k] + i);
            store_relaxed({params, n}, shared.params + i);
            AtomicRef<std::uint64_t>(canary).store(count + 1, std::memory_order_relaxed);
        }
    }

    // Acquire and release: who reads a word of the next tally but one sees the `published` that came before it.
    static constexpr std::size_t tally_words = sizeof(Tally) / sizeof(std::uint64_t);
    static Tally read(Tally& from) noexcept {
        std::uint64_t words[tally_words];
        for (std::size_t i = 0; i < tally_words; ++i) words[i] = AtomicRef<std::uint64_t>(reinterpret_cast<std::uint64_t*>(&from)[i]).load(std::memory_order_acquire);
        return std::bit_cast<Tally>(words);
    }
    static void write(const Tally& tally, Tally& to) noexcept {
        std::uint64_t words[tally_words];
        std::memcpy(words, &tally, sizeof words);
        for (std::size_t i = 0; i < tally_words; ++i) AtomicRef<std::uint64_t>(reinterpret_cast<std::uint64_t*>(&to)[i]).store(words[i], std::memory_order_release);
    }

    static void store_relaxed(std::span<const float> from, float* to) noexcept {
        for (std::size_t i = 0; i < from.size(); ++i) AtomicRef<float>(to[i]).store(from[i], std::memory_order_relaxed);
    }

    static std::uint64_t load(std::uint64_t& word) noexcept { return AtomicRef<std::uint64_t>(word).load(std::memory_order_relaxed); }

    const SharedRegion* region_;
    std::size_t worker_;
    std::vector<float> grad_;  // float32[P]
    std::uint64_t staleness_ = 0;
};

}  // namespace fastac
