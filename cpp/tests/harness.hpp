// What the tests of the shared core have in common: small regions, threads that start together, child processes.
#pragma once

#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <barrier>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <thread>
#include <vector>

#include "check.hpp"
#include "fastac/updates.hpp"

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define FASTAC_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define FASTAC_SANITIZED 1
#endif
#endif

namespace harness {
#ifdef FASTAC_SANITIZED
inline constexpr int shorter = 8;  // a sanitized step costs so many times a plain one
#else
inline constexpr int shorter = 1;
#endif

inline constexpr std::uint64_t nonce = 0x5eed;

/// Whether a mutex comes free when its holder is killed. Linux does it; qemu, which plays it to a single program, does not.
inline bool has_robust_mutexes() {
    void* list = nullptr;
    std::size_t bytes = 0;
    return syscall(SYS_get_robust_list, 0, &list, &bytes) == 0;
}

inline fastac::RegionConfig config(std::uint32_t workers, std::uint32_t parameters, fastac::UpdateScheme scheme = fastac::UpdateScheme::lockfree,
                                   fastac::OptimizerKind kind = fastac::OptimizerKind::sgd) {
    fastac::RegionConfig c;
    c.workers = workers;
    c.parameters = parameters;
    c.scheme = scheme;
    c.log_rows = 4;
    c.optimizer.kind = kind;
    return c;
}

inline fastac::SharedRegion region(const fastac::RegionConfig& c) { return fastac::SharedRegion::create(c, nonce); }

inline constexpr fastac::UpdateScheme all_schemes[] = {fastac::UpdateScheme::lockfree, fastac::UpdateScheme::lock, fastac::UpdateScheme::queue,
                                                       fastac::UpdateScheme::hogwild};

/// Of five env steps.
inline fastac::GradientTag tag(std::uint64_t version_read, double learning_rate = 1.0, std::uint32_t n_summed = 1) {
    return {version_read, 5, learning_rate, n_summed, false, false};
}

/// Runs body(0) .. body(n - 1) in threads that start together: started one after the other they would hide a race.
inline void together(std::size_t n, const std::function<void(std::size_t)>& body) {
    std::barrier start(static_cast<std::ptrdiff_t>(n));
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < n; ++i)
        threads.emplace_back([&, i] {
            start.arrive_and_wait();
            body(i);
        });
    for (std::thread& t : threads) t.join();
}

/// The learner of `queue`, in a thread of its own for as long as this lives; under the other schemes nobody.
class Learner {
public:
    explicit Learner(const fastac::SharedRegion& region) : session_(region, region.layout().workers + 1) {
        if (region.config().scheme == fastac::UpdateScheme::queue)
            thread_ = std::thread([this] {
                while (!done_.load()) session_.serve(std::chrono::milliseconds(20));
            });
    }
    ~Learner() {
        done_.store(true);
        if (thread_.joinable()) thread_.join();
    }

private:
    fastac::Session session_;
    std::atomic<bool> done_{false};
    std::thread thread_;
};

/// A child process that runs body and leaves with the number of its failed checks. Call while no thread runs.
inline pid_t child(const std::function<void()>& body) {
    const pid_t pid = fork();
    if (pid != 0) return pid;
    check::failures = 0;
    try {
        body();
    } catch (const std::exception& e) {  // it must not unwind what is the parent's
        check::fail(e.what(), __FILE__, __LINE__);
    }
    _exit(check::failures.load() == 0 ? 0 : 1);
}

/// Waits for a child; its wait status.
inline int join(pid_t pid) {
    int status = 0;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    return status;
}

inline bool exited_well(int status) { return WIFEXITED(status) && WEXITSTATUS(status) == 0; }

/// Waits until `reached` holds, for at most 20 s: so long only where it never will.
inline bool eventually(const std::function<bool()>& reached) {
    for (const auto until = fastac::Clock::now() + std::chrono::seconds(20); fastac::Clock::now() < until;) {
        if (reached()) return true;
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return reached();
}

/// What must hold of any run once its workers have left.
inline void check_ledger(const fastac::Ledger& l, std::uint64_t first_version = 0) {
    CHECK_EQ(l.begun, l.published + l.aborted);
    CHECK_EQ(l.published, consumed(l.at.counts) + l.pending);
    CHECK_EQ(l.at.version, first_version + l.at.counts.applied + l.at.counts.amended);
    std::uint64_t histogram = 0;
    for (const std::uint64_t n : l.at.counts.staleness) histogram += n;
    CHECK_EQ(histogram, l.at.counts.applied);
}
}  // namespace harness
