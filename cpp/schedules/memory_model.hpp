// Memory as C++20 lets threads see it: for each atomic the stores that may still be read, for plain memory who touched it
// last. What the model covers and what not is said in scheduled_atomics.hpp.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "location.hpp"
#include "random.hpp"

namespace schedules {

/// Ends the program: the code under test has broken a rule. Defined by the program, which knows seed and scenario.
[[noreturn]] void violated(const std::string& what);
/// What lies at this offset of the region, for the trace. Defined by the program.
std::string name_of(std::size_t offset);

/// What one schedule has done to the region.
class Memory {
public:
    std::uint64_t stale_loads = 0;  // that returned another store than the newest

    /// Forgets all: [base, base + bytes) holds the values from before the schedule. `stale_percent` of the loads that may
    /// return an old store do; `early_percent` of the seq_cst operations stand as early in S as they may, the others last.
    void begin(void* base, std::size_t bytes, std::uint64_t seed, std::uint64_t stale_percent, std::uint64_t early_percent) {
        base_ = static_cast<std::byte*>(base);
        location_of_.assign(bytes / word, 0);
        locations_used_ = 0;
        lines_.assign(bytes / line, Line{});
        random_ = Random(seed);
        stale_percent_ = stale_percent;
        early_percent_ = early_percent;
        last_ = 0;
        for (VectorClock& clock : clocks_) clock = VectorClock{};
    }

    /// A fiber begins on this lane, knowing all that `parent` knows.
    void begin_fiber(std::size_t fiber, std::size_t parent) noexcept {
        if (parent < lanes) clocks_[fiber].join(clocks_[parent]);
        tick(fiber);
    }
    /// What `fiber` has done is visible to `observer`: it was seen dead, or to have stood still for long.
    void observe(std::size_t observer, std::size_t fiber) noexcept { clocks_[observer].join(clocks_[fiber]); }
    void always_newest(bool on) noexcept { always_newest_ = on; }

    /// The loads and stores of fiber `f` at `at`; `raw` is what the memory itself holds, which is always the newest value.
    /// `newer` says how many newer stores a load has passed over.
    std::uint64_t load(std::size_t f, const void* at, std::uint64_t raw, std::memory_order order, std::uint32_t& newer) {
        newer = 0;
        if (location_of_[index(at)] == 0 && order != std::memory_order_seq_cst) return raw;  // nobody has stored yet
        Location& l = location(at, raw);
        const std::uint32_t i = choose(l, f, order);
        newer = l.newest() - i;
        return take(l, i, f, order);
    }
    void store(std::size_t f, const void* at, std::uint64_t raw, std::uint64_t value, std::memory_order order) {
        Location& l = location(at, raw);
        append(l, f, value, VectorClock{}, order, place_store(l, f, order));
    }
    /// The stores of a read-modify-write that has read `raw`. It goes on with the release sequence of what it read.
    void exchange(std::size_t f, const void* at, std::uint64_t raw, std::uint64_t value, std::memory_order order) {
        Location& l = location(at, raw);
        const Store& read = l.store(l.newest());
        const VectorClock sequence = read.teaches;
        const Position position = place_store(l, f, order);
        if (acquires(order)) clocks_[f].join(sequence);
        append(l, f, value, sequence, order, position);
    }
    /// A failing compare-and-swap is a load and may be served an old store as well.
    bool compare_exchange(std::size_t f, const void* at, std::uint64_t raw, std::uint64_t& expected, std::uint64_t desired, std::memory_order success,
                          std::memory_order failure, bool weak) {
        Location& l = location(at, raw);
        std::uint32_t i = choose(l, f, failure);
        if (l.store(i).value == expected) i = l.newest();
        const bool equal = l.store(i).value == expected;
        if (!equal || (weak && random_.percent(10))) {
            expected = take(l, i, f, failure);
            return false;
        }
        exchange(f, at, raw, desired, success);
        return true;
    }

    void plain_read(std::size_t f, const void* at, std::size_t bytes) {
        for (std::size_t i = first_line(at); i <= last_line(at, bytes); ++i) {
            if (lines_[i].write_time > clocks_[f].at[lines_[i].writer]) race(i, "is read while another writes it");
            lines_[i].reads.at[f] = clocks_[f].at[f];
        }
    }
    void plain_write(std::size_t f, const void* at, std::size_t bytes) {
        for (std::size_t i = first_line(at); i <= last_line(at, bytes); ++i) {
            if (lines_[i].write_time > clocks_[f].at[lines_[i].writer]) race(i, "is written while another writes it");
            if (!clocks_[f].reaches_all(lines_[i].reads)) race(i, "is written while another reads it");
            lines_[i] = {VectorClock{}, clocks_[f].at[f], static_cast<std::uint8_t>(f)};
        }
    }

