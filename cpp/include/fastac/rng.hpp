// Random streams that draw, bit for bit, what numpy's Generator(PCG64) draws.
//
// What comes in: four seed words, as numpy's SeedSequence(seed).generate_state(4, uint64) gives them.
// What goes out: uniform doubles. Room before: seeding in Python. Rooms after: cartpole (resets), rollout (actions).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace fastac {

__extension__ typedef unsigned __int128 Uint128;  // PCG64's word; __extension__ keeps -Wpedantic quiet

// PCG64: a 128-bit linear congruential generator with XSL-RR output (O'Neill 2014, "PCG: A Family of Simple
// Fast Space-Efficient Statistically Good Algorithms for Random Number Generation"), as numpy runs it.
//
// Who may call: one thread at a time. No call waits, allocates or fails, except set_words on an impossible state.
// A default-constructed stream is unseeded and must not be drawn from; its words are all zero.
// When not to use it: where numbers must be unpredictable. It is not cryptographic.
class Pcg64 {
public:
    using Words = std::array<std::uint64_t, 4>;

    // seed = {state high, state low, stream high, stream low}: numpy's srandom step.
    void seed(const Words& seed_words) noexcept {
        increment_ = (join(seed_words[2], seed_words[3]) << 1U) | 1U;
        state_ = 0;
        step();
        state_ += join(seed_words[0], seed_words[1]);
        step();
    }

    [[nodiscard]] bool seeded() const noexcept { return increment_ != 0; }

    // {state high, state low, increment high, increment low}: the whole of the stream.
    [[nodiscard]] Words words() const noexcept {
        return {high(state_), low(state_), high(increment_), low(increment_)};
    }

    // An even increment cannot come from a seeded stream; all zero is the unseeded one.
    [[nodiscard]] static bool valid(const Words& w) noexcept { return (w[3] & 1U) != 0 || w == Words{}; }

    void set_words(const Words& w) {
        if (!valid(w)) {
            throw std::invalid_argument("PCG64 state: expected an odd increment, got an even one");
        }
        state_ = join(w[0], w[1]);
        increment_ = join(w[2], w[3]);
    }

    std::uint64_t next_uint64() noexcept {
        step();
        const std::uint64_t folded = high(state_) ^ low(state_);
        const unsigned rotation = static_cast<unsigned>(state_ >> 122U);
        return (folded >> rotation) | (folded << ((64U - rotation) & 63U));
    }

    // Uniform in [0, 1), 53 bits: numpy's Generator.random().
    double next_double() noexcept { return static_cast<double>(next_uint64() >> 11U) * 0x1.0p-53; }

    // Uniform in [low, high): numpy's Generator.uniform(low, high), in its order of operations.
    double uniform(double low_bound, double high_bound) noexcept {
        const double range = high_bound - low_bound;
        return low_bound + range * next_double();
    }

private:
    static constexpr Uint128 join(std::uint64_t hi, std::uint64_t lo) noexcept {
        return (static_cast<Uint128>(hi) << 64U) | lo;
    }
    static constexpr std::uint64_t high(Uint128 v) noexcept { return static_cast<std::uint64_t>(v >> 64U); }
    static constexpr std::uint64_t low(Uint128 v) noexcept { return static_cast<std::uint64_t>(v); }

    void step() noexcept {
        constexpr Uint128 multiplier = join(2549297995355413924ULL, 4865540595714422341ULL);
        state_ = state_ * multiplier + increment_;
    }

    Uint128 state_ = 0;
    Uint128 increment_ = 0;  // odd once seeded
};

// n independent streams, one for each env: what actions are sampled with, so that env i draws the same numbers
// whatever N is and whichever engine runs it.
//
// Who may call: one thread at a time. fill neither waits, allocates nor fails.
class UniformStreams {
public:
    explicit UniformStreams(const std::vector<Pcg64::Words>& seeds) : streams_(seeds.size()) {
        for (std::size_t i = 0; i < seeds.size(); ++i) {
            streams_[i].seed(seeds[i]);
        }
    }

    [[nodiscard]] std::size_t size() const noexcept { return streams_.size(); }

    // out[i] = the next double in [0, 1) of stream i; out holds size() doubles.
    void fill(double* out) noexcept {
        for (Pcg64& stream : streams_) {
            *out++ = stream.next_double();
        }
    }

    [[nodiscard]] std::vector<Pcg64::Words> words() const {
        std::vector<Pcg64::Words> all;
        all.reserve(size());
        for (const Pcg64& stream : streams_) {
            all.push_back(stream.words());
        }
        return all;
    }

    // All or nothing: every row is looked at before one is written.
    void set_words(const std::vector<Pcg64::Words>& all) {
        if (all.size() != size()) {
            throw std::invalid_argument("stream states: expected " + std::to_string(size()) + " rows, got " +
                                        std::to_string(all.size()));
        }
        std::vector<Pcg64> next(size());
        for (std::size_t i = 0; i < size(); ++i) {
            next[i].set_words(all[i]);
            if (!next[i].seeded()) {
                throw std::invalid_argument("stream states: expected seeded streams, got zeros in row " +
                                            std::to_string(i));
            }
        }
        streams_.swap(next);
    }

private:
    std::vector<Pcg64> streams_;
};

}  // namespace fastac
