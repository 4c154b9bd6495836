// event_log.hpp: rows come out once, whole and in order; a full ring refuses.
#include "fastac/event_log.hpp"

#include "harness.hpp"

using namespace fastac;

namespace {

std::vector<double> row(double x) { return std::vector<double>(log_columns, x); }

void order_and_full_ring() {
    const SharedRegion region = harness::region(harness::config(2, 1));  // 4 rows
    const EventLog log(region);
    std::vector<double> out(4 * log_columns);
    for (int round = 0; round < 3; ++round) {
        CHECK_EQ(log.unread(1), 0U);
        for (int i = 0; i < 4; ++i) CHECK(log.write(1, row(10 * round + i).data()));
        CHECK(!log.write(1, row(99).data()));
        CHECK_EQ(log.unread(1), 4U);
        CHECK_EQ(log.unread(0), 0U);
        log.read(1, 1, out.data());
        CHECK_EQ(out[log_columns - 1], 10.0 * round);
        CHECK(log.write(1, row(10 * round + 4).data()));  // one was read: one fits again
        CHECK_EQ(log.unread(1), 4U);
        log.read(1, 4, out.data());
        for (int i = 0; i < 4; ++i) CHECK_EQ(out[static_cast<std::size_t>(i) * log_columns + 3], 10.0 * round + i + 1);
    }
}

void one_writes_one_reads() {
    const SharedRegion region = harness::region(harness::config(1, 1));
    const EventLog log(region);
    const int n = 40'000 / harness::shorter;
    harness::together(2, [&](std::size_t who) {
        std::vector<double> out(4 * log_columns);
        for (int i = 0; i < n;) {
            if (who == 0) {
                if (log.write(0, row(i).data())) ++i;
                else std::this_thread::yield();
            } else {
                const std::size_t some = log.unread(0);
                if (some == 0) std::this_thread::yield();
                log.read(0, some, out.data());
                for (std::size_t k = 0; k < some; ++k, ++i)
                    for (std::size_t c = 0; c < log_columns; ++c) CHECK_EQ(out[k * log_columns + c], i);
            }
        }
    });
    CHECK_EQ(log.unread(0), 0U);
}

}  // namespace

int main() {
    order_and_full_ring();
    one_writes_one_reads();
    return check_result();
}
