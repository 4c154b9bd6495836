// Threads push as fast as they can: no gradient is lost, none is applied twice, to the last float.
#include "gates.hpp"

using namespace fastac;

namespace {

/// Publishes as many gradients from `s` on as the ring takes, then sees them consumed. Returns how many.
std::uint64_t fill_the_ring(Session& session, const gates::GradientTable& table, std::uint64_t s, std::uint64_t pushes, std::uint64_t version) {
    const std::uint64_t first = s;
    while (s <= pushes && session.push(table.gradient(session.seat(), s), harness::tag(version))) ++s;
    CHECK(session.settle(s - 1));
    return s - first;
}

/// What one worker does: read and submit, now and then a whole ring at once. Each read contains all that it has submitted itself.
void work(const SharedRegion& region, const gates::GradientTable& table, std::size_t w, std::uint64_t pushes) {
    Session session(region, w);
    std::vector<float> params(table.floats());
    std::uint64_t at_least = 0, rounds = 0;
    for (std::uint64_t s = 1, n = 0; s <= pushes; s += n) {
        const std::uint64_t version = session.read(params).version;
        CHECK(version >= at_least);
        n = 1;
        if (++rounds % 8 == 0) n = fill_the_ring(session, table, s, pushes, version);
        else CHECK(session.submit(table.gradient(w, s), harness::tag(version)) == Submitted::applied);
        if (n == 0) return;  // an empty ring refused: the count will not come out
        at_least = version + n;
    }
}

std::string conservation(const gates::Arguments& arguments) {
    const std::uint64_t pushes = arguments.number("pushes", 1, UINT64_MAX / 2);
    const std::size_t floats = arguments.number("floats", 1, 1 << 16), workers = arguments.number("workers", 1, max_workers);
    const gates::GradientTable table(floats, gates::GradientTable::offsets / 2, arguments.number("seed", 0, UINT64_MAX));
    const SharedRegion region = harness::region(gates::config(workers, floats, arguments.scheme()));
    {
        const harness::Learner learner(region);
        harness::together(workers, [&](std::size_t w) { work(region, table, w, pushes / workers + (w < pushes % workers)); });
    }
    Session observer(region, workers);
    const gates::Accounts accounts = gates::audit(region, observer, table);
    CHECK_EQ(accounts.pushes, pushes);
    return "conservation, threads, " + arguments.word("scheme") + ": " + gates::thousands(accounts.pushes) + " pushes of " + gates::thousands(floats) + " floats by " +
           gates::thousands(workers) + " workers, " + accounts.text();
}

}  // namespace

int main(int argc, char** argv) {
    return gates::run(argc, argv, {{"pushes", "10000000"}, {"floats", "1024"}, {"workers", "2"}, {"scheme", "lockfree"}, {"seed", "1"}}, conservation);
}
