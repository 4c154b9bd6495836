// CartPole and Pcg64 without Python. The literal numbers come from numpy 2.4 and Gymnasium 1.4 (seed 42) or from hand.
#include "fastac/cartpole.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "check.hpp"

using fastac::AutoresetMode;
using fastac::CartPole;
using fastac::EnvStatus;
using fastac::Pcg64;
using fastac::ResetNeeded;
using fastac::UniformStreams;

namespace {

// numpy.random.SeedSequence(42).generate_state(4, uint64)
constexpr Pcg64::Words seed_42 = {0x9f1e2e6dcd540ab7, 0xd57873dc79fb94b6, 0x7d282a1b64d420b7, 0x336579714692d5ff};
constexpr std::int64_t left = 0;
constexpr std::int64_t right = 1;

CartPole make(std::size_t num_envs, std::int64_t max_episode_steps, AutoresetMode mode, bool sutton_barto = false) {
    CartPole env(num_envs, max_episode_steps, mode, sutton_barto);
    for (std::size_t i = 0; i < num_envs; ++i) {
        env.seed(i, {seed_42[0] + i, seed_42[1], seed_42[2], seed_42[3]});
    }
    return env;
}

bool same(const CartPole::Snapshot& a, const CartPole::Snapshot& b) {
    return a.state == b.state && a.elapsed == b.elapsed && a.status == b.status && a.rng == b.rng;
}

void pcg64_draws_numpys_numbers() {
    Pcg64 rng;
    CHECK(!rng.seeded());
    rng.seed(seed_42);
    CHECK((rng.words() == Pcg64::Words{0xcea44f6798798f2a, 0xacbc7c9d68860ac8, 0xfa505436c9a8416e, 0x66caf2e28d25abff}));
    const Pcg64 start = rng;
    CHECK(rng.next_uint64() == 0xc621fbcd16d92688);
    CHECK(rng.next_uint64() == 0x705a5661a791ffc1);
    CHECK(rng.next_uint64() == 0xdbcd12c26eda1624);
    CHECK(rng.words()[0] == 0xe3a72793a5d8f2df && rng.words()[1] == 0xc77cea8167b628c9);
    for (int draw = 3; draw < 1000; ++draw) {
        rng.next_uint64();
    }
    CHECK(rng.next_uint64() == 0x0fe35e24e0cd297a);

    rng = start;
    CHECK(rng.next_double() == 0x1.8c43f79a2db24p-1);
    CHECK(rng.next_double() == 0x1.c16959869e47ep-2);
    rng = start;
    CHECK(rng.uniform(-0.05, 0.05) == 0x1.c0d97eba2bd40p-6);
    CHECK(rng.uniform(-0.05, 0.05) == -0x1.9090f63c0b010p-8);
}

void pcg64_state_travels() {
    Pcg64 rng;
    rng.seed(seed_42);
    rng.next_double();
    Pcg64 copy;
    copy.set_words(rng.words());
    CHECK(copy.next_uint64() == rng.next_uint64());
    CHECK_THROWS(std::invalid_argument, copy.set_words({1, 2, 3, 4}));
    CHECK(copy.words() == rng.words());
}

void streams_are_independent() {
    UniformStreams streams({seed_42, {1, 2, 3, 4}});
    std::array<double, 2> first{};
    std::array<double, 2> second{};
    streams.fill(first.data());
    const auto saved = streams.words();
    streams.fill(second.data());
    CHECK(first[0] == 0x1.8c43f79a2db24p-1 && second[0] == 0x1.c16959869e47ep-2);
    CHECK(first[1] != first[0]);
    streams.set_words(saved);
    streams.fill(first.data());
    CHECK(first == second);
    CHECK_THROWS(std::invalid_argument, streams.set_words({seed_42}));
    CHECK_THROWS(std::invalid_argument, streams.set_words({Pcg64::Words{1, 1, 1, 1}, Pcg64::Words{}}));
    CHECK(streams.words() != saved);
}

// From rest, pushed right: theta_acc = -(100/11) / (41/66) = -600/41 and x_acc = 400/41, times 0.02 s.
void one_step_by_hand() {
    CartPole env = make(1, 500, AutoresetMode::next_step);
    env.reset();
    env.set_state(std::array<double, 4>{});
    env.step({&right, 1});
    CHECK(env.state()[0] == 0.0 && env.state()[2] == 0.0);
    CHECK(std::abs(env.state()[1] - 8.0 / 41.0) < 1e-15);
    CHECK(std::abs(env.state()[3] + 12.0 / 41.0) < 1e-15);
    CHECK(env.obs()[1] == static_cast<float>(env.state()[1]));
    CHECK(env.reward()[0] == 1.0F && !env.terminated()[0] && !env.truncated()[0]);
}

void three_steps_of_gymnasium() {
    CartPole env = make(1, 500, AutoresetMode::next_step);
    env.reset();
    CHECK((env.state() ==
           std::vector{0x1.c0d97eba2bd40p-6, -0x1.9090f63c0b010p-8, 0x1.25c36f3afc536p-5, 0x1.435e26c08cd04p-6}));
    env.step({&right, 1});
    CHECK((env.state() ==
           std::vector{0x1.bed8c52d122c5p-6, 0x1.8200942272176p-3, 0x1.28ff4189b60dcp-5, -0x1.0bb19f21fa80cp-2}));
    env.step({&right, 1});
    env.step({&left, 1});
    CHECK((env.state() ==
           std::vector{0x1.3d1092c95efbcp-5, 0x1.800a6d70c7cffp-3, 0x1.4a94f7ddd4a01p-6, -0x1.ebd6c612f79e2p-3}));
}

// A cart at 2.39 m that moves at 1 m/s leaves the track, 2.41 > 2.4, whatever the action.
void ends_and_begins_as_the_mode_says() {
    const std::array<double, 4> edge = {2.39, 1.0, 0.0, 0.0};

    CartPole next = make(1, 1, AutoresetMode::next_step);
    next.reset();
    next.set_state(edge);
    next.step({&right, 1});
    CHECK(next.terminated()[0] && next.truncated()[0]);
    CHECK(next.obs()[0] == static_cast<float>(2.39 + 0.02 * 1.0) && next.reward()[0] == 1.0F);
    next.step({&left, 1});
    CHECK(!next.terminated()[0] && !next.truncated()[0] && next.reward()[0] == 0.0F);
    CHECK(std::abs(next.obs()[0]) < 0.05F && next.snapshot().elapsed[0] == 0);

    CartPole same_step = make(1, 500, AutoresetMode::same_step, true);
    same_step.reset();
    same_step.set_state(edge);
    same_step.step({&right, 1});
    CHECK(same_step.terminated()[0] && !same_step.truncated()[0] && same_step.reward()[0] == -1.0F);
    CHECK(same_step.final_obs()[0] == static_cast<float>(2.39 + 0.02 * 1.0));
    CHECK(std::abs(same_step.obs()[0]) < 0.05F);

    CartPole disabled = make(1, 500, AutoresetMode::disabled, true);
    disabled.reset();
    disabled.step({&right, 1});
    CHECK(disabled.reward()[0] == 0.0F);
    disabled.set_state(edge);
    disabled.step({&right, 1});
    const auto finished = disabled.snapshot();
    CHECK(finished.status[0] == EnvStatus::finished);
    CHECK_THROWS(ResetNeeded, disabled.step({&right, 1}));
    CHECK(same(finished, disabled.snapshot()));
    disabled.reset();
    disabled.step({&right, 1});
}

void errors_change_nothing() {
    CartPole env(3, 500, AutoresetMode::next_step, false);
    CHECK_THROWS(ResetNeeded, env.reset());
    env = make(3, 500, AutoresetMode::next_step);
    const std::array<std::int64_t, 3> good = {0, 1, 0};
    CHECK_THROWS(ResetNeeded, env.step(good));
    env.reset();
    env.step(good);
    const auto before = env.snapshot();
    const std::vector<float> obs(env.obs(), env.obs() + 12);
    CHECK_THROWS(std::invalid_argument, env.step(std::array<std::int64_t, 3>{0, 1, 2}));
    CHECK_THROWS(std::invalid_argument, env.step(std::array<std::int64_t, 3>{-1, 1, 0}));
    CHECK_THROWS(std::invalid_argument, env.step({good.data(), 2}));
    CHECK_THROWS(std::invalid_argument, env.reset(0.1, -0.1));
    CHECK_THROWS(std::invalid_argument, env.reset(-1e308, 1e308));
    CHECK_THROWS(std::invalid_argument, env.reset(std::nan(""), 1.0));
    CHECK_THROWS(std::invalid_argument, env.set_state(std::vector<double>(12, std::nan(""))));
    CHECK_THROWS(std::out_of_range, env.seed(3, seed_42));
    auto bad = before;
    bad.rng[2][3] = 2;
    CHECK_THROWS(std::invalid_argument, env.restore(bad));
    bad = before;
    bad.elapsed[1] = -1;
    CHECK_THROWS(std::invalid_argument, env.restore(bad));
    CHECK(same(before, env.snapshot()));
    CHECK(std::equal(obs.begin(), obs.end(), env.obs()));
    CHECK_THROWS(std::invalid_argument, CartPole(0, 500, AutoresetMode::next_step, false));
    CHECK_THROWS(std::invalid_argument, CartPole(1, 0, AutoresetMode::next_step, false));
}

void masked_reset_leaves_the_others() {
    CartPole env = make(2, 500, AutoresetMode::disabled);
    env.reset();
    env.step(std::array<std::int64_t, 2>{1, 1});
    const auto before = env.snapshot();
    const std::array<bool, 2> mask = {false, true};
    env.reset(mask, -0.1, 0.1);
    const auto after = env.snapshot();
    CHECK(after.state[0] == before.state[0] && after.elapsed[0] == 1 && after.rng[0] == before.rng[0]);
    CHECK(after.state[1] != before.state[1] && after.elapsed[1] == 0 && after.rng[1] != before.rng[1]);
    CHECK(env.reward()[0] == 1.0F && env.reward()[1] == 0.0F);
}

void restored_env_goes_on_bit_for_bit() {
    CartPole env = make(3, 9, AutoresetMode::next_step);
    CartPole twin(3, 9, AutoresetMode::next_step, false);
    env.reset();
    for (int t = 0; t < 200; ++t) {
        twin.restore(env.snapshot());
        const std::array<std::int64_t, 3> actions = {t % 2, 1, (t / 2) % 2};
        env.step(actions);
        twin.step(actions);
        CHECK(same(env.snapshot(), twin.snapshot()));
        CHECK(std::equal(env.obs(), env.obs() + 12, twin.obs()));
    }
}

// Proved or asked for: of small angles, of those at the edges of the ways to them, and of what is no angle.
void sine_and_cosine_are_the_librarys() {
#ifdef __GLIBC__
    CHECK(fastac::sincos_is_exact());
#else
    if (!fastac::sincos_is_exact()) return;  // less exact than the bounds allow, as musl's: it is asked for all angles
#endif
    std::mt19937_64 random(1);
    const double odd[] = {0.0, -0.0, 1e-8, -1e-300, 0.126, 0.4, -0.4, 0.41, 1.0, -100.0, 1e300, std::numeric_limits<double>::infinity(), std::nan("")};
    std::uniform_real_distribution<double> draw(-0.45, 0.45);
    for (int k = 0; k < 20'000; ++k) {
        double angle[fastac::sincos_tile], sine[fastac::sincos_tile], cosine[fastac::sincos_tile];
        const std::size_t n = 1 + random() % fastac::sincos_tile;
        for (std::size_t i = 0; i < n; ++i) angle[i] = random() % 50 == 0 ? odd[random() % std::size(odd)] : draw(random);
        fastac::sincos(n, angle, sine, cosine);
        for (std::size_t i = 0; i < n; ++i) {
            const double expected[] = {std::sin(angle[i]), std::cos(angle[i])}, got[] = {sine[i], cosine[i]};
            CHECK(std::memcmp(expected, got, sizeof got) == 0);
        }
    }
}

// The vector code and its remainders, against the library alone: sixty-four envs and each of them by itself.
void any_number_of_envs_steps_like_one() {
    for (const std::size_t n : {std::size_t{3}, std::size_t{5}, std::size_t{64}, std::size_t{77}, std::size_t{131}}) {
        CartPole all = make(n, 40, AutoresetMode::same_step);
        all.reset();
        std::vector<CartPole> each;
        for (std::size_t i = 0; i < n; ++i) {
            each.push_back(CartPole(1, 40, AutoresetMode::same_step, false));
            each[i].seed(0, {seed_42[0] + i, seed_42[1], seed_42[2], seed_42[3]});
            each[i].reset();
        }
        std::mt19937_64 random(n);
        std::vector<std::int64_t> actions(n);
        for (int t = 0; t < 100; ++t) {
            for (std::int64_t& action : actions) action = static_cast<std::int64_t>(random() % 2);
            all.step(actions);
            for (std::size_t i = 0; i < n; ++i) {
                each[i].step({&actions[i], 1});
                CHECK(std::memcmp(each[i].obs(), all.obs() + 4 * i, 4 * sizeof(float)) == 0);
                CHECK(each[i].reward()[0] == all.reward()[i] && each[i].terminated()[0] == all.terminated()[i] && each[i].truncated()[0] == all.truncated()[i]);
                for (std::size_t k = 0; k < 4; ++k) CHECK(each[i].state()[k] == all.state()[k * n + i]);
            }
        }
    }
}

}  // namespace

int main() {
    pcg64_draws_numpys_numbers();
    pcg64_state_travels();
    streams_are_independent();
    one_step_by_hand();
    three_steps_of_gymnasium();
    ends_and_begins_as_the_mode_says();
    errors_change_nothing();
    masked_reset_leaves_the_others();
    restored_env_goes_on_bit_for_bit();
    sine_and_cosine_are_the_librarys();
    any_number_of_envs_steps_like_one();
    return check::result();
}
