// The same region in several processes: attaching by descriptor, and workers that are killed at any moment.
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>

#include <cstring>
#include <random>

#include "harness.hpp"

using namespace fastac;
using enum UpdateScheme;

namespace {

using harness::tag;

// ---- attaching ------------------------------------------------------------------------------------------

void attach_sees_the_same() {
    const SharedRegion region = harness::region(harness::config(2, 3, lockfree, OptimizerKind::sgd));
    Session observer(region, 2);
    observer.initialize(std::vector<float>{1.0F, 2.0F, 3.0F}, {}, 5);
    const int fd = region.fd();
    const int status = harness::join(harness::child([fd] {
        const SharedRegion mine = SharedRegion::attach(fd, harness::nonce);
        CHECK_EQ(mine.layout().bytes, SharedRegion::attach(fd, harness::nonce).layout().bytes);
        Session worker(mine, 1);
        std::vector<float> p(3);
        CHECK_EQ(worker.read(p).version, 5U);
        CHECK(p == (std::vector<float>{1.0F, 2.0F, 3.0F}));
        CHECK(worker.submit(p, tag(5)) == Submitted::applied);
        CHECK_THROWS(std::logic_error, Session(mine, 2));  // the parent sits there
    }));
    CHECK(harness::exited_well(status));
    std::vector<float> p(3);
    CHECK_EQ(observer.read(p).version, 6U);
    CHECK(p == std::vector<float>(3, 0.0F));
    CHECK_EQ(region.seat(1).taken.load(), 0U);
}

/// A descriptor with this header in a file of this size, sealed as a region's is.
int imitation(const RegionHeader& header, std::size_t bytes, int seals = F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) {
    const int fd = memfd_create("imitation", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    CHECK(pwrite(fd, &header, sizeof header, 0) == static_cast<ssize_t>(sizeof header));
    CHECK_EQ(ftruncate(fd, static_cast<off_t>(bytes)), 0);
    CHECK_EQ(fcntl(fd, F_ADD_SEALS, seals), 0);
    return fd;
}

void attach_refuses() {
    const SharedRegion region = harness::region(harness::config(2, 3));
    const auto refused = [](int fd, std::uint64_t nonce, const char* because) {
        std::string message = "accepted";
        try {
            SharedRegion::attach(fd, nonce);
        } catch (const std::runtime_error& e) {
            message = e.what();
        }
        if (message.find(because) == std::string::npos) check::fail("attach: " + message + "; expected: " + because, __FILE__, __LINE__);
    };
    refused(region.fd(), harness::nonce + 1, "another run");
    refused(-1, harness::nonce, "fstat");

    const RegionHeader& good = region.header();
    const std::size_t bytes = region.layout().bytes;
    const auto imitated = [&](const RegionHeader& header, std::size_t size, const char* because) {
        const int fd = imitation(header, size);
        refused(fd, harness::nonce, because);
        ::close(fd);
    };
    const int unsealed = imitation(good, bytes, 0);  // could shrink under us
    refused(unsealed, harness::nonce, "no fastac region");
    ::close(unsealed);
    imitated(good, bytes - 4096, "another build");
    imitated(good, sizeof(RegionHeader) / 2, "no fastac region");
    imitated(good, 0, "no fastac region");
    RegionHeader bad = good;
    bad.magic ^= 1;
    imitated(bad, bytes, "no fastac region");
    bad = good;
    bad.layout_hash ^= 1;
    imitated(bad, bytes, "another build");
    bad = good;
    bad.config.parameters = 400'000;  // a layout that the file has no room for
    imitated(bad, bytes, "another build");
    bad = good;
    bad.config.workers = 0;  // what another build's config may look like to us
    imitated(bad, bytes, "another build");

    int ends[2];
    CHECK_EQ(pipe(ends), 0);
    refused(ends[0], harness::nonce, "no fastac region");
    ::close(ends[0]);
    ::close(ends[1]);
    const int null = open("/dev/null", O_RDWR);
    refused(null, harness::nonce, "no fastac region");
    ::close(null);
}

void sizes_that_wrap_are_refused() {
    RegionConfig c = harness::config(max_workers, UINT32_MAX);
    c.slots = UINT32_MAX;  // the product is above 2^64
    CHECK_THROWS(std::invalid_argument, Layout{c});
}

void region_cannot_change_its_size() {
    const SharedRegion region = harness::region(harness::config(1, 3));
    CHECK(ftruncate(region.fd(), 0) != 0);
    CHECK(ftruncate(region.fd(), static_cast<off_t>(2 * region.layout().bytes)) != 0);
}

// ---- death ----------------------------------------------------------------------------------------------

/// The children of one run: a worker for each seat, under `queue` also the learner. They work until the stop.
class Crew {
public:
    Crew(const SharedRegion& region, Session& observer) : region_(region), observer_(observer), pids_(region.layout().workers, 0) {
        for (std::size_t w = 0; w < pids_.size(); ++w) start(w);
        if (queued()) {
            pids_.push_back(0);
            start(learner());
        }
    }

    [[nodiscard]] bool queued() const { return region_.config().scheme == queue; }
    [[nodiscard]] std::size_t size() const { return pids_.size(); }
    [[nodiscard]] pid_t pid(std::size_t i) const { return pids_[i]; }

    void start(std::size_t i) {
        const SharedRegion& region = region_;
        pids_[i] = harness::child([&region, i] {
            if (i < region.layout().workers) work(region, i);
            else serve(region);
        });
    }

    /// SIGKILL, reap, start anew.
    void replace(std::size_t i) {
        CHECK_EQ(kill(pids_[i], SIGKILL), 0);
        const int status = harness::join(pids_[i]);
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        observer_.reap(i < region_.layout().workers ? i : region_.layout().workers + 1);
        start(i);
    }

    void leave() {
        observer_.request_stop();
        for (const pid_t pid : pids_) CHECK(harness::exited_well(harness::join(pid)));
    }

private:
    [[nodiscard]] std::size_t learner() const { return region_.layout().workers; }

    static void work(const SharedRegion& region, std::size_t w) {
        Session session(region, w);
        const std::size_t p = region.layout().parameters;
        const bool hogwild_run = region.config().scheme == hogwild;
        std::vector<float> params(p);
        const std::vector<float> ones(p, 1.0F);
        while (!session.stop_requested()) {
            const std::uint64_t version = session.read(params).version;
            if (!hogwild_run) CHECK(params == std::vector<float>(p, -static_cast<float>(version)));
            const Submitted how = session.submit(ones, tag(version));
            CHECK(how == Submitted::applied || (how == Submitted::stopped && session.stop_requested()));
        }
    }

    static void serve(const SharedRegion& region) {
        Session session(region, region.layout().workers + 1);
        while (!session.stop_requested()) session.serve(std::chrono::milliseconds(50));
    }

    const SharedRegion& region_;
    Session& observer_;
    std::vector<pid_t> pids_;
};

std::uint64_t published_by_others(const SharedRegion& region, std::size_t but) {
    std::uint64_t sum = 0;
    for (std::size_t w = 0; w < region.layout().workers; ++w)
        if (w != but) sum += region.worker(w).published.load();
    return sum;
}

/// Each seat in turn is killed at a random moment: nothing published is lost, the others go on, the ledger balances.
void killed_at_random_moments(UpdateScheme scheme, std::uint32_t workers) {
    const int kills = harness::shorter > 1 ? 12 : 60;
    RegionConfig c = harness::config(workers, 2000, scheme);
    c.slots = 2;
    c.wait_deadline_ms = 20'000;
    const SharedRegion region = harness::region(c);
    Session observer(region, workers);
    Crew crew(region, observer);
    std::mt19937 random(12345);
    for (int k = 0; k < kills; ++k) {
        const std::size_t victim = static_cast<std::size_t>(k) % crew.size();
        std::this_thread::sleep_for(std::chrono::microseconds(500 + random() % 5000));
        crew.replace(victim);
        const std::uint64_t before = published_by_others(region, victim);
        if (workers > 1) CHECK(harness::eventually([&] { return published_by_others(region, victim) > before; }));
        if (victim < workers) {  // and so does the new one in its seat
            const std::uint64_t own = region.worker(victim).published.load();
            CHECK(harness::eventually([&] { return region.worker(victim).published.load() > own; }));
        }
    }
    crew.leave();
    observer.drain();
    const Ledger l = observer.ledger();
    CHECK_EQ(l.begun, l.published + l.aborted);
    CHECK_EQ(l.published, l.at.counts.applied + l.at.counts.rejected_nonfinite + l.at.counts.rejected_stale + l.pending);
    CHECK(l.aborted <= static_cast<std::uint64_t>(kills));
    harness::check_ledger(l);
    if (scheme == hogwild) return;
    std::vector<float> params(2000);
    CHECK_EQ(observer.read(params).version, l.published);
    CHECK(params == std::vector<float>(2000, -static_cast<float>(l.published)));
    for (std::size_t r = 0; r < region.layout().records; ++r) {  // the observer alone may still own one
        const std::uint32_t owner = region.owner(r).load();
        CHECK(owner == 0 || owner == workers + 1);
    }
}

/// A worker that stands still at a random instruction, and is neither dead nor reaped: nobody waits for it.
void suspended_at_random_moments(UpdateScheme scheme) {
    constexpr std::uint32_t workers = 3;
    const SharedRegion region = harness::region(harness::config(workers, 2000, scheme));
    Session observer(region, workers);
    Crew crew(region, observer);
    std::mt19937 random(99);
    for (int k = 0; k < (harness::shorter > 1 ? 5 : 20); ++k) {
        const std::size_t victim = static_cast<std::size_t>(k) % workers;
        std::this_thread::sleep_for(std::chrono::microseconds(500 + random() % 3000));
        CHECK_EQ(kill(crew.pid(victim), SIGSTOP), 0);
        int status = 0;
        CHECK_EQ(waitpid(crew.pid(victim), &status, WUNTRACED), crew.pid(victim));  // it stands
        const std::uint64_t before = published_by_others(region, victim);
        CHECK(harness::eventually([&] { return published_by_others(region, victim) > before + 20; }));
        CHECK_EQ(kill(crew.pid(victim), SIGCONT), 0);
    }
    crew.leave();
    observer.drain();
    harness::check_ledger(observer.ledger());
    CHECK_EQ(observer.ledger().aborted, 0U);
    CHECK_EQ(observer.ledger().pending, 0U);
}

void holder_of_the_lock_is_killed() {
    RegionConfig c = harness::config(2, 3, lock);
    c.wait_deadline_ms = 20'000;
    const SharedRegion region = harness::region(c);
    const pid_t holder = harness::child([&] {
        CHECK(region.control().mutex.try_lock_for(std::chrono::milliseconds(1000)));
        region.control().go.store(1);
        for (;;) pause();
    });
    CHECK(harness::eventually([&] { return region.control().go.load() == 1; }));
    CHECK(!region.control().mutex.try_lock_for(std::chrono::milliseconds(20)));
    kill(holder, SIGKILL);
    harness::join(holder);
    Session worker(region, 0);
    const std::vector<float> ones(3, 1.0F);
    for (std::uint64_t k = 0; k < 3; ++k) CHECK(worker.submit(ones, tag(k)) == Submitted::applied);  // locked, unlocked, locked again
    harness::check_ledger(worker.ledger());
    CHECK_EQ(worker.ledger().at.version, 3U);
}

/// Killed with one begun, one published: the reaper counts the first, whoever is left applies the second.
void the_ledger_of_the_dead() {
    const SharedRegion region = harness::region(harness::config(2, 3));
    Session observer(region, 2);
    const pid_t worker = harness::child([&] {
        Session session(region, 0);
        session.push(std::vector<float>(3, 1.0F), tag(0));
        region.worker(0).begun.fetch_add(1);  // as far as a push comes before its commit point
        raise(SIGKILL);
    });
    harness::join(worker);
    CHECK_EQ(region.seat(0).taken.load(), 1U);
    CHECK_EQ(observer.ledger().begun, 2U);
    observer.reap(0);
    observer.reap(0);  // twice is no more than once
    harness::check_ledger(observer.ledger());
    CHECK_EQ(observer.ledger().aborted, 1U);
    CHECK_EQ(observer.ledger().pending, 1U);
    Session other(region, 1), again(region, 0);
    CHECK(other.submit(std::vector<float>(3, 1.0F), tag(0)) == Submitted::applied);
    CHECK_EQ(observer.ledger().pending, 0U);
    CHECK(again.submit(std::vector<float>(3, 1.0F), tag(0)) == Submitted::applied);
    harness::check_ledger(observer.ledger());
    CHECK_EQ(observer.ledger().aborted, 1U);
    std::vector<float> p(3);
    observer.read(p);
    CHECK(p == std::vector<float>(3, -3.0F));
}

/// Ctrl-Z and fg: the time in which a whole run stood still is not held against whom its workers wait for.
void stopped_together() {
    for (const UpdateScheme scheme : {lock, queue}) {
        RegionConfig c = harness::config(1, 3, scheme);
        c.wait_deadline_ms = 1000;
        const SharedRegion region = harness::region(c);
        Session observer(region, 1), learner(region, 2);
        CHECK(region.control().mutex.try_lock_for(std::chrono::milliseconds(1000)));
        const pid_t pid = harness::child([&] {
            Session session(region, 0);
            CHECK(session.submit(std::vector<float>(3, 1.0F), tag(0)) == Submitted::applied);
        });
        CHECK(harness::eventually([&] { return region.worker(0).published.load() == 1U; }));
        kill(pid, SIGSTOP);
        std::this_thread::sleep_for(std::chrono::milliseconds(1200));
        kill(pid, SIGCONT);
        std::this_thread::sleep_for(std::chrono::milliseconds(200));
        region.control().mutex.unlock();
        if (scheme == queue) learner.drain();
        CHECK(harness::exited_well(harness::join(pid)));
    }
}

/// Each of four dies after its push and before anybody has applied it: the ring is full of them when the next comes.
void the_dead_fill_the_ring() {
    for (const UpdateScheme scheme : {lockfree, lock}) {
        RegionConfig c = harness::config(1, 3, scheme);
        c.slots = 4;
        const SharedRegion region = harness::region(c);
        Session observer(region, 1);
        for (int i = 0; i < 4; ++i) {
            harness::join(harness::child([&] {
                Session session(region, 0);
                CHECK(session.push(std::vector<float>(3, 1.0F), tag(0)).has_value());
                raise(SIGKILL);
            }));
            observer.reap(0);
        }
        CHECK_EQ(observer.ledger().pending, 4U);
        Session next(region, 0);
        CHECK(next.submit(std::vector<float>(3, 1.0F), tag(0)) == Submitted::applied);
        harness::check_ledger(observer.ledger());
        CHECK_EQ(observer.ledger().at.version, 5U);
    }
}

}  // namespace

int main() {
    attach_sees_the_same();
    attach_refuses();
    sizes_that_wrap_are_refused();
    region_cannot_change_its_size();
    the_ledger_of_the_dead();
    the_dead_fill_the_ring();
    stopped_together();
    const bool robust = harness::has_robust_mutexes();
    if (robust) holder_of_the_lock_is_killed();
    for (const UpdateScheme scheme : {lockfree, lock, queue, hogwild}) {
        if (scheme == lock && !robust) continue;
        killed_at_random_moments(scheme, 1);
        killed_at_random_moments(scheme, 3);
    }
    for (const UpdateScheme scheme : {lockfree, hogwild}) suspended_at_random_moments(scheme);
    return check_result();
}
