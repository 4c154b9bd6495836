// One atomic under the C++20 memory model: the stores that may still be read, and who has seen them.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace schedules {

inline constexpr std::size_t lanes = 8;  // fibers of a schedule, each with a time of its own
using Time = std::int16_t;
inline constexpr Time never = INT16_MAX;
/// Where a seq_cst operation stands in their one total order S. Unordered ones may have the same; 0: none.
using Position = std::uint32_t;

/// What a fiber knows: everything that fiber k did up to its time at[k] happened before, and every seq_cst operation beyond
/// `position` may still stand behind its next one in S.
struct alignas(16) VectorClock {
    Time at[lanes] = {};
    Position position = 0;

    static VectorClock filled(Time time) noexcept {
        VectorClock clock;
        std::fill_n(clock.at, lanes, time);
        return clock;
    }
    void join(const VectorClock& other) noexcept {
        for (std::size_t k = 0; k < lanes; ++k) at[k] = std::max(at[k], other.at[k]);
        position = std::max(position, other.position);
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
    std::uint64_t value = 0;
    VectorClock teaches{};  // what an acquire load of this store learns: its release sequence
    VectorClock seen{};     // when each fiber first read or wrote it
    Position stored_at = 0, first_read_at = 0, last_read_at = 0;  // by seq_cst operations
};

/// The last stores to one atomic, in modification order. The seq_cst operations on it stand in S in the order of what they
/// stored or returned; where a store is returned instead of a newer one, they also stand in an order of their own choice.
class Location {
public:
    /// The value from before the schedule: everybody knows it.
    void begin(std::uint64_t value) noexcept {
        newest_ = 0;
        dropped_ = 0;
        stores_[0] = {.value = value};
    }
    [[nodiscard]] std::uint32_t newest() const noexcept { return newest_; }
    [[nodiscard]] Store& store(std::uint32_t i) noexcept { return stores_[i % kept]; }
    [[nodiscard]] std::uint32_t oldest() const noexcept { return newest_ < kept ? 0 : newest_ - kept + 1; }

    /// The oldest store that a load by the owner of this clock may return: one that it has seen, or that anything has seen
    /// that happened before, hides all older ones.
    [[nodiscard]] std::uint32_t oldest_visible(const VectorClock& clock) noexcept {
        std::uint32_t i = newest_;
        while (i > oldest() && !clock.reaches_any(store(i).seen)) --i;
        return i;
    }
    /// Behind which position a seq_cst load must stand that returns store i, and a seq_cst store behind it.
    [[nodiscard]] Position behind(std::uint32_t i, bool stores) noexcept {
        Position last = std::max(dropped_, stores ? store(i).last_read_at : 0);
        for (std::uint32_t k = oldest(); k <= i; ++k) last = std::max({last, store(k).stored_at, k < i ? store(k).last_read_at : 0});
        return last;
    }
    /// And before which position. 0: none.
    [[nodiscard]] Position before(std::uint32_t i) noexcept {
        Position first = 0;
        while (++i <= newest_)
            for (const Position at : {store(i).stored_at, store(i).first_read_at})
                if (at != 0 && (first == 0 || at < first)) first = at;
        return first;
    }
    void append(std::uint64_t value, const VectorClock& teaches, std::size_t fiber, Time now, Position at) noexcept {
        Store& s = store(++newest_);
        if (newest_ >= kept) dropped_ = std::max({dropped_, s.stored_at, s.last_read_at});
        s = {.value = value, .teaches = teaches, .seen = VectorClock::filled(never), .stored_at = at};
        s.seen.at[fiber] = now;
    }
    void mark_read(std::uint32_t i, std::size_t fiber, Time now, Position at) noexcept {
        Store& s = store(i);
        s.seen.at[fiber] = std::min(s.seen.at[fiber], now);
        if (at == 0) return;
        s.first_read_at = s.first_read_at == 0 ? at : std::min(s.first_read_at, at);
        s.last_read_at = std::max(s.last_read_at, at);
    }

private:
    static constexpr std::uint32_t kept = 8;
    std::uint32_t newest_ = 0;
    Position dropped_ = 0;  // the last of the stores that are not kept
    Store stores_[kept];
};

}  // namespace schedules
