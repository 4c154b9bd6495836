// Atomics for deterministic schedules of the shared core: fastac::Atomic and fastac::AtomicRef, as large as the value they
// hold, whose every operation is a point where another fiber may go on and whose loads return what the C++20 memory
// model allows. FASTAC_ATOMICS names this header (see fastac/atomics.hpp).
//
// What the model covers:
//   - every interleaving of the atomic operations of up to 8 fibers, and the death of a fiber before any of them;
//   - old values: a load returns any of the last 8 stores of its location that coherence and happens-before leave visible,
//     chosen by seed and mostly the newest. A read-modify-write acts on the newest; a compare-and-swap that fails is a load;
//   - acquire and release, release sequences that go on through read-modify-writes, and no others (C++20);
//   - seq_cst: the order of execution is the one total order. Such a load returns no older store than any earlier seq_cst
//     operation on the same location has stored or returned (P0668). So a seq_cst store and a later seq_cst load of
//     another location keep their order, and any weaker pair does not;
//   - races of plain memory, where plain_read and plain_write say that it is touched, by cache line.
// What it does not cover:
//   - loads of values that are stored only later (load buffering, out of thin air), and stores that enter the modification
//     order of their location in another order than that of execution;
//   - fences, consume, objects that are accessed in two sizes; none of them occurs in the core;
//   - values of plain memory: those are always the newest. Where they could be others, there is a race, and it is reported;
//   - when a store becomes visible. All do at once to a fiber that runs alone, so that its steps can be bounded.
// With no fiber running (before and after a schedule) the operations act on the memory itself.
#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <type_traits>

#include "memory_model.hpp"
#include "scheduler.hpp"

namespace schedules {

/// The one schedule that runs.
inline Memory memory;
inline Scheduler scheduler;
inline bool tracing = false;

template <class T>
std::uint64_t to_bits(T value) noexcept {
    if constexpr (std::is_same_v<T, float>) return std::bit_cast<std::uint32_t>(value);
    else return value;
}
template <class T>
T from_bits(std::uint64_t bits) noexcept {
    if constexpr (std::is_same_v<T, float>) return std::bit_cast<float>(static_cast<std::uint32_t>(bits));
    else return static_cast<T>(bits);
}

inline void trace(const char* what, const void* at, std::uint64_t value, std::memory_order order, std::uint32_t newer = 0) {
    if (!tracing) return;
    static const char* const orders[] = {"relaxed", "consume", "acquire", "release", "acq_rel", "seq_cst"};
    std::printf("%6llu  fiber %zu  %-5s %-7s %-28s %llu", static_cast<unsigned long long>(scheduler.steps()), scheduler.current(), what,
                orders[static_cast<int>(order)], name_of(memory.offset(at)).c_str(), static_cast<unsigned long long>(value));
    if (newer != 0) std::printf("  (%u newer)", newer);
    std::printf("\n");
}

template <class T>
inline constexpr Step read_modify_write_of = sizeof(T) == 8 ? Step::wide_read_modify_write : Step::read_modify_write;

inline void step(Step kind) {
    scheduler.point(kind);
    memory.always_newest(scheduler.alone());
}

/// The order of a compare-and-swap that fails.
constexpr std::memory_order on_failure(std::memory_order order) noexcept {
    if (order == std::memory_order_acq_rel) return std::memory_order_acquire;
    return order == std::memory_order_release ? std::memory_order_relaxed : order;
}

template <class T>
T load(const T& at, std::memory_order order) {
    if (!scheduler.inside()) return at;
    step(Step::other);
    std::uint32_t newer = 0;
    const std::uint64_t value = memory.load(scheduler.current(), &at, to_bits(at), order, newer);
    trace("load", &at, value, order, newer);
    return from_bits<T>(value);
}

template <class T>
void store(T& at, T value, std::memory_order order) {
    if (scheduler.inside()) {
        step(Step::other);
        memory.store(scheduler.current(), &at, to_bits(at), to_bits(value), order);
        trace("store", &at, to_bits(value), order);
    }
    at = value;
}

template <class T>
T fetch_add(T& at, T n, std::memory_order order) {
    if (scheduler.inside()) step(read_modify_write_of<T>);
    const T before = at, after = static_cast<T>(before + n);
    if (scheduler.inside()) {
        memory.exchange(scheduler.current(), &at, to_bits(before), to_bits(after), order);
        trace("add", &at, to_bits(after), order);
    }
    at = after;
    return before;
}

template <class T>
bool compare_exchange(T& at, T& expected, T desired, std::memory_order success, std::memory_order failure, bool weak) {
    if (!scheduler.inside()) {
        const T before = at;
        const bool equal = before == expected;
        (equal ? at : expected) = equal ? desired : before;
        return equal;
    }
    step(read_modify_write_of<T>);
    std::uint64_t seen = to_bits(expected);
    const bool swapped = memory.compare_exchange(scheduler.current(), &at, to_bits(at), seen, to_bits(desired), success, failure, weak);
    trace(swapped ? "cas" : "cas-", &at, swapped ? to_bits(desired) : seen, swapped ? success : failure);
    (swapped ? at : expected) = swapped ? desired : from_bits<T>(seen);
    return swapped;
}

}  // namespace schedules

namespace fastac {

template <class T>
class Atomic {
public:
    static constexpr bool is_always_lock_free = true;

    Atomic() = default;
    Atomic(const Atomic&) = delete;
    Atomic& operator=(const Atomic&) = delete;

    T load(std::memory_order order = std::memory_order_seq_cst) const noexcept { return schedules::load(value_, order); }
    void store(T value, std::memory_order order = std::memory_order_seq_cst) noexcept { schedules::store(value_, value, order); }
    T fetch_add(T n, std::memory_order order = std::memory_order_seq_cst) noexcept { return schedules::fetch_add(value_, n, order); }
    bool compare_exchange_strong(T& expected, T desired, std::memory_order order = std::memory_order_seq_cst) noexcept {
        return schedules::compare_exchange(value_, expected, desired, order, schedules::on_failure(order), false);
    }
    bool compare_exchange_weak(T& expected, T desired, std::memory_order success, std::memory_order failure) noexcept {
        return schedules::compare_exchange(value_, expected, desired, success, failure, true);
    }

private:
    T value_{};
};
static_assert(sizeof(Atomic<std::uint64_t>) == 8 && alignof(Atomic<std::uint64_t>) == 8);
static_assert(sizeof(Atomic<std::uint32_t>) == 4 && alignof(Atomic<std::uint32_t>) == 4);

template <class T>
class AtomicRef {
public:
    static constexpr bool is_always_lock_free = true;

    explicit AtomicRef(T& value) noexcept : value_(&value) {}
    T load(std::memory_order order) const noexcept { return schedules::load(*value_, order); }
    void store(T value, std::memory_order order) const noexcept { schedules::store(*value_, value, order); }

private:
    T* value_;
};

inline void plain_read(const void* at, std::size_t bytes) {
    if (schedules::scheduler.inside()) schedules::memory.plain_read(schedules::scheduler.current(), at, bytes);
}
inline void plain_write(const void* at, std::size_t bytes) {
    if (schedules::scheduler.inside()) schedules::memory.plain_write(schedules::scheduler.current(), at, bytes);
}

}  // namespace fastac
