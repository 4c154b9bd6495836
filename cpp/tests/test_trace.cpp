// The schedule of a run: complete, in order and true, in threads and in processes that are killed at any moment.
#include "fastac/trace.hpp"

#include <signal.h>

#include <algorithm>
#include <array>
#include <limits>
#include <mutex>
#include <random>

#include "harness.hpp"

using namespace fastac;
using enum UpdateScheme;

namespace {

constexpr UpdateScheme ordered[] = {lockfree, lock, queue};

/// Worker w's gradient: 1 at place w. So the parameters say how many of each worker's were applied.
std::vector<float> unit(std::size_t workers, std::size_t w) {
    std::vector<float> grad(workers, 0.0F);
    grad[w] = 1.0F;
    return grad;
}

RegionConfig recorded(std::uint32_t workers, UpdateScheme scheme, std::uint64_t entries) {
    RegionConfig c = harness::config(workers, workers, scheme);
    c.trace_entries = entries;
    c.wait_deadline_ms = 20'000;
    return c;
}

GradientTag tag_of(const Snapshot& read) { return {read.version, 5, 1.0, 1, false, false, consumed(read.counts)}; }

void check_entry(const TraceEntry& e, std::uint64_t read_at, std::uint32_t incarnation, std::uint16_t worker, TraceOutcome outcome) {
    CHECK_EQ(e.read_at, read_at);
    CHECK_EQ(e.incarnation, incarnation);
    CHECK_EQ(e.worker, worker);
    CHECK(e.outcome == outcome);
}

// ---- by hand --------------------------------------------------------------------------------------------

void by_hand() {
    RegionConfig c = recorded(2, lockfree, 8);
    c.max_staleness = 1;
    const SharedRegion region = harness::region(c);
    Session observer(region, 2);
    std::vector<float> p(2);
    {
        Session a(region, 0), b(region, 1);
        CHECK(observer.trace().empty());
        const Snapshot start = a.read(p);
        CHECK(b.push(unit(2, 1), tag_of(start)).has_value());
        CHECK(a.submit(unit(2, 0), tag_of(start)) == Submitted::applied);  // both, in one record
        CHECK_EQ(observer.trace().size(), 2U);                             // which nobody has built upon
        CHECK(a.submit({{std::numeric_limits<float>::infinity(), 0.0F}}, tag_of(a.read(p))) == Submitted::rejected_nonfinite);
        CHECK(b.submit(unit(2, 1), tag_of(start)) == Submitted::rejected_stale);
    }
    observer.reap(0);  // left in order: nothing to take back
    region.seat(0).taken.store(1);
    observer.reap(0);
    Session again(region, 0);
    CHECK(again.submit(unit(2, 0), tag_of(again.read(p))) == Submitted::applied);
    const std::vector<TraceEntry> all = observer.trace();
    CHECK_EQ(all.size(), 5U);
    if (all.size() != 5) return;
    check_entry(all[0], 0, 0, 0, TraceOutcome::applied);
    check_entry(all[1], 0, 0, 1, TraceOutcome::applied);
    check_entry(all[2], 2, 0, 0, TraceOutcome::rejected_nonfinite);
    check_entry(all[3], 0, 0, 1, TraceOutcome::rejected_stale);
    check_entry(all[4], 4, 1, 0, TraceOutcome::applied);
}

void too_long_is_an_error_not_a_gap() {
    const SharedRegion region = harness::region(recorded(1, lockfree, 3));
    Session worker(region, 0), observer(region, 1);
    std::vector<float> p(1);
    for (int k = 0; k < 4; ++k) CHECK(worker.submit(unit(1, 0), tag_of(worker.read(p))) == Submitted::applied);
    CHECK_EQ(observer.trace().size(), 4U);  // three, and that of the current record
    for (int k = 0; k < 3; ++k) CHECK(worker.submit(unit(1, 0), tag_of(worker.read(p))) == Submitted::applied);
    CHECK_THROWS(std::length_error, static_cast<void>(observer.trace()));
    CHECK_EQ(region.seat(1).hazard.load(), 0U);
    worker.read(p);
    CHECK_EQ(p[0], -7.0F);
}

void what_cannot_be_recorded() {
    CHECK_THROWS(std::invalid_argument, Layout(recorded(1, hogwild, 1)));
    CHECK_THROWS(std::invalid_argument, Layout(recorded(1, lockfree, max_trace_entries + 1)));
    RegionConfig off = recorded(1, lockfree, 0);
    CHECK_EQ(Layout(off).record_stride, Layout(off).record_trace);  // without a trace there is no room for one
    const SharedRegion region = harness::region(off);
    Session worker(region, 0);
    CHECK(worker.submit(unit(1, 0), harness::tag(0)) == Submitted::applied);
    CHECK(worker.trace().empty());
}

// ---- in crowds ------------------------------------------------------------------------------------------

/// What a worker saw: the parameters, after so many gradients.
struct Seen {
    std::uint64_t read_at;
    std::vector<float> params;
};

/// Every read is what the entries before it lead to.
void check_reads(const std::vector<TraceEntry>& all, std::vector<Seen> seen, std::size_t workers) {
    std::sort(seen.begin(), seen.end(), [](const Seen& a, const Seen& b) { return a.read_at < b.read_at; });
    std::vector<float> params(workers, 0.0F);
    std::size_t at = 0;
    for (const Seen& one : seen) {
        CHECK(one.read_at <= all.size());
        for (; at < std::min<std::size_t>(one.read_at, all.size()); ++at)
            if (all[at].outcome == TraceOutcome::applied && all[at].worker < workers) params[all[at].worker] -= 1.0F;
        CHECK(one.params == params);
    }
}

/// Entries are as many of each kind as the ledger has, and none was computed from parameters of later.
void check_books(Session& observer, const std::vector<TraceEntry>& all) {
    const Ledger l = observer.ledger();
    harness::check_ledger(l);
    CHECK_EQ(all.size(), l.published);
    std::array<std::uint64_t, 3> outcomes{};
    std::array<std::uint64_t, max_workers> of{}, last_read{}, incarnation{};
    for (std::size_t i = 0; i < all.size(); ++i) {
        const TraceEntry& e = all[i];
        CHECK(e.read_at <= i && static_cast<std::size_t>(e.outcome) < 3 && e.worker < observer.region().layout().workers);
        CHECK(e.read_at >= last_read[e.worker] && e.incarnation >= incarnation[e.worker]);  // each worker's in its own order
        last_read[e.worker] = e.read_at;
        incarnation[e.worker] = e.incarnation;
        ++of[e.worker];
        ++outcomes[static_cast<std::size_t>(e.outcome)];
    }
    CHECK_EQ(outcomes[0], l.at.counts.applied);
    CHECK_EQ(outcomes[1], l.at.counts.rejected_nonfinite);
    CHECK_EQ(outcomes[2], l.at.counts.rejected_stale);
    for (std::size_t w = 0; w < observer.region().layout().workers; ++w) CHECK_EQ(of[w], observer.published(w));
}

void threads(UpdateScheme scheme, std::uint64_t max_staleness) {
    constexpr std::size_t workers = 3;
    const std::size_t each = 3000 / harness::shorter;
    RegionConfig c = recorded(workers, scheme, workers * each);
    c.max_staleness = max_staleness;
    const SharedRegion region = harness::region(c);
    Session observer(region, workers);
    std::vector<Seen> seen;
    std::vector<TraceEntry> midway;
    std::mutex guard;
    {
        const harness::Learner learner(region);
        harness::together(workers + 1, [&](std::size_t w) {
            if (w == workers) {
                midway = observer.trace();  // while they work
                return;
            }
            Session session(region, w);
            std::vector<Seen> mine;
            for (std::size_t k = 0; k < each; ++k) {
                std::vector<float> params(workers);
                const Snapshot now = session.read(params);
                mine.push_back({consumed(now.counts), params});
                const Submitted how = session.submit(unit(workers, w), tag_of(now));
                CHECK(how == Submitted::applied || (how == Submitted::rejected_stale && max_staleness != no_staleness_limit));
            }
            const std::lock_guard<std::mutex> held(guard);
            seen.insert(seen.end(), mine.begin(), mine.end());
        });
    }
    const std::vector<TraceEntry> all = observer.trace();
    check_books(observer, all);
    check_reads(all, seen, workers);
    CHECK(midway.size() <= all.size());
    for (std::size_t i = 0; i < std::min(midway.size(), all.size()); ++i)
        check_entry(midway[i], all[i].read_at, all[i].incarnation, all[i].worker, all[i].outcome);
}

/// A worker in a process of its own tells what it reads by its log, as long as there is room.
void work(const SharedRegion& region, std::size_t w) {
    Session session(region, w);
    const std::size_t workers = region.layout().workers;
    std::vector<float> params(workers);
    while (!session.stop_requested()) {
        const Snapshot now = session.read(params);
        double row[log_columns] = {static_cast<double>(consumed(now.counts))};
        for (std::size_t i = 0; i < workers; ++i) row[1 + i] = static_cast<double>(params[i]);
        session.log(row);
        session.submit(unit(workers, w), tag_of(now));
    }
}

void serve(const SharedRegion& region) {
    Session session(region, region.layout().workers + 1);
    while (!session.stop_requested()) session.serve(std::chrono::milliseconds(50));
}

/// Workers and the learner are killed at random moments and replaced: no entry is missing, none is twice.
void killed(UpdateScheme scheme) {
    constexpr std::size_t workers = 3;
    RegionConfig c = recorded(workers, scheme, 4'000'000);
    c.slots = 2;
    c.log_rows = 4096;
    const SharedRegion region = harness::region(c);
    Session observer(region, workers);
    std::vector<pid_t> pids(scheme == queue ? workers + 1 : workers);
    const auto start = [&](std::size_t i) { return harness::child([&region, i] { i < workers ? work(region, i) : serve(region); }); };
    for (std::size_t i = 0; i < pids.size(); ++i) pids[i] = start(i);
    std::mt19937 random(7);
    for (std::size_t k = 0; k < (harness::shorter > 1 ? 8U : 40U); ++k) {
        const std::size_t victim = k % pids.size();
        std::this_thread::sleep_for(std::chrono::microseconds(500 + random() % 3000));
        CHECK_EQ(kill(pids[victim], SIGKILL), 0);
        harness::join(pids[victim]);
        observer.reap(victim < workers ? victim : workers + 1);
        pids[victim] = start(victim);
    }
    observer.request_stop();
    for (const pid_t pid : pids) CHECK(harness::exited_well(harness::join(pid)));
    observer.drain();
    const std::vector<TraceEntry> all = observer.trace();
    check_books(observer, all);
    std::vector<Seen> seen;
    for (std::size_t w = 0; w < workers; ++w) {
        std::vector<double> rows(observer.unread_log(w) * log_columns);
        observer.read_log(w, rows.size() / log_columns, rows.data());
        for (auto row = rows.begin(); row != rows.end(); row += log_columns) seen.push_back({static_cast<std::uint64_t>(row[0]), {row + 1, row + 1 + workers}});
    }
    CHECK(!seen.empty());
    check_reads(all, seen, workers);
}

}  // namespace

int main() {
    by_hand();
    too_long_is_an_error_not_a_gap();
    what_cannot_be_recorded();
    for (const UpdateScheme scheme : ordered) killed(scheme);  // before any thread
    for (const UpdateScheme scheme : ordered) threads(scheme, no_staleness_limit);
    threads(lockfree, 0);
    return check_result();
}
