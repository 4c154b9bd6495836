// Death and preemption at every single store to the shared region, one after the other, instead of at random
// moments: the region is made read-only, each store faults, and the handler decides what happens before it.
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "harness.hpp"

#if defined(__x86_64__) && !defined(FASTAC_SANITIZED)

using namespace fastac;
using enum UpdateScheme;

namespace {

/// While one of these lives, `before(k, where)` runs before the k-th store to the region (k from 1), in its thread.
/// A string store or a locked instruction counts as one. Stores made by `before` itself pass unseen.
class EveryStore {
public:
    EveryStore(const SharedRegion& region, std::function<void(int, const void*)> before)
        : base_(const_cast<RegionHeader*>(&region.header())), bytes_(region.layout().bytes), before_(std::move(before)) {
        current = this;
        handle(SIGSEGV, on_fault);
        handle(SIGTRAP, on_step);
        protect(PROT_READ);
    }
    ~EveryStore() {
        protect(PROT_READ | PROT_WRITE);
        signal(SIGSEGV, SIG_DFL);
        signal(SIGTRAP, SIG_DFL);
    }
    EveryStore(const EveryStore&) = delete;
    EveryStore& operator=(const EveryStore&) = delete;
    [[nodiscard]] int count() const { return count_; }

private:
    static constexpr greg_t single_step = 0x100;

    static void handle(int number, void (*handler)(int, siginfo_t*, void*)) {
        struct sigaction action {};
        action.sa_sigaction = handler;
        action.sa_flags = SA_SIGINFO;
        sigaction(number, &action, nullptr);
    }
    static void on_fault(int, siginfo_t* info, void* context) {
        EveryStore& self = *current;
        const auto at = reinterpret_cast<std::uintptr_t>(info->si_addr), base = reinterpret_cast<std::uintptr_t>(self.base_);
        if (at < base || at >= base + self.bytes_) {
            signal(SIGSEGV, SIG_DFL);  // somebody else's fault
            return;
        }
        self.protect(PROT_READ | PROT_WRITE);
        self.before_(++self.count_, info->si_addr);
        static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_EFL] |= single_step;
    }
    static void on_step(int, siginfo_t*, void* context) {
        static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_EFL] &= ~single_step;
        current->protect(PROT_READ);
    }
    void protect(int how) const {
        if (mprotect(base_, bytes_, how) != 0) std::abort();
    }

    inline static EveryStore* current = nullptr;
    void* base_;
    std::size_t bytes_;
    std::function<void(int, const void*)> before_;
    int count_ = 0;
};

using harness::tag;
const std::vector<float> ones(3, 1.0F);

RegionConfig config(UpdateScheme scheme) {
    RegionConfig c = harness::config(2, 3, scheme);
    c.wait_deadline_ms = 300;
    return c;
}

/// Runs `body` in a child that dies before its k-th store to the region. Whether it came so far.
bool dies_at(const SharedRegion& region, int k, const std::function<void()>& body) {
    const int status = harness::join(harness::child([&] {
        const EveryStore stores(region, [k](int n, const void*) {
            if (n == k) raise(SIGKILL);
        });
        body();
    }));
    CHECK(harness::exited_well(status) || (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL));
    return WIFSIGNALED(status);
}

/// The equations, and where everybody has applied: all of `published` in the parameters, nothing held by the dead.
void check_whole(const SharedRegion& region, Session& observer, std::uint64_t at_least) {
    const Ledger l = observer.ledger();
    CHECK_EQ(l.begun, l.published + l.aborted);
    CHECK_EQ(l.published, l.at.counts.applied + l.pending);
    CHECK_EQ(l.pending, 0U);
    CHECK(l.aborted <= 1);
    CHECK(l.published >= at_least && l.published <= at_least + 1);
    harness::check_ledger(l);
    if (region.config().scheme == hogwild) return;
    std::vector<float> params(3);
    CHECK_EQ(observer.read(params).version, l.published);
    CHECK(params == std::vector<float>(3, -static_cast<float>(l.published)));
}

