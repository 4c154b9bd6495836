// Threads that work together: the barrier, the sum of the blocks' gradients and their statistics. With envs: test_worker.cpp.
#include "fastac/team.hpp"

#include <time.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "check.hpp"
#include "fastac/gradient.hpp"

using namespace fastac;

namespace {

void all_see_what_each_did_before_a_meeting(bool sleeps) {
    constexpr std::size_t members = 4, rounds = 2'000;
    std::vector<std::size_t> written(members, 0);  // plain memory: a meeting that orders nothing is a race
    std::size_t wrong = 0;
    together(members, [&](Barrier& barrier, std::size_t m) {
        for (std::size_t round = 1; round <= rounds; ++round) {
            written[m] = round;
            if (!barrier.meet()) return;
            if (m == round % members)
                for (const std::size_t w : written) wrong += static_cast<std::size_t>(w != round);
            if (!barrier.meet()) return;
        }
    }, sleeps);
    CHECK_EQ(wrong, 0U);
    for (const std::size_t w : written) CHECK_EQ(w, rounds);
}

double processor_s() {
    timespec used{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    return static_cast<double>(used.tv_sec) + 1e-9 * static_cast<double>(used.tv_nsec);
}

void a_long_wait_uses_no_core() {
    constexpr std::chrono::milliseconds late{500};
    double used = 1.0;
    together(2, [&](Barrier& barrier, std::size_t m) {
        if (m == 0) std::this_thread::sleep_for(late);
        const double before = processor_s();
        CHECK(barrier.meet());
        if (m == 1) used = processor_s() - before;
        CHECK(barrier.meet());
    }, true);
    CHECK(used < 0.25);  // of 0.5 s that it waited
}

void one_that_ends_or_fails_leaves_nobody_waiting(bool sleeps) {
    for (std::size_t who = 0; who < 3; ++who) {
        std::atomic<int> left{0};
        const auto work = [&](Barrier& barrier, std::size_t m) {
            if (!barrier.meet()) return;
            if (m == who) throw std::runtime_error("member " + std::to_string(m));
            while (barrier.meet()) {}
            left.fetch_add(1);
        };
        try {
            together(3, work, sleeps);
            CHECK(false);
        } catch (const std::runtime_error& error) {
            CHECK_EQ(std::string(error.what()), "member " + std::to_string(who));
        }
        CHECK_EQ(left.load(), 2);
    }
    int meetings = 0;
    together(3, [&](Barrier& barrier, std::size_t m) {
        if (m == 0) {
            for (; meetings < 5; ++meetings) static_cast<void>(barrier.meet());
            return;
        }
        while (barrier.meet()) {}
    }, sleeps);
    CHECK_EQ(meetings, 5);
}

void blocks_are_added_in_their_order() {
    // In float32, (1 + 2^-24) + 2^-24 = 1 and 1 + (2^-24 + 2^-24) > 1: another order is another number.
    const float tiny = 0x1p-24F;
    std::vector<float> grads = {1.0F, 5.0F, 9.0F, tiny, 6.0F, 9.0F, tiny, 7.0F, 9.0F};
    add_blocks(grads.data(), 3, 3, 0, 2);
    CHECK_EQ(grads[0], 1.0F);
    CHECK_EQ(grads[1], 18.0F);
    CHECK_EQ(grads[2], 9.0F);  // not asked for
    std::vector<float> other = {tiny, tiny, 1.0F};
    add_blocks(other.data(), 3, 1, 0, 1);
    CHECK(other[0] > 1.0F);
}

void statistics_of_blocks_are_those_of_the_batch() {
    // Returns 1, 3 | 8 with errors 1, 3 | -1, worked out by hand: mean 4, variance (9 + 1 + 16) / 3, error mean 1, squares 11 / 3.
    const BlockSums blocks[] = {{2, 1.0, 10.0, 0.5, 4.0, 2.0, 4.0 / 3, 10.0 / 3}, {1, 2.0, 1.0, 0.25, 8.0, 0.0, -1.0 / 3, 1.0 / 3}};
    const GradientStats s = stats_of(blocks);
    const auto near = [](double a, double b) { return std::abs(a - b) < 1e-12; };
    CHECK(near(s.policy_loss, 1.0) && near(s.value_loss, 11.0 / 3) && near(s.entropy, 0.25));
    CHECK(near(s.return_mean, 4.0) && near(s.return_var, 26.0 / 3));
    CHECK(near(s.explained_variance, 1.0 - (11.0 / 3 - 1.0) / (26.0 / 3)));
}

}  // namespace

int main() {
    for (const bool sleeps : {false, true}) {
        all_see_what_each_did_before_a_meeting(sleeps);
        one_that_ends_or_fails_leaves_nobody_waiting(sleeps);
    }
    a_long_wait_uses_no_core();
    blocks_are_added_in_their_order();
    statistics_of_blocks_are_those_of_the_batch();
    return check_result();
}
