// updates.hpp in threads: who waits for whom and how long, and that nothing is lost, torn or left where they race.
#include "fastac/updates.hpp"

#include <limits>

#include "harness.hpp"

using namespace fastac;
using enum UpdateScheme;
using harness::all_schemes;
using harness::tag;

namespace {

constexpr float nan = std::numeric_limits<float>::quiet_NaN();

// ---- waiting --------------------------------------------------------------------------------------------

void queue_without_learner() {
    RegionConfig c = harness::config(1, 1, queue);
    c.wait_deadline_ms = 60;
    const SharedRegion region = harness::region(c);
    Session worker(region, 0);
    const std::vector<float> g{1.0F};
    CHECK_THROWS(WaitTimeout, worker.submit(g, tag(0)));
    CHECK_EQ(worker.ledger().pending, 1U);
    std::string said;
    try {
        worker.submit(g, tag(0));
    } catch (const WaitTimeout& timeout) {
        said = timeout.what();
    }
    CHECK(said.ends_with("the gradient of this call was not published"));
    CHECK_EQ(worker.ledger().pending, 1U);
    worker.request_stop();
    CHECK(worker.submit(g, tag(0)) == Submitted::stopped);
    Session observer(region, 1);
    CHECK_EQ(observer.drain(), 2U);  // neither was lost
    harness::check_ledger(observer.ledger());
    CHECK_EQ(observer.ledger().pending, 0U);
}

void lock_is_held() {
    RegionConfig c = harness::config(1, 1, lock);
    c.wait_deadline_ms = 60;
    const SharedRegion region = harness::region(c);
    Session worker(region, 0);
    const std::vector<float> g{1.0F};
    std::atomic<int> phase{0};
    std::thread holder([&] {
        CHECK(region.control().mutex.try_lock_for(std::chrono::milliseconds(1000)));
        phase = 1;
        while (phase != 2) std::this_thread::yield();
        region.control().mutex.unlock();
    });
    while (phase != 1) std::this_thread::yield();
    CHECK_THROWS(WaitTimeout, worker.submit(g, tag(0)));
    worker.request_stop();
    CHECK(worker.submit(g, tag(0)) == Submitted::stopped);
    CHECK_EQ(worker.ledger().pending, 2U);
    phase = 2;
    holder.join();
    CHECK(worker.settle(2));
    CHECK_EQ(worker.ledger().pending, 0U);
}

/// A stop reaches who is already asleep: without it both would end in WaitTimeout, not in `stopped`.
void stop_while_waiting() {
    for (const UpdateScheme scheme : {lock, queue}) {
        RegionConfig c = harness::config(1, 1, scheme);
        c.wait_deadline_ms = 20'000;
        const SharedRegion region = harness::region(c);
        Session worker(region, 0), observer(region, 1);
        std::atomic<int> phase{0};
        std::thread other([&] {
            if (scheme == lock) CHECK(region.control().mutex.try_lock_for(std::chrono::milliseconds(1000)));
            phase = 1;
            CHECK(harness::eventually([&] { return region.worker(0).published.load() == 1; }));
            std::this_thread::sleep_for(std::chrono::milliseconds(20));
            observer.request_stop();
            while (phase != 2) std::this_thread::yield();
            if (scheme == lock) region.control().mutex.unlock();
        });
        while (phase != 1) std::this_thread::yield();
        CHECK(worker.submit(std::vector<float>{1.0F}, tag(0)) == Submitted::stopped);
        phase = 2;
        other.join();
        CHECK_EQ(observer.drain(), 1U);
        harness::check_ledger(observer.ledger());
    }
}

// ---- threads --------------------------------------------------------------------------------------------

/// What is pushed while a learner drains is for its next drain: busy workers do not keep it from its other duties.
void a_drain_ends() {
    const std::size_t workers = 4;
    const SharedRegion region = harness::region(harness::config(workers, 64, queue));
    Session learner(region, workers + 1);
    std::vector<std::thread> threads;
    for (std::size_t w = 0; w < workers; ++w)
        threads.emplace_back([&, w] {
            Session worker(region, w);
            std::vector<float> p(64);
            while (!worker.stop_requested()) worker.submit(p, tag(worker.read(p).version));
        });
    std::uint64_t applied = 0;
    while (applied < 2000) {
        const std::uint64_t n = learner.drain();
        CHECK(n <= workers);  // each has one on its way
        applied += n;
    }
    learner.request_stop();
    for (std::thread& thread : threads) thread.join();
}

/// Worker w pushes (w + 1) * (i % 7 + 1) to parameter i: small integers, so that every order adds up to the same.
float gradient_of(std::size_t w, std::size_t i) { return static_cast<float>((w + 1) * (i % 7 + 1)); }

void nothing_is_lost(UpdateScheme scheme, std::uint32_t workers, std::uint32_t p) {
    const std::uint64_t n = static_cast<std::uint64_t>((scheme == queue ? 4'000 : 20'000) / harness::shorter);
    const SharedRegion region = harness::region(harness::config(workers, p, scheme));
    {
        const harness::Learner learner(region);
        harness::together(workers, [&](std::size_t w) {
            Session session(region, w);
            std::vector<float> grad(p), params(p);
            for (std::size_t i = 0; i < p; ++i) grad[i] = gradient_of(w, i);
            std::uint64_t last = 0;
            for (std::uint64_t k = 1; k <= n; ++k) {
                const std::uint64_t version = session.read(params).version;
                CHECK(version >= last + (k > 1 ? 1U : 0U));  // it contains what we submitted ourselves
                last = version;
                if (k % 100 == 0) {
                    std::vector<float> bad = grad;
                    bad[p / 2] = nan;
                    CHECK(session.submit(bad, tag(version)) == Submitted::rejected_nonfinite);
                    last = version - 1;
                } else {
                    CHECK(session.submit(grad, tag(version)) == Submitted::applied);
                }
            }
        });
    }
    Session observer(region, workers);
    CHECK_EQ(observer.drain(), 0U);
    const Ledger l = observer.ledger();
    harness::check_ledger(l);
    CHECK_EQ(l.pending, 0U);
    CHECK_EQ(l.aborted, 0U);
    CHECK_EQ(l.published, workers * n);
    CHECK_EQ(l.at.counts.rejected_nonfinite, workers * (n / 100));
    CHECK_EQ(l.at.env_steps, 5 * l.published);
    std::vector<float> params(p);
    observer.read(params);
    for (std::size_t i = 0; i < p; ++i) {
        float sum = 0.0F;
        for (std::size_t w = 0; w < workers; ++w) sum -= static_cast<float>(n - n / 100) * gradient_of(w, i);
        if (scheme == hogwild) CHECK(params[i] >= sum && params[i] <= -gradient_of(0, i));  // additions get lost, none is invented
        else CHECK_EQ(params[i], sum);
    }
    if (scheme == hogwild) {
        CHECK_EQ(l.canaries, l.at.counts.applied * region.layout().canaries);
        CHECK(l.canaries_lost < l.canaries);
    }
    if (workers == 1) {
        CHECK_EQ(l.at.counts.staleness[0], l.at.counts.applied);
        CHECK_EQ(l.retries, 0U);
        CHECK_EQ(l.canaries_lost, 0U);
    }
}

/// All gradients are ones and lr is 1, so a read of version v is -v everywhere, or it is torn.
void reads_are_never_torn(UpdateScheme scheme, bool second_drainer) {
    constexpr std::uint32_t workers = 3, p = 333;
    const std::uint64_t n = static_cast<std::uint64_t>((scheme == queue ? 3'000 : 10'000) / harness::shorter);
    const SharedRegion region = harness::region(harness::config(workers, p, scheme));
    std::atomic<std::uint32_t> at_work{workers};
    const harness::Learner learner(region);
    harness::together(workers + 1, [&](std::size_t seat) {
        Session session(region, seat);
        std::vector<float> params(p), state;
        const std::vector<float> ones(p, 1.0F);
        const auto look = [&] {
            const std::uint64_t version = session.read(params).version;
            CHECK(params == std::vector<float>(p, -static_cast<float>(version)));
            return version;
        };
        if (session.is_worker()) {
            for (std::uint64_t k = 0; k < n; ++k) CHECK(session.submit(ones, tag(look())) == Submitted::applied);
            --at_work;
        } else {
            while (at_work.load() > 0) {
                look();
                const Snapshot now = session.copy_record(params, state);
                CHECK(params == std::vector<float>(p, -static_cast<float>(now.version)));
                CHECK_EQ(now.counts.applied, now.version);
                CHECK_EQ(session.snapshot().counts.merged, 0U);
                const Ledger l = session.ledger();
                CHECK(l.begun >= l.published);
                if (second_drainer) session.drain();
            }
        }
    });
    Session observer(region, workers);
    CHECK_EQ(observer.snapshot().version, workers * n);
    harness::check_ledger(observer.ledger());
}

/// Several published before one is settled, by everybody: every ring is used round and round.
void rings_go_round() {
    constexpr std::uint32_t workers = 3, p = 100;
    const std::uint64_t n = static_cast<std::uint64_t>(3'000 / harness::shorter);
    const SharedRegion region = harness::region(harness::config(workers, p));
    harness::together(workers, [&](std::size_t w) {
        Session session(region, w);
        std::vector<float> grad(p);
        float value = 0.0F;
        for (std::uint64_t k = 0; k < n; ++k) {
            std::uint64_t last = 0;
            for (std::uint64_t i = 0; i <= k % 4; ++i) {
                grad.assign(p, value = static_cast<float>(static_cast<int>(value + 1) % 5));
                last = session.push(grad, tag(0)).value();
            }
            CHECK(session.settle(last));
        }
    });
    Session observer(region, workers);
    std::vector<float> params(p);
    observer.read(params);
    const std::uint64_t each = n / 4 * 10 + (n % 4) * (n % 4 + 1) / 2;
    float sum = 0.0F;
    for (std::uint64_t i = 1; i <= each; ++i) sum -= static_cast<float>(i % 5);
    CHECK(params == std::vector<float>(p, workers * sum));
    CHECK_EQ(observer.ledger().published, workers * each);
    harness::check_ledger(observer.ledger());
}

/// The same gradients through every scheme, one worker: the same bits, parameters and state.
void one_worker_is_one_arithmetic(OptimizerKind kind) {
    constexpr std::uint32_t p = 37;
    std::vector<std::vector<float>> results;
    for (const UpdateScheme scheme : all_schemes) {
        RegionConfig c = harness::config(1, p, scheme, kind);
        c.optimizer.max_grad_norm = 0.5;
        const SharedRegion region = harness::region(c);
        Session worker(region, 0);
        std::vector<float> params(p), state(p * state_vectors(kind)), grad(p);
        for (std::size_t i = 0; i < p; ++i) params[i] = 0.1F * static_cast<float>(i);
        worker.initialize(params, {}, 0);
        const harness::Learner learner(region);
        for (std::uint64_t k = 0; k < 50; ++k) {
            const std::uint64_t version = worker.read(params).version;
            for (std::size_t i = 0; i < p; ++i) grad[i] = std::sin(static_cast<float>(i + 3 * k)) + 0.01F * params[i];
            CHECK(worker.submit(grad, tag(version, 0.01)) == Submitted::applied);
        }
        worker.copy_record(params, state);
        params.insert(params.end(), state.begin(), state.end());
        results.push_back(params);
    }
    for (const auto& r : results) CHECK(r == results[0]);
}

}  // namespace

int main() {
    a_drain_ends();
    queue_without_learner();
    lock_is_held();
    stop_while_waiting();
    for (const UpdateScheme scheme : all_schemes) {
        nothing_is_lost(scheme, 1, 65);
        nothing_is_lost(scheme, 4, 65);
        nothing_is_lost(scheme, 2, 1001);
    }
    for (const UpdateScheme scheme : {lockfree, lock, queue}) {
        reads_are_never_torn(scheme, false);
        reads_are_never_torn(scheme, true);
    }
    rings_go_round();
    for (const OptimizerKind kind : {OptimizerKind::sgd, OptimizerKind::rmsprop, OptimizerKind::adam}) one_worker_is_one_arithmetic(kind);
    return check_result();
}
