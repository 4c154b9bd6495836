// Stages 4 to 6 in one, without any order: gradients go straight into record 0, whoever else is writing there. Racy by
// design, as in the paper (Recht et al. 2011, arXiv:1106.5730; Mnih et al. 2016): additions get lost, and counted.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "fastac/next_record.hpp"

namespace fastac {

/// Who may call: `apply` a worker; the rest anybody, at any time. Nothing waits.
/// Counts are exact, whatever is lost: each worker keeps its own. A worker killed inside `apply` has written a part of its step.
class Hogwild {
public:
    Hogwild(const SharedRegion& region, std::size_t worker) : region_(&region), worker_(worker), grad_(region.layout().parameters) {}

    /// What became of a gradient float32[P].
    enum class Result { applied, nonfinite, stale };

    Result apply(std::span<const float> grad, const GradientTag& tag) noexcept {
        WorkerBlock& words = region_->worker(worker_);
        words.begun.store(words.begun.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
        const Result result = judge_and_step(grad, tag);
        region_->control().hogwild_env_steps.fetch_add(tag.env_steps, std::memory_order_relaxed);
        words.published.store(words.published.load(std::memory_order_relaxed) + 1, std::memory_order_release);
        return result;
    }

    [[nodiscard]] Snapshot snapshot() const noexcept {
        Snapshot now{region_->control().hogwild_version.load(std::memory_order_acquire),
                     region_->control().hogwild_env_steps.load(std::memory_order_relaxed), Counts{}};
        Counts& sum = now.counts;
        for (std::size_t w = 0; w < region_->layout().workers; ++w) {
            Counts& its = region_->worker(w).direct;
            sum.applied += load(its.applied);
            sum.merged += load(its.merged);
            sum.rejected_nonfinite += load(its.rejected_nonfinite);
            sum.rejected_stale += load(its.rejected_stale);
            sum.staleness_sum += load(its.staleness_sum);
            sum.staleness_max = std::max(sum.staleness_max, load(its.staleness_max));
            for (std::size_t k = 0; k < staleness_buckets; ++k) sum.staleness[k] += load(its.staleness[k]);
        }
        return now;
    }

    /// Additions watched by the canaries that are still there.
    [[nodiscard]] std::uint64_t canaries_kept() const noexcept {
        std::uint64_t kept = 0;
        for (std::size_t i = 0; i < region_->layout().canaries; ++i) kept += load(region_->canary(i));
        return kept;
    }

    /// A worker counts a gradient after its last step and then publishes it; one that died in between has applied it.
    void publish_what_was_counted(std::size_t w) const noexcept {
        WorkerBlock& words = region_->worker(w);
        words.published.store(load(words.direct.applied) + load(words.direct.rejected_nonfinite) + load(words.direct.rejected_stale), std::memory_order_relaxed);
    }

    /// Parameters or optimizer state as they stand, float by float.
    static void load_relaxed(float* from, std::span<float> to) noexcept {
        for (std::size_t i = 0; i < to.size(); ++i) to[i] = AtomicRef<float>(from[i]).load(std::memory_order_relaxed);
    }

private:
    Result judge_and_step(std::span<const float> grad, const GradientTag& tag) noexcept {
        const RegionConfig& config = region_->config();
        Counts& counts = region_->worker(worker_).direct;
        if (has_nonfinite(grad.data(), grad.size())) {
            add(counts.rejected_nonfinite, 1);
            return Result::nonfinite;
        }
        Atomic<std::uint64_t>& shared_version = region_->control().hogwild_version;
        if (shared_version.load(std::memory_order_relaxed) - tag.version_read > config.max_staleness) {
            add(counts.rejected_stale, 1);
            return Result::stale;
        }
        std::copy(grad.begin(), grad.end(), grad_.begin());
        clip_to(config, grad_);
        const std::uint64_t version = shared_version.fetch_add(1, std::memory_order_relaxed);
        const std::uint64_t staleness = version - tag.version_read;
        step_in_place(OptimizerStep(config.optimizer, learning_rate_at(config, tag.learning_rate, staleness), version + 1));
        count_applied(counts, tag, staleness);
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

    static void count_applied(Counts& counts, const GradientTag& tag, std::uint64_t staleness) noexcept {
        add(counts.applied, 1);
        add(counts.merged, tag.n_summed - 1);
        add(counts.staleness_sum, staleness);
        if (staleness > load(counts.staleness_max)) AtomicRef<std::uint64_t>(counts.staleness_max).store(staleness, std::memory_order_relaxed);
        add(counts.staleness[std::min<std::uint64_t>(staleness, staleness_buckets - 1)], 1);
    }

    static void store_relaxed(std::span<const float> from, float* to) noexcept {
        for (std::size_t i = 0; i < from.size(); ++i) AtomicRef<float>(to[i]).store(from[i], std::memory_order_relaxed);
    }

    static std::uint64_t load(std::uint64_t& word) noexcept { return AtomicRef<std::uint64_t>(word).load(std::memory_order_relaxed); }
    /// For words that nobody else writes.
    static void add(std::uint64_t& word, std::uint64_t n) noexcept { AtomicRef<std::uint64_t>(word).store(load(word) + n, std::memory_order_relaxed); }

    const SharedRegion* region_;
    std::size_t worker_;
    std::vector<float> grad_;  // float32[P]
};

}  // namespace fastac
