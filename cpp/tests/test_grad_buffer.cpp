// grad_buffer.hpp: what is pushed is copied out whole, once it is published and not before.
#include "fastac/grad_buffer.hpp"

#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <limits>

#include "harness.hpp"

using namespace fastac;

namespace {

std::vector<float> counting(std::size_t n, float first) {
    std::vector<float> v(n);
    for (std::size_t i = 0; i < n; ++i) v[i] = first + static_cast<float>(i);
    return v;
}

void push_and_copy() {
    for (const std::uint32_t p : {1U, 2U, 5U, 15U, 16U, 17U, 31U, 35U, 64U, 103U}) {  // odd, even, whole cache lines, all that may be left beside them
        const SharedRegion region = harness::region(harness::config(2, p));
        const GradBuffer buffer(region);
        CHECK_EQ(buffer.published(1), 0U);
        for (std::uint64_t s = 1; s <= 3; ++s) {
            const auto first = static_cast<float>(100 * s);
            const std::vector<float> grad = counting(p + s, first - static_cast<float>(s));  // aligned for floats and no more
            CHECK(buffer.push(1, std::span(grad).subspan(s), {10 + s, 20 + s, 0.25, 3, false, s == 2}, 0) == s);
            CHECK_EQ(buffer.published(1), s);
        }
        for (std::uint64_t s = 1; s <= 3; ++s) {  // each has kept its own
            std::vector<float> out(p, -1.0F);
            const GradientTag tag = buffer.copy(1, s, out);
            CHECK(out == counting(p, static_cast<float>(100 * s)));
            CHECK_EQ(tag.version_read, 10 + s);
            CHECK_EQ(tag.env_steps, 20 + s);
            CHECK_EQ(tag.learning_rate, 0.25);
            CHECK_EQ(tag.n_summed, 3U);
            CHECK(!tag.nonfinite);
        }
        CHECK_EQ(buffer.published(0), 0U);  // the neighbour's ring is its own
        CHECK_EQ(region.worker(0).begun.load(), 0U);
        CHECK_EQ(region.worker(1).begun.load(), 3U);
    }
}

void full_ring() {
    RegionConfig c = harness::config(1, 3);
    c.slots = 2;
    const SharedRegion region = harness::region(c);
    const GradBuffer buffer(region);
    CHECK(buffer.push(0, counting(3, 1.0F), {}, 0) == 1U);
    CHECK(buffer.push(0, counting(3, 2.0F), {}, 0) == 2U);
    CHECK(!buffer.push(0, counting(3, 9.0F), {}, 0));  // full: nothing has happened
    CHECK_EQ(buffer.published(0), 2U);
    CHECK_EQ(region.worker(0).begun.load(), 2U);
    std::vector<float> out(3);
    buffer.copy(0, 1, out);
    CHECK(out == counting(3, 1.0F));
    CHECK(buffer.push(0, counting(3, 3.0F), {}, 1) == 3U);  // the first is consumed: its slot is free again
    buffer.copy(0, 2, out);
    CHECK(out == counting(3, 2.0F));
    buffer.copy(0, 3, out);
    CHECK(out == counting(3, 3.0F));
}

void nonfinite() {
    const float inf = std::numeric_limits<float>::infinity();
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const SharedRegion region = harness::region(harness::config(1, 9));
    const GradBuffer buffer(region);
    std::uint64_t consumed = 0;
    std::vector<float> out(9);
    for (const float bad : {inf, -inf, nan, -nan}) {
        for (std::size_t at = 0; at < 9; ++at) {
            std::vector<float> grad = counting(9, 1.0F);
            grad[at] = bad;
            const std::uint64_t s = buffer.push(0, grad, {}, consumed).value();
            CHECK(buffer.copy(0, s, out).nonfinite);
            consumed = s;
        }
    }
    for (const float good : {std::numeric_limits<float>::max(), -std::numeric_limits<float>::max(), std::numeric_limits<float>::denorm_min(), -0.0F}) {
        const std::uint64_t s = buffer.push(0, std::vector<float>(9, good), {0, 0, 0.0, 1, true, false}, consumed).value();  // push decides, not the caller
        CHECK(!buffer.copy(0, s, out).nonfinite);
        CHECK(out == std::vector<float>(9, good));
        consumed = s;
    }
}

/// The commit point: a worker that dies while it reads its gradient has begun, and published nothing.
void death_in_the_middle_of_a_push() {
    const SharedRegion region = harness::region(harness::config(1, 2048));
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    void* memory = mmap(nullptr, 3 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    CHECK_EQ(mprotect(static_cast<std::byte*>(memory) + page, 2 * page, PROT_NONE), 0);
    const std::span<const float> grad(static_cast<const float*>(memory), 2048);  // its second half cannot be read
    const int status = harness::join(harness::child([&] {
        const rlimit no_core{0, 0};
        setrlimit(RLIMIT_CORE, &no_core);
        signal(SIGSEGV, SIG_DFL);  // a sanitizer's handler would only tell us what we know
        GradBuffer(region).push(0, grad, {}, 0);
    }));
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    CHECK_EQ(region.worker(0).begun.load(), 1U);
    CHECK_EQ(GradBuffer(region).published(0), 0U);
    munmap(memory, 3 * page);
}

/// Who sees the number sees the gradient, and whatever the worker wrote before it pushed. The slot is made of
/// atomics, so ThreadSanitizer would say nothing of a weaker order: `witness` is a plain field for it to watch.
void published_means_complete() {
    const std::uint64_t n = static_cast<std::uint64_t>(5'000 / harness::shorter);
    constexpr std::uint32_t p = 4096;
    RegionConfig c = harness::config(1, p);
    c.slots = 4;
    const SharedRegion region = harness::region(c);
    const GradBuffer buffer(region);
    std::vector<std::uint64_t> witness(n + 1, 0);
    std::atomic<std::uint64_t> consumed{0};
    harness::together(2, [&](std::size_t who) {
        if (who == 0) {
            std::vector<float> grad(p);
            for (std::uint64_t s = 1; s <= n;) {
                grad.assign(p, static_cast<float>(s));
                witness[s] = s;
                const auto got = buffer.push(0, grad, {s, s, 0.0, 1, false, false}, consumed.load());
                if (!got) {
                    std::this_thread::yield();
                    continue;
                }
                CHECK(got == s);
                ++s;
            }
        } else {
            std::vector<float> out(p);
            for (std::uint64_t s = 1; s <= n; ++s) {
                while (buffer.published(0) < s) std::this_thread::yield();
                const GradientTag tag = buffer.copy(0, s, out);
                CHECK_EQ(witness[s], s);
                CHECK_EQ(tag.version_read, s);
                CHECK(out == std::vector<float>(p, static_cast<float>(s)));
                consumed.store(s);
            }
        }
    });
}

}  // namespace

int main() {
    push_and_copy();
    full_ring();
    nonfinite();
    death_in_the_middle_of_a_push();
    published_means_complete();
    return check_result();
}
