// updates.hpp in one thread: interleavings by hand.
#include "fastac/updates.hpp"

#include <limits>
#include <memory>

#include "harness.hpp"

using namespace fastac;
using enum UpdateScheme;
using harness::all_schemes;
using harness::tag;

namespace {

constexpr float nan = std::numeric_limits<float>::quiet_NaN();

void two_workers_by_hand() {
    const SharedRegion region = harness::region(harness::config(2, 1));
    Session a(region, 0), b(region, 1), observer(region, 2);
    const std::vector<float> start{10.0F};
    observer.initialize(start, {}, 0);
    std::vector<float> p(1);
    const std::vector<float> one{1.0F}, two{2.0F}, bad{nan};

    // Both read version 0 and push; a applies both: its own at version 0 (staleness 0), b's at version 1 (staleness 1).
    CHECK_EQ(a.read(p).version, 0U);
    CHECK_EQ(p[0], 10.0F);
    CHECK(a.push(one, tag(0, 1.0)) == 1U);
    CHECK(b.push(two, tag(0, 0.5)) == 1U);  // each gradient has its own learning rate
    CHECK_EQ(observer.ledger().pending, 2U);
    CHECK(a.settle(1));
    CHECK(b.settle(1));  // nothing left to do
    CHECK_EQ(b.read(p).version, 2U);
    CHECK_EQ(p[0], 8.0F);  // 10 - 1 - 0.5 * 2
    Ledger l = observer.ledger();
    CHECK_EQ(l.at.counts.staleness[0], 1U);
    CHECK_EQ(l.at.counts.staleness[1], 1U);
    CHECK_EQ(l.at.counts.staleness_sum, 1U);
    CHECK_EQ(l.at.counts.staleness_max, 1U);
    CHECK_EQ(l.at.env_steps, 10U);
    CHECK_EQ(l.pending, 0U);

    // a pushes a gradient that is not finite; b applies its own, summed from three, and with it rejects a's.
    CHECK(a.push(bad, tag(2)) == 2U);
    CHECK(b.submit(two, tag(1, 1.0, 3)) == Submitted::applied);
    CHECK(a.settle(2));
    CHECK_EQ(a.read(p).version, 3U);
    CHECK_EQ(p[0], 6.0F);

    // Only a rejected gradient: the version stays, the parameters stay, the env steps are counted.
    CHECK(a.submit(bad, tag(3)) == Submitted::rejected_nonfinite);
    CHECK_EQ(a.read(p).version, 3U);
    CHECK_EQ(p[0], 6.0F);

    // Four of a and one of b in one build: a's, read at version 3, are 0 .. 3 stale; b's, read at 2, is applied at 7.
    for (int i = 0; i < 4; ++i) CHECK(a.push(one, tag(3)).has_value());
    CHECK(!a.push(one, tag(3)));  // four slots
    CHECK(b.submit(one, tag(2)) == Submitted::applied);
    CHECK_EQ(b.read(p).version, 8U);
    CHECK_EQ(p[0], 1.0F);

    l = observer.ledger();
    harness::check_ledger(l);
    CHECK_EQ(l.begun, 10U);  // eight applied, two rejected
    CHECK_EQ(l.at.counts.applied, 8U);
    CHECK_EQ(l.at.counts.rejected_nonfinite, 2U);
    CHECK_EQ(l.at.counts.merged, 2U);
    CHECK_EQ(l.at.counts.staleness_max, 5U);
    CHECK_EQ(l.at.env_steps, 50U);
    CHECK_EQ(l.retries, 0U);
}

void seats() {
    const SharedRegion region = harness::region(harness::config(1, 1));
    CHECK_THROWS(std::out_of_range, Session(region, 3));
    {
        Session first(region, 0);
        CHECK_THROWS(std::logic_error, Session(region, 0));
        Session(region, 1);
        Session(region, 2);
    }
    Session again(region, 0);  // who leaves in order leaves the seat
    CHECK(again.submit(std::vector<float>{1.0F}, tag(0)) == Submitted::applied);
}

/// settle() waits for what was pushed; a number that was not can only be a mistake, and would never come true.
void settle_wants_what_was_pushed() {
    for (const UpdateScheme scheme : {lockfree, lock, queue}) {
        const SharedRegion region = harness::region(harness::config(1, 1, scheme));
        Session worker(region, 0);
        CHECK_THROWS(std::invalid_argument, worker.settle(1));
        CHECK(worker.push(std::vector<float>{1.0F}, tag(0)) == 1U);
        CHECK_THROWS(std::invalid_argument, worker.settle(2));
        if (scheme == queue) Session(region, 2).drain();
        CHECK(worker.settle(1));
        CHECK(worker.settle(1));  // consumed already
        CHECK_THROWS(std::invalid_argument, worker.settle(1 - region.layout().slots));
    }
}

/// hogwild has no ring to drain: what was pushed there would be published and never applied.
void hogwild_does_not_push() {
    const SharedRegion region = harness::region(harness::config(1, 1, hogwild));
    Session worker(region, 0);
    CHECK_THROWS(std::logic_error, worker.push(std::vector<float>{1.0F}, tag(0)));
    harness::check_ledger(worker.ledger());
}

/// What a learner leaves that is killed after its commit and before it has told the workers: the next one tells them.
void learner_dies_between_commit_and_signal() {
    RegionConfig c = harness::config(1, 1, queue);
    c.wait_deadline_ms = 300;
    const SharedRegion region = harness::region(c);
    Session worker(region, 0);
    CHECK(worker.push(std::vector<float>{1.0F}, tag(0)) == 1U);
    CHECK_EQ(Session(region, 2).drain(), 1U);
    region.worker(0).consumed_signal.store(0);
    Session next(region, 2);
    CHECK_EQ(next.drain(), 0U);
    bool settled = false;
    try {
        settled = worker.settle(1);
    } catch (const WaitTimeout&) {
    }
    CHECK(settled);
}

/// A slow drainer's word must not take back what a faster one has said.
void consumed_signal_never_goes_back() {
    const SharedRegion region = harness::region(harness::config(1, 1, queue));
    Session learner(region, 2);
    region.worker(0).consumed_signal.store(5);
    learner.drain();
    CHECK_EQ(region.worker(0).consumed_signal.load(), 5U);
    region.worker(0).consumed_signal.store(UINT32_MAX);  // -1: the word wraps
    learner.drain();
    CHECK_EQ(region.worker(0).consumed_signal.load(), 0U);
}

/// A hogwild worker that is killed inside a step has published nothing; version and env steps are those of what is published.
void hogwild_death_keeps_the_ledger() {
    const SharedRegion region = harness::region(harness::config(2, 40, hogwild));
    Session observer(region, 2);
    {
        Session worker(region, 0);
        CHECK(worker.submit(std::vector<float>(40, 1.0F), tag(0)) == Submitted::applied);
    }
    // Killed in the middle of a step: begun, and three additions more than applied gradients account for. None is lost.
    region.worker(0).begun.store(2);
    region.control().hogwild_version.fetch_add(1);
    for (std::size_t i = 0; i < 3; ++i) ++region.canary(i);
    region.seat(0).taken.store(1);
    observer.reap(0);
    const Ledger l = observer.ledger();
    harness::check_ledger(l);
    CHECK_EQ(l.aborted, 1U);
    CHECK_EQ(l.at.version, 1U);
    CHECK_EQ(l.canaries_lost, 0U);
}

/// max_staleness: what is staler is consumed, counted, and changes nothing; its worker is told.
void stale_gradients_are_rejected() {
    for (const UpdateScheme scheme : all_schemes) {
        RegionConfig c = harness::config(2, 3, scheme);
        c.max_staleness = 1;
        const SharedRegion region = harness::region(c);
        const harness::Learner learner(region);
        Session a(region, 0), b(region, 1);
        const std::vector<float> one(3, 1.0F);
        CHECK(a.submit(one, tag(0)) == Submitted::applied);         // version 1
        CHECK(a.submit(one, tag(0)) == Submitted::applied);         // staleness 1
        CHECK(b.submit(one, tag(0)) == Submitted::rejected_stale);  // staleness 2
        CHECK(b.submit(one, tag(1)) == Submitted::applied);
        CHECK(b.submit(std::vector<float>(3, nan), tag(0)) == Submitted::rejected_nonfinite);
        std::vector<float> p(3);
        CHECK_EQ(a.read(p).version, 3U);
        CHECK(p == std::vector<float>(3, -3.0F));
        const Ledger l = a.ledger();
        harness::check_ledger(l);
        CHECK_EQ(l.at.counts.rejected_stale, 1U);
        CHECK_EQ(l.at.counts.rejected_nonfinite, 1U);
        CHECK_EQ(l.at.env_steps, 25U);
    }
}

/// A stale gradient alone: the record that rejects it is the old one in all but its counts.
void a_stale_gradient_alone() {
    RegionConfig c = harness::config(1, 3, lockfree, OptimizerKind::adam);
    c.max_staleness = 0;
    const SharedRegion region = harness::region(c);
    Session worker(region, 0);
    worker.initialize(std::vector<float>{1.0F, 2.0F, 3.0F}, std::vector<float>(6, 0.5F), 7);
    CHECK(worker.submit(std::vector<float>(3, 1.0F), tag(6)) == Submitted::rejected_stale);
    std::vector<float> p(3), state(6);
    CHECK_EQ(worker.copy_record(p, state).version, 7U);
    CHECK(p == (std::vector<float>{1.0F, 2.0F, 3.0F}));
    CHECK(state == std::vector<float>(6, 0.5F));
}

/// staleness_lr=inverse: lr / staleness from staleness 2 on.
void staleness_divides_the_learning_rate() {
    for (const UpdateScheme scheme : all_schemes) {
        RegionConfig c = harness::config(1, 1, scheme);
        c.staleness_lr = StalenessLr::inverse;
        const SharedRegion region = harness::region(c);
        Session worker(region, 0);
        worker.initialize(std::vector<float>{0.0F}, {}, 4);
        const harness::Learner learner(region);
        std::vector<float> p(1);
        float expected = 0.0F;
        for (const std::uint64_t staleness : {0U, 1U, 2U, 4U}) {
            CHECK(worker.submit(std::vector<float>{1.0F}, tag(worker.read(p).version - staleness)) == Submitted::applied);
            expected -= 1.0F / static_cast<float>(std::max<std::uint64_t>(staleness, 1));
            worker.read(p);
            CHECK_EQ(p[0], expected);
        }
    }
}

void gradients_from_the_future_are_refused() {
    for (const UpdateScheme scheme : {lockfree, hogwild}) {
        const SharedRegion region = harness::region(harness::config(1, 1, scheme));
        Session worker(region, 0);
        CHECK_THROWS(std::invalid_argument, worker.submit(std::vector<float>{1.0F}, tag(1)));
        CHECK_EQ(worker.ledger().begun, 0U);
        CHECK(worker.submit(std::vector<float>{1.0F}, tag(0)) == Submitted::applied);
        CHECK_THROWS(std::logic_error, worker.initialize(std::vector<float>{0.0F}, {}, 0));  // too late
    }
    // However far, and wherever the 48 bits of the version that the word holds begin again.
    constexpr std::uint64_t limit = std::uint64_t{1} << 48U;
    for (const UpdateScheme scheme : all_schemes)
        for (const std::uint64_t now : {std::uint64_t{0}, limit - 1, limit, 3 * limit + 5}) {
            const SharedRegion region = harness::region(harness::config(1, 1, scheme));
            Session observer(region, 1), learner(region, 2);
            Session worker(region, 0);
            observer.initialize(std::vector<float>{0.0F}, {}, now);
            for (const std::uint64_t ahead : {std::uint64_t{1}, limit / 2 - 1, limit / 2 + 1, limit - 1, limit, 3 * limit, std::uint64_t{1} << 63U})
                CHECK_THROWS(std::invalid_argument, worker.submit(std::vector<float>{1.0F}, tag(now + ahead)));
            CHECK_EQ(observer.ledger().begun, 0U);
            if (scheme == queue) continue;
            CHECK(worker.submit(std::vector<float>{1.0F}, tag(now)) == Submitted::applied);
            CHECK(worker.submit(std::vector<float>{1.0F}, tag(now)) == Submitted::applied);
            CHECK_EQ(observer.ledger().at.counts.staleness_max, 1U);
        }
}

/// Others apply what we pushed: there is room again, whether we have looked or not.
void room_is_seen() {
    const SharedRegion region = harness::region(harness::config(1, 1));
    Session worker(region, 0), observer(region, 1);
    const std::vector<float> one{1.0F};
    for (std::size_t k = 0; k < region.layout().slots; ++k) CHECK(worker.push(one, tag(0)).has_value());
    CHECK(!worker.push(one, tag(0)));
    CHECK_EQ(observer.drain(), region.layout().slots);
    CHECK(worker.push(one, tag(0)).has_value());
}

/// Declared dead and alive all the same: its session is over, and does the next holder of the seat no harm.
void the_seat_is_lost() {
    const SharedRegion region = harness::region(harness::config(1, 1));
    Session observer(region, 1);
    auto old = std::make_unique<Session>(region, 0);
    const std::vector<float> one{1.0F};
    std::vector<float> p(1), state;
    const std::vector<double> row(log_columns);
    CHECK(old->submit(one, tag(0)) == Submitted::applied);
    CHECK_EQ(observer.incarnation(0), 0U);
    observer.reap(0);
    CHECK_EQ(observer.incarnation(0), 1U);
    Session next(region, 0);
    CHECK_THROWS(SeatLost, old->submit(one, tag(0)));
    CHECK_THROWS(SeatLost, old->push(one, tag(0)));
    CHECK_THROWS(SeatLost, old->settle(1));
    CHECK_THROWS(SeatLost, old->read(p));
    CHECK_THROWS(SeatLost, old->log(row.data()));
    CHECK_THROWS(SeatLost, old->beat());
    CHECK_THROWS(SeatLost, old->drain());
    CHECK_THROWS(SeatLost, old->copy_record(p, state));
    CHECK_THROWS(SeatLost, static_cast<void>(old->snapshot()));
    CHECK_THROWS(SeatLost, static_cast<void>(old->ledger()));
    CHECK_THROWS(SeatLost, old->reap(1));
    CHECK_THROWS(SeatLost, old->initialize(one, {}, 0));
    CHECK_THROWS(SeatLost, old->give_go());
    CHECK_THROWS(SeatLost, old->request_stop());
    CHECK(!observer.stop_requested());
    old.reset();
    CHECK_EQ(region.seat(0).taken.load(), 1U);  // the next one's
    CHECK(next.submit(one, tag(1)) == Submitted::applied);
    CHECK_THROWS(std::invalid_argument, observer.reap(1));
    harness::check_ledger(observer.ledger());
}

/// Every verb is a sign of life, and so is waiting.
void heartbeats() {
    RegionConfig c = harness::config(1, 1, queue);
    c.wait_deadline_ms = 200;
    const SharedRegion region = harness::region(c);
    Session worker(region, 0), observer(region, 1), learner(region, 2);
    std::vector<float> p(1);
    const auto beats = [&](std::size_t seat, const std::function<void()>& verb) {
        const std::uint64_t before = observer.heartbeat(seat);
        verb();
        return observer.heartbeat(seat) - before;
    };
    CHECK_EQ(beats(0, [&] { worker.read(p); }), 1U);
    CHECK_EQ(beats(0, [&] { worker.beat(); }), 1U);
    CHECK_EQ(beats(0, [&] { worker.push(p, tag(0)); }), 1U);
    CHECK(beats(0, [&] { CHECK_THROWS(WaitTimeout, worker.settle(1)); }) >= 3);
    CHECK(beats(2, [&] { learner.serve(std::chrono::milliseconds(120)); }) >= 2);
    CHECK_EQ(beats(0, [&] { static_cast<void>(worker.snapshot()); }), 0U);
}

/// Every counter starts just below the number after which it is zero.
void counters_wrap_around() {
    for (const UpdateScheme scheme : {lockfree, lock, queue}) {
        RegionConfig c = harness::config(2, 3, scheme);
        c.slots = 2;
        c.log_rows = 2;
        const SharedRegion region = harness::region(c);
        constexpr std::uint64_t first = UINT64_MAX - 4;
        constexpr std::uint64_t version = (std::uint64_t{1} << 48) - 5;  // as many bits as the current word has for it
        for (std::size_t w = 0; w < 2; ++w) {
            WorkerBlock& words = region.worker(w);
            for (Atomic<std::uint64_t>* word : {&words.begun, &words.published, &words.log_written, &words.log_read}) word->store(first);
            words.consumed_signal.store(static_cast<std::uint32_t>(first));
            region.consumed(0)[w] = first;
            region.seat(w).incarnation.store(UINT32_MAX);
            region.seat(w).heartbeat.store(UINT64_MAX);
        }
        region.control().pushed_signal.store(UINT32_MAX - 3);
        region.record(0).version = version;
        region.control().current.store(ParamStore::pack(version, 0));
        const harness::Learner learner(region);
        {
            Session observer(region, 2);
            harness::together(2, [&](std::size_t w) {
                Session session(region, w);
                std::vector<float> p(3);
                for (int i = 0; i < 20; ++i) {
                    const std::uint64_t read = session.read(p).version;
                    CHECK(session.submit(std::vector<float>(3, 1.0F), tag(read)) == Submitted::applied);
                    const std::vector<double> row(log_columns, i);
                    std::vector<double> got(log_columns);
                    CHECK(session.log(row.data()));
                    CHECK_EQ(session.unread_log(w), 1U);
                    session.read_log(w, 1, got.data());
                    CHECK(got == row);
                }
            });
            observer.reap(0);  // nobody there: nothing happens
            std::vector<float> p(3);
            CHECK_EQ(observer.read(p).version, version + 40);
            CHECK(p == std::vector<float>(3, -40.0F));
            const Ledger l = observer.ledger();
            CHECK_EQ(l.begun, l.published + l.aborted);
            CHECK_EQ(l.published - 2 * first, l.at.counts.applied);
            CHECK_EQ(l.pending, 0U);
            CHECK(l.at.counts.staleness_max < 40);
        }
    }
}

}  // namespace

int main() {
    two_workers_by_hand();
    seats();
    settle_wants_what_was_pushed();
    hogwild_does_not_push();
    stale_gradients_are_rejected();
    a_stale_gradient_alone();
    staleness_divides_the_learning_rate();
    gradients_from_the_future_are_refused();
    room_is_seen();
    the_seat_is_lost();
    heartbeats();
    counters_wrap_around();
    learner_dies_between_commit_and_signal();
    consumed_signal_never_goes_back();
    hogwild_death_keeps_the_ledger();
    return check_result();
}
