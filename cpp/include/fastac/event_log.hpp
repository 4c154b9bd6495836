// What workers tell the parent while they run: rows of doubles, one ring for each worker.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "fastac/shared_region.hpp"

namespace fastac {

/// One producer (the worker), one consumer (the observer) for each ring; wait-free on both sides.
/// `write` refuses when the ring is full, so that a worker never waits for its reader; the caller keeps the row.
class EventLog {
public:
    explicit EventLog(const SharedRegion& region) noexcept : region_(&region) {}

    /// row float64[log_columns]. False: the ring is full and nothing was written.
    bool write(std::size_t w, const double* row) const noexcept {
        WorkerBlock& words = region_->worker(w);
        const std::uint64_t written = words.log_written.load(std::memory_order_relaxed);
        // Acquire: the reader is done with the row that we overwrite.
        if (written - words.log_read.load(std::memory_order_acquire) >= region_->layout().log_rows) return false;
        plain_write(region_->log_row(w, written), log_columns * sizeof(double));
        std::memcpy(region_->log_row(w, written), row, log_columns * sizeof(double));
        words.log_written.store(written + 1, std::memory_order_release);
        return true;
    }

    [[nodiscard]] std::size_t unread(std::size_t w) const noexcept {
        const WorkerBlock& words = region_->worker(w);
        return static_cast<std::size_t>(words.log_written.load(std::memory_order_acquire) - words.log_read.load(std::memory_order_relaxed));
    }

    /// Takes `n` <= unread(w) rows, oldest first, to rows float64[n, log_columns].
    void read(std::size_t w, std::size_t n, double* rows) const noexcept {
        WorkerBlock& words = region_->worker(w);
        const std::uint64_t from = words.log_read.load(std::memory_order_relaxed);
        for (std::size_t i = 0; i < n; ++i) {
            plain_read(region_->log_row(w, from + i), log_columns * sizeof(double));
            std::memcpy(rows + i * log_columns, region_->log_row(w, from + i), log_columns * sizeof(double));
        }
        words.log_read.store(from + n, std::memory_order_release);
    }

private:
    const SharedRegion* region_;
};

}  // namespace fastac
