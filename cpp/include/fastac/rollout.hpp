// Stages 2 and 3, first half. A policy and its envs in -> T steps of N envs, with returns and advantages.
// Before it: cartpole.hpp and mlp.hpp. After it: gradient.hpp. The same as python/fastac/rollout.py and returns.py, which
// take any policy and say what is computed and why.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "fastac/cartpole.hpp"
#include "fastac/mlp.hpp"
#include "fastac/rng.hpp"

namespace fastac {

struct RolloutConfig {
    std::size_t n_steps = 1;  // T
    std::size_t n_envs = 1;   // N
    std::int64_t max_episode_steps = 500;
    double gamma = 0.99;
    double gae_lambda = 1.0;
    double reward_scale = 1.0;
};

/// Throws std::invalid_argument for a rollout that cannot be, or would be too long.
inline const RolloutConfig& checked(const RolloutConfig& config) {
    constexpr std::size_t most = std::size_t{1} << 29U;
    if (config.n_steps < 1 || config.n_envs < 1 || config.n_steps > most / config.n_envs)
        throw std::invalid_argument("n_steps, n_envs: expected at least 1 and at most 2^29 steps in a rollout, got " + std::to_string(config.n_steps) + " of " +
                                    std::to_string(config.n_envs) + " envs");
    for (const double number : {config.gamma, config.gae_lambda, config.reward_scale})
        if (!std::isfinite(number)) throw std::invalid_argument("gamma, gae_lambda, reward_scale: expected finite numbers, got " + std::to_string(number));
    return config;
}

struct Episode {
    double episode_return;  // undiscounted, unscaled
    std::int64_t length;
};

/// Probabilities and their logarithms [n, actions] of outputs float32[n, actions + 1] of a policy.
inline void softmax(std::size_t n, std::size_t actions, const float* outputs, float* probabilities, float* log_probabilities) noexcept {
    for (std::size_t i = 0; i < n; ++i) {
        const float* logits = outputs + i * (actions + 1);
        float* p = probabilities + i * actions;
        float* log_p = log_probabilities + i * actions;
        const float largest = *std::max_element(logits, logits + actions);
        float sum = 0.0F;
        for (std::size_t a = 0; a < actions; ++a) sum += p[a] = std::exp(logits[a] - largest);
        const float log_sum = std::log(sum);
        for (std::size_t a = 0; a < actions; ++a) {
            p[a] /= sum;
            log_p[a] = logits[a] - largest - log_sum;
        }
    }
}

/// The first action whose cumulated probability exceeds u, uniform in [0, 1): the last one takes what is left.
inline std::int64_t sample(std::size_t actions, const float* probabilities, double u) noexcept {
    std::int64_t action = 0;
    double cumulated = 0.0;
    for (std::size_t a = 0; a + 1 < actions; ++a) {
        cumulated += static_cast<double>(probabilities[a]);
        action += static_cast<std::int64_t>(cumulated <= u);
    }
    return action;
}

// What it is: N envs and the streams their actions are sampled from, stepped T at a time, and the last rollout of them.
// Who may call: one thread at a time. `collect` neither waits nor allocates.
class Collector {
public:
    static constexpr std::size_t n_actions = 2;

    Collector(const RolloutConfig& config, const std::vector<Pcg64::Words>& env_seeds, const std::vector<Pcg64::Words>& action_seeds)
        : config_(checked(config)),
          envs_(config.n_envs, config.max_episode_steps, AutoresetMode::same_step, false),
          streams_(action_seeds),
          running_(config.n_envs, Episode{0.0, 0}),
          uniforms_(config.n_envs),
          obs_(steps() * CartPole::state_size),
          probabilities_(steps() * n_actions),
          log_probabilities_(steps() * n_actions),
          actions_(steps()),
          rewards_(steps()),
          values_(steps()),
          final_obs_(steps() * CartPole::state_size),
          ratios_(steps()),
          successors_(steps()),
          advantages_(steps()),
          returns_(steps()),
          ends_(steps()) {
        if (env_seeds.size() != config.n_envs || action_seeds.size() != config.n_envs) throw std::invalid_argument("seeds: expected one for each env");
        for (std::size_t i = 0; i < config.n_envs; ++i) envs_.seed(i, env_seeds[i]);
        envs_.reset();
        episodes_.reserve(steps());
    }

