// The memory model itself, on the small programs that are known for each of its rules: what it must never show, and what
// it must show at some seed.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "scheduled_atomics.hpp"

namespace {

using schedules::memory;
using schedules::scheduler;

constexpr auto relaxed = std::memory_order_relaxed, acquire = std::memory_order_acquire, release = std::memory_order_release, acq_rel = std::memory_order_acq_rel,
               seq_cst = std::memory_order_seq_cst;

/// What all fibers share, and what they have read, a digit each.
struct alignas(64) Shared {
    fastac::Atomic<std::uint64_t> x, y;
    std::uint64_t read[4] = {};
};
using Program = std::vector<std::function<void(Shared&)>>;

std::set<std::string> outcomes(const Program& program, std::size_t digits) {
    std::set<std::string> seen;
    for (std::uint64_t seed = 0; seed < 4'000; ++seed) {
        Shared shared;
        memory.begin(&shared, sizeof shared, seed, 50, seed % 101);
        scheduler.begin({}, seed + 1);
        for (std::size_t i = 0; i < program.size(); ++i) {
            memory.begin_fiber(i, schedules::lanes);
            scheduler.start(i, {}, [&, i] { program[i](shared); });
        }
        scheduler.run();
        std::string outcome;
        for (std::size_t i = 0; i < digits; ++i) outcome += static_cast<char>('0' + shared.read[i]);
        seen.insert(outcome);
    }
    return seen;
}

int failures = 0;

void check(const char* name, const Program& program, const std::string& outcome, bool allowed) {
    if (outcomes(program, outcome.size()).contains(outcome) == allowed) return;
    ++failures;
    std::printf("%s: outcome %s is %s\n", name, outcome.c_str(), allowed ? "allowed and never seen" : "forbidden and seen");
}
void never(const char* name, const Program& program, const std::string& outcome) { check(name, program, outcome, false); }
void sometimes(const char* name, const Program& program, const std::string& outcome) { check(name, program, outcome, true); }

Program store_buffering(std::memory_order store, std::memory_order load) {
    return {[=](Shared& s) { s.x.store(1, store), s.read[0] = s.y.load(load); }, [=](Shared& s) { s.y.store(1, store), s.read[1] = s.x.load(load); }};
}
Program message_passing(std::memory_order store, std::memory_order load) {
    return {[=](Shared& s) { s.x.store(1, relaxed), s.y.store(1, store); }, [=](Shared& s) { s.read[0] = s.y.load(load), s.read[1] = s.x.load(relaxed); }};
}
/// In between another adds to the flag.
Program through_a_third(std::memory_order add) {
    return {[](Shared& s) { s.x.store(1, relaxed), s.y.store(1, release); }, [=](Shared& s) { s.y.fetch_add(1, add); },
            [](Shared& s) { s.read[0] = s.y.load(acquire), s.read[1] = s.x.load(relaxed); }};
}
/// In between the same one stores to the flag again, which since C++20 ends the release sequence.
const Program stored_again = {[](Shared& s) { s.x.store(1, relaxed), s.y.store(1, release), s.y.store(2, relaxed); },
                              [](Shared& s) { s.read[0] = s.y.load(acquire), s.read[1] = s.x.load(relaxed); }};
const Program coherence = {[](Shared& s) { s.x.store(1, relaxed), s.x.store(2, relaxed); },
                           [](Shared& s) { s.read[0] = s.x.load(relaxed), s.read[1] = s.x.load(relaxed); }};
/// What one has read, another who hears of it reads, or something newer.
const Program coherence_through_another = {[](Shared& s) { s.x.store(1, relaxed); }, [](Shared& s) { s.read[0] = s.x.load(relaxed), s.y.store(1, release); },
                                           [](Shared& s) { s.read[1] = s.y.load(acquire), s.read[2] = s.x.load(relaxed); }};
Program independent_reads(std::memory_order store, std::memory_order load) {
    return {[=](Shared& s) { s.x.store(1, store); }, [=](Shared& s) { s.y.store(1, store); }, [=](Shared& s) { s.read[0] = s.x.load(load), s.read[1] = s.y.load(load); },
            [=](Shared& s) { s.read[2] = s.y.load(load), s.read[3] = s.x.load(load); }};
}
/// A relaxed store after a seq_cst one may be seen first, even by who then makes a seq_cst load.
Program store_after(std::memory_order after) {
    return {[=](Shared& s) { s.x.store(1, seq_cst), s.y.store(1, after); }, [](Shared& s) { s.read[0] = s.y.load(relaxed), s.read[1] = s.x.load(seq_cst); }};
}
/// Who swaps first reads 0: one of the two fails, or none has seen the other.
Program two_swap(std::memory_order order) {
    const auto swap = [=](Shared& s, std::size_t i) {
        std::uint64_t free = 0;
        s.read[i] = s.x.compare_exchange_strong(free, 1, order) ? 1 : 0;
    };
    return {[=](Shared& s) { swap(s, 0); }, [=](Shared& s) { swap(s, 1); }};
}
/// A swap that fails has read an old value: neither the 2 that it expects nor the newest.
const Program stale_failure = {[](Shared& s) { s.x.store(1, relaxed), s.x.store(2, relaxed), s.y.store(1, relaxed); },
                               [](Shared& s) {
                                   s.read[0] = s.y.load(relaxed);
                                   std::uint64_t expected = 2;
                                   s.read[1] = s.x.compare_exchange_strong(expected, 3, acq_rel) ? 9 : expected;
                               }};

}  // namespace

void schedules::violated(const std::string& what) {
    std::printf("%s\n", what.c_str());
    std::exit(1);
}
std::string schedules::name_of(std::size_t offset) { return std::to_string(offset); }

int main() {
    never("store buffering, seq_cst", store_buffering(seq_cst, seq_cst), "00");
    sometimes("store buffering, acquire loads", store_buffering(seq_cst, acquire), "00");
    sometimes("store buffering, release stores", store_buffering(release, seq_cst), "00");
    never("message passing", message_passing(release, acquire), "10");
    sometimes("message passing, relaxed store", message_passing(relaxed, acquire), "10");
    sometimes("message passing, relaxed load", message_passing(release, relaxed), "10");
    never("release sequence", through_a_third(relaxed), "20");
    sometimes("release sequence not yet continued", through_a_third(relaxed), "10");
    sometimes("release sequence ended by a store", stored_again, "20");
    never("coherence", coherence, "21");
    never("coherence through another", coherence_through_another, "110");
    sometimes("coherence, nothing heard", coherence_through_another, "100");
    never("independent reads, seq_cst", independent_reads(seq_cst, seq_cst), "1010");
    sometimes("independent reads, acquire", independent_reads(release, acquire), "1010");
    sometimes("relaxed store after a seq_cst one", store_after(relaxed), "10");
    never("two swap", two_swap(relaxed), "11");
    sometimes("two swap", two_swap(relaxed), "01");
    sometimes("a swap fails by an old value", stale_failure, "11");
    std::printf("%d of the memory model's rules are broken\n", failures);
    return failures == 0 ? 0 : 1;
}