/// A worker dies in submit(), while another has published and not settled.
int worker_dies(UpdateScheme scheme) {
    for (int k = 1;; ++k) {
        const SharedRegion region = harness::region(config(scheme));
        Session observer(region, 2), other(region, 1);
        if (scheme != hogwild) CHECK(other.push(ones, tag(0)) == 1U);
        Session* victim = new Session(region, 0);  // never destroyed here: it is the child's, and dies with it
        const bool died = dies_at(region, k, [&] { CHECK(victim->submit(ones, tag(0)) == Submitted::applied); });
        observer.reap(0);
        CHECK_EQ(region.seat(0).hazard.load(), 0U);
        for (std::size_t r = 0; r < region.layout().records; ++r) CHECK(region.owner(r).load() != 1);
        if (scheme == hogwild) CHECK(other.submit(ones, tag(0)) == Submitted::applied);
        else CHECK(other.settle(1));
        Session next(region, 0);
        CHECK(next.submit(ones, tag(0)) == Submitted::applied);
        check_whole(region, observer, 2);
        CHECK_EQ(observer.ledger().canaries_lost, 0U);
        if (!died) return k - 1;
    }
}

/// The learner dies in drain(), while two workers wait. The next one must reach both, or they time out.
int learner_dies() {
    for (int k = 1;; ++k) {
        const SharedRegion region = harness::region(config(queue));
        Session observer(region, 2), a(region, 0), b(region, 1);
        CHECK(a.push(ones, tag(0)) == 1U);
        CHECK(b.push(ones, tag(0)) == 1U);
        Session* victim = new Session(region, 3);
        const bool died = dies_at(region, k, [&] { CHECK_EQ(victim->drain(), 2U); });
        observer.reap(3);
        Session(region, 3).drain();
        for (Session* waiting : {&a, &b}) {
            try {
                CHECK(waiting->settle(1));
            } catch (const WaitTimeout& e) {
                check::fail("store " + std::to_string(k) + ": " + e.what(), __FILE__, __LINE__);
            }
        }
        check_whole(region, observer, 2);
        if (!died) return k - 1;
    }
}

/// At its k-th store a worker stands still while another submits a pool full of gradients.
int preempted_once(UpdateScheme scheme) {
    for (int k = 1;; ++k) {
        const SharedRegion region = harness::region(config(scheme));
        Session observer(region, 2), a(region, 0), b(region, 1);
        const int many = static_cast<int>(2 * region.layout().records);
        int stores = 0;
        {
            const EveryStore watch(region, [&](int n, const void*) {
                if (n != k) return;
                for (int i = 0; i < many; ++i) CHECK(b.submit(ones, tag(0)) == Submitted::applied);
            });
            CHECK(a.submit(ones, tag(0)) == Submitted::applied);
            stores = watch.count();
        }
        if (stores < k) return stores;
        check_whole(region, observer, static_cast<std::uint64_t>(many) + 1);
    }
}

/// At each of its stores another worker submits: its own builds never win, and its gradient is in all the same, helped.
/// All but its hazard word: who commits each time between that word and the second look holds protect() up for as
/// long as it goes on. That is lock-free, and not wait-free.
void never_wins() {
    const SharedRegion region = harness::region(config(lockfree));
    Session observer(region, 2), a(region, 0), b(region, 1);
    std::uint64_t others = 0;
    {
        const EveryStore watch(region, [&](int, const void* where) {
            if (where == &region.seat(0).hazard) return;
            CHECK(b.submit(ones, tag(0)) == Submitted::applied);
            ++others;
        });
        CHECK(a.submit(ones, tag(0)) == Submitted::applied);
    }
    CHECK(others > 5);
    CHECK(region.worker(0).retries.load() <= 1);  // W - 1 builds can win against a push
    check_whole(region, observer, others + 1);
}

/// What protect() returns was current after its hazard word could be seen; between the first look and the word,
/// others may have gone all round the pool.
void protect_looks_again() {
    const SharedRegion region = harness::region(config(lockfree));
    Session b(region, 1);
    ParamStore reader(region, 0);
    std::uint64_t seen = 0;
    {
        const EveryStore watch(region, [&](int n, const void*) {
            for (std::size_t i = 0; n == 1 && i < region.layout().records; ++i) b.submit(ones, tag(0));
        });
        seen = reader.protect();
        CHECK_EQ(watch.count(), 2);
    }
    CHECK(reader.is_current(seen));
    reader.unprotect();
}

}  // namespace

int main() {
    for (const UpdateScheme scheme : {lockfree, lock, hogwild}) CHECK(worker_dies(scheme) > 10);
    CHECK(learner_dies() > 10);
    for (const UpdateScheme scheme : {lockfree, hogwild}) CHECK(preempted_once(scheme) > 10);
    never_wins();
    protect_looks_again();
    return check_result();
}

#else

int main() { return 0; }  // faults and single steps are x86-64's, and a sanitizer's own stores would count

#endif
