// Stage 4. One gradient and the version it was computed from in -> published, for whoever applies it.
// Before it: the worker's gradient. After it: optimizer.hpp, through param_store.hpp.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>

#include "fastac/clones.hpp"
#include "fastac/shared_region.hpp"

namespace fastac {

/// What travels with a gradient.
struct GradientTag {
    std::uint64_t version_read = 0;  // of the parameters it was computed from
    std::uint64_t env_steps = 0;     // behind it
    double learning_rate = 0.0;
    std::uint32_t n_summed = 1;  // gradients that the worker summed into this one
    bool nonfinite = false;      // set by push; such a gradient is counted, never applied
    bool known_finite = false;   // the caller has just looked: push need not
    std::uint64_t read_at = 0;   // for the trace: see TraceEntry
    std::uint32_t incarnation = 0;  // the same; set by Session::push
    Target target = Target::step;
};

/// True if any of grad float32[n] is NaN or infinite.
[[maybe_unused]] FASTAC_CLONES static bool has_nonfinite(const float* grad, std::size_t n) noexcept {
    constexpr std::uint32_t exponent = 0x7f80'0000U;
    std::uint32_t any = 0;
    for (std::size_t i = 0; i < n; ++i) any |= static_cast<std::uint32_t>((std::bit_cast<std::uint32_t>(grad[i]) & exponent) == exponent);
    return any != 0;
}

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define FASTAC_SEEN_BY_TSAN
#endif
#endif
#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__) && !defined(FASTAC_SEEN_BY_TSAN) && !defined(FASTAC_ATOMICS)
#define FASTAC_VECTOR_STORES
// Relaxed stores of many words at once: x86-64 writes each aligned word of an aligned vector whole. Like std::atomic's they are
// hidden from the compiler, which could else take them for data that nobody reads meanwhile. Whoever looks for races (TSan, the
// schedules) gets the words one by one.
// Both copy whole vectors from `from` to the aligned `to`, and return how many floats that was.

inline std::size_t store_vectors(float* to, const float* from, std::size_t n) noexcept {
    using Vector = float __attribute__((vector_size(16)));
    std::size_t i = 0;
    for (Vector v; i + 4 <= n; i += 4) {
        std::memcpy(&v, from + i, sizeof v);
        __asm__ volatile("movaps %1, (%0)" : : "r"(to + i), "x"(v) : "memory");
    }
    return i;
}

FASTAC_WIDE inline std::size_t store_vectors_wide(float* to, const float* from, std::size_t n) noexcept {
    using Vector = float __attribute__((vector_size(64)));
    std::size_t i = 0;
    for (Vector v; i + 16 <= n; i += 16) {
        std::memcpy(&v, from + i, sizeof v);
        __asm__ volatile("vmovaps %1, (%0)" : : "r"(to + i), "v"(v) : "memory");
    }
    return i;
}
#endif

/// The gradient buffer: for each worker a ring of K slots with one producer, that worker.
///
/// Who may call: `push` the worker whose ring it is; `copy` anybody, at any time.
/// What it may do: `push` is wait-free and refuses when all K slots are published and unapplied;
///   nothing allocates, nothing waits.
/// The commit point of a push is ONE release store, to `published`: a worker killed before it has pushed
///   nothing, after it everything. There is no ticket shared between workers (a killed holder would stop all)
///   and no sum shared between workers (a killed adder would leave half a gradient in it).
/// `copy` may run while the worker refills the slot, if the gradient in it was applied meanwhile. What it
///   then copies is a mixture, which does no harm: the reader builds on a record that is no longer current,
///   and its commit cannot succeed (param_store.hpp). That is why payload words are relaxed atomics.
/// Not for: many small items (a push costs two passes over P floats), or producers that come and go.
class GradBuffer {
public:
    explicit GradBuffer(const SharedRegion& region) noexcept : region_(&region) {}

