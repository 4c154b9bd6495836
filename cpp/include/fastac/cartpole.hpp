// N CartPole envs, bit-identical to Gymnasium's CartPole-v1.
//
// What comes in: actions int64[N]. What goes out: obs float32[N, 4], reward float32[N], terminated bool[N],
// truncated bool[N], final_obs float32[N, 4]. Room before: policy. Room after: rollout.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "fastac/cartpole_kernel.hpp"
#include "fastac/rng.hpp"

namespace fastac {

// What happens to an env whose episode has ended; the meaning is Gymnasium's.
enum class AutoresetMode : std::uint8_t {
    next_step,  // the next step ignores the action and resets: reward 0, obs of the new episode
    same_step,  // the same step resets: obs of the new episode, the last one's obs in final_obs
    disabled,   // the caller resets; a step before that is an error
};

enum class EnvStatus : std::uint8_t {
    running,
    finished,     // next_step: the next step resets it; disabled: waits for reset
    never_reset,  // has no state yet
};

// A step came before the reset that it needs.
class ResetNeeded : public std::logic_error {
public:
    using std::logic_error::logic_error;
};

// What it is: N independent envs stepped together. The state is double in structure-of-arrays, the observations are
// that state rounded to float32. Each env has its own random stream for its initial states.
//
// Who may call: one thread at a time. There are no threads inside.
// What a call may do: step and reset neither wait nor allocate; every member throws only on a wrong argument or a
// missing seed or reset, the message names the env, and then nothing at all has changed.
// Order: seed(i) for every env, reset, then step. The output buffers belong to the env, stay where they are for its
// whole life and are overwritten by the next step; final_obs rows are valid where the episode ended in the last step
// under same_step. terminated and truncated may both be true.
// When not to use it: for other physics than CartPole-v1's. The constants are fixed, so that the name keeps its meaning.
class CartPole {
public:
    static constexpr std::size_t state_size = 4;  // x (m), x_dot (m/s), theta (rad), theta_dot (rad/s)
    static constexpr std::size_t max_num_envs = std::size_t{1} << 30U;
    static constexpr std::int64_t no_time_limit = std::numeric_limits<std::int64_t>::max();

    // Everything that decides the future of the envs, for saving and restoring them bit for bit.
    struct Snapshot {
        std::vector<double> state;          // [4, N]
        std::vector<std::int64_t> elapsed;  // [N] env steps since the episode began
        std::vector<EnvStatus> status;      // [N]
        std::vector<Pcg64::Words> rng;      // [N]
    };

    CartPole(std::size_t num_envs, std::int64_t max_episode_steps, AutoresetMode autoreset_mode,
             bool sutton_barto_reward)
        : num_envs_(checked_count(num_envs)),
          max_episode_steps_(max_episode_steps),
          autoreset_mode_(autoreset_mode),
          // Gymnasium: 1 for every step; with sutton_barto_reward 0 for every step and -1 where the pole fell.
          reward_alive_(sutton_barto_reward ? 0.0F : 1.0F),
          reward_terminated_(sutton_barto_reward ? -1.0F : 1.0F),
          state_(state_size * num_envs),
          elapsed_(num_envs),
          status_(num_envs, EnvStatus::never_reset),
          not_running_(num_envs),
          rng_(num_envs),
          obs_(state_size * num_envs),
          final_obs_(state_size * num_envs),
          reward_(num_envs),
          terminated_(std::make_unique<bool[]>(num_envs)),
          truncated_(std::make_unique<bool[]>(num_envs)) {
        if (max_episode_steps < 1) {
            throw std::invalid_argument("max_episode_steps: expected at least 1, got " +
                                        std::to_string(max_episode_steps));
        }
    }

    // seed_words: numpy's SeedSequence(seed).generate_state(4, uint64). Takes effect at the env's next reset.
    void seed(std::size_t env, const Pcg64::Words& seed_words) { rng_.at(env).seed(seed_words); }

