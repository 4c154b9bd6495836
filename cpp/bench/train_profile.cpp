// The native engine's loop of one worker, without Python: env steps per second of processor. Made for a profiler (perf record),
// which sees nothing else here, and for comparing two builds; what is published is measured by `fastac bench train`.
//
//     train_profile [seconds per set-up] [set-up, 0 to 4]
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <random>

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

double env_steps_per_cpu_s(const Setup& setup, double seconds) {
    const MlpShape shape{CartPole::state_size, Collector::n_actions, setup.hidden, Activation::tanh, true};
    RegionConfig config;
    config.parameters = static_cast<std::uint32_t>(shape.parameters());
    config.log_rows = 1U << 16U;
    config.optimizer.eps = 1e-3;
    const SharedRegion region = SharedRegion::create(config, 1);
    std::mt19937 random(1);
    std::normal_distribution<float> normal(0.0F, 0.1F);
    std::vector<float> params(shape.parameters());
    for (float& p : params) p = normal(random);
    Session observer(region, 1);
    observer.initialize(params, {}, 0);
    std::vector<Pcg64::Words> env_seeds, action_seeds;
    for (std::uint64_t i = 0; i < setup.n_envs; ++i) env_seeds.push_back({i, 1, 2, 3}), action_seeds.push_back({i, 4, 5, 6});
    Worker worker(shape, RolloutConfig{.n_steps = setup.n_steps, .n_envs = setup.n_envs, .gae_lambda = 0.9, .reward_scale = 0.1}, env_seeds, action_seeds);
    Session session(region, 0);
    const LoopConfig loop{.total_timesteps = UINT64_MAX, .learning_rate = {1e-3}, .ent_coef = {1e-3}, .max_grad_norm = 0.5};
    std::vector<double> rows(log_columns * config.log_rows);
    const auto some = [&](std::uint64_t most) {
        worker.run(session, loop, std::chrono::hours(1), most);
        observer.read_log(0, observer.unread_log(0), rows.data());
    };
    some(100);
    std::size_t updates = 0;
    const double begin = cpu_s();
    double now = begin;
    for (; now - begin < seconds; now = cpu_s()) some(200), updates += 200;
    return static_cast<double>(updates * setup.n_envs * setup.n_steps) / (now - begin);
}

}  // namespace

int main(int argc, char** argv) {
    const double seconds = argc > 1 ? std::strtod(argv[1], nullptr) : 0.5;
    const Setup setups[] = {{1, 5, {64, 64}}, {1, 20, {64, 64}}, {8, 5, {64, 64}}, {64, 16, {64, 64}}, {8, 5, {128}}};
    for (std::size_t k = 0; k < std::size(setups); ++k) {
        if (argc > 2 && std::strtoul(argv[2], nullptr, 10) != k) continue;
        const Setup& s = setups[k];
        std::printf("N = %2zu, T = %2zu, %3zu%s: %5.2f million env steps per CPU-second\n", s.n_envs, s.n_steps, s.hidden[0], s.hidden.size() > 1 ? "-64" : "", env_steps_per_cpu_s(s, seconds) * 1e-6);
    }
}
