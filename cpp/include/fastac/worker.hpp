// The loop of a worker of the native engine: read, roll out, take the gradient, publish it, report; the next rollout.
// Around it: python/fastac/a3c.py and a2c.py, whose loops for the torch engine have the same verbs.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <utility>
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

/// A worker's reports as python/fastac/metrics.py reads them: a row for each episode, and one for each of the first 10,000
/// updates, then for every 10th up to 100,000, for every 100th up to a million, and so on: a long run must not drown its parent.
/// Rows say how many env steps and updates came since the worker's row before, so that counts are exact in each of them.
/// Never waits: what the ring has no room for is kept.
class Reports {
public:
    using Row = std::array<double, log_columns>;

    /// An update, applied or not, after which `new_env_steps` more are done. `values`: the columns that are an update's own.
    template <class... Values>
    void update(double now, std::size_t worker, std::size_t new_env_steps, bool applied, Values... values) {
        env_steps_ += new_env_steps;
        applied_ += static_cast<std::size_t>(applied);
        latest_ = {1.0, now, static_cast<double>(worker), 0.0, 0.0, static_cast<double>(values)..., static_cast<double>(applied)};
        is_kept_ = false;
        if (++updates_ % stride_ == 0) keep_latest();
        if (updates_ == 10'000 * stride_) stride_ *= 10;
    }

    /// An episode that ended in the latest update's rollout.
    void episode(const Episode& episode) { keep({0.0, latest_[1], latest_[2], 0.0, 0.0, episode.episode_return, static_cast<double>(episode.length)}); }

    /// Writes what there is room for; returns how many rows are left.
    std::size_t write(Session& session) {
        while (!kept_.empty() && session.log(kept_.front().data())) kept_.pop_front();
        return kept_.size();
    }

    /// The same at the end of the work, the latest update included.
    std::size_t flush(Session& session) {
        if (updates_ > 0 && !is_kept_) keep_latest();
        return write(session);
    }

    [[nodiscard]] std::uint64_t updates() const noexcept { return updates_; }

private:
    void keep_latest() {
        keep(latest_);
        is_kept_ = true;
    }

    void keep(Row row) {
        row[3] = static_cast<double>(std::exchange(env_steps_, 0));
        row[4] = static_cast<double>(std::exchange(applied_, 0));
        kept_.push_back(row);
    }

    std::deque<Row> kept_;
    Row latest_{};
    bool is_kept_ = true;
    std::size_t env_steps_ = 0, applied_ = 0;  // since the last row that was kept
    std::uint64_t updates_ = 0, stride_ = 1;
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
        : collector_(rollout, env_seeds, action_seeds), policy_(shape, collector_.rows()), gradient_(collector_.steps()), grad_(shape.parameters()) {}

    /// Updates until `duration` is over, `most` have been made, or the run ends.
    Ended run(Session& session, const LoopConfig& config, std::chrono::milliseconds duration, std::uint64_t most) {
        const auto until = std::chrono::steady_clock::now() + duration;
        const std::span<float> grad(grad_.at(0), policy_.params().size());
        while (!session.stop_requested()) {
            const Snapshot now = session.read(policy_.params());
            if (now.env_steps >= config.total_timesteps) return Ended::finished;
            const double progress = static_cast<double>(now.env_steps) / static_cast<double>(config.total_timesteps);
            const double learning_rate = config.learning_rate.at(progress), ent_coef = config.ent_coef.at(progress);

            policy_.take_params();
            collector_.collect(policy_, [&] { session.beat(); });
            const GradientStats stats = gradient_.compute(policy_, collector_, {config.vf_coef, ent_coef, config.max_grad_norm}, grad);
            // The norm is a sum of squares in double, which no finite floats overflow: it is finite if all of them are.
            const Submitted submitted = session.submit(grad, {now.version, collector_.steps(), learning_rate, 1, false, std::isfinite(stats.grad_norm), consumed(now.counts)});
            report(session, now.version, stats, learning_rate, ent_coef, submitted);
            nonfinite_ = submitted == Submitted::rejected_nonfinite ? nonfinite_ + 1 : 0;
            if (nonfinite_ == most_nonfinite) return Ended::diverged;
            if (--most == 0 || std::chrono::steady_clock::now() >= until) return Ended::not_yet;
        }
        return Ended::stopped;
    }

    /// At the end: writes the rows that the parent had not read in time. Returns how many are left.
    std::size_t flush(Session& session) { return reports_.flush(session); }

    [[nodiscard]] std::uint64_t updates() const noexcept { return reports_.updates(); }  // submitted so far
    [[nodiscard]] Collector& collector() noexcept { return collector_; }
    [[nodiscard]] Mlp& policy() noexcept { return policy_; }
    [[nodiscard]] ActorCriticGradient& gradient() noexcept { return gradient_; }

private:
    void report(Session& session, std::uint64_t version, const GradientStats& s, double learning_rate, double ent_coef, Submitted submitted) {
        const double now = std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
        // One that was published when the run was stopped is applied by the last drain.
        const bool applied = submitted == Submitted::applied || submitted == Submitted::stopped;
        reports_.update(now, session.seat(), collector_.steps(), applied, version, s.grad_norm, s.policy_loss, s.value_loss, s.entropy, s.return_mean, s.return_var,
                        s.explained_variance, learning_rate, ent_coef);
        for (const Episode& episode : collector_.episodes()) reports_.episode(episode);
        reports_.write(session);
    }

    Collector collector_;
    Mlp policy_;
    ActorCriticGradient gradient_;
    dense::Floats grad_;  // float32[P]
    Reports reports_;
    std::uint64_t nonfinite_ = 0;
};

}  // namespace fastac
