// rollout.hpp and gradient.hpp: rollouts against the plainest loops, gradients against differences of the loss.
// Against torch and autograd: tests/test_native.py.
#include "fastac/gradient.hpp"

#include <algorithm>
#include <cmath>
#include <random>

#include "check.hpp"

using namespace fastac;

namespace {

std::vector<Pcg64::Words> seeds(std::size_t n, std::uint64_t first) {
    std::vector<Pcg64::Words> all;
    for (std::uint64_t i = 0; i < n; ++i) all.push_back({first + i, 2, 3, 4});
    return all;
}

std::vector<float> draw(const MlpShape& shape, std::uint32_t seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0.0F, 0.3F);
    std::vector<float> params(shape.parameters());
    for (float& p : params) p = normal(random);
    return params;
}

const MlpShape shape{4, 2, {20, 12}, Activation::tanh, false};
constexpr RolloutConfig config{.n_steps = 40, .n_envs = 3, .max_episode_steps = 17, .gamma = 0.97, .gae_lambda = 0.6, .reward_scale = 0.5};

/// Envs of its own, stepped with the actions that a rollout took: the same observations, ends and episodes, and the returns that
/// the definitions give, in double: GAE, then V-trace for other parameters.
void a_rollout_is_what_its_actions_lead_to() {
    Collector collector(config, seeds(3, 10), seeds(3, 20));
    CartPole envs(3, 17, AutoresetMode::same_step, false);
    for (std::size_t i = 0; i < 3; ++i) envs.seed(i, seeds(3, 10)[i]);
    envs.reset();
    Mlp policy(shape, collector.rows()), copy(shape, 1), later(shape, 1);
    std::vector<std::size_t> length(3);
    const auto value_by = [](Mlp& mlp, const float* obs) {
        mlp.forward(0, 1, obs);
        return static_cast<double>(mlp.outputs(0)[2]);
    };
    const auto value = [&](const float* obs) { return value_by(copy, obs); };
    const auto probability = [](Mlp& mlp, const float* obs, std::int64_t action) {
        mlp.forward(0, 1, obs);
        const double d = static_cast<double>(mlp.outputs(0)[1]) - static_cast<double>(mlp.outputs(0)[0]);
        return 1.0 / (1.0 + std::exp(action == 0 ? d : -d));
    };
    for (std::uint32_t round = 0; round < 5; ++round) {
        const std::vector<float> params = draw(shape, round);
        policy.load(params);
        copy.load(params);
        later.load(draw(shape, round + 50));
        std::size_t beats = 0, episode = 0, cut = 0;
        collector.collect(policy, [&] { ++beats; });
        CHECK_EQ(beats, config.n_steps);
        // [T, N]: what followed each step, and whether the episode ended there.
        std::vector<double> following(collector.steps()), following_later(collector.steps());
        std::vector<bool> ended(collector.steps());
        for (std::size_t k = 0; k < collector.steps(); ++k) {
            const std::size_t i = k % 3;
            for (std::size_t j = 0; j < 4; ++j) CHECK_EQ(collector.obs()[4 * k + j], envs.obs()[4 * i + j]);
            CHECK(std::abs(static_cast<double>(collector.values()[k]) - value(envs.obs() + 4 * i)) < 1e-5);
            if (i < 2) continue;
            envs.step(std::span<const std::int64_t>(collector.actions()).subspan(k - 2, 3));
            for (std::size_t e = 0; e < 3; ++e) {
                ended[k - 2 + e] = envs.terminated()[e] || envs.truncated()[e];
                const float* next = envs.truncated()[e] ? envs.final_obs() + 4 * e : envs.obs() + 4 * e;
                following[k - 2 + e] = envs.terminated()[e] ? 0.0 : value(next);
                following_later[k - 2 + e] = envs.terminated()[e] ? 0.0 : value_by(later, next);
                cut += static_cast<std::size_t>(envs.truncated()[e] && !envs.terminated()[e]);
                ++length[e];
                if (!ended[k - 2 + e]) continue;
                CHECK_EQ(collector.episodes().at(episode).length, static_cast<std::int64_t>(length[e]));
                CHECK_EQ(collector.episodes().at(episode).episode_return, static_cast<double>(length[e]));
                ++episode;
                length[e] = 0;
            }
        }
        CHECK_EQ(collector.episodes().size(), episode);
        CHECK(cut > 0);
        for (std::size_t k = 0; k < collector.steps(); ++k) {
            double advantage = 0.0, weight = 1.0;
            for (std::size_t at = k; at < collector.steps(); at += 3, weight *= config.gamma * config.gae_lambda) {
                advantage += weight * (config.reward_scale + config.gamma * following[at] - static_cast<double>(collector.values()[at]));
                if (ended[at]) break;
            }
            CHECK(std::abs(static_cast<double>(collector.advantages()[k]) - advantage) < 1e-4);
            CHECK_EQ(collector.returns()[k], collector.advantages()[k] + collector.values()[k]);
        }
        policy.load(draw(shape, round + 50));
        collector.reweigh(policy);
        const auto rho = [&](std::size_t k) {
            const float* obs = collector.obs().data() + 4 * k;
            return std::min(1.0, probability(later, obs, collector.actions()[k]) / probability(copy, obs, collector.actions()[k]));
        };
        for (std::size_t k = 0; k < collector.steps(); ++k) {
            const double own = value_by(later, collector.obs().data() + 4 * k);
            double target = own, weight = 1.0;
            for (std::size_t at = k; at < collector.steps(); at += 3) {
                target += weight * rho(at) * (config.reward_scale + config.gamma * following_later[at] - value_by(later, collector.obs().data() + 4 * at));
                if (ended[at]) break;
                weight *= config.gamma * config.gae_lambda * rho(at);
            }
            CHECK(std::abs(static_cast<double>(collector.returns()[k]) - target) < 1e-4);
            CHECK(std::abs(static_cast<double>(collector.advantages()[k]) - (target - own)) < 1e-4);
        }
    }
}

