// A worker whose batch is shared by several threads: the same bits for any number of them, and the gradient of one batch.
#include "fastac/worker.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "check.hpp"

using namespace fastac;
using namespace std::chrono_literals;

namespace {

const MlpShape shape{.hidden = {8, 8}};

std::vector<Pcg64::Words> seeds(std::size_t n, std::uint64_t from) {
    std::vector<Pcg64::Words> all;
    for (std::uint64_t i = 0; i < n; ++i) all.push_back({from, i, 7, i});
    return all;
}

std::vector<float> draw(std::size_t n) {
    std::mt19937 random(5);
    std::normal_distribution<float> normal(0.0F, 0.3F);
    std::vector<float> params(n);
    for (float& p : params) p = normal(random);
    return params;
}

RolloutConfig batch_of(std::size_t n_envs) { return {.n_steps = 7, .n_envs = n_envs, .max_episode_steps = 12, .gamma = 0.99, .gae_lambda = 0.9, .reward_scale = 0.5}; }

const RolloutConfig long_batch{.n_steps = 1'000, .n_envs = 12, .max_episode_steps = 40, .gamma = 0.99, .gae_lambda = 0.9, .reward_scale = 0.5};

Worker worker_of(std::size_t n_envs, std::size_t members, std::vector<double> pauses = {}) {
    return {shape, batch_of(n_envs), seeds(n_envs, 1), seeds(n_envs, 2), members, std::move(pauses)};
}

void the_sum_of_blocks_is_the_gradient_of_the_batch() {
    constexpr std::size_t n = 20;
    const std::vector<float> params = draw(shape.parameters());
    Worker worker = worker_of(n, 1);
    worker.collect(params, [] {});
    const LossConfig weights{.vf_coef = 0.7, .ent_coef = 0.01, .max_grad_norm = 0.0};
    std::vector<float> by_blocks(params.size()), whole(params.size());
    const GradientStats stats = worker.gradient(weights, by_blocks);

    Collector batch(batch_of(n), seeds(n, 1), seeds(n, 2));
    Mlp policy(shape, batch.rows());
    policy.load(params);
    batch.collect(policy, [] {});
    ActorCriticGradient gradient(batch.steps());
    const BlockSums sums[] = {gradient.compute(policy, batch, weights, batch.steps(), whole)};
    const GradientStats expected = stats_of(sums);
    float largest = 0.0F;
    for (const float g : whole) largest = std::max(largest, std::abs(g));
    for (std::size_t i = 0; i < whole.size(); ++i) CHECK(std::abs(by_blocks[i] - whole[i]) < 1e-6F * std::max(1.0F, largest));
    CHECK(std::abs(stats.grad_norm - grad_norm(whole.data(), whole.size())) < 1e-6 * stats.grad_norm);
    CHECK(std::abs(stats.policy_loss - expected.policy_loss) < 1e-9 && std::abs(stats.return_var - expected.return_var) < 1e-9);
    CHECK(std::abs(stats.explained_variance - expected.explained_variance) < 1e-9);
    std::vector<float> clipped(params.size());
    const GradientStats again = worker.gradient({.vf_coef = 0.7, .ent_coef = 0.01, .max_grad_norm = 0.01}, clipped);
    CHECK_EQ(again.grad_norm, stats.grad_norm);
    CHECK(std::abs(grad_norm(clipped.data(), clipped.size()) - 0.01) < 1e-6);
}

/// Parameters after some updates, in two calls, and how they ended.
std::vector<float> trained(std::size_t n_envs, std::size_t members, Worker::Ended& ended, const std::vector<double>& pauses = {}) {
    const std::vector<float> start = draw(shape.parameters());
    RegionConfig config;
    config.parameters = static_cast<std::uint32_t>(start.size());
    const SharedRegion region = SharedRegion::create(config, 1);
    Session observer(region, 1), session(region, 0);
    observer.initialize(start, {}, 0);
    Worker worker = worker_of(n_envs, members, pauses);
    const LoopConfig loop{.total_timesteps = 7 * n_envs * 30, .learning_rate = {1e-2, {1.0, 0.0}}, .ent_coef = {1e-2}, .vf_coef = 0.5, .max_grad_norm = 0.5};
    CHECK(worker.run(session, loop, 1h, 11) == Worker::Ended::not_yet);
    CHECK_EQ(worker.updates(), 11U);
    ended = worker.run(session, loop, 1h, 0);
    std::vector<float> params(start.size());
    CHECK_EQ(session.read(params).version, 30U);
    return params;
}

void any_number_of_members_ends_with_the_same_bits() {
    for (const std::size_t n_envs : {std::size_t{9}, std::size_t{32}, std::size_t{37}}) {
        Worker::Ended ended{};
        const std::vector<float> one = trained(n_envs, 1, ended);
        CHECK(ended == Worker::Ended::finished);
        for (std::size_t members = 2; members <= std::min<std::size_t>(4, (n_envs + 7) / 8); ++members) {
            const std::vector<float> several = trained(n_envs, members, ended);
            CHECK(ended == Worker::Ended::finished);
            CHECK(std::memcmp(one.data(), several.data(), one.size() * sizeof(float)) == 0);
        }
    }
}

/// What an update of worker 0 makes of `params` where worker 1's came in the midst of its rollout: those after both, and those
/// after worker 1's alone. Tried until it did.
struct Drifted {
    std::vector<float> between, after;
    Snapshot now{};
};
Drifted drift(const std::vector<float>& params, std::size_t members, const LoopConfig& loop, float rate = 0.1F) {
    RegionConfig config;
    config.workers = 2;
    config.parameters = static_cast<std::uint32_t>(params.size());
    config.optimizer.kind = OptimizerKind::sgd;
    std::vector<float> other(params.size());
    for (std::size_t i = 0; i < other.size(); ++i) other[i] = static_cast<float>(i % 7) - 3.0F;
    for (;;) {
        const SharedRegion region = SharedRegion::create(config, 1);
        Session observer(region, 2), session(region, 0), another(region, 1);
        observer.initialize(params, {}, 0);
        Worker worker(shape, long_batch, seeds(12, 1), seeds(12, 2), members);
        const std::uint64_t started = another.heartbeat(0);
        std::thread thread([&] { worker.run(session, loop, 1h, 1); });
        while (another.heartbeat(0) < started + 10) std::this_thread::yield();  // it has read, and acts
        another.submit(other, {0, 1, static_cast<double>(rate)});
        const bool before_its_end = another.heartbeat(0) < started + long_batch.n_steps;
        thread.join();
        if (!before_its_end) continue;
        Drifted found{params, std::vector<float>(params.size())};
        for (std::size_t i = 0; i < params.size(); ++i) found.between[i] += -rate * other[i];
        found.now = observer.copy_record(found.after, {});
        return found;
    }
}

/// Against a rollout, its reweighing and its gradient taken one after the other; SGD at rate 0.1.
void an_update_makes_up_for_what_came_during_its_rollout() {
    const std::vector<float> params = draw(shape.parameters());
    LoopConfig loop{.total_timesteps = 1'000'000'000, .learning_rate = {0.1}, .ent_coef = {1e-2}, .vf_coef = 0.5, .max_grad_norm = 0.5};
    const LossConfig weights{.vf_coef = 0.5, .ent_coef = 1e-2, .max_grad_norm = 0.5};
    for (const std::string how : {"plain", "compensated", "v_trace"}) {
        loop.delay_compensation = how == "compensated" ? 3.0 : 0.0;
        loop.v_trace = how == "v_trace";
        for (std::size_t members = 1; members <= 2; ++members) {
            const Drifted found = drift(params, members, loop);
            CHECK_EQ(found.now.version, 2U);
            CHECK_EQ(found.now.counts.staleness_sum, how == "v_trace" ? 0U : 1U);  // counted from the reading that the gradient is of
            Worker worker(shape, long_batch, seeds(12, 1), seeds(12, 2));
            std::vector<float> grad(params.size());
            worker.collect(params, [] {});
            if (how == "v_trace") worker.reweigh(found.between);
            worker.gradient(weights, grad);
            float largest = 0.0F;
            for (const float g : grad) largest = std::max(largest, std::abs(g));
            for (std::size_t i = 0; i < grad.size(); ++i) {
                if (how == "compensated") grad[i] += 3.0F * grad[i] * grad[i] * (found.between[i] - params[i]);
                CHECK(std::abs(found.after[i] - (found.between[i] - 0.1F * grad[i])) < 1e-5F * largest);
            }
        }
    }
}

/// The gradient was finite, what it was compensated to is not.
void what_compensation_makes_infinite_is_rejected() {
    const std::vector<float> params = draw(shape.parameters());
    const LoopConfig loop{.total_timesteps = 1'000'000'000, .learning_rate = {0.1}, .ent_coef = {}, .max_grad_norm = 0.5, .delay_compensation = 3e38};
    const Drifted found = drift(params, 1, loop, 1e6F);
    CHECK_EQ(found.now.counts.rejected_nonfinite, 1U);
    CHECK_EQ(found.now.version, 1U);
    CHECK(found.after == found.between);
}

void a_run_that_is_over_or_taken_away_ends_for_all_members() {
    RegionConfig config;
    config.parameters = static_cast<std::uint32_t>(shape.parameters());
    const SharedRegion region = SharedRegion::create(config, 1);
    Session observer(region, 1), session(region, 0);
    observer.initialize(draw(shape.parameters()), {}, 0);
    Worker worker = worker_of(24, 3);
    const LoopConfig loop{.total_timesteps = 1'000'000'000, .learning_rate = {1e-3}, .ent_coef = {}};
    CHECK(worker.run(session, loop, 5ms, 0) == Worker::Ended::not_yet);
    observer.request_stop();
    CHECK(worker.run(session, loop, 1h, 0) == Worker::Ended::stopped);

    const SharedRegion other = SharedRegion::create(config, 2);
    Session parent(other, 1), lost(other, 0);
    parent.initialize(std::vector<float>(shape.parameters(), std::nanf("")), {}, 0);
    Worker diverging = worker_of(24, 3);
    CHECK(diverging.run(lost, loop, 1h, 0) == Worker::Ended::diverged);
    CHECK_EQ(diverging.updates(), Worker::most_nonfinite);
    parent.reap(0);
    CHECK_THROWS(SeatLost, diverging.run(lost, loop, 1h, 0));
}

void pauses_take_their_time_and_change_no_bit() {
    Worker::Ended ended{};
    const std::vector<float> at_once = trained(20, 3, ended);
    for (const std::size_t members : {std::size_t{1}, std::size_t{3}}) {
        const auto begun = std::chrono::steady_clock::now();
        // Three blocks. The list of two updates is taken 15 times: 15 * (4 + 6) ms by three members, 15 * (7 + 8) by one.
        const std::vector<float> slow = trained(20, members, ended, {1e-3, 2e-3, 4e-3, 1e-3, 6e-3, 1e-3});
        CHECK(std::chrono::steady_clock::now() - begun >= (members == 3 ? 150ms : 225ms));
        CHECK(ended == Worker::Ended::finished);
        CHECK(std::memcmp(at_once.data(), slow.data(), slow.size() * sizeof(float)) == 0);
    }
}

void a_pause_ends_with_the_run() {
    RegionConfig config;
    config.parameters = static_cast<std::uint32_t>(shape.parameters());
    for (const std::size_t members : {std::size_t{1}, std::size_t{3}}) {
        const SharedRegion region = SharedRegion::create(config, 1);
        Session observer(region, 1), session(region, 0);
        observer.initialize(draw(shape.parameters()), {}, 0);
        Worker worker = worker_of(24, members, {3600.0, 3600.0, 3600.0});
        const LoopConfig loop{.total_timesteps = 1'000'000'000, .learning_rate = {1e-3}, .ent_coef = {}};
        Worker::Ended ended{};
        std::thread run([&] { ended = worker.run(session, loop, 1h, 0); });
        // More signs of life than its rollout gives: it sleeps, and says so.
        while (observer.heartbeat(0) < 3 * batch_of(24).n_steps + 5) std::this_thread::yield();
        CHECK_EQ(observer.ledger().begun, 0U);
        observer.request_stop();
        run.join();
        CHECK(ended == Worker::Ended::stopped);
        CHECK_EQ(worker.updates(), 1U);  // what was rolled out is not lost
    }
}

void what_makes_no_team() {
    CHECK_THROWS(std::invalid_argument, worker_of(8, 2));
    CHECK_THROWS(std::invalid_argument, worker_of(17, 4));
    CHECK_THROWS(std::invalid_argument, worker_of(8, 0));
    CHECK_THROWS(std::invalid_argument, worker_of(9, 2, {1.0}));
    CHECK_THROWS(std::invalid_argument, worker_of(9, 2, {1.0, -1.0}));
    CHECK_THROWS(std::invalid_argument, worker_of(8, 1, {std::nan("")}));
    CHECK_THROWS(std::invalid_argument, worker_of(8, 1, {86'401.0}));
    CHECK_THROWS(std::invalid_argument, Worker(shape, batch_of(9), seeds(8, 1), seeds(9, 2)));
    CHECK_THROWS(std::invalid_argument, Worker(shape, batch_of(9), seeds(9, 1), seeds(10, 2)));
    CHECK_THROWS(std::invalid_argument, Worker(shape, batch_of(0), {}, {}));
}

}  // namespace

int main() {
    the_sum_of_blocks_is_the_gradient_of_the_batch();
    any_number_of_members_ends_with_the_same_bits();
    an_update_makes_up_for_what_came_during_its_rollout();
    what_compensation_makes_infinite_is_rejected();
    a_run_that_is_over_or_taken_away_ends_for_all_members();
    pauses_take_their_time_and_change_no_bit();
    a_pause_ends_with_the_run();
    what_makes_no_team();
    return check_result();
}