    // Begin a new episode in every env: each of the four state entries is uniform in [low, high).
    void reset(double low = CartPolePhysics::reset_low, double high = CartPolePhysics::reset_high) {
        reset_where([](std::size_t) { return true; }, low, high);
    }

    // The same where mask[i] is true; the other envs and their outputs stay as they are.
    void reset(std::span<const bool> mask, double low, double high) {
        expect_size("mask", mask.size());
        reset_where([mask](std::size_t i) { return mask[i]; }, low, high);
    }

    // actions[i]: 0 pushes the cart of env i to the left, 1 to the right, with 10 N for 0.02 s.
    void step(std::span<const std::int64_t> actions) {
        check_step(actions);
        advance(sincos_exact_, num_envs_, actions.data(), fields());
        const bool falls = find_terminated(num_envs_, fields(), terminated_.get());
        const bool cuts = find_truncated();
        std::fill(reward_.begin(), reward_.end(), reward_alive_);
        if (not_running_ > 0) begin_where_finished();
        if (falls | cuts) end_episodes();
        observe(num_envs_, fields(), obs_.data());
    }

    [[nodiscard]] std::size_t num_envs() const noexcept { return num_envs_; }
    [[nodiscard]] std::int64_t max_episode_steps() const noexcept { return max_episode_steps_; }
    [[nodiscard]] AutoresetMode autoreset_mode() const noexcept { return autoreset_mode_; }

    // Reused by the next step.
    [[nodiscard]] float* obs() noexcept { return obs_.data(); }              // [N, 4]
    [[nodiscard]] float* final_obs() noexcept { return final_obs_.data(); }  // [N, 4]
    [[nodiscard]] float* reward() noexcept { return reward_.data(); }        // [N]
    [[nodiscard]] bool* terminated() noexcept { return terminated_.get(); }  // [N]
    [[nodiscard]] bool* truncated() noexcept { return truncated_.get(); }    // [N]

    [[nodiscard]] const std::vector<double>& state() const noexcept { return state_; }  // [4, N]

    // Put the envs into these states, in the middle of whatever episode they are in.
    void set_state(std::span<const double> state) {
        check_state(state, [](std::size_t) { return true; });
        state_.assign(state.begin(), state.end());
        observe(num_envs_, fields(), obs_.data());
    }

    [[nodiscard]] Snapshot snapshot() const {
        std::vector<Pcg64::Words> rng(num_envs_);
        for (std::size_t i = 0; i < num_envs_; ++i) {
            rng[i] = rng_[i].words();
        }
        std::vector<std::int64_t> elapsed = elapsed_;
        for (std::int64_t& count : elapsed) count = static_cast<std::int64_t>(static_cast<std::uint64_t>(count) + static_cast<std::uint64_t>(uncounted_));
        return {state_, elapsed, status_, rng};
    }

    // Reward, terminated, truncated and final_obs are outputs of a step, not state: they are zero after this.
    void restore(const Snapshot& saved) {
        check_snapshot(saved);
        state_ = saved.state;
        elapsed_ = saved.elapsed;
        uncounted_ = until_cut_ = 0;
        for (std::size_t i = 0; i < num_envs_; ++i) {
            set_status(i, saved.status[i]);
            rng_[i].set_words(saved.rng[i]);
            clear_outcome(i);
        }
        final_obs_.assign(final_obs_.size(), 0.0F);
        observe(num_envs_, fields(), obs_.data());
    }

private:
    double* field(std::size_t k) noexcept { return state_.data() + k * num_envs_; }
    CartPoleFields fields() noexcept { return {field(0), field(1), field(2), field(3)}; }

    void write_obs(std::size_t i, float* out) noexcept {
        for (std::size_t k = 0; k < state_size; ++k) {
            out[state_size * i + k] = static_cast<float>(field(k)[i]);
        }
    }