    [[nodiscard]] const RolloutConfig& config() const noexcept { return config_; }
    [[nodiscard]] std::size_t steps() const noexcept { return config_.n_steps * config_.n_envs; }  // T N
    /// Rows that a policy needs: those of a rollout, which the gradient reads, and N for what comes after it.
    [[nodiscard]] std::size_t rows() const noexcept { return steps() + config_.n_envs; }

    /// Acts T steps in each env with `policy` as it is. `beat` is called after each.
    template <class Beat>
    void collect(Mlp& policy, Beat beat) {
        const std::size_t n = config_.n_envs;
        episodes_.clear();
        for (std::size_t first = 0; first < steps(); first += n) {
            act(policy, first);
            envs_.step(std::span<const std::int64_t>(actions_).subspan(first, n));
            end_step(policy, first);
            beat();
        }
        policy.forward(steps(), n, envs_.obs());
        estimate(policy, [](std::size_t, float advantage) { return advantage; });
    }

    /// The last rollout, for `policy` as it is now, which is not the one that acted: values and (log-)probabilities become its
    /// own, advantages and returns those of V-trace (v_trace in returns.py). Once for each rollout, before its gradient is taken.
    void reweigh(Mlp& policy) noexcept {
        policy.forward(0, steps(), obs_.data());
        for (std::size_t k = 0; k < steps(); ++k) {
            values_[k] = value_of(policy, k);
            ratios_[k] = log_probabilities_[k * n_actions + static_cast<std::size_t>(actions_[k])];
        }
        softmax(steps(), n_actions, policy.outputs(0), probabilities_.data(), log_probabilities_.data());
        for (std::size_t k = 0; k < steps(); ++k) {
            ratios_[k] = std::min(1.0F, std::exp(log_probabilities_[k * n_actions + static_cast<std::size_t>(actions_[k])] - ratios_[k]));
            if (ends_[k] != End::truncated) continue;
            policy.forward(steps(), 1, final_obs_.data() + k * CartPole::state_size);
            successors_[k] = value_of(policy, steps());
        }
        policy.forward(steps(), config_.n_envs, envs_.obs());
        estimate(policy, [&](std::size_t k, float advantage) { return ratios_[k] * advantage; });
    }

    // The last rollout, overwritten by the next: [T, N] each, obs [T, N, 4], (log-)probabilities [T, N, actions].
    [[nodiscard]] const std::vector<float>& obs() const noexcept { return obs_; }
    [[nodiscard]] const std::vector<float>& probabilities() const noexcept { return probabilities_; }
    [[nodiscard]] const std::vector<float>& log_probabilities() const noexcept { return log_probabilities_; }
    [[nodiscard]] const std::vector<std::int64_t>& actions() const noexcept { return actions_; }
    [[nodiscard]] const std::vector<float>& values() const noexcept { return values_; }
    [[nodiscard]] const std::vector<float>& advantages() const noexcept { return advantages_; }
    [[nodiscard]] const std::vector<float>& returns() const noexcept { return returns_; }
    [[nodiscard]] const std::vector<Episode>& episodes() const noexcept { return episodes_; }  // that ended, in their order

    // What decides the next rollouts.
    [[nodiscard]] CartPole& envs() noexcept { return envs_; }
    [[nodiscard]] UniformStreams& streams() noexcept { return streams_; }
    [[nodiscard]] std::vector<Episode>& running() noexcept { return running_; }  // the episodes under way

private:
    enum class End : std::uint8_t { none, terminated, truncated };

