// The shared core under many deterministic schedules: see scheduled_atomics.hpp for the memory, scenario.hpp for what is drawn.
//
//   gate_schedules [N=100000] [first_seed=0]   runs N schedules; the first that breaks a rule ends it, with its seed
//   gate_schedules --seed S                    runs one and prints every step of it
#include <sys/syscall.h>

#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "schedule.hpp"

namespace {
std::uint64_t running_seed = 0;
const schedules::Schedule* running = nullptr;

std::string with_commas(std::uint64_t n) {
    const std::string digits = std::to_string(n);
    std::string text;
    for (std::size_t i = 0; i < digits.size(); ++i) {
        if (i > 0 && (digits.size() - i) % 3 == 0) text += ',';
        text += digits[i];
    }
    return text;
}

void run_one(std::uint64_t seed) {
    running_seed = seed;
    schedules::Schedule schedule(seed);
    running = &schedule;
    schedule.run();
    running = nullptr;
}
}  // namespace

void schedules::violated(const std::string& what) {
    std::printf("seed %llu: %s\n  %s\n  step %llu, fiber %zu; every step: gate_schedules --seed %llu\n", static_cast<unsigned long long>(running_seed), what.c_str(),
                Scenario::draw(running_seed).describe().c_str(), static_cast<unsigned long long>(scheduler.steps()), scheduler.current(),
                static_cast<unsigned long long>(running_seed));
    std::fflush(stdout);
    std::_Exit(1);
}

std::string schedules::name_of(std::size_t offset) {
    const fastac::Layout& layout = running->region().layout();
    const auto numbered = [](const char* what, std::size_t i, std::size_t rest) { return std::string(what) + " " + std::to_string(i) + " +" + std::to_string(rest); };
    const auto in = [&](std::size_t first, std::size_t stride, const char* what) { return numbered(what, (offset - first) / stride, (offset - first) % stride); };
    if (offset >= layout.log_blocks) return in(layout.log_blocks, layout.log_rows * fastac::log_columns * sizeof(double), "log");
    if (offset >= layout.ring_blocks) return in(layout.ring_blocks, layout.slot_stride, "slot");
    if (offset >= layout.record_blocks) return in(layout.record_blocks, layout.record_stride, "record");
    if (offset >= layout.canary_words) return in(layout.canary_words, sizeof(std::uint64_t), "canary");
    if (offset >= layout.owner_words) return in(layout.owner_words, sizeof(std::uint32_t), "owner");
    if (offset >= layout.seat_blocks) return in(layout.seat_blocks, sizeof(fastac::Seat), "seat");
    if (offset >= layout.worker_blocks) return in(layout.worker_blocks, sizeof(fastac::WorkerBlock), "worker");
    return in(layout.control, sizeof(fastac::Control), "control");
}

/// In place of the kernel's futex, the only system call that the core makes by its number.
extern "C" long syscall(long number, ...) noexcept {
    if (number != SYS_futex) std::abort();
    std::va_list arguments;
    va_start(arguments, number);
    const void* word = va_arg(arguments, const void*);
    const int operation = va_arg(arguments, int);
    const std::uint32_t seen = va_arg(arguments, std::uint32_t);
    va_end(arguments);
    std::uint32_t now;
    std::memcpy(&now, word, sizeof now);
    if (!schedules::scheduler.inside()) return 0;
    if (operation == FUTEX_WAKE) schedules::scheduler.wake_at(word);
    else if (now == seen) schedules::scheduler.sleep_at(word);
    return 0;
}

int main(int argc, char** argv) {
    if (argc == 3 && std::strcmp(argv[1], "--seed") == 0) {
        schedules::tracing = true;
        run_one(std::strtoull(argv[2], nullptr, 10));
        return 0;
    }
    const std::uint64_t n = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 100'000;
    const std::uint64_t first = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 0;
    for (std::uint64_t seed = first; seed - first < n; ++seed) run_one(seed);
    std::printf("schedules: %s schedules (2 to 4 workers, %s crashes, %s stale loads served), counters about to wrap: 0 violations\n", with_commas(n).c_str(),
                with_commas(schedules::scheduler.crashes).c_str(), with_commas(schedules::memory.stale_loads).c_str());
    return 0;
}
