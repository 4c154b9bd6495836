// A session as Python holds it: one thread at a time, closed when told, of no use in a forked child.
#pragma once

#include <atomic>
#include <cmath>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include "bindings.hpp"
#include "fastac/updates.hpp"

/// How many forks lie between this process and the one that loaded the module: a cheap way to know a forked child.
inline std::atomic<std::uint32_t> forks{0};

/// Misuse of a session. Each kind is an exception of its own in Python.
struct SessionClosed : std::runtime_error {
    SessionClosed() : std::runtime_error("this session is closed") {}
};
struct SessionInUse : std::runtime_error {
    SessionInUse() : std::runtime_error("this session is in use by another thread; each thread needs a session of its own") {}
};
struct SessionForked : std::runtime_error {
    SessionForked() : std::runtime_error("this session belongs to the process that opened it; a forked child needs a seat and a session of its own") {}
};

struct PyRegion : fastac::SharedRegion, MadeByInit {
    explicit PyRegion(fastac::SharedRegion&& region) : fastac::SharedRegion(std::move(region)) {}
};

/// A session keeps its region mapped, and can be closed before Python forgets it.
class PySession : public MadeByInit {
public:
    PySession(std::shared_ptr<PyRegion> region, std::size_t seat) : region_(std::move(region)), session_(std::make_unique<fastac::Session>(*region_, seat)) {}
    PySession(const PySession&) = delete;
    PySession& operator=(const PySession&) = delete;
    ~PySession() {
        // The seat is the parent's: a child that leaves must not vacate it.
        if (forked()) static_cast<void>(session_.release());
    }

    /// The session for one call. Calls that give up the GIL could meet another thread's, and a session has one
    /// hazard word: the second caller is refused.
    class InUse {
    public:
        explicit InUse(const PySession& of) : of_(of) {
            of.expect_own();
            if (of.busy_.exchange(true, std::memory_order_acquire)) throw SessionInUse();
            if (!of.session_) {
                of.busy_.store(false, std::memory_order_release);
                throw SessionClosed();
            }
        }
        InUse(const InUse&) = delete;
        InUse& operator=(const InUse&) = delete;
        ~InUse() { of_.busy_.store(false, std::memory_order_release); }
        fastac::Session* operator->() const { return of_.session_.get(); }
        fastac::Session& operator*() const { return *of_.session_; }

    private:
        const PySession& of_;
    };
    [[nodiscard]] InUse get() const { return InUse(*this); }
    [[nodiscard]] InUse worker() const {
        if (!flags().is_worker()) throw std::logic_error("only a worker's session can do this; this is the observer's or the learner's");
        return InUse(*this);
    }
    [[nodiscard]] InUse observer() const {
        if (flags().seat() != region_->layout().workers) throw std::logic_error("only the observer's session can do this; this is a worker's or the learner's");
        return InUse(*this);
    }
    /// For what touches only the run's flags: one thread may stop the run while another serves.
    [[nodiscard]] const fastac::Session& flags() const {
        expect_own();
        if (!session_) throw SessionClosed();
        return *session_;
    }
    void close() {
        const InUse last(*this);
        session_.reset();
    }

    [[nodiscard]] py::ssize_t parameters() const { return static_cast<py::ssize_t>(region_->layout().parameters); }
    [[nodiscard]] py::ssize_t statistics() const { return static_cast<py::ssize_t>(region_->layout().statistics); }
    [[nodiscard]] py::ssize_t states() const { return fastac::state_vectors(region_->config().optimizer.kind); }
    [[nodiscard]] std::size_t check_worker(std::size_t w) const {
        if (w >= region_->layout().workers)
            throw py::index_error("worker: expected 0 to " + std::to_string(region_->layout().workers - 1) + ", got " + std::to_string(w));
        return w;
    }
    [[nodiscard]] std::size_t check_seat(std::size_t seat) const {
        if (seat >= region_->layout().seats)
            throw py::index_error("seat: expected 0 to " + std::to_string(region_->layout().seats - 1) + ", got " + std::to_string(seat));
        return seat;
    }
    std::span<float> vector(const py::handle& array, const char* name, Access access) const {
        return expect_array<float>(array, name, {parameters()}, access);
    }

private:
    [[nodiscard]] bool forked() const { return opened_after_ != forks.load(std::memory_order_relaxed); }
    void expect_own() const {
        if (forked()) throw SessionForked();
    }

    std::shared_ptr<PyRegion> region_;
    std::unique_ptr<fastac::Session> session_;
    std::uint32_t opened_after_ = forks.load(std::memory_order_relaxed);
    mutable std::atomic<bool> busy_{false};
};

inline void expect_rate(double learning_rate) {
    if (!(std::abs(learning_rate) <= std::numeric_limits<float>::max()))  // it is applied as a float
        throw py::value_error("learning_rate: expected a finite number, float32, got " + std::to_string(learning_rate));
}
