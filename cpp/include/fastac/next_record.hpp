// Stages 5 and 6. The current record and the gradients published since -> the record that follows it.
// Before it: grad_buffer.hpp. After it: the commit (param_store.hpp).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "fastac/grad_buffer.hpp"
#include "fastac/optimizer.hpp"
#include "fastac/param_store.hpp"
#include "fastac/trace.hpp"

namespace fastac {

/// staleness = version when a gradient is applied - version its worker read. What it does to the learning rate:
inline double learning_rate_at(const RegionConfig& config, double learning_rate, std::uint64_t staleness) noexcept {
    if (config.staleness_lr == StalenessLr::inverse && staleness > 1) return learning_rate / static_cast<double>(staleness);
    return learning_rate;
}

inline void clip_to(const RegionConfig& config, std::span<float> grad) noexcept {
    const double max_norm = config.optimizer.max_grad_norm;
    if (max_norm > 0.0) clip_grad_norm(grad.data(), grad.size(), max_norm);
}

inline void count_applied(Sums& sums, const GradientTag& tag, std::uint64_t staleness) noexcept {
    ++sums.applied;
    sums.merged += tag.n_summed - 1;
    sums.staleness_sum += staleness;
    sums.staleness_max = std::max(sums.staleness_max, staleness);
}

template <class Float>
OptimizerVectors<const Float> as_const(const OptimizerVectors<Float>& v) noexcept {
    return {v.params, {v.state[0], v.state[1]}};
}

/// A gradient float32[P] that whoever builds has published itself and still has at hand, so that it need not be copied back.
struct AtHand {
    std::size_t worker;
    std::uint64_t sequence;
    std::span<const float> grad;
};

/// Builds records out of place. One for each seat: it owns the copy of the gradient that is being applied.
class RecordBuilder {
public:
    explicit RecordBuilder(const SharedRegion& region) : region_(&region), buffer_(region), trace_(region), grad_(region.layout().parameters) {}

    /// Writes to the claimed record `target` what follows the protected record of `base`: every published, unconsumed
    /// gradient applied by its own optimizer step, in each worker's order, or rejected and counted. Returns how many were
    /// consumed; 0 also when the build was given up because `base` is no longer current.
    std::uint64_t build(const ParamStore& store, std::uint64_t base, std::uint32_t target, const AtHand* at_hand = nullptr) {
        const std::uint32_t from = ParamStore::record_of(base);
        begin(from, target);
        std::uint64_t* consumed = region_->consumed(target);
        bool written = false;
        std::uint64_t n = 0;
        for (std::size_t w = 0; w < region_->layout().workers; ++w) {
            // Not "<": the numbers wrap around, and consumed follows published.
            for (const std::uint64_t published = buffer_.published(w); consumed[w] != published; ++n) {
                if (!store.is_current(base)) return 0;
                ++consumed[w];
                // What is clipped when it is applied is changed: not the caller's.
                const bool is_at_hand = at_hand != nullptr && at_hand->worker == w && at_hand->sequence == consumed[w] && region_->config().optimizer.max_grad_norm <= 0.0;
                const GradientTag tag = is_at_hand ? buffer_.tag(w, consumed[w]) : buffer_.copy(w, consumed[w], grad_);
                written |= apply(w, tag, is_at_hand ? at_hand->grad : grad_, written ? target : from, target);
            }
        }
        if (!written && n > 0) copy_vectors(region_->vectors(from), region_->vectors(target));
        return n;
    }

private:
    void begin(std::uint32_t from, std::uint32_t target) const noexcept {
        const std::size_t workers = region_->layout().workers;
        plain_read(&region_->record(from), region_->layout().record_stride);
        plain_write(&region_->record(target), region_->layout().record_stride);
        region_->record(target) = region_->record(from);
        std::memcpy(region_->consumed(target), region_->consumed(from), workers * sizeof(std::uint64_t));
        std::memcpy(region_->shares(target), region_->shares(from), workers * sizeof(Share));
        trace_.follow(from, target);
    }

    /// One gradient of worker w: vectors of `from` -> vectors of `target`. False: rejected.
    bool apply(std::size_t w, const GradientTag& tag, std::span<const float> grad, std::uint32_t from, std::uint32_t target) noexcept {
        const RegionConfig& config = region_->config();
        RecordHeader& header = region_->record(target);
        Share& its = region_->shares(target)[w];
        header.env_steps += tag.env_steps;
        its.env_steps += tag.env_steps;
        if (tag.nonfinite) {
            ++header.counts.rejected_nonfinite;
            ++its.sums.rejected_nonfinite;
            trace_.add(target, w, tag, TraceOutcome::rejected_nonfinite);
            return false;
        }
        if (tag.target != Target::step) {
            amend(tag.target, grad, region_->vectors(from), region_->vectors(target));
            ++header.counts.amended;
            ++its.sums.amended;
            ++header.version;
            return true;
        }
        const std::uint64_t staleness = header.version - tag.version_read;
        if (staleness > config.max_staleness) {
            ++header.counts.rejected_stale;
            ++its.sums.rejected_stale;
            trace_.add(target, w, tag, TraceOutcome::rejected_stale);
            return false;
        }
        clip_to(config, grad_);  // a copy, where anything is clipped
        const OptimizerStep step(config.optimizer, learning_rate_at(config, tag.learning_rate, staleness), header.version + 1);
        step.apply(grad.size(), grad.data(), as_const(region_->vectors(from)), region_->vectors(target));
        count_applied(header.counts, tag, staleness);
        ++header.counts.staleness[staleness_bucket(staleness)];
        count_applied(its.sums, tag, staleness);
        its.staleness = staleness;
        trace_.add(target, w, tag, TraceOutcome::applied);
        ++header.version;
        return true;
    }

    /// What is no gradient: values float32[P] are added to one vector, or become it; the others are copied.
    void amend(Target target, std::span<const float> values, OptimizerVectors<float> from, OptimizerVectors<float> to) const noexcept {
        if (from.params != to.params) copy_vectors(from, to);
        float* its = target == Target::add_state ? to.state[0] : to.params;
        if (target == Target::set_params) std::copy(values.begin(), values.end(), its);
        else
            for (std::size_t i = 0; i < values.size(); ++i) its[i] += values[i];
    }

    void copy_vectors(OptimizerVectors<float> from, OptimizerVectors<float> to) const noexcept {
        const std::size_t bytes = region_->layout().parameters * sizeof(float);
        std::memcpy(to.params, from.params, bytes);
        for (std::size_t k = 0; k < state_vectors(region_->config().optimizer.kind); ++k) std::memcpy(to.state[k], from.state[k], bytes);
    }

    const SharedRegion* region_;
    GradBuffer buffer_;
    Trace trace_;
    std::vector<float> grad_;  // float32[P]
};

}  // namespace fastac
