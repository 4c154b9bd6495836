// The words of random streams, uint64[n, 4], from and to numpy.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "bindings.hpp"
#include "fastac/rng.hpp"

inline std::vector<fastac::Pcg64::Words> words_from(py::handle object, const char* name, py::ssize_t rows) {
    const std::span<const std::uint64_t> numbers = expect_array<std::uint64_t>(object, name, {rows, 4});
    std::vector<fastac::Pcg64::Words> words(numbers.size() / 4);
    std::copy(numbers.begin(), numbers.end(), words.empty() ? nullptr : words.front().data());
    return words;
}

inline py::array words_to_array(const std::vector<fastac::Pcg64::Words>& words) {
    py::array_t<std::uint64_t> array({static_cast<py::ssize_t>(words.size()), py::ssize_t{4}});
    for (std::size_t i = 0; i < words.size(); ++i) {
        std::copy(words[i].begin(), words[i].end(), array.mutable_data(static_cast<py::ssize_t>(i), 0));
    }
    return array;
}
