// Who takes the next step. Fibers of one thread, switched at every atomic operation by a seeded choice; any of them can
// be killed, suspended for long, or left to run alone.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <string>
#include <utility>

#include "fibers.hpp"
#include "memory_model.hpp"

namespace schedules {

/// uniform: at each step anybody. bursts: the same one goes on for a while. round_robin: all in turn, a quantum each.
/// priorities: the highest runs until, rarely, it falls to the lowest (Burckhardt et al. 2010, "PCT": few preemptions find most bugs).
enum class Strategy { uniform, bursts, round_robin, priorities };

/// How one schedule is made.
struct Plan {
    Strategy strategy = Strategy::uniform;
    std::uint64_t burst = 1;             // steps between two switches: a mean for bursts, exact for round_robin
    std::uint64_t suspend_permille = 0;  // of the steps suspend their fiber for long
    std::uint64_t hold_percent = 0;      // of the read-modify-writes do so just before
    std::uint64_t hold_wide_percent = 0;  // and of those of 64 bits: when a builder holds the most, at its commit
    std::uint64_t longest = 2000;        // steps that a fiber is suspended for, unless all others are stuck
    std::uint64_t alone_permille = 0;    // of the steps freeze all others until the verb ends
    std::uint64_t alone_bound = 0;       // steps that it may take then
};

enum class Step { other, read_modify_write, wide_read_modify_write };

/// When a fiber is killed: before its step of this number, or with the first after a read-modify-write, which is where things
/// become true for all. 0: never.
struct Death {
    std::uint64_t at_step = 0;
    std::uint64_t after_read_modify_write = 0;
};

class Scheduler {
public:
    std::uint64_t crashes = 0;
    std::uint64_t most_alone = 0;  // steps that a verb took with all others frozen

    void begin(const Plan& plan, std::uint64_t seed) {
        plan_ = plan;
        random_ = Random(seed);
        steps_ = 0;
        alone_ = false;
        for (Task& task : tasks_) task.state = State::absent;
    }
    /// A new fiber on this lane.
    void start(std::size_t lane, Death death, std::function<void()> body) {
        Task& task = tasks_[lane];
        task.state = State::ready;
        task.wakes = task.steps = task.read_modify_writes = 0;
        task.death = death;
        task.in_verb = false;
        task.priority = static_cast<std::int64_t>(random_.below(1'000'000));
        task.fiber.begin([this, lane, run = std::move(body)] {
            try {
                run();
            } catch (const std::exception& e) {
                violated(std::string("unexpected: ") + e.what());
            }
            leave(lane, State::done);
        });
    }
    /// Runs all fibers to their ends.
    void run() {
        const std::size_t first = choose();
        if (first != nobody) switch_to(first);
    }

    [[nodiscard]] bool inside() const noexcept { return current_ != nobody; }
    [[nodiscard]] std::size_t current() const noexcept { return current_; }
    [[nodiscard]] std::uint64_t steps() const noexcept { return steps_; }
    [[nodiscard]] bool alone() const noexcept { return alone_; }
    [[nodiscard]] bool dead(std::size_t lane) const noexcept { return tasks_[lane].state == State::dead; }
    [[nodiscard]] bool present(std::size_t lane) const noexcept { return tasks_[lane].state != State::absent; }

    /// Before every atomic operation of a fiber.
    void point(Step step) {
        const bool read_modify_write = step != Step::other;
        Task& me = tasks_[current_];
        if (++steps_ > step_limit) violated("no end after " + std::to_string(steps_) + " steps");
        if (++me.steps == me.death.at_step) {
            ++crashes;
            alone_ = false;
            leave(current_, State::dead);
        }
        if (read_modify_write && ++me.read_modify_writes == me.death.after_read_modify_write) me.death.at_step = me.steps + 1;
        if (alone_) {
            count_alone();
        } else if (me.in_verb && random_.permille(plan_.alone_permille)) {
            alone_ = true;
            alone_steps_ = 0;
        } else {
            if (random_.permille(plan_.suspend_permille) || (read_modify_write && random_.percent(plan_.hold_percent)) ||
                (step == Step::wide_read_modify_write && random_.percent(plan_.hold_wide_percent)))
                me.wakes = steps_ + random_.between(20, plan_.longest);
            switch_to(choose());
        }
    }

    /// What comes between the two must end within a bounded number of steps if all others are frozen.
    void begin_verb() noexcept { tasks_[current_].in_verb = true; }
    void end_verb() noexcept {
        tasks_[current_].in_verb = false;
        alone_ = false;
    }

