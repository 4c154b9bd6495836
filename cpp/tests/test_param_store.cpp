// param_store.hpp: one record becomes current at a time, and none is written while somebody may read it.
#include "fastac/param_store.hpp"

#include <set>

#include "harness.hpp"

using namespace fastac;

namespace {

/// Builds a record of this version whose parameters all equal it, and tries to make it current.
bool commit_uniform(const SharedRegion& region, ParamStore& store, std::uint64_t base, std::uint64_t version) {
    const std::uint32_t r = store.claim();
    region.record(r).version = version;
    for (std::size_t i = 0; i < region.layout().parameters; ++i) region.vectors(r).params[i] = static_cast<float>(version);
    return store.commit(base);
}

std::uint64_t version_of(std::uint64_t word) { return word >> 16; }

bool uniform(const SharedRegion& region, std::uint64_t word) {
    const std::uint32_t r = ParamStore::record_of(word);
    bool same = region.record(r).version == version_of(word);
    for (std::size_t i = 0; i < region.layout().parameters; ++i) same &= region.vectors(r).params[i] == static_cast<float>(version_of(word));
    return same;
}

void one_after_the_other() {
    const SharedRegion region = harness::region(harness::config(1, 3));
    ParamStore store(region, 0);
    const std::uint64_t base = store.protect();
    CHECK_EQ(base, 0U);  // version 0, record 0
    const std::uint32_t claimed = store.claim();
    CHECK(claimed != 0U);
    CHECK_EQ(store.claim(), claimed);  // still ours: nothing more is taken
    CHECK_EQ(region.owner(claimed).load(), 1U);
    CHECK(commit_uniform(region, store, base, 7));
    CHECK(!store.is_current(base));
    CHECK_EQ(region.owner(claimed).load(), 0U);
    const std::uint64_t now = store.protect();
    CHECK_EQ(now, ParamStore::pack(7, claimed));
    CHECK(uniform(region, now));
    store.unprotect();
    CHECK_EQ(region.seat(0).hazard.load(), 0U);
}

void stale_commit_fails() {
    const SharedRegion region = harness::region(harness::config(2, 3));
    ParamStore a(region, 0), b(region, 1);
    const std::uint64_t base = a.protect();
    CHECK_EQ(b.protect(), base);
    CHECK(commit_uniform(region, b, base, 1));
    const std::uint64_t current = b.protect();
    CHECK(!commit_uniform(region, a, base, 1));
    CHECK(b.is_current(current));                    // a's record has not become current ...
    CHECK(commit_uniform(region, a, a.protect(), 2));  // ... and is still a's, to try again with
    CHECK_EQ(version_of(a.protect()), 2U);
    CHECK(uniform(region, a.protect()));
}

/// Commits of the same version (only rejected gradients) must not make an old base look current again.
void same_version_is_another_word() {
    const SharedRegion region = harness::region(harness::config(2, 1));
    ParamStore slow(region, 0), fast(region, 1);
    const std::uint64_t base = slow.protect();
    for (std::size_t i = 0; i < 4 * region.layout().records; ++i) {
        CHECK(commit_uniform(region, fast, fast.protect(), 0));
        CHECK(!slow.is_current(base));
    }
    CHECK(!commit_uniform(region, slow, base, 1));
}

/// A record that is read stays as it is, however often others commit meanwhile.
void protected_records_are_left_alone() {
    const SharedRegion region = harness::region(harness::config(2, 5));
    ParamStore reader(region, 0), writer(region, 1);
    CHECK(commit_uniform(region, writer, writer.protect(), 1));
    const std::uint64_t seen = reader.protect();
    for (std::uint64_t v = 2; v < 2 + 4 * region.layout().records; ++v) {
        CHECK(commit_uniform(region, writer, writer.protect(), v));
        CHECK(uniform(region, seen));
    }
    reader.unprotect();
    std::set<std::uint32_t> claimed;  // free again: the pool goes round
    for (std::uint64_t v = 100; v < 100 + 4 * region.layout().records; ++v) {
        CHECK(commit_uniform(region, writer, writer.protect(), v));
        claimed.insert(ParamStore::record_of(writer.protect()));
    }
    CHECK(claimed.contains(ParamStore::record_of(seen)));
}

/// The worst case: every seat protects a record of its own and owns another. The last claim must still find one;
/// where the pool is too small it never returns, and the test runs into its timeout.
void pool_never_runs_dry() {
    for (const std::uint32_t w : {1U, 2U, 5U, max_workers}) {
        const SharedRegion region = harness::region(harness::config(w, 1));
        std::vector<ParamStore> seats;
        for (std::size_t s = 0; s < region.layout().seats; ++s) seats.emplace_back(region, s);
        std::set<std::uint32_t> held;
        for (std::size_t s = 0; s < seats.size(); ++s) {
            const std::uint64_t base = seats[s].protect();
            held.insert(ParamStore::record_of(base));
            CHECK(commit_uniform(region, seats[s], base, s + 1));
        }
        for (ParamStore& seat : seats) held.insert(seat.claim());
        held.insert(ParamStore::record_of(region.control().current.load()));
        CHECK_EQ(held.size(), 2 * seats.size() + 1);  // all different
        // All seats but the last die as they are; it goes on alone, for ever.
        for (std::uint64_t v = 1000; v < 1000 + 3 * region.layout().records; ++v) {
            const std::uint64_t base = seats.back().protect();
            CHECK(uniform(region, base));
            CHECK(commit_uniform(region, seats.back(), base, v));
        }
        // The parent takes back what they held.
        for (std::size_t s = 0; s < seats.size(); ++s) ParamStore::vacate(region, s);
        for (std::size_t r = 0; r < region.layout().records; ++r) CHECK_EQ(region.owner(r).load(), 0U);
        for (std::size_t s = 0; s < seats.size(); ++s) CHECK_EQ(region.seat(s).hazard.load(), 0U);
    }
}

/// Everybody reads and commits at once: each record that is seen is whole, each commit follows the one before.
void whole_under_contention() {
    constexpr std::uint32_t w = 4;
    const std::uint64_t n = static_cast<std::uint64_t>(200'000 / harness::shorter);
    const SharedRegion region = harness::region(harness::config(w, 33));
    std::atomic<std::uint64_t> commits{0};
    harness::together(w, [&](std::size_t s) {
        ParamStore store(region, s);
        std::uint64_t done = 0;
        for (std::uint64_t i = 0; i < n; ++i) {
            const std::uint64_t base = store.protect();
            CHECK(uniform(region, base));
            done += commit_uniform(region, store, base, version_of(base) + 1) ? 1U : 0U;
            CHECK(uniform(region, base));  // still protected, though no longer current
        }
        store.unprotect();
        commits += done;
    });
    CHECK_EQ(version_of(region.control().current.load()), commits.load());
    CHECK(commits.load() >= n);
}

}  // namespace

int main() {
    one_after_the_other();
    stale_commit_fails();
    same_version_is_another_word();
    protected_records_are_left_alone();
    pool_never_runs_dry();
    whole_under_contention();
    return check_result();
}
