// The native engine's loop of one worker, without Python: env steps per second of processor. Made for a profiler (perf record),
// which sees nothing else here, and for comparing two builds; what is published is measured by `fastac bench train`.
//
//     train_profile [seconds per set-up] [set-up, 0 to 4]
//     train_profile updates N | reports N     N updates of set-up 0, or only what they tell: to count instructions (report_cost.sh)
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <optional>
#include <random>
#include <string>

#include "fastac/worker.hpp"

namespace {

using namespace fastac;

struct Setup {
    std::size_t n_envs, n_steps;
    std::vector<std::size_t> hidden;
};

double cpu_s() {
    timespec t{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

/// One worker on a region of its own, and the observer who reads what it logs.
struct Bench {
    explicit Bench(const Setup& setup)
        : shape{CartPole::state_size, Collector::n_actions, setup.hidden, Activation::tanh, true}, region(SharedRegion::create(config(), 1)), observer(region, 1), session(region, 0), rows(log_columns * config().log_rows) {
        std::mt19937 random(1);
        std::normal_distribution<float> normal(0.0F, 0.1F);
        std::vector<float> params(shape.parameters());
        for (float& p : params) p = normal(random);
        observer.initialize(params, {}, 0);
        std::vector<Pcg64::Words> env_seeds, action_seeds;
        for (std::uint64_t i = 0; i < setup.n_envs; ++i) env_seeds.push_back({i, 1, 2, 3}), action_seeds.push_back({i, 4, 5, 6});
        worker.emplace(shape, RolloutConfig{.n_steps = setup.n_steps, .n_envs = setup.n_envs, .gae_lambda = 0.9, .reward_scale = 0.1}, env_seeds, action_seeds);
    }

    void update(std::uint64_t times) {
        const LoopConfig loop{.total_timesteps = UINT64_MAX, .learning_rate = {1e-3}, .ent_coef = {1e-3}, .max_grad_norm = 0.5};
        worker->run(session, loop, std::chrono::hours(1), times);
        read_log();
    }
    void read_log() { observer.read_log(0, observer.unread_log(0), rows.data()); }

    [[nodiscard]] RegionConfig config() const {
        RegionConfig c;
        c.parameters = static_cast<std::uint32_t>(shape.parameters());
        c.log_rows = 1U << 16U;
        c.optimizer.eps = 1e-3;
        return c;
    }

    MlpShape shape;
    SharedRegion region;
    Session observer, session;
    std::vector<double> rows;
    std::optional<Worker> worker;
};

double env_steps_per_cpu_s(const Setup& setup, double seconds) {
    Bench bench(setup);
    bench.update(100);
    std::size_t updates = 0;
    const double begin = cpu_s();
    double now = begin;
    for (; now - begin < seconds; now = cpu_s()) bench.update(200), updates += 200;
    return static_cast<double>(updates * setup.n_envs * setup.n_steps) / (now - begin);
}

/// What so many updates tell, without the updates: a row of the log for each, its staleness counted, and for every fourth the row
/// of an episode, which is more than a policy that learns nothing ends. Read by the observer.
void report(Bench& bench, std::uint64_t updates) {
    Reports reports;
    for (std::uint64_t i = 0; i < updates; ++i) {
        const double now = std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
        reports.update(now, 0, 5, true, i, 1.0, 0.5, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 1e-3, 1e-3, static_cast<double>(bench.session.staleness()));
        if (i % 4 == 0) reports.episode({20.0, 20});
        reports.write(bench.session);
        Atomic<std::uint64_t>& bucket = bench.region.worker(0).staleness[staleness_bucket(i % 64)];
        bench.region.worker(0).staleness_counted.store(i, std::memory_order_relaxed);
        bucket.store(bucket.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
        if (i % 1000 == 999) bench.read_log();
    }
}

}  // namespace

int main(int argc, char** argv) {
    const Setup setups[] = {{1, 5, {64, 64}}, {1, 20, {64, 64}}, {8, 5, {64, 64}}, {64, 16, {64, 64}}, {8, 5, {128}}};
    if (const std::string what = argc > 2 ? argv[1] : ""; what == "updates" || what == "reports") {
        Bench bench(setups[0]);
        const std::uint64_t n = std::strtoull(argv[2], nullptr, 10);
        if (what == "updates") bench.update(n);
        else report(bench, n);
        return 0;
    }
    const double seconds = argc > 1 ? std::strtod(argv[1], nullptr) : 0.5;
    for (std::size_t k = 0; k < std::size(setups); ++k) {
        if (argc > 2 && std::strtoul(argv[2], nullptr, 10) != k) continue;
        const Setup& s = setups[k];
        std::printf("N = %2zu, T = %2zu, %3zu%s: %5.2f million env steps per CPU-second\n", s.n_envs, s.n_steps, s.hidden[0], s.hidden.size() > 1 ? "-64" : "", env_steps_per_cpu_s(s, seconds) * 1e-6);
    }
}