    void clear_outcome(std::size_t i) noexcept {
        reward_[i] = 0.0F;
        terminated_[i] = false;
        truncated_[i] = false;
    }

    void begin_episode(std::size_t i, double low, double high) noexcept {
        for (std::size_t k = 0; k < state_size; ++k) {
            field(k)[i] = rng_[i].uniform(low, high);
        }
        elapsed_[i] = -uncounted_;
        set_status(i, EnvStatus::running);
    }

    // Counting takes as long as a twentieth of a step, and an episode that is young now cannot reach its limit for a while.
    bool find_truncated() noexcept {
        if (++uncounted_ < until_cut_) {
            std::fill_n(truncated_.get(), num_envs_, false);
            return false;
        }
        const Counted counted = count_steps(num_envs_, std::exchange(uncounted_, 0), max_episode_steps_, elapsed_.data(), truncated_.get());
        until_cut_ = max_episode_steps_ - counted.most;
        return counted.cut;
    }

    void set_status(std::size_t i, EnvStatus status) noexcept {
        not_running_ += static_cast<std::size_t>(status != EnvStatus::running);
        not_running_ -= static_cast<std::size_t>(status_[i] != EnvStatus::running);
        status_[i] = status;
    }

    // next_step: for an env that had finished before, this step is the reset. (There are none that were never reset.)
    void begin_where_finished() noexcept {
        where_set(num_envs_, status_.data(), [this](std::size_t i) {
            begin_episode(i, CartPolePhysics::reset_low, CartPolePhysics::reset_high);
            clear_outcome(i);
        });
    }

    void end_episodes() noexcept {
        where_set(num_envs_, terminated_.get(), [this](std::size_t i) {
            reward_[i] = reward_terminated_;
            end_episode(i);
        });
        where_set(num_envs_, truncated_.get(), [this](std::size_t i) {
            if (!terminated_[i]) end_episode(i);
        });
    }

    void end_episode(std::size_t i) noexcept {
        if (autoreset_mode_ == AutoresetMode::same_step) {
            write_obs(i, final_obs_.data());
            begin_episode(i, CartPolePhysics::reset_low, CartPolePhysics::reset_high);
        } else {
            set_status(i, EnvStatus::finished);
        }
    }

    template <class Selected>
    void reset_where(Selected selected, double low, double high) {
        if (!(low <= high) || !std::isfinite(high - low)) {
            throw std::invalid_argument("reset bounds: expected finite low <= high, got low=" +
                                        std::to_string(low) + ", high=" + std::to_string(high));
        }
        for (std::size_t i = 0; i < num_envs_; ++i) {
            if (selected(i) && !rng_[i].seeded()) {
                throw ResetNeeded("env " + std::to_string(i) + " has no random stream: expected seed before reset");
            }
        }
        for (std::size_t i = 0; i < num_envs_; ++i) {
            if (selected(i)) {
                begin_episode(i, low, high);
                clear_outcome(i);
                write_obs(i, obs_.data());
            }
        }
    }

    void check_step(std::span<const std::int64_t> actions) const {
        expect_size("actions", actions.size());
        std::int64_t bits = 0;
        for (const std::int64_t action : actions) bits |= action;
        if ((bits & ~std::int64_t{1}) == 0 && not_running_ == 0) return;
        for (std::size_t i = 0; i < num_envs_; ++i) {
            if (actions[i] != 0 && actions[i] != 1) {
                throw std::invalid_argument("actions: expected 0 or 1, got " + std::to_string(actions[i]) +
                                            " for env " + std::to_string(i));
            }
            if (status_[i] == EnvStatus::never_reset) {
                throw ResetNeeded("env " + std::to_string(i) + " was never reset: expected reset before step");
            }
            if (status_[i] == EnvStatus::finished && autoreset_mode_ == AutoresetMode::disabled) {
                throw ResetNeeded("the episode of env " + std::to_string(i) +
                                  " has ended: expected reset before the next step, because autoreset is disabled");
            }
        }
    }

