// Worker processes for the gates that kill and stop them. The parent stays without threads, so that it may fork at any time.
#pragma once

#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include <new>
#include <numeric>

#include "gates.hpp"

namespace gates {

enum class Order : std::uint32_t { work = 0, pause = 1, leave = 2 };

/// What the parent and one of its children tell each other beside the region; it outlives the child.
struct alignas(fastac::cache_line) Desk {
    fastac::Atomic<std::uint32_t> order;       // an Order, obeyed between two pushes
    fastac::Atomic<std::uint32_t> pausing;     // 1: it does
    fastac::Atomic<std::uint32_t> submitting;  // 1: inside submit, 0: elsewhere
    fastac::Atomic<std::uint64_t> torn;        // reads that no whole record could have given
    fastac::Atomic<std::uint64_t> backwards;   // reads of a version before one that was seen or made
};

/// The desks of `n` children, in memory of their own.
class Desks {
public:
    explicit Desks(std::size_t n) : n_(n), desks_(static_cast<Desk*>(mmap(nullptr, n * sizeof(Desk), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0))) {
        if (desks_ == MAP_FAILED) throw std::bad_alloc();
        for (std::size_t i = 0; i < n; ++i) new (desks_ + i) Desk{};
    }
    Desks(const Desks&) = delete;
    Desks& operator=(const Desks&) = delete;
    ~Desks() { munmap(desks_, n_ * sizeof(Desk)); }

    Desk& operator[](std::size_t i) const noexcept { return desks_[i]; }
    [[nodiscard]] std::uint64_t sum(fastac::Atomic<std::uint64_t> Desk::*word) const {
        return std::accumulate(desks_, desks_ + n_, std::uint64_t{0}, [word](std::uint64_t s, const Desk& desk) { return s + (desk.*word).load(); });
    }

private:
    std::size_t n_;
    Desk* desks_;
};

/// The children of one run: a worker for each seat, under `queue` also the learner, who comes last. They work until they are
/// told to leave, or until the parent dies.
class Crew {
public:
    Crew(const fastac::SharedRegion& region, const GradientTable& table)
        : region_(region), table_(table), workers_(region.layout().workers), pids_(workers_ + (region.config().scheme == fastac::UpdateScheme::queue)), desks_(pids_.size()) {
        for (std::size_t i = 0; i < pids_.size(); ++i) start(i);
    }

    [[nodiscard]] std::size_t size() const noexcept { return pids_.size(); }
    [[nodiscard]] bool is_learner(std::size_t i) const noexcept { return i == workers_; }
    [[nodiscard]] std::size_t seat(std::size_t i) const noexcept { return is_learner(i) ? workers_ + 1 : i; }
    [[nodiscard]] const Desks& desks() const noexcept { return desks_; }

    void start(std::size_t i) {
        desks_[i].order.store(static_cast<std::uint32_t>(Order::work));
        desks_[i].submitting.store(0);
        const pid_t parent = getpid();
        pids_[i] = harness::child([this, i, parent] {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            if (getppid() != parent) return;  // it died before we asked to die with it
            if (is_learner(i)) serve();
            else work(i);
        });
        if (pids_[i] < 0) throw std::system_error(errno, std::generic_category(), "fork");
    }

    void order(std::size_t i, Order what) const {
        desks_[i].order.store(static_cast<std::uint32_t>(what), std::memory_order_release);
        fastac::futex_wake_all(desks_[i].order);
    }

    void send(std::size_t i, int signal) const { CHECK_EQ(::kill(pids_[i], signal), 0); }

    /// Its wait status once it has changed: left or died; with WUNTRACED also stopped.
    [[nodiscard]] int wait(std::size_t i, int options = 0) const {
        int status = 0;
        CHECK_EQ(waitpid(pids_[i], &status, options), pids_[i]);
        return status;
    }

    /// How often the workers have pushed, those of `except` left out.
    [[nodiscard]] std::uint64_t pushes(const std::function<bool(std::size_t)>& except) const {
        std::uint64_t sum = 0;
        for (std::size_t w = 0; w < workers_; ++w)
            if (!except(w)) sum += region_.worker(w).published.load(std::memory_order_relaxed);
        return sum;
    }

    /// Leaves of its own accord, after a push that it has begun.
    void leave(std::size_t i) const {
        order(i, Order::leave);
        int status = 0;
        if (!harness::eventually([&] { return waitpid(pids_[i], &status, WNOHANG) == pids_[i]; })) throw std::runtime_error("child " + std::to_string(i) + " does not leave");
        CHECK(harness::exited_well(status));
    }

    /// All leave, the learner last: until then the workers need it.
    void leave() const {
        for (std::size_t i = 0; i < size(); ++i) leave(i);
    }

private:
    [[nodiscard]] Order ordered(const Desk& desk) const noexcept { return static_cast<Order>(desk.order.load(std::memory_order_acquire)); }

    void work(std::size_t w) const {
        fastac::Session session(region_, w);
        Desk& desk = desks_[w];
        std::vector<float> params(table_.floats());
        std::uint64_t at_least = 0;
        for (Order now = ordered(desk); now != Order::leave; now = ordered(desk)) {
            if (now == Order::pause) {
                pause(desk);
                continue;
            }
            const std::uint64_t version = session.read(params).version;
            if (!table_.whole(params)) desk.torn.fetch_add(1);
            if (version < at_least) desk.backwards.fetch_add(1);
            at_least = version + 1;
            desk.submitting.store(1, std::memory_order_relaxed);
            CHECK(session.submit(table_.gradient(w, session.published(w) + 1), harness::tag(version)) == fastac::Submitted::applied);
            desk.submitting.store(0, std::memory_order_relaxed);
        }
    }

    void pause(Desk& desk) const {
        constexpr auto pausing = static_cast<std::uint32_t>(Order::pause);
        desk.pausing.store(1, std::memory_order_release);
        while (ordered(desk) == Order::pause) fastac::futex_wait(desk.order, pausing, fastac::Clock::now() + std::chrono::seconds(1));
        desk.pausing.store(0, std::memory_order_release);
    }

    void serve() const {
        fastac::Session session(region_, workers_ + 1);
        const Desk& desk = desks_[workers_];
        while (ordered(desk) != Order::leave) session.serve(std::chrono::milliseconds(20));
    }

    const fastac::SharedRegion& region_;
    const GradientTable& table_;
    std::size_t workers_;
    std::vector<pid_t> pids_;
    Desks desks_;
};

}  // namespace gates
