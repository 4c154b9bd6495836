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
#include <limits>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "fastac/gradient.hpp"
#include "fastac/mlp.hpp"
#include "fastac/rollout.hpp"
#include "fastac/team.hpp"
#include "fastac/updates.hpp"
#include "fastac/wait.hpp"

namespace fastac {

/// The value of a schedule when `progress` (0 at the start, 1 at the end) of the env steps are done.
struct Schedule {
    double value = 0.0;
    std::vector<double> points{1.0};  // factors at equally spaced points of a run, with straight lines between them

    [[nodiscard]] double at(double progress) const noexcept {
        if (points.size() == 1) return value * points[0];
        const double x = std::min(progress, 1.0) * static_cast<double>(points.size() - 1);
        const auto i = std::min(static_cast<std::size_t>(x), points.size() - 2);
        return value * (points[i] + (x - static_cast<double>(i)) * (points[i + 1] - points[i]));
    }
};

struct LoopConfig {
    std::uint64_t total_timesteps = 0;  // env steps of all workers together
    Schedule learning_rate;
    Schedule ent_coef;
    double vf_coef = 0.5;
    double max_grad_norm = 0.0;  // clipping before the push; 0: none
    double delay_compensation = 0.0;  // strength, see compensate_delay; 0: none
    bool v_trace = false;  // the gradient is of parameters read after the rollout, reweighed for them
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

// What it is: one worker of a run, which owns its envs, its policy and its gradient, and borrows a session. Several threads may be
// its members and share its batch (A2C with `workers`); they wait for each other, so they are one worker of the region.
//
// The same bits for any number of members: the envs are cut into blocks, always the same ones. A block is rolled out and
// differentiated by itself, by whichever member, and the gradients of the blocks are added in their order: each
// member adds a part of the parameters, over all blocks. A batch of up to `block_envs` envs is one block.
//
// With `pauses` it is as if its envs were slow: a rollout of block b takes at least pauses[update, b] seconds with all that is done
// for it, whoever does it; the list begins anew at its end. So workers can be slower than each other, without using a core.
//
// Who may call: one thread at a time. What may wait: `run`, as `Session::submit` does, and for the pauses, but for no
// longer than `poll_interval` once the run is stopped or, the only member of a worker beside others, its env steps are done.
class Worker {
public:
    enum class Ended : std::uint8_t {
        not_yet,   // the run goes on
        finished,  // the env steps are done
        stopped,   // the run was stopped
        diverged,  // too many gradients in a row held NaN or infinity
    };
    static constexpr std::uint64_t most_nonfinite = 10;  // in a row
    static constexpr std::size_t block_envs = 8;
    static constexpr double longest_pause_s = 86'400.0;

    Worker(const MlpShape& shape, const RolloutConfig& rollout, const std::vector<Pcg64::Words>& env_seeds, const std::vector<Pcg64::Words>& action_seeds,
           std::size_t members = 1, std::vector<double> pauses = {})
        : config_(checked(rollout)), pauses_(std::move(pauses)), pitch_(align_up(checked(shape).parameters(), hogwild_block)), grads_(pitch_ * blocks_of(rollout.n_envs)) {
        if (env_seeds.size() != rollout.n_envs || action_seeds.size() != rollout.n_envs) throw std::invalid_argument("seeds: expected one for each env");
        const std::size_t n_blocks = blocks_of(rollout.n_envs);
        if (members < 1 || members > n_blocks)
            throw std::invalid_argument("members: expected 1 to " + std::to_string(n_blocks) + ", one for each " + std::to_string(block_envs) + " envs, got " + std::to_string(members));
        if (pauses_.size() % n_blocks != 0) throw std::invalid_argument("pauses: expected one for each of " + std::to_string(n_blocks) + " blocks");
        for (const double pause : pauses_)
            if (!(0.0 <= pause && pause <= longest_pause_s)) throw std::invalid_argument("pauses: expected 0 to 86,400 s, got " + std::to_string(pause));
        const auto some = [](const std::vector<Pcg64::Words>& all, std::size_t first, std::size_t n) {
            return std::vector<Pcg64::Words>(all.begin() + static_cast<std::ptrdiff_t>(first), all.begin() + static_cast<std::ptrdiff_t>(first + n));
        };
        for (std::size_t first = 0; first < rollout.n_envs; first += block_envs) {
            RolloutConfig block = rollout;
            block.n_envs = std::min(block_envs, rollout.n_envs - first);
            blocks_.emplace_back(block, some(env_seeds, first, block.n_envs), some(action_seeds, first, block.n_envs));
        }
        sums_.resize(n_blocks);
        for (std::size_t m = 0; m < members; ++m) members_.emplace_back(shape, blocks_.front());
    }

