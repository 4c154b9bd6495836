// The loop of a worker of the native engine: read, roll out, take the gradient, publish it, report; the next rollout.
// Around it: python/fastac/a3c.py and a2c.py, whose loops for the torch engine have the same verbs.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

#include "fastac/gradient.hpp"
#include "fastac/mlp.hpp"
#include "fastac/rollout.hpp"
#include "fastac/updates.hpp"

namespace fastac {

/// The value of a schedule when `progress` (0 at the start, 1 at the end) of the env steps are done.
struct Schedule {
    double begin = 0.0;
    bool linear = false;  // to zero; else constant

    [[nodiscard]] double at(double progress) const noexcept { return linear ? begin * std::max(0.0, 1.0 - progress) : begin; }
};

struct LoopConfig {
    std::uint64_t total_timesteps = 0;  // env steps of all workers together
    Schedule learning_rate;
    Schedule ent_coef;
    double vf_coef = 0.5;
    double max_grad_norm = 0.0;  // clipping before the push; 0: none
};

/// A worker's reports: one row for each update, one for each episode, as python/fastac/metrics.py reads them.
/// Never waits: what the ring has no room for is kept.
class Reports {
public:
    using Row = std::array<double, log_columns>;

    void add(const Row& row) { kept_.push_back(row); }

    /// Writes what there is room for; returns how many rows are left.
    std::size_t write(Session& session) {
        while (!kept_.empty() && session.log(kept_.front().data())) kept_.pop_front();
        return kept_.size();
    }

private:
    std::deque<Row> kept_;
};

// What it is: one worker of a run. It borrows the session, and owns its envs, its policy and its gradient.
// Who may call: one thread at a time. What may wait: `run`, as `Session::submit` does.
class Worker {
public:
    enum class Ended : std::uint8_t {
        not_yet,   // the run goes on
        finished,  // the env steps are done
        stopped,   // the run was stopped
        diverged,  // too many gradients in a row held NaN or infinity
    };
    static constexpr std::uint64_t most_nonfinite = 10;  // in a row

    Worker(const MlpShape& shape, const RolloutConfig& rollout, const std::vector<Pcg64::Words>& env_seeds, const std::vector<Pcg64::Words>& action_seeds)
        : collector_(rollout, env_seeds, action_seeds), policy_(shape, collector_.rows()), gradient_(collector_.steps()), params_(shape.parameters()), grad_(shape.parameters()) {}

    /// Updates until `duration` is over, `most` have been made, or the run ends.
    Ended run(Session& session, const LoopConfig& config, std::chrono::milliseconds duration, std::uint64_t most) {
        const auto until = std::chrono::steady_clock::now() + duration;
        while (!session.stop_requested()) {
            const Snapshot now = session.read(params_);
            if (now.env_steps >= config.total_timesteps) return Ended::finished;
            const double progress = static_cast<double>(now.env_steps) / static_cast<double>(config.total_timesteps);
            const double learning_rate = config.learning_rate.at(progress), ent_coef = config.ent_coef.at(progress);

            policy_.load(params_);
            collector_.collect(policy_, [&] { session.beat(); });
            const GradientStats stats = gradient_.compute(policy_, collector_, {config.vf_coef, ent_coef, config.max_grad_norm}, grad_);
            const Submitted submitted = session.submit(grad_, {now.version, collector_.steps(), learning_rate, 1, false});
            report(session, now.version, stats, learning_rate, ent_coef, submitted);
            nonfinite_ = submitted == Submitted::rejected_nonfinite ? nonfinite_ + 1 : 0;
            if (nonfinite_ == most_nonfinite) return Ended::diverged;
            if (--most == 0 || std::chrono::steady_clock::now() >= until) return Ended::not_yet;
        }
        return Ended::stopped;
    }

    /// At the end: writes the rows that the parent had not read in time. Returns how many are left.
    std::size_t flush(Session& session) { return reports_.write(session); }

    [[nodiscard]] std::uint64_t updates() const noexcept { return updates_; }  // submitted so far
    [[nodiscard]] Collector& collector() noexcept { return collector_; }
    [[nodiscard]] Mlp& policy() noexcept { return policy_; }
    [[nodiscard]] ActorCriticGradient& gradient() noexcept { return gradient_; }

private:
    void report(Session& session, std::uint64_t version, const GradientStats& s, double learning_rate, double ent_coef, Submitted submitted) {
        constexpr double episode_kind = 0.0, update_kind = 1.0;
        ++updates_;
        const double now = std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
        const double worker = static_cast<double>(session.seat());
        // One that was published when the run was stopped is applied by the last drain.
        const bool applied = submitted == Submitted::applied || submitted == Submitted::stopped;
        reports_.add({update_kind, now, worker, static_cast<double>(collector_.steps()), static_cast<double>(version), s.grad_norm, s.policy_loss, s.value_loss, s.entropy,
                      s.return_mean, s.return_var, s.explained_variance, learning_rate, ent_coef, applied ? 1.0 : 0.0});
        for (const Episode& episode : collector_.episodes()) reports_.add({episode_kind, now, worker, 0.0, episode.episode_return, static_cast<double>(episode.length)});
        reports_.write(session);
    }

    Collector collector_;
    Mlp policy_;
    ActorCriticGradient gradient_;
    std::vector<float> params_, grad_;
    Reports reports_;
    std::uint64_t updates_ = 0, nonfinite_ = 0;
};

}  // namespace fastac
