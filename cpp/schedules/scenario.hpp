// What is drawn from the seed of a schedule: the region, what its workers do, and how their steps are mixed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "fastac/updates.hpp"
#include "scheduled_atomics.hpp"

namespace schedules {

struct Scenario {
    fastac::RegionConfig config;
    std::uint64_t pushes = 1;          // of each worker
    std::uint64_t first_version = 0;   // all counters begin just below the point where they wrap around, or at 0
    std::uint64_t first_sequence = 0;  // published, begun, consumed and, cut to 32 bits, the signals of `queue`
    std::uint64_t first_row = 0;       // log_written, log_read
    std::uint64_t stale_percent = 0;   // of the loads that may return an old value do
    std::uint64_t early_percent = 0;   // of the seq_cst operations stand as early in their order as they may
    std::uint64_t crashes = 0;         // at most, besides an heir's
    std::uint64_t nonfinite_percent = 0;
    bool observer_drains = false;
    bool learner = false;     // somebody sits in the learner's seat: under `queue` it serves, else it drains now and then
    bool loses_seat = false;  // a worker that lives is declared dead, between two verbs
    bool hands_over = false;  // a worker leaves in order, and another who has heard nothing of it waits for the seat
    bool heir_dies = false;   // and is killed before it sits down
    Plan plan{};

    [[nodiscard]] std::size_t workers() const noexcept { return config.workers; }
    [[nodiscard]] std::size_t seats() const noexcept { return config.workers + 2; }
    /// Who may build records.
    [[nodiscard]] std::uint64_t builders() const noexcept { return workers() + (observer_drains ? 1 : 0) + (learner ? 1 : 0); }

    static Scenario draw(std::uint64_t seed) {
        using enum fastac::UpdateScheme;
        Random random(seed);
        Scenario s;
        const std::uint64_t scheme = random.below(10);
        s.config.scheme = scheme < 8 ? lockfree : scheme == 8 ? queue : hogwild;
        s.config.workers = static_cast<std::uint32_t>(random.between(2, 4));
        s.config.parameters = static_cast<std::uint32_t>(random.between(1, 9));
        s.config.slots = static_cast<std::uint32_t>(random.between(1, 2));
        s.config.log_rows = 2;
        s.config.optimizer.kind = fastac::OptimizerKind::sgd;
        s.config.wait_deadline_ms = 3'600'000;
        if (random.percent(30)) s.config.max_staleness = random.below(3);
        s.pushes = random.between(1, 4);
        if (random.percent(80)) s.begin_about_to_wrap();
        s.stale_percent = random.percent(25) ? 0 : random.between(1, 50);
        s.early_percent = random.percent(50) ? 100 : random.below(100);
        s.crashes = random.percent(50) ? random.between(1, 2) : 0;
        s.nonfinite_percent = random.percent(25) ? 20 : 0;
        s.observer_drains = random.percent(50);
        s.learner = s.config.scheme == queue || random.percent(50);
        s.loses_seat = random.percent(15);
        s.hands_over = random.percent(15);
        s.draw_plan(random);
        s.heir_dies = s.hands_over && random.percent(50);
        return s;
    }

    [[nodiscard]] std::string describe() const {
        static const char* const schemes[] = {"lockfree", "lock", "queue", "hogwild"};
        static const char* const strategies[] = {"uniform", "bursts", "round robin", "priorities"};
        const auto number = [](std::uint64_t n) { return std::to_string(n); };
        return std::string(schemes[static_cast<std::size_t>(config.scheme)]) + ", " + number(workers()) + " workers, " + number(pushes) + " pushes each, P " +
               number(config.parameters) + ", " + number(config.slots) + " slots, counters from " + number(first_sequence) + ", max_staleness " +
               (config.max_staleness == fastac::no_staleness_limit ? "none" : number(config.max_staleness)) + ", at most " + number(crashes) + " crashes, " +
               number(stale_percent) + " % stale loads" + (observer_drains ? ", observer drains" : "") + (learner ? ", learner" : "") +
               (loses_seat ? ", a seat is lost" : "") + (hands_over ? ", a seat is handed over" : "") + (heir_dies ? " to one who dies" : "") + ", " + strategies[static_cast<std::size_t>(plan.strategy)] + " (" + number(plan.burst) + ")";
    }

private:
    void begin_about_to_wrap() noexcept {
        first_version = (1ULL << 48) - 2;
        first_row = UINT64_MAX - 1;
        first_sequence = UINT64_MAX - 1;
    }

    void draw_plan(Random& random) noexcept {
        plan.strategy = static_cast<Strategy>(random.below(4));
        plan.burst = random.between(2, 40);
        plan.suspend_permille = random.percent(50) ? random.between(1, 20) : 0;
        plan.hold_percent = random.percent(40) ? random.between(5, 60) : 0;
        plan.hold_wide_percent = random.percent(25) ? random.between(20, 80) : 0;
        if (random.percent(40)) plan.longest = 1'000'000;
        if (config.scheme == fastac::UpdateScheme::queue) return;  // its workers wait for the learner
        plan.alone_permille = random.percent(50) ? random.between(1, 10) : 0;
        plan.alone_bound = most_steps_alone();
    }

    /// Of one verb while all others are frozen. At most three rounds for each of two gradients to be settled: one whose base is
    /// outdated, one that commits, one that looks.
    [[nodiscard]] std::uint64_t most_steps_alone() const noexcept {
        const std::uint64_t records = 2 * seats() + 2;
        const std::uint64_t gradient = 8 + (config.parameters + 1) / 2;
        const std::uint64_t claim = records * (seats() + 4), build = workers() * (1 + 2 * config.slots * gradient);
        return 2 * gradient + 6 * (claim + build + 8) + (config.scheme == fastac::UpdateScheme::hogwild ? 80 * workers() : 0);
    }
};

}  // namespace schedules
