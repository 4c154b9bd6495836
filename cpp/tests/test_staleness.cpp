// The staleness of each gradient, and each worker's histogram of it: by hand, over deaths, and in threads.
#include <limits>
#include <numeric>

#include "harness.hpp"

using namespace fastac;
using enum UpdateScheme;
using harness::all_schemes;
using harness::tag;

namespace {

static_assert(staleness_bucket(0) == 0 && staleness_bucket(47) == 47);
static_assert(staleness_bucket(48) == 48 && staleness_bucket(63) == 48 && staleness_bucket(64) == 49 && staleness_bucket(95) == 49);
static_assert(staleness_bucket(96) == 50 && staleness_bucket(127) == 50 && staleness_bucket(128) == 51);
static_assert(staleness_bucket(8191) == 62 && staleness_bucket(8192) == 63 && staleness_bucket(UINT64_MAX) == 63);
static_assert(staleness_from(47) == 47 && staleness_from(48) == 48 && staleness_from(49) == 64 && staleness_from(50) == 96 && staleness_from(63) == 8192);

void buckets_follow_each_other() {
    for (std::size_t k = 0; k < staleness_buckets; ++k) {
        CHECK_EQ(staleness_bucket(staleness_from(k)), k);
        if (k > 0) CHECK_EQ(staleness_bucket(staleness_from(k) - 1), k - 1);
    }
}

std::uint64_t counted(const Counts& counts) { return std::accumulate(std::begin(counts.staleness), std::end(counts.staleness), std::uint64_t{0}); }

/// One worker, three gradients from older and older parameters: told, summed up, and in their buckets.
void one_worker_by_hand() {
    for (const UpdateScheme scheme : all_schemes) {
        const SharedRegion region = harness::region(harness::config(1, 1, scheme));
        const harness::Learner learner(region);
        Session worker(region, 0);
        worker.initialize(std::vector<float>{0.0F}, {}, 10'000);
        const std::vector<float> g{1.0F};
        for (const std::uint64_t behind : {0U, 47U, 90U, 9'000U}) {
            std::vector<float> p(1);
            const std::uint64_t now = worker.read(p).version;
            CHECK(worker.submit(g, tag(now - behind)) == Submitted::applied);
            CHECK_EQ(worker.staleness(), behind);
        }
        const Ledger l = worker.ledger();
        harness::check_ledger(l, 10'000);
        const Tally its = worker.tally(0);
        for (const Counts& counts : {l.at.counts, its.counts}) {
            CHECK_EQ(counts.applied, 4U);
            CHECK_EQ(counts.staleness[0], 1U);
            CHECK_EQ(counts.staleness[47], 1U);
            CHECK_EQ(counts.staleness[49], 1U);
            CHECK_EQ(counts.staleness[63], 1U);
            CHECK_EQ(counts.staleness_sum, 9'137U);
            CHECK_EQ(counts.staleness_max, 9'000U);
        }
        CHECK_EQ(its.env_steps, 20U);
    }
}

/// A helper commits worker 1's gradient: its staleness is told to worker 1 all the same. What is rejected is no update of anybody.
void whoever_commits() {
    RegionConfig c = harness::config(2, 1);
    c.max_staleness = 1;
    const SharedRegion region = harness::region(c);
    Session a(region, 0), b(region, 1);
    const std::vector<float> g{1.0F};
    const auto sequence = b.push(g, tag(0));
    CHECK(a.submit(g, tag(0)) == Submitted::applied);  // with b's behind it, which so comes one update late
    CHECK_EQ(a.staleness(), 0U);
    CHECK(b.settle(sequence.value()));
    CHECK_EQ(b.staleness(), 1U);
    CHECK(b.submit(g, tag(0)) == Submitted::rejected_stale);
    CHECK(b.submit(std::vector<float>{std::numeric_limits<float>::quiet_NaN()}, tag(2)) == Submitted::rejected_nonfinite);
    const Tally its = a.tally(1);
    CHECK_EQ(its.counts.applied, 1U);
    CHECK_EQ(its.counts.rejected_stale, 1U);
    CHECK_EQ(its.counts.rejected_nonfinite, 1U);
    CHECK_EQ(its.counts.staleness[1], 1U);
    CHECK_EQ(counted(its.counts), 1U);
    CHECK_EQ(its.env_steps, 15U);
}

/// What a killed worker had published counts at its place, whether its successor looks first or the parent.
void a_dead_worker_leaves_its_last() {
    const SharedRegion region = harness::region(harness::config(2, 1));
    Session a(region, 0), observer(region, 2);
    const std::vector<float> g{1.0F};
    for (const bool has_heir : {true, false}) {
        const std::uint64_t before = observer.tally(1).counts.applied, version = observer.snapshot().version;
        {
            Session dies(region, 1);
            CHECK(dies.submit(g, tag(version)) == Submitted::applied);
            CHECK(dies.push(g, tag(version + 1)));
        }
        CHECK(a.submit(g, tag(version + 1)) == Submitted::applied);  // applies that push, too, as the second
        if (has_heir) {
            const Session heir(region, 1);
            CHECK_EQ(region.worker(1).staleness_counted.load(), before + 2);
        }
        const Tally its = observer.tally(1);
        CHECK_EQ(its.counts.applied, before + 2);
        CHECK_EQ(counted(its.counts), before + 2);
        CHECK_EQ(its.counts.staleness[1], before / 2 + 1);
    }
}

/// Killed between the two stores of a count: that one is missing, and shows, and is never counted twice.
void killed_while_it_counts() {
    const SharedRegion region = harness::region(harness::config(1, 1));
    const std::vector<float> g{1.0F};
    {
        Session dies(region, 0);
        CHECK(dies.submit(g, tag(0)) == Submitted::applied);
        region.worker(0).staleness[0].store(0);
    }
    Session heir(region, 0);
    CHECK(heir.submit(g, tag(1)) == Submitted::applied);
    const Tally its = heir.tally(0);
    CHECK_EQ(its.counts.applied, 2U);
    CHECK_EQ(counted(its.counts), 1U);
}

/// The workers' tallies add up to the run's counts, bucket by bucket.
void the_tallies_are_the_whole() {
    constexpr std::size_t workers = 4, updates = 2'000 / harness::shorter;
    for (const UpdateScheme scheme : all_schemes) {
        const SharedRegion region = harness::region(harness::config(workers, 3, scheme));
        const harness::Learner learner(region);
        std::uint64_t told[workers] = {};
        harness::together(workers, [&](std::size_t w) {
            Session session(region, w);
            std::vector<float> p(3);
            for (std::size_t i = 0; i < updates; ++i) {
                const std::uint64_t version = session.read(p).version;
                CHECK(session.submit(std::vector<float>(3, 1.0F), tag(version)) == Submitted::applied);
                told[w] += session.staleness();
            }
        });
        Session observer(region, workers);
        const Ledger l = observer.ledger();
        Counts sum{};
        for (std::size_t w = 0; w < workers; ++w) {
            const Tally its = observer.tally(w);
            CHECK_EQ(its.counts.applied, updates);
            CHECK_EQ(its.counts.staleness_sum, told[w]);
            CHECK_EQ(its.env_steps, 5 * updates);
            sum.staleness_sum += its.counts.staleness_sum;
            for (std::size_t k = 0; k < staleness_buckets; ++k) sum.staleness[k] += its.counts.staleness[k];
        }
        CHECK_EQ(counted(sum), workers * updates);
        CHECK_EQ(sum.staleness_sum, l.at.counts.staleness_sum);
        for (std::size_t k = 0; k < staleness_buckets; ++k) CHECK_EQ(sum.staleness[k], l.at.counts.staleness[k]);
    }
}

}  // namespace

int main() {
    buckets_follow_each_other();
    one_worker_by_hand();
    whoever_commits();
    a_dead_worker_leaves_its_last();
    killed_while_it_counts();
    the_tallies_are_the_whole();
    return check_result();
}