    template <class Selected>
    void check_state(std::span<const double> state, Selected selected) const {
        if (state.size() != state_.size()) {
            throw std::invalid_argument("state: expected " + std::to_string(state_.size()) + " entries, got " +
                                        std::to_string(state.size()));
        }
        for (std::size_t j = 0; j < state.size(); ++j) {
            if (!std::isfinite(state[j]) && selected(j % num_envs_)) {
                throw std::invalid_argument("state: expected finite numbers, got " + std::to_string(state[j]) +
                                            " for env " + std::to_string(j % num_envs_));
            }
        }
    }

    void check_snapshot(const Snapshot& saved) const {
        expect_size("elapsed", saved.elapsed.size());
        expect_size("status", saved.status.size());
        expect_size("rng", saved.rng.size());
        // A finished env may have left the numbers behind (reset bounds of 1e300); it will be drawn anew.
        check_state(saved.state, [&saved](std::size_t i) { return saved.status[i] == EnvStatus::running; });
        for (std::size_t i = 0; i < num_envs_; ++i) {
            const std::string env = " for env " + std::to_string(i);
            // The last count that there is: a running env could not count on.
            const bool at_the_end = saved.elapsed[i] == no_time_limit && saved.status[i] == EnvStatus::running;
            if (saved.elapsed[i] < 0 || at_the_end) {
                throw std::invalid_argument("elapsed: expected a count of env steps, got " +
                                            std::to_string(saved.elapsed[i]) + env);
            }
            const auto status = static_cast<int>(saved.status[i]);
            if (status > 2 || (saved.status[i] == EnvStatus::finished && autoreset_mode_ == AutoresetMode::same_step)) {
                throw std::invalid_argument(
                    "status: expected 0 (running), 1 (finished, impossible under same_step) or 2 (never reset), got " +
                    std::to_string(status) + env);
            }
            if (!Pcg64::valid(saved.rng[i])) {
                throw std::invalid_argument("rng: expected an odd increment, got an even one" + env);
            }
            const bool seeded = saved.rng[i] != Pcg64::Words{};
            if (!seeded && saved.status[i] != EnvStatus::never_reset) {
                throw std::invalid_argument("rng: expected a seeded stream, got zeros" + env);
            }
        }
    }

    void expect_size(const char* name, std::size_t got) const {
        if (got != num_envs_) {
            throw std::invalid_argument(std::string(name) + ": expected " + std::to_string(num_envs_) +
                                        " entries, got " + std::to_string(got));
        }
    }

    static std::size_t checked_count(std::size_t num_envs) {
        if (num_envs < 1 || num_envs > max_num_envs) {
            throw std::invalid_argument("num_envs: expected 1 to " + std::to_string(max_num_envs) + ", got " +
                                        std::to_string(num_envs));
        }
        return num_envs;
    }

    std::size_t num_envs_;
    std::int64_t max_episode_steps_;
    AutoresetMode autoreset_mode_;
    bool sincos_exact_ = sincos_is_exact();
    float reward_alive_;
    float reward_terminated_;
    std::vector<double> state_;  // [4, N]: one row for each field
    std::vector<std::int64_t> elapsed_;  // but for the latest `uncounted_` env steps, the same of all
    std::int64_t uncounted_ = 0;
    std::int64_t until_cut_ = 0;  // no episode is truncated before so many env steps are uncounted
    std::vector<EnvStatus> status_;
    std::size_t not_running_;  // how many of them
    std::vector<Pcg64> rng_;
    std::vector<float> obs_;
    std::vector<float> final_obs_;
    std::vector<float> reward_;
    std::unique_ptr<bool[]> terminated_;  // vector<bool> has no array to hand out
    std::unique_ptr<bool[]> truncated_;
};

}  // namespace fastac
