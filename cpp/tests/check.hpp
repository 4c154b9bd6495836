// The whole of the test framework: CHECK counts and names what failed, CHECK_THROWS wants one kind of exception.
#pragma once

#include <cstdio>

namespace check {
inline int failures = 0;

inline void fail(const char* what, const char* file, int line) {
    std::fprintf(stderr, "%s:%d: CHECK failed: %s\n", file, line, what);
    ++failures;
}

// What main returns.
inline int result() {
    std::fprintf(stderr, "%d failed\n", failures);
    return failures == 0 ? 0 : 1;
}
}  // namespace check

#define CHECK(condition)                                                 \
    do {                                                                 \
        if (!(condition)) check::fail(#condition, __FILE__, __LINE__);   \
    } while (false)

#define CHECK_THROWS(kind, expression)                                                              \
    do {                                                                                            \
        bool thrown = false;                                                                        \
        try {                                                                                       \
            expression;                                                                             \
        } catch (const kind&) {                                                                     \
            thrown = true;                                                                          \
        }                                                                                           \
        if (!thrown) check::fail(#expression " did not throw " #kind, __FILE__, __LINE__);          \
    } while (false)
