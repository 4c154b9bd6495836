// The two ways of waiting that shared memory allows, each with a deadline: a futex word and a robust mutex.
// Only the schemes `lock` and `queue` come here, and a team whose members pause (team.hpp); no wait of any kind is on the path of
// an update of `lockfree` or `hogwild`.
#pragma once

#include <linux/futex.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>

#include "fastac/atomics.hpp"

#if defined(__SANITIZE_THREAD__)
#define FASTAC_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define FASTAC_TSAN 1
#endif
#endif
#ifdef FASTAC_TSAN
#include <sanitizer/tsan_interface.h>
#endif

namespace fastac {

using Clock = std::chrono::steady_clock;

/// A wait ended at its deadline. The message says who waited for what.
struct WaitTimeout : std::runtime_error {
    using std::runtime_error::runtime_error;
};

inline constexpr std::chrono::milliseconds poll_interval{50};  // how soon a sleeper notices that the run was stopped

/// How long a wait in polls may still last. Only time that was there to wait counts: after Ctrl-Z and fg, or a night in
/// which the machine slept, whom we wait for has been away as long as we.
class Patience {
public:
    explicit Patience(Clock::duration deadline) noexcept : left_(deadline) {}

    /// After each poll: whether it was the last.
    [[nodiscard]] bool ends() noexcept {
        const auto now = Clock::now();
        left_ -= std::min<Clock::duration>(now - std::exchange(looked_, now), 2 * poll_interval);
        return left_ <= Clock::duration::zero();
    }

private:
    Clock::duration left_;
    Clock::time_point looked_ = Clock::now();
};

/// Sleeps while `word` holds `seen`, until woken or `until`. May return early for no reason, as every futex does.
inline void futex_wait(const Atomic<std::uint32_t>& word, std::uint32_t seen, Clock::time_point until) noexcept {
    const auto left = std::max(until - Clock::now(), Clock::duration::zero());
    const auto s = std::chrono::duration_cast<std::chrono::seconds>(left);
    const timespec timeout{static_cast<time_t>(s.count()),
                           static_cast<long>(std::chrono::duration_cast<std::chrono::nanoseconds>(left - s).count())};
    // Without FUTEX_PRIVATE_FLAG: sleeper and waker may be different processes.
    syscall(SYS_futex, reinterpret_cast<const std::uint32_t*>(&word), FUTEX_WAIT, seen, &timeout, nullptr, 0);
}

inline void futex_wake_all(const Atomic<std::uint32_t>& word) noexcept {
    syscall(SYS_futex, reinterpret_cast<const std::uint32_t*>(&word), FUTEX_WAKE, INT32_MAX, nullptr, nullptr, 0);
}

/// A mutex between processes that outlives its holder: when the holder dies, the next one gets it. What it
/// guards must be whole at every instant, which here it is: the holder only ever publishes a finished record.
class RobustMutex {
public:
    /// Called once, by the process that creates the region.
    void initialize() {
        pthread_mutexattr_t attr;
        pthread_mutexattr_init(&attr);
        pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
        pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
        const int error = pthread_mutex_init(&mutex_, &attr);
        pthread_mutexattr_destroy(&attr);
        if (error != 0) throw std::runtime_error("pthread_mutex_init failed with error " + std::to_string(error));
    }

    /// True: locked. False: not locked within `for_at_most`.
    [[nodiscard]] bool try_lock_for(std::chrono::milliseconds for_at_most) {
        timespec at{};
        clock_gettime(clock, &at);
        const std::int64_t ns = at.tv_nsec + std::chrono::nanoseconds(for_at_most).count();
        at.tv_sec += static_cast<time_t>(ns / 1'000'000'000);
        at.tv_nsec = static_cast<long>(ns % 1'000'000'000);
        const int error = lock_until(at);
        if (error == ETIMEDOUT) return false;
        if (error == EOWNERDEAD) {
#ifdef FASTAC_TSAN
            // ThreadSanitizer knows of pthread_mutex_lock that EOWNERDEAD means locked, of the timed form it does not.
            __tsan_mutex_pre_lock(&mutex_, __tsan_mutex_not_static);
            __tsan_mutex_post_lock(&mutex_, __tsan_mutex_not_static, 0);
#endif
            pthread_mutex_consistent(&mutex_);
            return true;
        }
        if (error != 0) throw std::runtime_error("locking a robust mutex failed with error " + std::to_string(error));
        return true;
    }

    void unlock() noexcept { pthread_mutex_unlock(&mutex_); }

private:
#if defined(__GLIBC__) && !defined(FASTAC_TSAN)
#if __GLIBC_PREREQ(2, 30)
#define FASTAC_CLOCKLOCK 1
#endif
#endif
#ifdef FASTAC_CLOCKLOCK
    static constexpr clockid_t clock = CLOCK_MONOTONIC;
    int lock_until(const timespec& at) { return pthread_mutex_clocklock(&mutex_, clock, &at); }
#else
    // Older C libraries and musl have the timed form alone, and older ThreadSanitizers know no other and report every unlock. Where
    // somebody sets the clock back during a wait, it ends late, by as much, if the mutex does not come free before.
    static constexpr clockid_t clock = CLOCK_REALTIME;
    int lock_until(const timespec& at) { return pthread_mutex_timedlock(&mutex_, &at); }
#endif

    pthread_mutex_t mutex_;
};

}  // namespace fastac