    /// Publishes grad float32[P] as the next of worker w. Returns its sequence number, which counts from 1 and wraps around;
    /// nothing when the ring is full, then nothing has happened. `consumed`: how many of this worker's gradients are
    /// consumed (a lower bound will do).
    std::optional<std::uint64_t> push(std::size_t w, std::span<const float> grad, GradientTag tag, std::uint64_t consumed) const noexcept {
        WorkerBlock& words = region_->worker(w);
        const std::uint64_t published = words.published.load(std::memory_order_relaxed);  // single writer: ourselves
        if (published - consumed >= region_->layout().slots) return std::nullopt;
        words.begun.store(words.begun.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
        const std::uint64_t sequence = published + 1;
        SlotHeader& slot = region_->slot(w, sequence);
        tag.nonfinite = !tag.known_finite && has_nonfinite(grad.data(), grad.size());
        slot.version_read.store(tag.version_read, std::memory_order_relaxed);
        slot.env_steps.store(tag.env_steps, std::memory_order_relaxed);
        slot.learning_rate_bits.store(std::bit_cast<std::uint64_t>(tag.learning_rate), std::memory_order_relaxed);
        slot.n_summed.store(tag.n_summed, std::memory_order_relaxed);
        slot.nonfinite.store(tag.nonfinite ? 1U : 0U, std::memory_order_relaxed);
        slot.read_at.store(tag.read_at, std::memory_order_relaxed);
        slot.incarnation.store(tag.incarnation, std::memory_order_relaxed);
        slot.target.store(static_cast<std::uint32_t>(tag.target), std::memory_order_relaxed);
        if (!tag.nonfinite) store_words(region_->slot_payload(w, sequence), grad);
        // Pairs with the acquire load in `published()`: who sees the number sees the slot.
        words.published.store(sequence, std::memory_order_release);
        return sequence;
    }

    /// Gradients 1 .. published(w) of worker w are complete.
    [[nodiscard]] std::uint64_t published(std::size_t w) const noexcept {
        return region_->worker(w).published.load(std::memory_order_acquire);
    }

    /// The tag of gradient `sequence` of worker w.
    [[nodiscard]] GradientTag tag(std::size_t w, std::uint64_t sequence) const noexcept {
        const SlotHeader& slot = region_->slot(w, sequence);
        return {slot.version_read.load(std::memory_order_relaxed), slot.env_steps.load(std::memory_order_relaxed),
                              std::bit_cast<double>(slot.learning_rate_bits.load(std::memory_order_relaxed)),
                              slot.n_summed.load(std::memory_order_relaxed), slot.nonfinite.load(std::memory_order_relaxed) != 0, false,
                              slot.read_at.load(std::memory_order_relaxed), slot.incarnation.load(std::memory_order_relaxed),
                              static_cast<Target>(slot.target.load(std::memory_order_relaxed))};
    }

    /// Copies gradient `sequence` of worker w to grad float32[P] and returns its tag.
    GradientTag copy(std::size_t w, std::uint64_t sequence, std::span<float> grad) const noexcept {
        const GradientTag its = tag(w, sequence);
        if (!its.nonfinite) load_words(region_->slot_payload(w, sequence), grad);
        return its;
    }

private:
    // Two floats a word; an odd P leaves one float, which travels in a word of its own. The region pads every
    // payload to whole cache lines.
    static void store_words(float* to, std::span<const float> from) noexcept {
#ifdef FASTAC_VECTOR_STORES
        const std::size_t stored = (has_wide() ? store_vectors_wide : store_vectors)(to, from.data(), from.size());
        to += stored;
        from = from.subspan(stored);
#endif
        auto* words = reinterpret_cast<std::uint64_t*>(to);
        const std::size_t pairs = from.size() / 2;
        for (std::size_t i = 0; i < pairs; ++i) {
            std::uint64_t word;
            std::memcpy(&word, from.data() + 2 * i, sizeof word);
            AtomicRef<std::uint64_t>(words[i]).store(word, std::memory_order_relaxed);
        }
        if (from.size() % 2 != 0) AtomicRef<std::uint64_t>(words[pairs]).store(std::bit_cast<std::uint32_t>(from.back()), std::memory_order_relaxed);
    }

    static void load_words(const float* from, std::span<float> to) noexcept {
        auto* words = reinterpret_cast<std::uint64_t*>(const_cast<float*>(from));
        const std::size_t pairs = to.size() / 2;
        for (std::size_t i = 0; i < pairs; ++i) {
            const std::uint64_t word = AtomicRef<std::uint64_t>(words[i]).load(std::memory_order_relaxed);
            std::memcpy(to.data() + 2 * i, &word, sizeof word);
        }
        if (to.size() % 2 != 0)
            to.back() = std::bit_cast<float>(static_cast<std::uint32_t>(AtomicRef<std::uint64_t>(words[pairs]).load(std::memory_order_relaxed)));
    }

    const SharedRegion* region_;
};

}  // namespace fastac
