// Where a schedule takes place: a small region, the books of its gradients, and the sessions that sit at it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <utility>
#include <vector>

#include "books.hpp"

namespace schedules {

using fastac::Session;

/// Runs what must end within a bounded number of steps while all others are frozen.
template <class Verb>
auto verb(Verb run) {
    struct Ends {
        ~Ends() { scheduler.end_verb(); }
    };
    scheduler.begin_verb();
    const Ends ends;
    return run();
}

/// What lasts while fibers come and go. A killed one has left its session and its vectors here, not on its stack.
class Stage {
public:
    [[nodiscard]] const fastac::SharedRegion& region() const noexcept { return region_; }

protected:
    explicit Stage(std::uint64_t seed)
        : scenario_(Scenario::draw(seed)), random_(~seed), region_(fastac::SharedRegion::create(scenario_.config, seed)), books_(scenario_), workers_(scenario_.workers()) {
        begin_counters();
        for (Sitter& sitter : sitters_) sitter.params.resize(scenario_.config.parameters);
        memory.begin(const_cast<fastac::RegionHeader*>(&region_.header()), region_.layout().bytes, seed + 1, scenario_.stale_percent, scenario_.early_percent);
        scheduler.begin(scenario_.plan, seed + 2);
        // A sleeper's time may run out where somebody died before it could wake him, and at the end.
        scheduler.may_time_out = [this] { return reaped_ > 0 || stopping_; };
        crashes_left_ = scenario_.crashes;
    }

    static constexpr std::size_t none = lanes;  // the parent of those that begin with the schedule
    static constexpr std::size_t heir = lanes - 2, successor = lanes - 1;  // who sits in a seat that was handed over, lost

    struct Worker {
        std::uint64_t pushes_left = 0;
        std::uint64_t rows = 0;  // written to its log
        std::uint64_t rows_read = 0;
        std::size_t lane = 0;
        bool hangs = false;
        bool done = false;
    };
    /// What the fiber of a lane works with.
    struct Sitter {
        std::unique_ptr<Session> session;
        std::vector<float> params, grad;
        std::vector<std::size_t> pushed;  // and not yet settled
    };

    [[nodiscard]] std::size_t observer() const noexcept { return scenario_.workers(); }
    [[nodiscard]] std::size_t learner() const noexcept { return scenario_.workers() + 1; }
    [[nodiscard]] bool scheme_is(fastac::UpdateScheme scheme) const noexcept { return scenario_.config.scheme == scheme; }
    [[nodiscard]] bool hogwild() const noexcept { return scheme_is(fastac::UpdateScheme::hogwild); }

    void begin_counters() {
        const std::vector<float> zeros(scenario_.config.parameters);
        Session(region_, observer()).initialize(zeros, {}, scenario_.first_version);
        const std::uint64_t first = scenario_.first_sequence;
        for (std::size_t w = 0; w < workers_.size(); ++w) {
            workers_[w].pushes_left = scenario_.pushes;
            fastac::WorkerBlock& words = region_.worker(w);
            words.begun.store(first);
            words.published.store(first);
            words.log_written.store(scenario_.first_row);
            words.log_read.store(scenario_.first_row);
            words.consumed_signal.store(static_cast<std::uint32_t>(first));
            region_.consumed(0)[w] = first;
        }
        region_.control().pushed_signal.store(static_cast<std::uint32_t>(first));
    }
    template <class Body>
    void start(std::size_t lane, std::size_t parent, Death death, Body body) {
        memory.begin_fiber(lane, parent);
        scheduler.start(lane, death, std::move(body));
    }
    Death draw_death() {
        if (crashes_left_ == 0 || !random_.percent(50)) return {};
        --crashes_left_;
        if (random_.percent(40)) return {.after_read_modify_write = random_.between(1, 12)};
        return {.at_step = random_.between(1, random_.percent(50) ? 60 : 300)};
    }
    Session& sit(std::size_t seat, std::size_t lane) {
        std::unique_ptr<Session>& session = sitters_[lane].session;
        // That of a dead fiber is kept: no destructor runs where a process is killed.
        if (session) left_behind_.push_back(std::move(session));
        // An heir has heard nothing and may find the seat taken still; nobody else may.
        while (!verb([&] { return try_to_sit(session, seat); })) expect(lane == heir, "a free seat is taken");
        return *session;
    }
    bool try_to_sit(std::unique_ptr<Session>& session, std::size_t seat) const {
        try {
            session = std::make_unique<Session>(region_, seat);
        } catch (const std::logic_error&) {
            return false;
        }
        return true;
    }
    void leave(std::size_t lane) {
        verb([&] { sitters_[lane].session.reset(); });
    }

    std::uint64_t read(Session& session, std::size_t lane) {
        std::vector<float>& params = sitters_[lane].params;
        const fastac::Snapshot at = verb([&] { return session.read(params); });
        check_read(session.seat(), params, at);
        return at.version;
    }
    void check_read(std::size_t seat, std::span<const float> params, const fastac::Snapshot& at) {
        if (hogwild()) books_.check_subset(params);
        else books_.check_read(seat, params, at);
    }

    void expect_vacant(std::size_t seat) const {
        expect(peek(region_.seat(seat).taken) == 0 && peek(region_.seat(seat).hazard) == 0, "a seat that was left is taken or protects a record");
        for (std::size_t r = 0; r < region_.layout().records; ++r) expect(peek(region_.owner(r)) != seat + 1, "a seat that was left owns a record");
    }

    Scenario scenario_;
    Random random_;
    fastac::SharedRegion region_;
    Books books_;
    std::vector<Worker> workers_;
    std::array<Sitter, lanes> sitters_;
    std::vector<std::unique_ptr<Session>> left_behind_;
    std::uint64_t crashes_left_ = 0;
    std::uint64_t reaped_ = 0;
    bool stopping_ = false;
};

}  // namespace schedules
