// What helps the compiler to make vector code. One portable build uses what the machine has: marked functions are compiled for several generations of x86-64, and
// the loader picks one.
#pragma once

#include <cstddef>  // __GLIBC__

// The sanitizers' own code does not run yet when the loader picks; other compilers and C libraries build the baseline.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12 && !defined(__SANITIZE_THREAD__) && \
    !defined(__SANITIZE_ADDRESS__)
#define FASTAC_CLONES __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define FASTAC_CLONES
#endif

// A second version of a function for processors with 32 registers of sixteen floats, where other blocks of registers pay: what
// calls it asks `has_wide` first. Unlike a clone it needs no loader, so that the sanitizers see it, too.
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define FASTAC_WIDE __attribute__((target("avx512f,avx512dq,avx512vl,avx512bw,avx2,fma")))
namespace fastac {
inline bool has_wide() noexcept {
    static const bool has = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                            __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    return has;
}
}  // namespace fastac
#endif

// The iterations of the next loop do not depend on each other (in place or apart, never shifted).
#if defined(__clang__)
#define FASTAC_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define FASTAC_INDEPENDENT _Pragma("GCC ivdep")
#endif

// The iterations of the next loop, at most 16 of a number that the compiler knows, are written out.
#if defined(__clang__)
#define FASTAC_UNROLL _Pragma("unroll")
#else
#define FASTAC_UNROLL _Pragma("GCC unroll 16")
#endif