void probabilities_are_softmax_and_actions_follow_them() {
    const float outputs[] = {0.0F, 0.0F, 9.0F, 1.0F, -1.0F, 9.0F, 200.0F, -200.0F, 9.0F};
    float p[6], log_p[6];
    softmax(3, 2, outputs, p, log_p);
    for (std::size_t i = 0; i < 3; ++i) {
        const double d = static_cast<double>(outputs[3 * i + 1]) - static_cast<double>(outputs[3 * i]);
        CHECK(std::abs(static_cast<double>(p[2 * i]) - 1.0 / (1.0 + std::exp(d))) < 1e-6);
        CHECK(std::abs(static_cast<double>(log_p[2 * i + 1]) - (d - std::log1p(std::exp(d)))) < 1e-4);
        CHECK(std::abs(p[2 * i] + p[2 * i + 1] - 1.0F) < 1e-6F);
    }
    const float three[] = {0.25F, 0.5F, 0.25F};
    CHECK_EQ(sample(3, three, 0.0), 0);
    CHECK_EQ(sample(3, three, 0.2499), 0);
    CHECK_EQ(sample(3, three, 0.25), 1);
    CHECK_EQ(sample(3, three, 0.7499), 1);
    CHECK_EQ(sample(3, three, 0.75), 2);
    const float short_of_one[] = {0.3F, 0.3F, 0.3F};
    CHECK_EQ(sample(3, short_of_one, 0.9999), 2);
}

/// The loss of a rollout as a function of the parameters, in double where it matters; actions, advantages and returns as they are.
double loss_at(const std::vector<float>& params, const Collector& rollout, const LossConfig& weights) {
    Mlp policy(shape, 1);
    policy.load(params);
    double loss = 0.0;
    for (std::size_t k = 0; k < rollout.steps(); ++k) {
        policy.forward(0, 1, rollout.obs().data() + 4 * k);
        const double d = static_cast<double>(policy.outputs(0)[1]) - static_cast<double>(policy.outputs(0)[0]);
        const double log_p[] = {-std::log1p(std::exp(d)), d - std::log1p(std::exp(d))};
        const double error = static_cast<double>(rollout.returns()[k]) - static_cast<double>(policy.outputs(0)[2]);
        double entropy = 0.0;
        for (const double l : log_p) entropy -= std::exp(l) * l;
        loss += -static_cast<double>(rollout.advantages()[k]) * log_p[rollout.actions()[k]] + weights.vf_coef * error * error - weights.ent_coef * entropy;
    }
    return loss / static_cast<double>(rollout.steps());
}

