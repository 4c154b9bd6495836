// statistics.hpp: what is read is what was written last, whole, whoever dies.
#include "fastac/statistics.hpp"

#include <algorithm>

#include "harness.hpp"

using namespace fastac;

namespace {

constexpr std::size_t size = 100;

SharedRegion region_of(std::uint32_t workers) {
    RegionConfig c = harness::config(workers, 1);
    c.statistics = size;
    return harness::region(c);
}

void latest_of_each() {
    const SharedRegion region = region_of(2);
    const Statistics statistics(region);
    CHECK_EQ(statistics.size(), size);
    std::vector<double> got(size, 7.0);
    statistics.read(1, got.data());
    CHECK(got == std::vector<double>(size, 0.0));
    for (int i = 1; i <= 3; ++i) {
        statistics.write(1, std::vector<double>(size, i).data());
        statistics.read(1, got.data());
        CHECK(got == std::vector<double>(size, i));
        statistics.read(0, got.data());
        CHECK(got == std::vector<double>(size, 0.0));
    }
    RegionConfig c = harness::config(1, 1);
    CHECK_EQ(Statistics(harness::region(c)).size(), 0U);
    c.statistics = max_statistics + 1;
    CHECK_THROWS(std::invalid_argument, harness::region(c));
}

/// A writer that dies in the midst leaves the latest whole one, and its successor goes on.
void the_writer_dies() {
    const SharedRegion region = region_of(1);
    const Statistics statistics(region);
    statistics.write(0, std::vector<double>(size, 1.0).data());
    region.statistics(0, 2)[0] = 99;  // what it had begun
    std::vector<double> got(size);
    statistics.read(0, got.data());
    CHECK(got == std::vector<double>(size, 1.0));
    statistics.write(0, std::vector<double>(size, 2.0).data());
    statistics.read(0, got.data());
    CHECK(got == std::vector<double>(size, 2.0));
}

/// Writing and reading are nearly all that the threads do, and they go on until they have met often enough: so whoever is
/// interrupted is so in the midst of it, on one core too.
void readers_never_see_a_mixture() {
    RegionConfig c = harness::config(1, 1);
    c.statistics = 4096;
    const SharedRegion region = harness::region(c);
    const int n = 16'000 / harness::shorter;
    std::atomic<int> reads{0};
    std::atomic<bool> done{false};
    harness::together(3, [&](std::size_t who) {
        Session session(region, who);  // the worker, the observer, the learner
        std::vector<double> values(c.statistics);
        if (who == 0) {
            for (int i = 1; i <= n || reads < n; ++i) {
                std::fill(values.begin(), values.end(), i);
                session.write_statistics(values.data());
            }
            done = true;
            return;
        }
        double before = 0.0;
        while (!done) {
            session.read_statistics(0, values.data());
            CHECK(std::equal(values.begin() + 1, values.end(), values.begin()));
            CHECK(values[0] >= before);
            before = values[0];
            ++reads;
        }
    });
}

}  // namespace

int main() {
    latest_of_each();
    the_writer_dies();
    readers_never_see_a_mixture();
    return check_result();
}