    [[nodiscard]] std::size_t offset(const void* at) const noexcept { return static_cast<std::size_t>(static_cast<const std::byte*>(at) - base_); }

private:
    static constexpr std::size_t word = 4, line = 64;
    static constexpr Position spacing = 1024;  // room for those that stand early
    struct Line {
        VectorClock reads;  // since the last write
        Time write_time = 0;
        std::uint8_t writer = 0;
    };

    [[nodiscard]] std::size_t index(const void* at) const { return offset(at) / word; }
    [[nodiscard]] std::size_t first_line(const void* at) const { return offset(at) / line; }
    [[nodiscard]] std::size_t last_line(const void* at, std::size_t bytes) const { return (offset(at) + bytes - 1) / line; }

    Location& location(const void* at, std::uint64_t raw) {
        std::uint16_t& known = location_of_[index(at)];
        if (known == 0) {
            if (locations_used_ == locations_.size()) locations_.emplace_back();
            locations_[locations_used_].begin(raw);
            known = static_cast<std::uint16_t>(++locations_used_);
        }
        return locations_[known - 1];
    }
    std::uint32_t choose(Location& l, std::size_t f, std::memory_order order) {
        const std::uint32_t newest = l.newest();
        std::uint32_t oldest = l.oldest_visible(clocks_[f]);
        if (oldest == newest || always_newest_ || !random_.percent(stale_percent_)) return newest;
        if (order == std::memory_order_seq_cst)
            while (oldest < newest && !has_place(l, oldest, f)) ++oldest;
        return static_cast<std::uint32_t>(random_.between(oldest, newest));
    }
    /// Whether a seq_cst load that returns store i can stand somewhere in S.
    bool has_place(Location& l, std::uint32_t i, std::size_t f) {
        const Position before = l.before(i);
        return before == 0 || std::max(l.behind(i, false), clocks_[f].position) + 1 < before;
    }
    Position place(Position behind, bool early) noexcept {
        const Position position = early ? behind + 1 : last_ + spacing;
        last_ = std::max(last_, position);
        return position;
    }
    Position place_store(Location& l, std::size_t f, std::memory_order order) {
        if (order != std::memory_order_seq_cst) return 0;
        return place(std::max(l.behind(l.newest(), true), clocks_[f].position), random_.percent(early_percent_));
    }
    Position place_load(Location& l, std::uint32_t i, std::size_t f, std::memory_order order) {
        if (order != std::memory_order_seq_cst) return 0;
        const bool early = l.before(i) != 0 || random_.percent(early_percent_);
        return place(std::max(l.behind(i, false), clocks_[f].position), early);
    }
    std::uint64_t take(Location& l, std::uint32_t i, std::size_t f, std::memory_order order) {
        if (i != l.newest()) ++stale_loads;
        const Position position = place_load(l, i, f, order);
        l.mark_read(i, f, clocks_[f].at[f], position);
        if (acquires(order)) clocks_[f].join(l.store(i).teaches);
        clocks_[f].position = std::max(clocks_[f].position, position);
        return l.store(i).value;
    }
    /// What is released does not hold the operation's own place in S: through it alone, an acquire load that is not seq_cst
    /// does not come after it there (P0668).
    void append(Location& l, std::size_t f, std::uint64_t value, VectorClock teaches, std::memory_order order, Position position) {
        if (releases(order)) teaches.join(clocks_[f]);
        l.append(value, teaches, f, clocks_[f].at[f], position);
        clocks_[f].position = std::max(clocks_[f].position, position);
        if (releases(order)) tick(f);  // what comes now is not released
    }
    void tick(std::size_t f) {
        if (++clocks_[f].at[f] == never) violated("a fiber has released 32,766 times: is there a loop that does not end?");
    }
    [[noreturn]] void race(std::size_t i, const std::string& what) const { violated("data race: " + name_of(i * line) + " " + what); }

    std::byte* base_ = nullptr;
    std::vector<std::uint16_t> location_of_;  // of each word, from 1; 0: none yet
    std::vector<Location> locations_;
    std::size_t locations_used_ = 0;
    std::vector<Line> lines_;
    VectorClock clocks_[lanes];
    Random random_{0};
    std::uint64_t stale_percent_ = 0;
    std::uint64_t early_percent_ = 0;
    Position last_ = 0;
    bool always_newest_ = false;
};

}  // namespace schedules