/// policy: with `params`, as it is since the rollout or its reweighing.
void expect_slope(const Collector& collector, Mlp& policy, const std::vector<float>& params) {
    ActorCriticGradient gradient(collector.steps());
    const LossConfig weights{.vf_coef = 0.7, .ent_coef = 0.3, .max_grad_norm = 0.0};
    std::vector<float> grad(params.size());
    const BlockSums sums[] = {gradient.compute(policy, collector, weights, collector.steps(), grad)};
    const GradientStats stats = stats_of(sums);
    const double norm = grad_norm(grad.data(), grad.size());
    CHECK(std::abs(stats.policy_loss + weights.vf_coef * stats.value_loss - weights.ent_coef * stats.entropy - loss_at(params, collector, weights)) < 1e-5);
    // Along some directions: a step in float32 is coarse, a whole direction averages that.
    std::mt19937 random(3);
    std::normal_distribution<double> normal;
    for (int direction = 0; direction < 20; ++direction) {
        std::vector<float> ahead = params, behind = params;
        double slope = 0.0;
        for (std::size_t i = 0; i < params.size(); ++i) {
            const auto step = static_cast<float>(1e-3 * normal(random));
            ahead[i] += step;
            behind[i] -= step;
            slope += (static_cast<double>(ahead[i]) - static_cast<double>(behind[i])) * static_cast<double>(grad[i]);
        }
        const double expected = loss_at(ahead, collector, weights) - loss_at(behind, collector, weights);
        CHECK(std::abs(slope - expected) < 1e-3 * norm * 2e-3 * std::sqrt(static_cast<double>(params.size())));
    }
}

void a_gradient_is_the_slope_of_the_loss() {
    Collector collector(config, seeds(3, 1), seeds(3, 2));
    Mlp policy(shape, collector.rows());
    const std::vector<float> params = draw(shape, 7);
    policy.load(params);
    collector.collect(policy, [] {});
    expect_slope(collector, policy, params);
}

/// Two steps under a policy and a value that no observation changes, worked out by hand: pi(0) = 1/2 when acting and 3/4 later, V = 4
/// later, gamma = 1/2, lambda = 1. A step of reward 1 has delta = 1 + 4/2 - 4 = -1; action 0 has the weight 1, action 1 that of 1/4 to 1/2.
void v_trace_by_hand() {
    Collector collector({.n_steps = 2, .n_envs = 40, .max_episode_steps = 500, .gamma = 0.5, .gae_lambda = 1.0, .reward_scale = 1.0}, seeds(40, 5), seeds(40, 6));
    const MlpShape one{4, 2, {1}, Activation::tanh, true};
    Mlp policy(one, collector.rows());
    std::vector<float> params(one.parameters());
    policy.load(params);
    collector.collect(policy, [] {});
    params[params.size() - 4] = std::log(3.0F);  // the bias of the first logit, of the second, the value's weight, and its bias
    params[params.size() - 1] = 4.0F;
    policy.load(params);
    collector.reweigh(policy);
    const float first[2][2] = {{-1.5F, -1.25F}, {-0.75F, -0.625F}}, second[] = {-1.0F, -0.5F};  // by actions
    int seen[2][2] = {};
    for (std::size_t i = 0; i < 40; ++i) {
        const auto a = static_cast<std::size_t>(collector.actions()[i]), b = static_cast<std::size_t>(collector.actions()[40 + i]);
        ++seen[a][b];
        CHECK(std::abs(collector.advantages()[i] - first[a][b]) < 1e-6F && std::abs(collector.advantages()[40 + i] - second[b]) < 1e-6F);
        CHECK(std::abs(collector.returns()[i] - (4.0F + first[a][b])) < 1e-6F);
        CHECK_EQ(collector.values()[i], 4.0F);
        CHECK(std::abs(collector.probabilities()[2 * i] - 0.75F) < 1e-6F);
    }
    for (const auto& row : seen) CHECK(row[0] > 0 && row[1] > 0);
}

