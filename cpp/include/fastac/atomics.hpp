// The atomics that the shared core is written with: the standard's. Every header takes them from here, so that a test can
// put others in their place (FASTAC_ATOMICS names its header) and run the same code under schedules and memory
// effects of its own choosing.
#pragma once

#ifdef FASTAC_ATOMICS
#include FASTAC_ATOMICS
#else

#include <atomic>
#include <cstddef>

namespace fastac {

template <class T>
using Atomic = std::atomic<T>;
template <class T>
using AtomicRef = std::atomic_ref<T>;

/// Said before plain (not atomic) memory of the region is read or written. Costs nothing; a test looks for races here.
inline void plain_read(const void*, std::size_t) noexcept {}
inline void plain_write(const void*, std::size_t) noexcept {}

}  // namespace fastac

#endif
