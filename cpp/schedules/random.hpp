// Pseudo-random numbers that depend on the seed alone, with every compiler.
#pragma once

#include <cstdint>

namespace schedules {

/// splitmix64.
class Random {
public:
    explicit Random(std::uint64_t seed) noexcept : state_(seed) {}
    std::uint64_t next() noexcept {
        std::uint64_t z = state_ += 0x9e3779b97f4a7c15ULL;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
        z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
        return z ^ z >> 31;
    }
    /// 0 .. n - 1, for n < 2^32.
    std::uint64_t below(std::uint64_t n) noexcept { return (next() >> 32) * n >> 32; }
    std::uint64_t between(std::uint64_t low, std::uint64_t high) noexcept { return low + below(high - low + 1); }
    bool percent(std::uint64_t chance) noexcept { return below(100) < chance; }
    bool permille(std::uint64_t chance) noexcept { return below(1000) < chance; }

private:
    std::uint64_t state_;
};

}  // namespace schedules
