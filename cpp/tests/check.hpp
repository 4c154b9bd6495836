// The whole of the test framework: CHECK and CHECK_EQ count and name what failed, CHECK_THROWS wants one
// kind of exception, check_result() is what main returns. Threads may check at the same time.
#pragma once

#include <atomic>
#include <iostream>
#include <sstream>
#include <string>

namespace check {
inline std::atomic<int> failures{0};

inline void fail(const std::string& what, const char* file, int line) {
    // One write, so that the lines of two threads do not mix; a broken loop must not fill the disk.
    if (failures.fetch_add(1) < 50) std::cerr << std::string(file) + ":" + std::to_string(line) + ": CHECK failed: " + what + "\n";
}

template <class A, class B>
void equal(const A& a, const B& b, const char* text, const char* file, int line) {
    if (a == b) return;
    std::ostringstream values;
    values.precision(17);
    values << text << ": " << a << " != " << b;
    fail(values.str(), file, line);
}

inline int result() {
    std::cerr << failures.load() << " checks failed\n";
    return failures.load() == 0 ? 0 : 1;
}
}  // namespace check

inline int check_result() { return check::result(); }

#define CHECK(condition)                                                  \
    do {                                                                  \
        if (!(condition)) check::fail(#condition, __FILE__, __LINE__);    \
    } while (false)

#define CHECK_EQ(a, b) check::equal((a), (b), #a " == " #b, __FILE__, __LINE__)

#define CHECK_THROWS(kind, expression)                                                        \
    do {                                                                                      \
        bool thrown = false;                                                                  \
        try {                                                                                 \
            expression;                                                                       \
        } catch (const kind&) {                                                               \
            thrown = true;                                                                    \
        }                                                                                     \
        if (!thrown) check::fail(#expression " did not throw " #kind, __FILE__, __LINE__);    \
    } while (false)
