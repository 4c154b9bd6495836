// Worker processes are killed at random instructions, thousands of times: nothing published is lost or applied twice, no read is torn,
// and the others never wait for the dead. control=1 runs the same without kills: its workers leave and are replaced as often.
#include "crew.hpp"

using namespace fastac;

namespace {

enum class Where : std::size_t { push, commit, elsewhere };

/// Where a child was when it died, from the words it left behind.
Where it_died(const SharedRegion& region, const gates::Crew& crew, std::size_t i) {
    const bool protects = region.seat(crew.seat(i)).hazard.load() != 0;
    if (crew.is_learner(i)) {
        // It alone commits, so the current record is still the one that it was building on.
        const std::uint64_t* consumed = region.consumed(ParamStore::record_of(region.control().current.load()));
        const std::vector<std::uint64_t> published = gates::published(region);
        return protects && !std::equal(published.begin(), published.end(), consumed) ? Where::commit : Where::elsewhere;
    }
    const WorkerBlock& words = region.worker(i);
    if (words.begun.load() - words.aborted.load() != words.published.load()) return Where::push;
    // Not "published, not consumed": another may have applied its gradient by the time we look.
    return protects && crew.desks()[i].submitting.load() != 0 ? Where::commit : Where::elsewhere;
}

/// One crew, and how it fared.
class Run {
public:
    Run(const gates::Arguments& arguments, bool killing)
        : kills_(arguments.number("kills", 1, UINT32_MAX)),
          workers_(arguments.number("workers", 1, max_workers)),
          killing_(killing),
          table_(arguments.number("floats", 2, 4096), arguments.number("floats", 2, 4096) / 2, arguments.number("seed", 0, UINT64_MAX)),
          region_(harness::region(gates::config(workers_, table_.floats(), arguments.scheme()))),
          observer_(region_, workers_),
          random_(arguments.number("seed", 0, UINT64_MAX)),
          crew_(region_, table_) {
        for (std::uint64_t k = 0; k < kills_; ++k) replace(random_() % crew_.size());
        for (std::size_t w = 0; w < workers_; ++w) go_on([w](std::size_t other) { return other != w; }, 1);  // the last in each seat, too
        crew_.leave();
        observer_.drain();
        accounts_ = gates::audit(region_, observer_, table_);
        CHECK_EQ(crew_.desks().sum(&gates::Desk::torn), 0U);
        CHECK_EQ(crew_.desks().sum(&gates::Desk::backwards), 0U);
        for (std::size_t r = 0; r < region_.layout().records; ++r)  // the observer alone may still own one
            CHECK(region_.owner(r).load() == 0 || region_.owner(r).load() == workers_ + 1);
        CHECK(observer_.ledger().aborted <= died_[static_cast<std::size_t>(Where::push)]);
    }

    [[nodiscard]] std::uint64_t died(Where where) const { return died_[static_cast<std::size_t>(where)]; }
    [[nodiscard]] std::string text() const {
        return gates::thousands(accounts_.pushes) + " pushes, " + accounts_.text() + ", " + gates::thousands(crew_.desks().sum(&gates::Desk::torn)) +
               " torn, 0 blocked";  // or we would not be here: go_on
    }

private:
    /// One child goes, the others go on, another takes its seat.
    void replace(std::size_t i) {
        std::this_thread::sleep_for(std::chrono::microseconds(random_() % 1000));
        if (killing_) kill(i);
        else crew_.leave(i);
        // Before the dead is reaped, even: nothing that it holds is needed by anybody. Without a learner nobody applies.
        const bool learner = crew_.is_learner(i);
        if (!learner) others_go_on(i);
        if (killing_) observer_.reap(crew_.seat(i));
        crew_.start(i);
        if (learner) others_go_on(i);
    }

    void kill(std::size_t i) {
        crew_.send(i, SIGKILL);
        const int status = crew_.wait(i);
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);  // else it had left before, after a failed check
        ++died_[static_cast<std::size_t>(it_died(region_, crew_, i))];
    }

    /// One push more than there are others: one of them has pushed twice, so it has seen an update through since.
    void others_go_on(std::size_t i) {
        if (workers_ > 1) go_on([i](std::size_t other) { return other == i; }, workers_ + 1);
    }

    void go_on(const std::function<bool(std::size_t)>& except, std::uint64_t more) {
        const std::uint64_t enough = crew_.pushes(except) + more;
        if (!harness::eventually([&] { return crew_.pushes(except) >= enough; })) throw std::runtime_error("kills: blocked, no push for 20 s");
    }

    std::uint64_t kills_;
    std::size_t workers_;
    bool killing_;
    gates::GradientTable table_;
    SharedRegion region_;
    Session observer_;
    std::mt19937_64 random_;
    gates::Crew crew_;
    std::array<std::uint64_t, 3> died_{};
    gates::Accounts accounts_;
};

std::string kills(const gates::Arguments& arguments) {
    const std::uint64_t n = arguments.number("kills", 1, UINT32_MAX);
    const Run run(arguments, true);
    const std::uint64_t push = run.died(Where::push), commit = run.died(Where::commit);
    if (arguments.scheme() == UpdateScheme::lockfree) {  // the others spend their time waiting, and die in that
        CHECK(10 * push >= n);
        CHECK(10 * commit >= n);
    }
    std::string line = "kills, " + arguments.word("scheme") + ": " + gates::thousands(n) + " SIGKILLs (" + gates::thousands(push) + " inside a push, " +
                       gates::thousands(commit) + " inside a commit), " + run.text();
    if (arguments.number("control", 0, 1) == 1) line += "; control, as many left and none killed: " + Run(arguments, false).text();
    return line;
}

}  // namespace

int main(int argc, char** argv) {
    return gates::run(argc, argv, {{"kills", "10000"}, {"workers", "3"}, {"floats", "2048"}, {"scheme", "lockfree"}, {"control", "0"}, {"seed", "1"}}, kills);
}
