// The schedule of a run, for its replay: whose gradient went into the parameters, or was rejected, in which order, and
// what its worker had read. Beside it: next_record.hpp, which builds the records that these entries lead to.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "fastac/grad_buffer.hpp"

namespace fastac {

/// The entries of all gradients consumed so far, in their order: where config.trace_entries is 0, none are kept.
///
/// An entry is decided by the commit of the record that it leads to, so the record carries the entries that it adds.
/// Whoever builds on a record first copies these to the shared trace, and commits after that. So what came before the
/// current record's entries is always in the trace, whoever dies at whatever instruction: those of the current one are still
/// in it. Several builders may copy at once: each stores the same words at the same places, which only the record decides.
/// The trace has room for the whole run and is never overwritten; what would be beyond its end is counted, not kept, and
/// `read` refuses to give a part for the whole.
class Trace {
public:
    explicit Trace(const SharedRegion& region) noexcept : region_(&region) {}

    /// The claimed record `target` will follow the protected record `from`: nothing of `from` is lost by that.
    void follow(std::uint32_t from, std::uint32_t target) const noexcept {
        if (off()) return;
        publish(from);
        block(target).added = 0;
    }

    /// The gradient that the claimed record `target` has consumed last.
    void add(std::uint32_t target, std::size_t worker, const GradientTag& tag, TraceOutcome outcome) const noexcept {
        if (off()) return;
        TraceBlock& its = block(target);
        entries(target)[its.added++] = {tag.read_at, tag.incarnation, static_cast<std::uint16_t>(worker), outcome};
    }

    /// All entries up to the protected record. Throws std::length_error where there are more than the trace has room for.
    [[nodiscard]] std::vector<TraceEntry> read(std::uint32_t record) const {
        if (off()) return {};
        const std::uint64_t n = consumed(region_->record(record).counts), published = n - block(record).added;
        if (published > region_->config().trace_entries)
            throw std::length_error("trace: expected at most " + std::to_string(region_->config().trace_entries) + " entries, got " + std::to_string(n));
        std::vector<TraceEntry> all(n);
        for (std::uint64_t i = 0; i < published; ++i) {
            std::uint64_t words[words_each];
            for (std::size_t k = 0; k < words_each; ++k) words[k] = AtomicRef<std::uint64_t>(region_->trace_words(i)[k]).load(std::memory_order_relaxed);
            std::memcpy(&all[i], words, sizeof words);
        }
        if (n > published) std::memcpy(&all[published], entries(record), block(record).added * sizeof(TraceEntry));
        return all;
    }

private:
    static constexpr std::size_t words_each = sizeof(TraceEntry) / sizeof(std::uint64_t);

    [[nodiscard]] bool off() const noexcept { return region_->config().trace_entries == 0; }
    [[nodiscard]] TraceBlock& block(std::uint32_t record) const noexcept { return region_->trace_block(record); }
    [[nodiscard]] TraceEntry* entries(std::uint32_t record) const noexcept { return reinterpret_cast<TraceEntry*>(&block(record) + 1); }

    // Relaxed: the commit that follows releases them.
    void publish(std::uint32_t record) const noexcept {
        const std::uint64_t first = consumed(region_->record(record).counts) - block(record).added;
        for (std::uint64_t i = 0; i < block(record).added && first + i < region_->config().trace_entries; ++i) {
            std::uint64_t words[words_each];
            std::memcpy(words, &entries(record)[i], sizeof words);
            for (std::size_t k = 0; k < words_each; ++k) AtomicRef<std::uint64_t>(region_->trace_words(first + i)[k]).store(words[k], std::memory_order_relaxed);
        }
    }

    const SharedRegion* region_;
};

}  // namespace fastac