    /// The fiber sleeps until another finishes, dies or calls `notify`.
    void wait_for_event() { sleep(nullptr, State::waiting); }
    void notify() noexcept {
        for (Task& task : tasks_)
            if (task.state == State::waiting) task.state = State::ready;
    }
    /// The fiber sleeps at a futex word, until woken or until nobody else can go on: then its time is up.
    void sleep_at(const void* word) { sleep(word, State::asleep); }
    void wake_at(const void* word) noexcept {
        for (Task& task : tasks_)
            if (task.state == State::asleep && task.word == word) task.state = State::ready;
    }
    /// Whether a sleeper's time may run out. Else it is a lost wake-up.
    std::function<bool()> may_time_out;

private:
    static constexpr std::size_t nobody = SIZE_MAX;
    static constexpr std::uint64_t step_limit = 200'000;
    enum class State { absent, ready, waiting, asleep, dead, done };
    struct Task {
        Fiber fiber;
        State state = State::absent;
        std::uint64_t wakes = 0;  // suspended until this step
        std::uint64_t steps = 0, read_modify_writes = 0;
        Death death;
        std::int64_t priority = 0;
        const void* word = nullptr;
        bool in_verb = false;
    };

    void count_alone() {
        most_alone = std::max(most_alone, ++alone_steps_);
        if (alone_steps_ > plan_.alone_bound) violated("with all others frozen a verb takes more than " + std::to_string(plan_.alone_bound) + " steps: not lock-free");
    }
    void sleep(const void* word, State state) {
        tasks_[current_].word = word;
        tasks_[current_].state = state;
        alone_ = false;
        switch_to(choose());
    }
    void leave(std::size_t lane, State state) {
        tasks_[lane].state = state;
        notify();
        switch_to(choose());
    }
    void switch_to(std::size_t next) {
        if (next == current_) return;
        Fiber& from = current_ == nobody ? main_ : tasks_[current_].fiber;
        current_ = next;
        Fiber::switch_to(from, next == nobody ? main_ : tasks_[next].fiber);
    }

    /// Who goes on; nobody: all are dead or done.
    std::size_t choose() {
        std::uint32_t able = 0;
        for (std::size_t i = 0; i < lanes; ++i)
            if (tasks_[i].state == State::ready && tasks_[i].wakes <= steps_) able |= 1U << i;
        if (able == 0) able = pass_time();
        if (able == 0) return nobody;
        switch (plan_.strategy) {
            case Strategy::uniform: return any(able);
            case Strategy::bursts: return is(able, current_) && random_.below(plan_.burst) != 0 ? current_ : any(able);
            case Strategy::round_robin: return next_in_turn(able);
            case Strategy::priorities: return highest(able);
        }
        return nobody;
    }
    static bool is(std::uint32_t able, std::size_t lane) noexcept { return lane < lanes && (able >> lane & 1U) != 0; }
    std::size_t any(std::uint32_t able) noexcept {
        for (std::uint64_t skip = random_.below(static_cast<std::uint64_t>(std::popcount(able))); skip > 0; --skip) able &= able - 1;
        return static_cast<std::size_t>(std::countr_zero(able));
    }
    std::size_t next_in_turn(std::uint32_t able) noexcept {
        if (is(able, current_) && steps_ % plan_.burst != 0) return current_;
        for (std::size_t k = 1; k <= lanes; ++k)
            if (const std::size_t lane = (current_ + k) % lanes; is(able, lane)) return lane;
        return nobody;
    }
    std::size_t highest(std::uint32_t able) noexcept {
        if (is(able, current_) && random_.permille(5)) tasks_[current_].priority = -static_cast<std::int64_t>(steps_);
        std::size_t best = nobody;
        for (std::size_t i = 0; i < lanes; ++i)
            if (is(able, i) && (best == nobody || tasks_[i].priority > tasks_[best].priority)) best = i;
        return best;
    }

    /// Nobody can go on: the next suspension ends, or the sleepers' time is up.
    std::uint32_t pass_time() {
        std::size_t first = nobody;
        for (std::size_t i = 0; i < lanes; ++i)
            if (tasks_[i].state == State::ready && (first == nobody || tasks_[i].wakes < tasks_[first].wakes)) first = i;
        if (first != nobody) {
            tasks_[first].wakes = 0;
            return 1U << first;
        }
        std::uint32_t able = 0, stuck = 0;
        for (std::size_t i = 0; i < lanes; ++i) {
            if (tasks_[i].state == State::asleep) able |= 1U << i;
            if (tasks_[i].state == State::waiting) stuck |= 1U << i;
        }
        if (able == 0 && stuck != 0) violated("all wait for each other");
        if (able != 0 && !may_time_out()) violated("a wake-up is lost: all sleep");
        for (Task& task : tasks_)
            if (task.state == State::asleep) task.state = State::ready;
        return able;
    }

    Plan plan_;
    Random random_{0};
    Task tasks_[lanes];
    Fiber main_;
    std::size_t current_ = nobody;
    std::uint64_t steps_ = 0;
    bool alone_ = false;
    std::uint64_t alone_steps_ = 0;
};

}  // namespace schedules
