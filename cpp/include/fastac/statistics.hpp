// What a worker lets the others know beside its gradients: a few doubles, replaced as one (running means and variances of
// what it has seen: python/fastac/normalization.py).
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include "fastac/shared_region.hpp"

namespace fastac {

/// One writer for each worker's (the worker, or whoever has its seat after it), any readers. There are two copies, and
/// `statistics_written` says by its lowest bit which one is whole. The writer is wait-free; one that is killed while it writes
/// leaves the latest whole one. A reader reads again where the writer has published meanwhile: lock-free.
class Statistics {
public:
    explicit Statistics(const SharedRegion& region) noexcept : region_(&region) {}

    [[nodiscard]] std::size_t size() const noexcept { return region_->layout().statistics; }

    /// values float64[size()].
    void write(std::size_t w, const double* values) const noexcept {
        Atomic<std::uint64_t>& written = region_->worker(w).statistics_written;
        const std::uint64_t next = written.load(std::memory_order_relaxed) + 1;
        std::uint64_t* copy = region_->statistics(w, next);
        // Each a release that pairs with the acquire in `read`: who sees one of them also sees that the copy which it reads
        // was replaced as the latest before.
        for (std::size_t i = 0; i < size(); ++i) AtomicRef<std::uint64_t>(copy[i]).store(std::bit_cast<std::uint64_t>(values[i]), std::memory_order_release);
        written.store(next, std::memory_order_release);
    }

    /// The latest of worker w; zeros where there are none yet.
    void read(std::size_t w, double* values) const noexcept {
        const Atomic<std::uint64_t>& written = region_->worker(w).statistics_written;
        std::uint64_t now = written.load(std::memory_order_acquire);
        for (;;) {
            std::uint64_t* copy = region_->statistics(w, now);
            for (std::size_t i = 0; i < size(); ++i) values[i] = std::bit_cast<double>(AtomicRef<std::uint64_t>(copy[i]).load(std::memory_order_acquire));
            const std::uint64_t after = written.load(std::memory_order_acquire);
            if (after == now) return;
            now = after;
        }
    }

private:
    const SharedRegion* region_;
};

}  // namespace fastac
