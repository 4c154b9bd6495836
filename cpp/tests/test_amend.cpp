// What is pushed and is no gradient: the amendments of a node's agent (updates.hpp, Target), the sums it takes, and the hold.
#include <cmath>
#include <limits>

#include "fastac/updates.hpp"
#include "fastac/worker.hpp"
#include "harness.hpp"

using namespace fastac;
using enum UpdateScheme;
using harness::tag;

namespace {

using Floats = std::vector<float>;

GradientTag to(Target target, std::uint64_t env_steps = 0) { return {.env_steps = env_steps, .target = target}; }

SharedRegion region_of(std::uint32_t workers, OptimizerKind kind, UpdateScheme scheme = lockfree, double max_grad_norm = 0.0) {
    RegionConfig config = harness::config(workers, 3, scheme);
    config.optimizer.kind = kind;
    config.optimizer.max_grad_norm = max_grad_norm;
    return SharedRegion::create(config, 1);
}

Snapshot copy(Session& session, Floats& params, Floats& state) { return session.copy_record(params, state); }

void amended_beside_gradients() {
    for (const UpdateScheme scheme : {lockfree, lock, queue}) {
        const SharedRegion region = region_of(2, OptimizerKind::sgd, scheme);
        const harness::Learner learner(region);
        Session worker(region, 0), agent(region, 1), observer(region, 2);
        observer.initialize(Floats{1, 2, 3}, {}, 7);
        CHECK(worker.submit(Floats{1, 1, 1}, tag(7)) == Submitted::applied);
        CHECK(agent.submit(Floats{10, 20, 30}, to(Target::add_params, 100)) == Submitted::applied);
        Floats p(3), none;
        Snapshot now = copy(observer, p, none);
        CHECK(p == Floats({10, 21, 32}));
        CHECK_EQ(now.env_steps, 105U);
        CHECK_EQ(now.version, 9U);
        CHECK(agent.submit(Floats{-1, -2, -3}, to(Target::set_params)) == Submitted::applied);
        CHECK(worker.submit(Floats{1, 0, 0}, tag(9)) == Submitted::applied);  // one more than it read: the amendment
        CHECK_EQ(worker.staleness(), 1U);
        copy(observer, p, none);
        CHECK(p == Floats({-2, -2, -3}));
        const Ledger l = observer.ledger();
        harness::check_ledger(l, 7);
        CHECK_EQ(l.at.counts.applied, 2U);
        CHECK_EQ(l.at.counts.amended, 2U);
        CHECK_EQ(observer.tally(1).counts.amended, 2U);
        CHECK_EQ(observer.tally(1).counts.applied, 0U);
        CHECK_EQ(observer.tally(1).env_steps, 100U);
    }
}

void sums_are_taken() {
    const SharedRegion region = region_of(2, OptimizerKind::sum);
    Session worker(region, 0), agent(region, 1), observer(region, 2);
    observer.initialize(Floats{1, 2, 3}, Floats(3), 0);
    for (int i = 0; i < 3; ++i) CHECK(worker.submit(Floats{1, 2, 0.5F}, tag(0)) == Submitted::applied);
    Floats p(3), sum(3);
    CHECK_EQ(copy(observer, p, sum).counts.applied, 3U);
    CHECK(p == Floats({1, 2, 3}));
    CHECK(sum == Floats({3, 6, 1.5F}));
    CHECK(worker.submit(Floats{1, 1, 1}, tag(3)) == Submitted::applied);  // while they are on their way
    for (float& x : sum) x = -x;
    CHECK(agent.submit(sum, to(Target::add_state)) == Submitted::applied);
    copy(observer, p, sum);
    CHECK(sum == Floats({1, 1, 1}));
    CHECK(p == Floats({1, 2, 3}));
    harness::check_ledger(observer.ledger());
}

/// The state of the optimizer, and what is not amended, stay; so does an amendment, whatever gradients are clipped to.
void the_rest_stays() {
    const SharedRegion region = region_of(2, OptimizerKind::adam, lockfree, 0.5);
    Session worker(region, 0), agent(region, 1), observer(region, 2);
    Floats m_and_v(6), before(6), p(3), old(3);
    observer.initialize(Floats(3), m_and_v, 0);
    CHECK(worker.submit(Floats{3, 4, 5}, tag(0)) == Submitted::applied);
    copy(observer, old, before);
    CHECK(agent.submit(Floats{300, 400, 500}, to(Target::add_params)) == Submitted::applied);
    copy(observer, p, m_and_v);
    CHECK(m_and_v == before);
    CHECK(p == Floats({old[0] + 300, old[1] + 400, old[2] + 500}));
}

void what_is_refused() {
    {
        const SharedRegion region = region_of(1, OptimizerKind::sgd, hogwild);
        Session agent(region, 0);
        CHECK_THROWS(std::logic_error, agent.submit(Floats(3), to(Target::add_params)));
    }
    const SharedRegion region = region_of(1, OptimizerKind::sgd);
    Session agent(region, 0), observer(region, 1);
    CHECK_THROWS(std::logic_error, agent.submit(Floats(3), to(Target::add_state)));
    CHECK(agent.submit(Floats{0, std::numeric_limits<float>::infinity(), 0}, to(Target::add_params)) == Submitted::rejected_nonfinite);
    RegionConfig traced = harness::config(1, 3, lockfree);
    traced.trace_entries = 8;
    const SharedRegion recorded = SharedRegion::create(traced, 1);
    Session other(recorded, 0);
    CHECK_THROWS(std::logic_error, other.submit(Floats(3), to(Target::set_params)));
    harness::check_ledger(observer.ledger());
}

/// Gradients and amendments of whole numbers, by threads that do not wait: their sum is exact.
void all_of_it_arrives() {
    for (const UpdateScheme scheme : {lockfree, lock, queue}) {
        const SharedRegion region = region_of(4, OptimizerKind::sgd, scheme);
        const harness::Learner learner(region);
        Session observer(region, 4);
        observer.initialize(Floats(3), {}, 0);
        constexpr int n = 2000 / harness::shorter;
        harness::together(4, [&](std::size_t w) {
            Session session(region, w);
            Floats p(3);
            for (int i = 0; i < n; ++i) {
                const std::uint64_t read = session.read(p).version;
                if (w == 3) session.submit(Floats{3, 3, 3}, to(Target::add_params, 2));
                else session.submit(Floats{1, 1, 1}, tag(read));
            }
        });
        Floats p(3), none;
        const Snapshot now = copy(observer, p, none);
        CHECK(p == Floats(3, 0.0F));
        CHECK_EQ(now.env_steps, 5U * 3 * n + 2U * n);
        harness::check_ledger(observer.ledger());
        CHECK_EQ(observer.ledger().at.counts.amended, static_cast<std::uint64_t>(n));
    }
}

void a_held_worker_makes_no_update() {
    const MlpShape shape{.hidden = {8}};
    RegionConfig config;
    config.parameters = static_cast<std::uint32_t>(shape.parameters());
    const SharedRegion region = SharedRegion::create(config, 1);
    Session observer(region, 1), session(region, 0);
    observer.initialize(Floats(shape.parameters(), 0.1F), {}, 0);
    const std::vector<Pcg64::Words> seeds(1, Pcg64::Words{1, 2, 3, 4});
    Worker worker(shape, {.n_steps = 7, .n_envs = 1, .max_episode_steps = 12, .gamma = 0.99, .gae_lambda = 0.9, .reward_scale = 0.5}, seeds, seeds);
    const LoopConfig loop{.total_timesteps = 1'000'000, .learning_rate = {1e-3}, .ent_coef = {}};
    observer.hold(true);
    CHECK(worker.run(session, loop, std::chrono::milliseconds(1000), 3) == Worker::Ended::not_yet);
    CHECK_EQ(worker.updates(), 0U);
    observer.hold(false);
    CHECK(worker.run(session, loop, std::chrono::milliseconds(100'000), 3) == Worker::Ended::not_yet);
    CHECK_EQ(worker.updates(), 3U);
}

}  // namespace

int main() {
    amended_beside_gradients();
    sums_are_taken();
    the_rest_stays();
    what_is_refused();
    all_of_it_arrives();
    a_held_worker_makes_no_update();
    return check_result();
}
