// One schedule: what the workers, the learner and the observer do, who is also the parent, each in a fiber.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "stage.hpp"

namespace schedules {

class Schedule : public Stage {
public:
    explicit Schedule(std::uint64_t seed) : Stage(seed) {}

    void run() {
        for (std::size_t w = 0; w < workers_.size(); ++w) start_worker(w, w, none);
        if (scenario_.learner) start_learner(none);
        start(observer(), none, Death{}, [this] { observe(); });
        scheduler.run();
        check_end();
    }

private:
    void start_worker(std::size_t w, std::size_t lane, std::size_t parent) { start_worker(w, lane, parent, draw_death()); }
    void start_worker(std::size_t w, std::size_t lane, std::size_t parent, Death death) {
        workers_[w].lane = lane;
        start(lane, parent, death, [this, w, lane] { work(w, lane); });
    }
    void start_learner(std::size_t parent) {
        start(learner(), parent, draw_death(), [this] { learn(); });
    }

    // ---- a worker -------------------------------------------------------------------------------------

    void work(std::size_t w, std::size_t lane) {
        Session& session = sit(w, lane);
        Worker& me = workers_[w];
        while (me.pushes_left > 0) {
            if (scenario_.hands_over && !handed_over_ && random_.percent(50)) return hand_over(w, lane);
            const std::uint64_t version = read(session, lane);
            if (random_.percent(30)) write_row(session, w);
            if (scenario_.loses_seat && !seat_lost_ && random_.percent(50)) return lose_seat(session, w, lane);
            const bool two = !hogwild() && scenario_.config.slots == 2 && me.pushes_left > 1 && random_.percent(30);
            if (!two || !push_two(session, w, lane, version)) submit(session, w, lane, version);
        }
        read(session, lane);
        leave(lane);
        me.done = true;
    }

    std::size_t begin_gradient(std::size_t w, std::size_t lane) {
        const std::size_t id = books_.begin(w, random_.percent(scenario_.nonfinite_percent));
        sitters_[lane].grad.resize(scenario_.config.parameters);
        books_.fill(id, sitters_[lane].grad);
        return id;
    }
    static fastac::GradientTag tag(std::size_t id, std::uint64_t version_read) noexcept { return {version_read, 1, 1.0, Books::n_summed(id), false, false}; }

    /// Who builds without our gradient wins at most once against us: its next claim reads our hazard word, and with it our
    /// push. Then one that holds our gradient may win. Each makes one of our builds vain.
    template <class Verb>
    auto count_retries(std::size_t w, Verb run) {
        const std::uint64_t before = peek(region_.worker(w).retries), reaped = reaped_;
        const auto result = verb(run);
        if (reaped_ == reaped && scheme_is(fastac::UpdateScheme::lockfree)) {
            const std::uint64_t settles = reaped > 0 ? 2 : 1;  // those before it in its seat may have left one
            expect(peek(region_.worker(w).retries) - before <= settles * scenario_.builders(), "more builds of a push were vain than there are others who build, and one");
        }
        return result;
    }

    void submit(Session& session, std::size_t w, std::size_t lane, std::uint64_t version) {
        const std::size_t id = begin_gradient(w, lane);
        const fastac::Submitted result = count_retries(w, [&] { return session.submit(sitters_[lane].grad, tag(id, version)); });
        books_.submitted(id, result);
        --workers_[w].pushes_left;
    }

    /// Two pushes, settled together. False: the ring is full of what a dead predecessor has left.
    bool push_two(Session& session, std::size_t w, std::size_t lane, std::uint64_t version) {
        std::uint64_t last = 0;
        std::vector<std::size_t>& pushed = sitters_[lane].pushed;
        pushed.clear();
        while (pushed.size() < 2) {
            const std::size_t id = begin_gradient(w, lane);
            const auto sequence = verb([&] { return session.push(sitters_[lane].grad, tag(id, version)); });
            if (!sequence) {
                books_.refused(id);
                break;
            }
            books_.published(id);
            --workers_[w].pushes_left;
            pushed.push_back(id);
            last = *sequence;
        }
        if (pushed.empty()) return false;
        settled_alone_ = settled_alone_ && pushed.size() == 1;
        expect(count_retries(w, [&] { return session.settle(last); }), "a settle was stopped and nobody has asked for it");
        for (const std::size_t id : pushed) books_.consumed(id);
        return true;
    }

    void write_row(Session& session, std::size_t w) {
        const auto row = row_of(w, workers_[w].rows);
        if (verb([&] { return session.log(row.data()); })) ++workers_[w].rows;
        else expect(workers_[w].rows >= scenario_.config.log_rows, "a log that was never full refuses a row");
    }
    static std::array<double, fastac::log_columns> row_of(std::size_t w, std::uint64_t serial) {
        std::array<double, fastac::log_columns> row{};
        for (std::size_t k = 0; k < row.size(); ++k) row[k] = static_cast<double>(1000 * w + 100 * serial + k);
        return row;
    }

    /// Leaves in order, and tells nobody. Where its heir dies before it sits down, the observer takes the seat back from one
    /// who never had it, and has not seen the last holder leave: an old `taken` would tell it that the seat is held, and
    /// `begun` beside an older `published` that a gradient was aborted.
    void hand_over(std::size_t w, std::size_t lane) {
        handed_over_ = true;
        leave(lane);
        start_worker(w, heir, none, scenario_.heir_dies ? Death{.at_step = 1} : draw_death());
    }

