// Memory as C++20 lets threads see it: for each location the stores that may still be read, for plain memory who touched it
// last. What the model covers and what not is said in scheduled_atomics.hpp.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace schedules {

inline constexpr std::size_t lanes = 8;  // fibers of a schedule, each with a time of its own
using Time = std::int16_t;
inline constexpr Time never = INT16_MAX;

/// Ends the program: the code under test has broken a rule. Defined by the program, which knows seed and scenario.
[[noreturn]] void violated(const std::string& what);
/// What lies at this offset of the region, for the trace. Defined by the program.
std::string name_of(std::size_t offset);

/// Pseudo-random numbers that depend on the seed alone (splitmix64).
class Random {
public:
    explicit Random(std::uint64_t seed) noexcept : state_(seed) {}
    std::uint64_t next() noexcept {
        std::uint64_t z = state_ += 0x9e3779b97f4a7c15ULL;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
        z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
        return z ^ z >> 31;
    }
    /// 0 .. n - 1, for n < 2^32.
    std::uint64_t below(std::uint64_t n) noexcept { return (next() >> 32) * n >> 32; }
    std::uint64_t between(std::uint64_t low, std::uint64_t high) noexcept { return low + below(high - low + 1); }
    bool percent(std::uint64_t chance) noexcept { return below(100) < chance; }
    bool permille(std::uint64_t chance) noexcept { return below(1000) < chance; }

private:
    std::uint64_t state_;
};

/// What a fiber knows: everything that fiber k did up to its time at[k] happened before.
struct alignas(16) VectorClock {
    Time at[lanes] = {};

    static VectorClock filled(Time time) noexcept {
        VectorClock clock;
        std::fill_n(clock.at, lanes, time);
        return clock;
    }
    void join(const VectorClock& other) noexcept {
        for (std::size_t k = 0; k < lanes; ++k) at[k] = std::max(at[k], other.at[k]);
    }
    /// Whether this clock has reached any of these times.
    [[nodiscard]] bool reaches_any(const VectorClock& times) const noexcept {
        int any = 0;
        for (std::size_t k = 0; k < lanes; ++k) any |= static_cast<int>(times.at[k] <= at[k]);
        return any != 0;
    }
    [[nodiscard]] bool reaches_all(const VectorClock& times) const noexcept {
        int beyond = 0;
        for (std::size_t k = 0; k < lanes; ++k) beyond |= static_cast<int>(times.at[k] > at[k]);
        return beyond == 0;
    }
};

constexpr bool acquires(std::memory_order order) noexcept {
    return order == std::memory_order_acquire || order == std::memory_order_acq_rel || order == std::memory_order_seq_cst;
}
constexpr bool releases(std::memory_order order) noexcept {
    return order == std::memory_order_release || order == std::memory_order_acq_rel || order == std::memory_order_seq_cst;
}

struct Store {
    std::uint64_t value;
    VectorClock teaches;  // what an acquire load of this store learns: its release sequence
    VectorClock seen;     // when each fiber first read or wrote it
};

/// The last stores to one atomic, in modification order.
class Location {
public:
    /// The value from before the schedule: everybody knows it.
    void begin(std::uint64_t value) noexcept {
        newest_ = seq_cst_floor_ = 0;
        stores_[0] = {value, VectorClock{}, VectorClock{}};
    }
    [[nodiscard]] std::uint32_t newest() const noexcept { return newest_; }
    [[nodiscard]] Store& store(std::uint32_t i) noexcept { return stores_[i % kept]; }

    /// The oldest store that a load by the owner of this clock may return. A store that it or anything that happened before
    /// has seen hides all older ones; so does, from a seq_cst load, one that a seq_cst operation stored or returned.
    [[nodiscard]] std::uint32_t oldest_visible(const VectorClock& clock, bool seq_cst) noexcept {
        const std::uint32_t oldest = std::max(newest_ >= kept ? newest_ - kept + 1 : 0, seq_cst ? seq_cst_floor_ : 0);
        std::uint32_t i = newest_;
        while (i > oldest && !clock.reaches_any(store(i).seen)) --i;
        return i;
    }
    void append(std::uint64_t value, const VectorClock& teaches, std::size_t fiber, Time now, bool seq_cst) noexcept {
        Store& s = store(++newest_);
        s = {value, teaches, VectorClock::filled(never)};
        s.seen.at[fiber] = now;
        if (seq_cst) seq_cst_floor_ = newest_;
    }
    void mark_read(std::uint32_t i, std::size_t fiber, Time now, bool seq_cst) noexcept {
        Time& first = store(i).seen.at[fiber];
        first = std::min(first, now);
        if (seq_cst) seq_cst_floor_ = std::max(seq_cst_floor_, i);
    }

private:
    static constexpr std::uint32_t kept = 8;
    std::uint32_t newest_ = 0;
    std::uint32_t seq_cst_floor_ = 0;
    Store stores_[kept];
};

/// What one schedule has done to the region.
class Memory {
public:
    std::uint64_t stale_loads = 0;  // that returned another store than the newest

    /// Forgets all: [base, base + bytes) holds the values from before the schedule. `stale_percent` of the loads that may
    /// return an old store do.
    void begin(void* base, std::size_t bytes, std::uint64_t seed, std::uint64_t stale_percent) {
        base_ = static_cast<std::byte*>(base);
        location_of_.assign(bytes / word, 0);
        locations_used_ = 0;
        lines_.assign(bytes / line, Line{});
        random_ = Random(seed);
        stale_percent_ = stale_percent;
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
        const std::size_t known = location_of_[index(at)];
        newer = 0;
        if (known == 0) return raw;  // nobody has stored yet
        Location& l = locations_[known - 1];
        const std::uint32_t i = choose(l, f, order);
        newer = l.newest() - i;
        return take(l, i, f, order);
    }
    void store(std::size_t f, const void* at, std::uint64_t raw, std::uint64_t value, std::memory_order order) {
        append(location(at, raw), f, value, VectorClock{}, order);
    }
    /// The stores of a read-modify-write that has read `raw`. It goes on with the release sequence of what it read.
    void exchange(std::size_t f, const void* at, std::uint64_t raw, std::uint64_t value, std::memory_order order) {
        Location& l = location(at, raw);
        const VectorClock sequence = l.store(l.newest()).teaches;
        take(l, l.newest(), f, order);
        append(l, f, value, sequence, order);
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
        const std::uint32_t newest = l.newest(), oldest = l.oldest_visible(clocks_[f], order == std::memory_order_seq_cst);
        if (oldest == newest || always_newest_ || !random_.percent(stale_percent_)) return newest;
        return static_cast<std::uint32_t>(random_.between(oldest, newest));
    }
    std::uint64_t take(Location& l, std::uint32_t i, std::size_t f, std::memory_order order) {
        if (i != l.newest()) ++stale_loads;
        l.mark_read(i, f, clocks_[f].at[f], order == std::memory_order_seq_cst);
        if (acquires(order)) clocks_[f].join(l.store(i).teaches);
        return l.store(i).value;
    }
    void append(Location& l, std::size_t f, std::uint64_t value, VectorClock teaches, std::memory_order order) {
        if (releases(order)) teaches.join(clocks_[f]);
        l.append(value, teaches, f, clocks_[f].at[f], order == std::memory_order_seq_cst);
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
    bool always_newest_ = false;
};

}  // namespace schedules
