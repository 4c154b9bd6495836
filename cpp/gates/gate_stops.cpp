// Worker processes are stopped (SIGSTOP) at random instructions: how fast do the others go on?
//
// Measured against the politest thing that k workers can do: pause between two pushes, holding nothing. Each stop is a pair of
// windows of equal length with the same workers out, once stopped and once pausing, in random order; what counts is
// the ratio of the others' updates per second within the pair, so that a drift of the machine's speed falls out.
// scheme=lock is the contrast: who is stopped with the lock in its hand stops everybody.
#include <algorithm>

#include "crew.hpp"

using namespace fastac;

namespace {

/// Median, 5th and 95th percentile by nearest rank.
struct Spread {
    explicit Spread(std::vector<double> sample) {
        std::sort(sample.begin(), sample.end());
        const auto at = [&](double q) { return sample[static_cast<std::size_t>(q * static_cast<double>(sample.size() - 1) + 0.5)]; };
        median = at(0.5), p5 = at(0.05), p95 = at(0.95);
    }
    [[nodiscard]] std::string text() const { return gates::decimals(median, 2) + " [p5 " + gates::decimals(p5, 2) + ", p95 " + gates::decimals(p95, 2) + "]"; }
    double median, p5, p95;
};

class Stops {
public:
    explicit Stops(const gates::Arguments& arguments)
        : workers_(arguments.number("workers", 2, max_workers)),
          window_(arguments.number("stop_ms", 1, 10'000)),
          may_block_(arguments.scheme() != UpdateScheme::lockfree),
          mark_(static_cast<double>(arguments.number("mark_percent", 0, 100)) / 100.0),
          table_(arguments.number("floats", 2, 4096), arguments.number("floats", 2, 4096) / 2, arguments.number("seed", 0, UINT64_MAX)),
          region_(harness::region(gates::config(workers_, table_.floats(), arguments.scheme()))),
          observer_(region_, workers_),
          random_(arguments.number("seed", 0, UINT64_MAX)),
          crew_(region_, table_) {
        ratios_.resize(workers_);
        for (std::uint64_t i = arguments.number("stops", 1, UINT32_MAX); i > 0; --i) pair();
        crew_.leave();
        observer_.drain();
        accounts_ = gates::audit(region_, observer_, table_);
        CHECK_EQ(observer_.ledger().aborted, 0U);
        CHECK_EQ(crew_.desks().sum(&gates::Desk::torn), 0U);
        CHECK_EQ(crew_.desks().sum(&gates::Desk::backwards), 0U);
    }

    [[nodiscard]] std::string text() const {
        std::vector<double> all;
        std::string each;
        for (std::size_t k = 1; k < workers_; ++k) {
            all.insert(all.end(), ratios_[k].begin(), ratios_[k].end());
            if (ratios_[k].empty()) continue;
            const Spread of_k(ratios_[k]);
            const std::string words = std::to_string(k) + " of them: " + of_k.text();
            if (!may_block_ && of_k.median < mark_) throw gates::TooSlow("stops: " + words + ", below the mark of " + gates::decimals(mark_, 2));
            each += (each.empty() ? "" : "; ") + words;
        }
        return gates::thousands(all.size()) + " x SIGSTOP of 1 to " + std::to_string(workers_ - 1) + " of " + std::to_string(workers_) + " workers for " +
               std::to_string(window_.count()) + " ms: the others' updates per second " + Spread(all).text() +
               " of those with as many workers fewer (" + each + "; >= " + gates::decimals(mark_, 2) + " wanted), " +
               gates::thousands(blocked_) + " blocked, " + accounts_.text() + ", " + gates::thousands(accounts_.merged) + " merged";
    }

private:
    using Out = std::vector<std::size_t>;

    /// Two windows with the same 1 to W - 1 workers out.
    void pair() {
        Out out(workers_);
        std::iota(out.begin(), out.end(), std::size_t{0});
        std::shuffle(out.begin(), out.end(), random_);
        out.resize(1 + random_() % (workers_ - 1));
        const bool stop_first = random_() % 2 == 0;
        const double first = stop_first ? while_stopped(out) : while_pausing(out);
        const double second = stop_first ? while_pausing(out) : while_stopped(out);
        ratios_[out.size()].push_back(stop_first ? first / second : second / first);
    }

    double while_stopped(const Out& out) {
        std::this_thread::sleep_for(std::chrono::microseconds(2000 + random_() % 3000));  // all at work, anywhere in it
        for (const std::size_t w : out) {
            crew_.send(w, SIGSTOP);
            CHECK(WIFSTOPPED(crew_.wait(w, WUNTRACED)));
        }
        const double rate = updates_per_s(out, may_block_);
        for (const std::size_t w : out) crew_.send(w, SIGCONT);
        blocked_ += rate == 0.0;
        return rate;
    }

    double while_pausing(const Out& out) {
        const auto all_say = [&](std::uint32_t pausing) {
            const auto says = [&](std::size_t w) { return crew_.desks()[w].pausing.load(std::memory_order_acquire) == pausing; };
            if (!harness::eventually([&] { return std::all_of(out.begin(), out.end(), says); })) throw std::runtime_error("stops: a worker does not obey");
        };
        for (const std::size_t w : out) crew_.order(w, gates::Order::pause);
        all_say(1);
        std::this_thread::sleep_for(std::chrono::microseconds(2000 + random_() % 3000));
        const double rate = updates_per_s(out, false);
        for (const std::size_t w : out) crew_.order(w, gates::Order::work);
        all_say(0);
        return rate;
    }

    /// What the others do in one window. Where they may not be blocked it lasts until they have done something.
    double updates_per_s(const Out& out, bool may_block) const {
        const auto start = Clock::now();
        const std::uint64_t before = version();
        std::this_thread::sleep_for(window_);
        if (!may_block && !harness::eventually([&] { return version() != before; }))
            throw std::runtime_error("stops: blocked, no update for 20 s with " + std::to_string(out.size()) + " workers out");
        const std::uint64_t updates = version() - before;
        return static_cast<double>(updates) / std::chrono::duration<double>(Clock::now() - start).count();
    }

    [[nodiscard]] std::uint64_t version() const { return region_.control().current.load() >> 16; }

    std::size_t workers_;
    std::chrono::milliseconds window_;
    bool may_block_;
    double mark_;  // the least that the median ratio may be; a median of a few pairs on a busy machine says nothing: 0
    gates::GradientTable table_;
    SharedRegion region_;
    Session observer_;
    std::mt19937_64 random_;
    gates::Crew crew_;
    std::vector<std::vector<double>> ratios_;  // by how many were out
    std::uint64_t blocked_ = 0;
    gates::Accounts accounts_;
};

}  // namespace

int main(int argc, char** argv) {
    return gates::run(argc, argv, {{"stops", "500"}, {"workers", "4"}, {"stop_ms", "100"}, {"mark_percent", "80"}, {"floats", "2048"}, {"scheme", "lockfree"}, {"seed", "1"}},
                      [](const gates::Arguments& arguments) { return (arguments.word("scheme") == "lockfree" ? "stops: " : "stops, " + arguments.word("scheme") + ": ") + Stops(arguments).text(); });
}