    /// Lives, and is declared dead while it does nothing. When it goes on, its seat is another's.
    void lose_seat(Session& session, std::size_t w, std::size_t lane) {
        seat_lost_ = workers_[w].hangs = true;
        scheduler.notify();
        while (workers_[w].hangs) scheduler.wait_for_event();
        memory.observe(lane, observer());
        const Sitter& mine = sitters_[lane];
        std::vector<float> params(mine.params);
        const std::vector<float> grad(mine.params.size(), 1.0F);
        const auto row = row_of(w, 0);
        expect(is_refused([&] { session.read(params); }) && is_refused([&] { session.submit(grad, tag(0, scenario_.first_version)); }) &&
                   is_refused([&] { session.log(row.data()); }) && is_refused([&] { session.beat(); }) && is_refused([&] { session.request_stop(); }),
               "a session goes on without its seat");
        leave(lane);
    }
    template <class Verb>
    static bool is_refused(Verb run) {
        try {
            run();
        } catch (const fastac::SeatLost&) {
            return true;
        }
        return false;
    }

    // ---- the learner ----------------------------------------------------------------------------------

    void learn() {
        Session& session = sit(learner(), learner());
        if (scheme_is(fastac::UpdateScheme::queue)) session.serve(std::chrono::hours(1));
        else
            for (std::uint64_t n = random_.between(1, 4); n > 0; --n) verb([&] { return session.drain(); });
        leave(learner());
        learner_done_ = true;
    }

    // ---- the observer ---------------------------------------------------------------------------------

    void observe() {
        Session& session = sit(observer(), observer());
        for (std::uint64_t acts = random_.between(0, 8);;) {
            while (tend(session)) {}
            if (everybody_done()) break;
            if (acts > 0) {
                --acts;
                act(session);
            } else {
                scheduler.wait_for_event();
            }
        }
        for (const Worker& worker : workers_) memory.observe(observer(), worker.lane);  // it has seen them leave
        stopping_ = true;
        session.request_stop();
        while (scenario_.learner && !learner_done_)
            if (!tend(session)) scheduler.wait_for_event();
        read_rows(session);
        leave(observer());
    }
    [[nodiscard]] bool everybody_done() const {
        for (const Worker& worker : workers_)
            if (!worker.done) return false;
        return true;
    }

    /// Takes back the seat of one who died or hangs and lets another sit there. False: all are well.
    bool tend(const Session& session) {
        for (std::size_t w = 0; w < workers_.size(); ++w) {
            Worker& worker = workers_[w];
            if (worker.hangs) {
                reap(session, w, worker.lane);
                start_worker(w, successor, observer());
                worker.hangs = false;
                scheduler.notify();
                return true;
            }
            if (scheduler.dead(worker.lane)) {
                reap(session, w, worker.lane);
                start_worker(w, worker.lane, observer());
                return true;
            }
        }
        if (!scheduler.dead(learner())) return false;
        reap(session, learner(), learner());
        start_learner(observer());
        return true;
    }
    void reap(const Session& session, std::size_t seat, std::size_t lane) {
        memory.observe(observer(), lane);
        verb([&] { session.reap(seat); });
        ++reaped_;
        expect_vacant(seat);
        if (seat >= workers_.size()) return;
        books_.resolve(seat, peek(region_.worker(seat).published));
        workers_[seat].rows = peek(region_.worker(seat).log_written) - scenario_.first_row;
    }
    void act(Session& session) {
        Sitter& mine = sitters_[observer()];
        switch (random_.below(6)) {
            case 0: read(session, observer()); break;
            case 1: check_read(observer(), mine.params, verb([&] { return session.copy_record(mine.params, {}); })); break;
            case 2: check_ledger(verb([&] { return session.ledger(); })); break;
            case 3: read_rows(session); break;
            case 4:
                books_.check_snapshot(verb([&] { return session.snapshot(); }));
                break;
            default:
                if (scenario_.observer_drains) verb([&] { return session.drain(); });
        }
    }
    /// Who sees a gradient consumed sees it published: else pending would be below 0.
    void check_ledger(const fastac::Ledger& l) const {
        expect(l.pending <= Books::most_gradients, "ledger: more is consumed than published");
        books_.check_snapshot(l.at);
    }
    void read_rows(const Session& session) {
        std::array<double, 2 * fastac::log_columns> rows{};
        for (std::size_t w = 0; w < workers_.size(); ++w) {
            const std::size_t n = verb([&] { return session.unread_log(w); });
            expect(n <= scenario_.config.log_rows, "a log has more unread rows than it can hold");
            verb([&] { session.read_log(w, n, rows.data()); });
            for (std::size_t i = 0; i < n; ++i) {
                const auto expected = row_of(w, workers_[w].rows_read++);
                expect(std::equal(expected.begin(), expected.end(), rows.data() + i * fastac::log_columns), "a row of a log is lost, doubled or not whole");
            }
        }
    }

    // ---- the end --------------------------------------------------------------------------------------

    void check_end() {
        for (std::size_t seat = 0; seat < scenario_.seats(); ++seat) expect_vacant(seat);
        for (const Worker& worker : workers_) expect(worker.rows == worker.rows_read, "the end of a log was not read");
        Session session(region_, observer());
        session.drain();
        const fastac::Ledger ledger = session.ledger();
        books_.check_end(ledger);
        std::vector<fastac::Tally> tallies;
        for (std::size_t w = 0; w < workers_.size(); ++w) tallies.push_back(session.tally(w));
        Books::check_tallies(tallies, ledger.at, reaped_ == 0 && settled_alone_);
        std::vector<float> params(scenario_.config.parameters);
        const fastac::Snapshot at = session.read(params);
        check_read(observer(), params, at);
        if (!hogwild()) books_.check_last_read(Books::bits_of(params[0]), at.counts);
    }

    bool seat_lost_ = false;
    bool handed_over_ = false;
    bool settled_alone_ = true;  // each gradient before the next one was pushed
    bool learner_done_ = false;
};

}  // namespace schedules