    /// Updates until `duration` is over, `most` have been made, or the run ends.
    Ended run(Session& session, const LoopConfig& config, std::chrono::milliseconds duration, std::uint64_t most) {
        Ended ended = Ended::stopped;
        together(members_.size(), [&](Barrier& barrier, std::size_t m) {
            if (m == 0) ended = lead(barrier, session, config, std::chrono::steady_clock::now() + duration, most);
            else while (barrier.meet() && take_part(barrier, m, [] {}, [&] { return session.stop_requested() || barrier.dismissed(); }, [] {})) {}
        }, !pauses_.empty());
        return ended;
    }

    /// At the end: writes the rows that the parent had not read in time. Returns how many are left.
    std::size_t flush(Session& session) { return reports_.flush(session); }

    /// One rollout alone, with params float32[P]. `beat` is called after each step of a block.
    template <class Beat>
    void collect(std::span<const float> params, Beat beat) {
        Mlp& policy = members_.front().policy;
        policy.load(params);
        for (Collector& block : blocks_) block.collect(policy, beat);
    }

    /// V-trace: the last rollout as if the parameters had been these, float32[P], of which the gradient then is.
    void reweigh(std::span<const float> params) noexcept {
        Mlp& policy = members_.front().policy;
        policy.load(params);
        for (Collector& block : blocks_) block.reweigh(policy);
    }

    /// The gradient float32[P] of the last rollout.
    GradientStats gradient(const LossConfig& weights, std::span<float> grad) noexcept {
        Member& all = members_.front();
        for (std::size_t b = 0; b < blocks_.size(); ++b) {
            all.policy.forward(0, blocks_[b].steps(), blocks_[b].obs().data());  // what it gave for the block has made room for the next
            sums_[b] = all.gradient.compute(all.policy, blocks_[b], weights, steps(), gradient_of(b));
        }
        add_blocks(grads_.at(0), blocks_.size(), pitch_, 0, parameters());
        const GradientStats stats = stats_and_clip(weights.max_grad_norm);
        std::copy_n(grads_.at(0), grad.size(), grad.begin());
        return stats;
    }

    [[nodiscard]] std::uint64_t updates() const noexcept { return reports_.updates(); }  // submitted so far
    [[nodiscard]] std::deque<Collector>& blocks() noexcept { return blocks_; }
    [[nodiscard]] const RolloutConfig& config() const noexcept { return config_; }
    [[nodiscard]] std::size_t steps() const noexcept { return config_.n_steps * config_.n_envs; }  // T N
    [[nodiscard]] std::size_t parameters() const noexcept { return members_.front().policy.shape().parameters(); }

private:
    /// A thread's own: a policy that has room for one block.
    struct Member {
        Member(const MlpShape& shape, const Collector& largest) : policy(shape, largest.rows()), gradient(largest.steps()) {}
        Mlp policy;
        ActorCriticGradient gradient;
    };

    static std::size_t blocks_of(std::size_t n_envs) noexcept { return (n_envs + block_envs - 1) / block_envs; }
    [[nodiscard]] std::span<float> gradient_of(std::size_t block) noexcept { return {grads_.at(block * pitch_), parameters()}; }

    /// The loop. Between two updates the other members wait for the first meeting of the next one.
    Ended lead(Barrier& barrier, Session& session, const LoopConfig& config, std::chrono::steady_clock::time_point until, std::uint64_t most) {
        while (!session.stop_requested()) {
            if (session.held()) return Ended::not_yet;
            Snapshot now = session.read(members_.front().policy.params());
            if (now.env_steps >= config.total_timesteps) return Ended::finished;
            const double progress = static_cast<double>(now.env_steps) / static_cast<double>(config.total_timesteps);
            const double learning_rate = config.learning_rate.at(progress);
            weights_ = {config.vf_coef, config.ent_coef.at(progress), config.max_grad_norm};
            v_trace_ = config.v_trace;

            const auto is_over = [&] { return session.stop_requested() || barrier.dismissed() || session.snapshot().env_steps >= config.total_timesteps; };
            const auto read_again = [&] { now = session.read(members_.front().policy.params()); };
            if (!barrier.meet() || !take_part(barrier, 0, [&] { session.beat(); }, is_over, read_again)) break;
            const GradientStats stats = stats_and_clip(config.max_grad_norm);
            if (config.delay_compensation != 0.0) compensate(session, config.delay_compensation);
            // The norm is a sum of squares in double, which no finite floats overflow: it is finite if all of them are. What is
            // added to them later may not be.
            const bool known_finite = config.delay_compensation == 0.0 && std::isfinite(stats.grad_norm);
            const Submitted submitted =
                session.submit(gradient_of(0), {now.version, steps(), learning_rate, 1, false, known_finite, consumed(now.counts)});
            report(session, now.version, stats, learning_rate, submitted);
            nonfinite_ = submitted == Submitted::rejected_nonfinite ? nonfinite_ + 1 : 0;
            if (nonfinite_ == most_nonfinite) return Ended::diverged;
            if (--most == 0 || std::chrono::steady_clock::now() >= until) return Ended::not_yet;
        }
        return Ended::stopped;
    }

