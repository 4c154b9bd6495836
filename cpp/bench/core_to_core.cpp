// What the machine takes to move an update between two cores (the first two that this process may run on), without anything of
// ours: the bound of A3C's scaling, whose every update reads the record that the other worker wrote and writes one that the other
// worker read.
//
//     core_to_core [kilobytes, 37: parameters and optimizer state of the default net] [repetitions, 2000]
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include <sched.h>

namespace {

using Clock = std::chrono::steady_clock;

double us_since(Clock::time_point begin) { return std::chrono::duration<double, std::micro>(Clock::now() - begin).count(); }

double median(std::vector<double>& of) {
    std::nth_element(of.begin(), of.begin() + static_cast<std::ptrdiff_t>(of.size() / 2), of.end());
    return of[of.size() / 2];
}

/// Ties the caller to the n-th core of the process, the last where there are fewer.
void pin(int n) {
    static const cpu_set_t allowed = [] {
        cpu_set_t set;
        sched_getaffinity(0, sizeof set, &set);
        return set;
    }();
    cpu_set_t one;
    CPU_ZERO(&one);
    int last = 0;
    for (int cpu = 0; cpu < CPU_SETSIZE && n >= 0; ++cpu)
        if (CPU_ISSET(cpu, &allowed)) last = cpu, --n;
    CPU_SET(last, &one);
    sched_setaffinity(0, sizeof one, &one);
}

/// Two threads take turns: one writes all of `shared`, the other copies it out. Both wait without sleep.
struct Turns {
    Turns(std::size_t floats, std::size_t times) : shared(floats), mine(floats), written(times), read(times) {}

    double write(std::size_t i) {
        const Clock::time_point begin = Clock::now();
        std::fill(shared.begin(), shared.end(), static_cast<float>(i));
        return us_since(begin);
    }
    double copy() {
        const Clock::time_point begin = Clock::now();
        std::copy(shared.begin(), shared.end(), mine.begin());
        return us_since(begin);
    }

    /// By one thread: what is in its own cache.
    void alone() {
        for (std::size_t i = 0; i < written.size(); ++i) {
            written[i] = write(i);
            read[i] = copy();
        }
    }

    void run() {
        pin(0);
        std::thread reader([this] {
            pin(1);
            for (double& us : read) {
                while (turn.load(std::memory_order_acquire) != 1) {}
                us = copy();
                turn.store(0, std::memory_order_release);
            }
        });
        for (std::size_t i = 0; i < written.size(); ++i) {
            written[i] = write(i);
            turn.store(1, std::memory_order_release);
            while (turn.load(std::memory_order_acquire) != 0) {}
        }
        reader.join();
    }

    std::vector<float> shared, mine;
    std::vector<double> written, read;
    alignas(128) std::atomic<int> turn{0};
};

}  // namespace

int main(int argc, char** argv) {
    const std::size_t kilobytes = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 37, times = argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 2000;
    if (kilobytes == 0 || times == 0) return std::fputs("core_to_core [kilobytes >= 1] [repetitions >= 1]\n", stderr), 2;
    Turns turns(kilobytes * 1000 / sizeof(float), times);
    turns.alone();
    std::printf("%zu kB, own cache:             read %5.2f us, written %5.2f us (medians)\n", kilobytes, median(turns.read), median(turns.written));
    turns.run();
    std::printf("%zu kB, the other core's cache: read %5.2f us, written %5.2f us\n", kilobytes, median(turns.read), median(turns.written));
}