    static float value_of(const Mlp& policy, std::size_t row) noexcept { return policy.outputs(row)[n_actions]; }

    /// Steps `first` to first + N: from the envs' observations to actions.
    void act(Mlp& policy, std::size_t first) noexcept {
        const std::size_t n = config_.n_envs;
        float* obs = obs_.data() + first * CartPole::state_size;
        std::memcpy(obs, envs_.obs(), n * CartPole::state_size * sizeof(float));
        policy.forward(first, n, obs);
        float* probabilities = probabilities_.data() + first * n_actions;
        softmax(n, n_actions, policy.outputs(first), probabilities, log_probabilities_.data() + first * n_actions);
        streams_.fill(uniforms_.data());
        for (std::size_t i = 0; i < n; ++i) {
            actions_[first + i] = sample(n_actions, probabilities + i * n_actions, uniforms_[i]);
            values_[first + i] = value_of(policy, first + i);
        }
    }

    /// What the envs answered.
    void end_step(Mlp& policy, std::size_t first) noexcept {
        bool cut = false;
        for (std::size_t i = 0; i < config_.n_envs; ++i) {
            rewards_[first + i] = envs_.reward()[i];
            const bool terminated = envs_.terminated()[i], truncated = envs_.truncated()[i];
            ends_[first + i] = terminated ? End::terminated : truncated ? End::truncated : End::none;
            cut |= truncated & !terminated;
            running_[i].episode_return += static_cast<double>(envs_.reward()[i]);
            ++running_[i].length;
            if (terminated | truncated) episodes_.push_back(std::exchange(running_[i], Episode{0.0, 0}));
        }
        if (!cut) return;
        // An episode that was cut went on: it is worth what its final observation is.
        policy.forward(steps(), config_.n_envs, envs_.final_obs());
        for (std::size_t i = 0; i < config_.n_envs; ++i)
            if (ends_[first + i] == End::truncated) {
                successors_[first + i] = value_of(policy, steps() + i);
                std::memcpy(final_obs_.data() + (first + i) * CartPole::state_size, envs_.final_obs() + i * CartPole::state_size, CartPole::state_size * sizeof(float));
            }
    }

    /// GAE(lambda), from the last step to the first, each advantage as `weigh(step, advantage)` leaves it; in float32 and in
    /// the order of returns.py.
    template <class Weigh>
    void estimate(const Mlp& policy, Weigh weigh) noexcept {
        const std::size_t n = config_.n_envs;
        const float scale = static_cast<float>(config_.reward_scale), discount = static_cast<float>(config_.gamma);
        const float decay = static_cast<float>(config_.gamma * config_.gae_lambda);
        for (std::size_t k = steps(); k-- > 0;) {
            const bool last = k + n >= steps();
            if (ends_[k] == End::none) successors_[k] = last ? value_of(policy, k + n) : values_[k + n];
            if (ends_[k] == End::terminated) successors_[k] = 0.0F;
            advantages_[k] = rewards_[k] * scale + discount * successors_[k] - values_[k];
            if (!last) advantages_[k] += (ends_[k] == End::none ? decay : 0.0F) * advantages_[k + n];
            advantages_[k] = weigh(k, advantages_[k]);
            returns_[k] = advantages_[k] + values_[k];
        }
    }

    RolloutConfig config_;
    CartPole envs_;
    UniformStreams streams_;
    std::vector<Episode> running_;
    std::vector<double> uniforms_;
    std::vector<float> obs_, probabilities_, log_probabilities_;
    std::vector<std::int64_t> actions_;
    std::vector<float> rewards_, values_;
    std::vector<float> final_obs_;  // where an episode was cut
    std::vector<float> ratios_;  // reweigh: of the probabilities of the actions, now to then, at most 1
    std::vector<float> successors_, advantages_, returns_;
    std::vector<End> ends_;
    std::vector<Episode> episodes_;
};

}  // namespace fastac