    /// Member m's part in an update, from the parameters that the first has read to the batch's gradient, which is whole
    /// when this returns true. read_again: the first member's, where the gradient is not of the parameters that acted.
    template <class Beat, class IsOver, class ReadAgain>
    bool take_part(Barrier& barrier, std::size_t m, Beat beat, IsOver is_over, ReadAgain read_again) {
        Member& mine = members_[m];
        take_params(m);
        const auto share = [&](std::size_t of, std::size_t member) { return of * member / members_.size(); };
        for (std::size_t b = share(blocks_.size(), m); b < share(blocks_.size(), m + 1); ++b) {
            const Clock::time_point begun = Clock::now();
            blocks_[b].collect(mine.policy, beat);
            if (!v_trace_) sums_[b] = mine.gradient.compute(mine.policy, blocks_[b], weights_, steps(), gradient_of(b));
            if (!pauses_.empty()) wait_until(begun + pause_of(b), beat, is_over);
        }
        if (v_trace_) {
            if (!barrier.meet()) return false;  // all have what they acted with
            read_again();
            if (!barrier.meet()) return false;
            take_params(m);
            for (std::size_t b = share(blocks_.size(), m); b < share(blocks_.size(), m + 1); ++b) {
                blocks_[b].reweigh(mine.policy);
                sums_[b] = mine.gradient.compute(mine.policy, blocks_[b], weights_, steps(), gradient_of(b));
            }
        }
        if (!barrier.meet()) return false;
        // By whole cache lines, so that no two members write to one.
        const std::size_t lines = pitch_ / hogwild_block;
        add_blocks(grads_.at(0), blocks_.size(), pitch_, share(lines, m) * hogwild_block, share(lines, m + 1) * hogwild_block);
        return barrier.meet();
    }

    /// How long block b's rollout of the update under way takes.
    [[nodiscard]] Clock::duration pause_of(std::size_t b) const noexcept {
        const std::size_t row = static_cast<std::size_t>(updates()) % (pauses_.size() / blocks_.size());
        return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(pauses_[row * blocks_.size() + b]));
    }

    /// Sleeps, with signs of life, unless the run is over.
    template <class Beat, class IsOver>
    static void wait_until(Clock::time_point until, Beat beat, IsOver is_over) {
        for (Clock::time_point now = Clock::now(); now < until && !is_over(); now = Clock::now()) {
            beat();
            std::this_thread::sleep_until(std::min(until, now + poll_interval));
        }
    }

    /// Member m's policy gets the parameters that the first has read.
    void take_params(std::size_t m) noexcept {
        if (m == 0) members_[m].policy.take_params();
        else members_[m].policy.load(members_.front().policy.params());
    }

    /// For what the others have done since the parameters were read; not for what they do between this and the update.
    void compensate(Session& session, double strength) {
        newest_.resize(parameters());
        session.read(newest_);
        compensate_delay(gradient_of(0), newest_, members_.front().policy.params(), strength);
    }

    GradientStats stats_and_clip(double max_grad_norm) noexcept {
        GradientStats stats = stats_of(sums_);
        stats.grad_norm = clip_grad_norm(grads_.at(0), parameters(), max_grad_norm);
        stats.grad_norm_clipped = stats.grad_norm * clip_factor(stats.grad_norm, max_grad_norm);
        return stats;
    }

    void report(Session& session, std::uint64_t version, const GradientStats& s, double learning_rate, Submitted submitted) {
        const double now = std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
        // One that was published when the run was stopped is applied by the last drain.
        const bool applied = submitted == Submitted::applied || submitted == Submitted::stopped;
        const double staleness = submitted == Submitted::applied ? static_cast<double>(session.staleness()) : std::numeric_limits<double>::quiet_NaN();
        reports_.update(now, session.seat(), steps(), applied, version, s.grad_norm, s.grad_norm_clipped, s.policy_loss, s.value_loss, s.entropy, s.return_mean,
                        s.return_var, s.explained_variance, learning_rate, weights_.ent_coef, staleness);
        for (const Collector& block : blocks_)
            for (const Episode& episode : block.episodes()) reports_.episode(episode);
        reports_.write(session);
    }

    RolloutConfig config_;        // of the whole batch
    std::vector<double> pauses_;  // [updates, blocks]
    std::deque<Collector> blocks_;
    std::deque<Member> members_;
    // Of the update under way: what its members have found for each block.
    LossConfig weights_;
    bool v_trace_ = false;
    std::vector<BlockSums> sums_;
    std::size_t pitch_;
    dense::Floats grads_;  // [blocks, pitch]; the first becomes the batch's
    std::vector<float> newest_;  // parameters, for delay compensation
    Reports reports_;
    std::uint64_t nonfinite_ = 0;
};

}  // namespace fastac