/// To the bit; but clang fuses multiply-adds in some of dense.cpp's loops and not in others, so that there the last bits of a row
/// depend on how many others are taken with it.
bool same(const std::vector<float>& a, const std::vector<float>& b) {
#if defined(__clang__)
    return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](float x, float y) { return std::abs(x - y) <= 1e-5F * (1.0F + std::abs(x)); });
#else
    return a == b;
#endif
}

/// With the parameters that acted, nothing changes: values, advantages, returns and the gradient keep their bits.
void the_same_parameters_again_change_nothing() {
    Collector plain(config, seeds(3, 1), seeds(3, 2)), again(config, seeds(3, 1), seeds(3, 2));
    Mlp policy(shape, plain.rows()), other(shape, plain.rows());
    ActorCriticGradient gradient(plain.steps());
    const LossConfig weights{.vf_coef = 0.7, .ent_coef = 0.3, .max_grad_norm = 0.0};
    std::size_t episodes = 0;
    for (std::uint32_t round = 0; round < 4; ++round) {
        const std::vector<float> params = draw(shape, round);
        policy.load(params);
        other.load(params);
        plain.collect(policy, [] {});
        again.collect(other, [] {});
        other.load(params);
        again.reweigh(other);
        CHECK(same(plain.values(), again.values()) && same(plain.advantages(), again.advantages()) && same(plain.returns(), again.returns()));
        std::vector<float> expected(params.size()), grad(params.size());
        gradient.compute(policy, plain, weights, plain.steps(), expected);
        gradient.compute(other, again, weights, again.steps(), grad);
        CHECK(same(expected, grad));
        episodes += plain.episodes().size();
    }
    CHECK(episodes > 12);  // among them some that were cut
}

/// The gradient of a reweighed rollout is the slope of its loss at the parameters that it was reweighed for.
void a_reweighed_gradient_is_the_slope_of_the_loss_there() {
    Collector collector(config, seeds(3, 1), seeds(3, 2));
    Mlp policy(shape, collector.rows());
    policy.load(draw(shape, 7));
    collector.collect(policy, [] {});
    const std::vector<float> params = draw(shape, 8);
    policy.load(params);
    collector.reweigh(policy);
    expect_slope(collector, policy, params);
}

void delay_compensation_by_hand() {
    // 2 + 0.5 * 4 * (3 - 1) = 6; -1 + 0.5 * 1 * (0 - 4) = -3; where nothing has moved, nothing changes.
    std::vector<float> grad = {2.0F, -1.0F, 7.0F};
    const float now[] = {3.0F, 0.0F, 5.0F}, read[] = {1.0F, 4.0F, 5.0F};
    compensate_delay(grad, now, read, 0.5);
    CHECK(grad == (std::vector<float>{6.0F, -3.0F, 7.0F}));
}

void what_makes_no_rollout() {
    CHECK_THROWS(std::invalid_argument, Collector(config, seeds(2, 1), seeds(3, 1)));
    CHECK_THROWS(std::invalid_argument, Collector(config, seeds(3, 1), seeds(2, 1)));
    RolloutConfig bad = config;
    bad.n_steps = 0;
    CHECK_THROWS(std::invalid_argument, Collector(bad, seeds(3, 1), seeds(3, 1)));
    bad.n_steps = std::size_t{1} << 62U;
    CHECK_THROWS(std::invalid_argument, Collector(bad, seeds(3, 1), seeds(3, 1)));
    bad = config;
    bad.gamma = std::nan("");
    CHECK_THROWS(std::invalid_argument, Collector(bad, seeds(3, 1), seeds(3, 1)));
}

}  // namespace

int main() {
    a_rollout_is_what_its_actions_lead_to();
    probabilities_are_softmax_and_actions_follow_them();
    a_gradient_is_the_slope_of_the_loss();
    v_trace_by_hand();
    the_same_parameters_again_change_nothing();
    a_reweighed_gradient_is_the_slope_of_the_loss_there();
    delay_compensation_by_hand();
    what_makes_no_rollout();
    return check_result();
}
