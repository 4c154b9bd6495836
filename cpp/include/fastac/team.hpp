// Threads that do one thing together, stage by stage: how the members of a worker share its batch (worker.hpp).
// They live for one call only, so nothing is left of them for a fork, a copy or a signal to meet.
#pragma once

#include <sched.h>

#include <cstddef>
#include <cstdint>
#include <exception>
#include <thread>
#include <vector>

#include "fastac/atomics.hpp"
#include "fastac/wait.hpp"

namespace fastac {

/// Where the members of a team wait for each other.
///
/// Who may call: `meet` each member, one thread each; `dismiss` anybody, at any time.
/// What may wait: `meet`, until all others have come or the team is dismissed. It has no deadline: members are threads of one
///   process and one call, which cannot die alone, and one that fails dismisses the others.
/// It spins, as a stage takes microseconds, and soon yields, as there may be fewer cores than members; or, if waits are long
///   (`sleeps`), soon sleeps, and costs no processor time.
class Barrier {
public:
    explicit Barrier(std::size_t members, bool sleeps = false) noexcept : members_(static_cast<std::uint32_t>(members)), sleeps_(sleeps) {}

    /// Waits for all; whether they came. What each did before is seen by each after.
    bool meet() noexcept {
        const std::uint32_t seen = meetings_.load(std::memory_order_relaxed);  // cannot go on without us
        // Acquires what those before us released, and hands it on to who comes after.
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == members_) {
            arrived_.store(0, std::memory_order_relaxed);
            meetings_.store(seen + 1, std::memory_order_release);  // pairs with the acquire load below
            wake();
            return true;
        }
        for (std::uint32_t looks = 0; meetings_.load(std::memory_order_acquire) == seen; ++looks) {
            if (dismissed()) return meetings_.load(std::memory_order_acquire) != seen;  // who dismissed it may have met us first
            if (looks < spins) pause();
            else if (sleeps_) sleep(seen);
            else sched_yield();
        }
        return true;
    }

    /// The end of the team: who waits, or comes later, leaves.
    void dismiss() noexcept {
        dismissed_.store(1, std::memory_order_release);
        wake();
    }

    [[nodiscard]] bool dismissed() const noexcept { return dismissed_.load(std::memory_order_acquire) != 0; }

private:
    static constexpr std::uint32_t spins = 500;  // some microseconds

    static void pause() noexcept {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }

    // The exchanges in `sleep` and `wake` are in one order. If that of `wake` is the later one, it sees who sleeps; if it is the
    // earlier one, what came before it is seen by who is about to sleep, whom the kernel then sends back at once, as the
    // meeting is another one. A dismissal changes no meeting: one that comes just then is seen after the poll.
    void sleep(std::uint32_t seen) noexcept {
        sleepers_.exchange(1, std::memory_order_acq_rel);
        futex_wait(meetings_, seen, Clock::now() + poll_interval);
    }

    void wake() noexcept {
        if (sleeps_ && sleepers_.exchange(0, std::memory_order_acq_rel) != 0) futex_wake_all(meetings_);
    }

    const std::uint32_t members_;
    const bool sleeps_;
    alignas(64) Atomic<std::uint32_t> arrived_{0};
    alignas(64) Atomic<std::uint32_t> meetings_{0};
    Atomic<std::uint32_t> dismissed_{0};
    alignas(64) Atomic<std::uint32_t> sleepers_{0};  // whether there are any
};

/// Calls work(barrier, m) for each m < members at the same time, that of member 0 in the caller's thread. The first member
/// that comes to its end dismisses the others. Throws what a member threw, or std::system_error where a thread cannot start.
template <class Work>
void together(std::size_t members, Work work, bool sleeps = false) {
    Barrier barrier(members, sleeps);
    std::vector<std::exception_ptr> failures(members);
    const auto take_part = [&](std::size_t m) noexcept {
        try {
            work(barrier, m);
        } catch (...) {
            failures[m] = std::current_exception();
        }
        barrier.dismiss();
    };
    {
        std::vector<std::jthread> others;  // joined at the end of this scope
        try {
            others.reserve(members - 1);
            for (std::size_t m = 1; m < members; ++m) others.emplace_back(take_part, m);
        } catch (...) {
            barrier.dismiss();
            throw;
        }
        take_part(0);
    }
    for (const std::exception_ptr& failure : failures)
        if (failure) std::rethrow_exception(failure);
}

}  // namespace fastac
