// Who applies a published gradient: the update schemes. Stages 4 to 6 in the order in which a worker goes
// through them: read the parameters, submit a gradient (push it, see it consumed), read again.
//
//   lockfree  every worker, optimistically: it builds the next record from the current one and every gradient
//             published and not yet consumed, its own and the others', and commits by compare-and-swap. Where
//             that fails somebody else committed; if our gradient is in, we are done, else we try again. Against a push
//             can win at most W - 1 builds that began before it, and one that has it in: the retries are bounded.
//   lock      the same build and commit under a robust mutex: no retries, but a worker waits for the holder.
//   queue     one learner builds and commits; a worker sleeps until its gradient is in.
//   hogwild   in place on record 0, unsynchronised (hogwild.hpp).
//
// Under every scheme a worker's next read contains all that it has submitted itself; with one worker all
// schemes therefore do the same arithmetic in the same order.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>

#include "fastac/event_log.hpp"
#include "fastac/grad_buffer.hpp"
#include "fastac/hogwild.hpp"
#include "fastac/next_record.hpp"
#include "fastac/param_store.hpp"
#include "fastac/statistics.hpp"

namespace fastac {

/// Where all gradients went. `applied` .. `rejected_stale` are in `at.counts`.
struct Ledger {
    std::uint64_t begun = 0;
    std::uint64_t published = 0;
    std::uint64_t aborted = 0;
    std::uint64_t pending = 0;
    std::uint64_t retries = 0;
    std::uint64_t canaries = 0;       // hogwild: additions watched ...
    std::uint64_t canaries_lost = 0;  // ... and how many of them another worker overwrote
    Snapshot at{};
};

enum class Submitted : std::uint32_t { applied = 0, rejected_nonfinite = 1, rejected_stale = 2, stopped = 3 };

/// The seat was taken back: its holder had been declared dead.
struct SeatLost : std::logic_error {
    using std::logic_error::logic_error;
};

/// One seat at the region: a worker (0 .. W-1), the observer (W) or the learner (W + 1).
///
/// Who may call: one thread at a time for each session; a second session for a taken seat is refused, and so is
///   every verb of a session whose seat was taken back by `reap` (SeatLost).
/// What may wait: `submit` and `settle` under `lock` and `queue`, up to the config's deadline (WaitTimeout); `serve` as
///   long as it is told. Nothing else waits. After the constructor nothing allocates but `trace`.
class Session {
public:
    Session(const SharedRegion& region, std::size_t seat)
        : region_(&region), seat_(seat), buffer_(region), store_(region, seat), log_(region), statistics_(region), builder_(region), hogwild_(region, seat) {
        if (seat >= region.layout().seats)
            throw std::out_of_range("seat: expected 0 to " + std::to_string(region.layout().seats - 1) + ", got " + std::to_string(seat));
        std::uint32_t free = 0;
        if (!region.seat(seat).taken.compare_exchange_strong(free, 1, std::memory_order_acq_rel))
            throw std::logic_error("seat " + std::to_string(seat) + " of this region is taken: each worker, the observer and the learner may have one session at a time");
        incarnation_ = region.seat(seat).incarnation.load(std::memory_order_relaxed);
        if (is_worker()) {
            counted_ = region.worker(seat).staleness_counted.load(std::memory_order_relaxed);
            look_at_current();
        }
        store_.unprotect();
    }
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;
    ~Session() {
        if (holds_seat()) ParamStore::vacate(*region_, seat_);
    }

    [[nodiscard]] const SharedRegion& region() const noexcept { return *region_; }
    [[nodiscard]] std::size_t seat() const noexcept { return seat_; }
    [[nodiscard]] bool is_worker() const noexcept { return seat_ < workers(); }

    /// Before any worker begins: record 0 gets params float32[P], state float32[S, P] (empty: zeros), the version and the
    /// env steps to count on from.
    void initialize(std::span<const float> params, std::span<const float> state, std::uint64_t version, std::uint64_t env_steps = 0) {
        expect_seat();
        for (std::size_t w = 0; w < workers(); ++w)
            if (region_->worker(w).begun.load(std::memory_order_relaxed) != 0) throw std::logic_error("initialize: expected a new region, got one whose workers have begun");
        const auto vectors = region_->vectors(0);
        const std::size_t n = region_->layout().parameters;
        std::memcpy(vectors.params, params.data(), n * sizeof(float));
        for (std::size_t k = 0; k * n < state.size(); ++k) std::memcpy(vectors.state[k], state.data() + k * n, n * sizeof(float));
        region_->record(0).version = version;
        region_->record(0).env_steps = env_steps;
        region_->control().hogwild_version.store(version, std::memory_order_relaxed);
        region_->control().current.store(ParamStore::pack(version, 0), std::memory_order_seq_cst);
    }

    // ---- the worker's verbs -------------------------------------------------------------------------

    /// Copies the current parameters to params float32[P]; says of which version they are.
    Snapshot read(std::span<float> params) {
        beat();
        if (hogwild()) {
            Snapshot now = hogwild_.snapshot();
            now.version = hogwild_.version();
            Hogwild::load_relaxed(region_->vectors(0).params, params);
            return now;
        }
        const std::uint32_t record = ParamStore::record_of(store_.protect());
        plain_read(region_->vectors(record).params, params.size_bytes());
        std::memcpy(params.data(), region_->vectors(record).params, params.size_bytes());
        const Snapshot now = store_.snapshot(record);
        store_.unprotect();
        known_version_ = now.version;
        return now;
    }

    /// Publishes grad float32[P] and sees it consumed: when this returns `applied`, the next read contains it.
    /// `stopped`: it stays published, unless the ring was full, and whoever drains last applies it. So it does after a
    /// WaitTimeout, which must not lead to submitting it again, unless its message says that it was not published.
    /// A `target` other than step: grad is no gradient, but values for a vector of the record, applied by the same protocol.
    Submitted submit(std::span<const float> grad, const GradientTag& tag) {
        expect_target(tag.target);
        if (hogwild()) {
            beat();
            expect_version(tag.version_read);
            return submitted(hogwild_.apply(grad, tag));
        }
        // What was pushed and not settled, by us or by those who died in this seat, comes first: the ring may be full of it.
        const std::uint64_t before = buffer_.published(seat_);
        const bool stopped = known_consumed_ != before && !settle_earlier(before);
        const std::uint64_t stale = known_.sums.rejected_stale;
        const std::optional<std::uint64_t> sequence = push(grad, tag);
        if (stopped || !sequence) return Submitted::stopped;
        const AtHand at_hand{seat_, *sequence, grad};
        if (!settle(*sequence, &at_hand)) return Submitted::stopped;
        if (region_->slot(seat_, *sequence).nonfinite.load(std::memory_order_relaxed) != 0) return Submitted::rejected_nonfinite;
        return known_.sums.rejected_stale != stale ? Submitted::rejected_stale : Submitted::applied;
    }

    /// Of this worker's latest applied gradient: after `submit` has returned `applied`, that of its gradient.
    [[nodiscard]] std::uint64_t staleness() const noexcept { return hogwild() ? hogwild_.staleness() : known_.staleness; }

    /// The first half of submit alone: publishes and returns the sequence number, nothing when the ring is full.
    std::optional<std::uint64_t> push(std::span<const float> grad, GradientTag tag) {
        if (hogwild()) throw std::logic_error("hogwild applies in place: use submit");
        beat();
        expect_version(tag.version_read);
        tag.incarnation = incarnation_;
        if (const auto sequence = buffer_.push(seat_, grad, tag, known_consumed_)) return sequence;
        // Full as far as we know: others may have made room.
        look_at_current();
        return buffer_.push(seat_, grad, tag, known_consumed_);
    }

    /// The second half: returns once gradient `sequence` of this worker is consumed; false if the run was stopped
    /// while it waited (the gradient stays published, whoever drains last applies it).
    /// `at_hand`: that gradient, if the caller still has it.
    bool settle(std::uint64_t sequence, const AtHand* at_hand = nullptr) {
        expect_seat();
        const std::uint64_t published = buffer_.published(seat_);
        if (published - sequence >= region_->layout().slots)  // among others one that would never be consumed
            throw std::invalid_argument("settle: expected a sequence number that push has returned, at most " + std::to_string(published) + " and one of the last " +
                                        std::to_string(region_->layout().slots) + ", got " + std::to_string(sequence));
        switch (region_->config().scheme) {
            case UpdateScheme::lockfree: build_until_consumed(sequence, at_hand); return true;
            case UpdateScheme::lock: return settle_locked(sequence, at_hand);
            case UpdateScheme::queue: return settle_queued(sequence);
            case UpdateScheme::hogwild: break;
        }
        throw std::logic_error("hogwild applies in place: use submit");
    }

    bool log(const double* row) {
        beat();
        return log_.write(seat_, row);
    }

    /// values float64[Layout::statistics]: what everybody finds of this worker from now on.
    void write_statistics(const double* values) {
        beat();
        statistics_.write(seat_, values);
    }

    /// A sign of life. Every verb gives one; for whoever works long between two verbs.
    void beat() {
        expect_seat();
        Atomic<std::uint64_t>& heartbeat = region_->seat(seat_).heartbeat;
        heartbeat.store(heartbeat.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    }

    [[nodiscard]] bool stop_requested() const noexcept { return region_->control().stop.load(std::memory_order_acquire) != 0; }
    [[nodiscard]] bool held() const noexcept { return region_->control().held.load(std::memory_order_relaxed) != 0; }
    [[nodiscard]] bool go() const noexcept { return region_->control().go.load(std::memory_order_acquire) != 0; }

    // ---- the learner's and the observer's -----------------------------------------------------------

    /// Applies everything that was published when it was called. Returns how many gradients it applied.
    std::uint64_t drain() {
        beat();
        if (hogwild()) return 0;
        // What is pushed meanwhile is for the next call: busy workers could keep one here for ever.
        std::array<std::uint64_t, max_workers> published{};
        for (std::size_t w = 0; w < workers(); ++w) published[w] = buffer_.published(w);
        std::uint64_t applied = 0;
        for (;;) {
            const std::uint64_t base = store_.protect();
            // Not right after the commit: by then the record may be somebody else's again, and a learner that died
            // in between would never have said so.
            wake_consumed(ParamStore::record_of(base));
            if (contains(ParamStore::record_of(base), published)) break;
            const std::uint32_t target = store_.claim();
            const std::uint64_t n = builder_.build(store_, base, target);
            if (n > 0 && store_.commit(base)) applied += n;
        }
        store_.unprotect();
        return applied;
    }

    /// The learner of `queue`: drains, sleeps until the next push, drains again, for `duration` or until the stop.
    std::uint64_t serve(std::chrono::milliseconds duration) {
        const Atomic<std::uint32_t>& pushed = region_->control().pushed_signal;
        const auto until = Clock::now() + duration;
        std::uint64_t consumed = 0;
        while (Clock::now() < until && !stop_requested()) {
            const std::uint32_t seen = pushed.load(std::memory_order_acquire);
            const std::uint64_t n = drain();
            consumed += n;
            if (n == 0) futex_wait(pushed, seen, std::min(until, Clock::now() + poll_interval));
        }
        return consumed;
    }

    void request_stop() const {
        expect_seat();
        region_->control().stop.store(1, std::memory_order_release);
    }
    /// Workers make no update from their next one on, until it is taken back.
    void hold(bool held) const {
        expect_seat();
        region_->control().held.store(held ? 1 : 0, std::memory_order_relaxed);
    }
    void give_go() const {
        expect_seat();
        region_->control().go.store(1, std::memory_order_release);
    }

    /// Copies parameters float32[P] and optimizer state float32[S, P] of one version.
    Snapshot copy_record(std::span<float> params, std::span<float> state) {
        expect_seat();
        const std::size_t n = params.size();
        const std::uint32_t record = ParamStore::record_of(store_.protect());
        const auto vectors = region_->vectors(record);
        if (!hogwild()) plain_read(&region_->record(record), region_->layout().record_stride);
        const Snapshot now = hogwild() ? hogwild_.snapshot() : store_.snapshot(record);
        Hogwild::load_relaxed(vectors.params, params);
        for (std::size_t k = 0; k * n < state.size(); ++k) Hogwild::load_relaxed(vectors.state[k], state.subspan(k * n, n));
        store_.unprotect();
        return now;
    }

    [[nodiscard]] Snapshot snapshot() {
        expect_seat();
        if (hogwild()) return hogwild_.snapshot();
        const Snapshot now = store_.snapshot(ParamStore::record_of(store_.protect()));
        store_.unprotect();
        return now;
    }

    /// Adds up the run. Exact once the workers have left; a moment's mixture while they run.
    [[nodiscard]] Ledger ledger() {
        expect_seat();
        Ledger sum;
        const std::uint32_t record = ParamStore::record_of(store_.protect());
        sum.at = hogwild() ? hogwild_.snapshot() : store_.snapshot(record);
        plain_read(region_->consumed(record), workers() * sizeof(std::uint64_t));
        for (std::size_t w = 0; w < workers(); ++w) {
            const WorkerBlock& words = region_->worker(w);
            const std::uint64_t published = words.published.load(std::memory_order_acquire);
            sum.begun += words.begun.load(std::memory_order_relaxed);
            sum.aborted += words.aborted.load(std::memory_order_relaxed);
            sum.retries += words.retries.load(std::memory_order_relaxed);
            sum.published += published;
            if (!hogwild()) sum.pending += published - region_->consumed(record)[w];
        }
        store_.unprotect();
        if (hogwild()) {
            sum.canaries = sum.at.counts.applied * region_->layout().canaries;
            // A step that is under way, or that a worker died in, has added to some of them and is not counted yet.
            sum.canaries_lost = sum.canaries - std::min(hogwild_.canaries_kept(), sum.canaries);
        }
        return sum;
    }

    /// What became of worker w's gradients. Exact once the workers have left, but that the histogram may lack what a killed worker did
    /// not live to count, and one of two that were settled together: it sums up to `applied`, or to less. (hogwild: exact.) While
    /// they are at work it is a mixture, which may lack the latest, and a later look may find one less in a bucket.
    [[nodiscard]] Tally tally(std::size_t w) {
        expect_seat();
        if (hogwild()) return hogwild_.tally(w);
        const WorkerBlock& words = region_->worker(w);
        Tally all{};
        for (std::size_t k = 0; k < staleness_buckets; ++k) all.counts.staleness[k] = words.staleness[k].load(std::memory_order_acquire);
        // After them, so that what a bucket holds is never added once more below: pairs with the release in count_staleness.
        const std::uint64_t counted = words.staleness_counted.load(std::memory_order_relaxed);
        const std::uint32_t record = ParamStore::record_of(store_.protect());
        plain_read(region_->shares(record), workers() * sizeof(Share));
        const Share its = region_->shares(record)[w];
        store_.unprotect();
        static_cast<Sums&>(all.counts) = its.sums;
        all.env_steps = its.env_steps;
        if (its.sums.applied > counted) ++all.counts.staleness[staleness_bucket(its.staleness)];  // applied after its last look
        return all;
    }

    /// The schedule so far, where the config asks for a trace; else nothing. The one verb that allocates.
    [[nodiscard]] std::vector<TraceEntry> trace() {
        expect_seat();
        struct Unprotect {
            const ParamStore& store;
            ~Unprotect() { store.unprotect(); }
        } const at_the_end{store_};
        const std::uint32_t record = ParamStore::record_of(store_.protect());
        plain_read(&region_->record(record), region_->layout().record_stride);
        return Trace(*region_).read(record);
    }

    [[nodiscard]] std::uint64_t published(std::size_t w) const noexcept { return buffer_.published(w); }
    [[nodiscard]] std::uint32_t incarnation(std::size_t seat) const noexcept { return region_->seat(seat).incarnation.load(std::memory_order_relaxed); }
    [[nodiscard]] std::uint64_t heartbeat(std::size_t seat) const noexcept { return region_->seat(seat).heartbeat.load(std::memory_order_relaxed); }

    [[nodiscard]] std::size_t unread_log(std::size_t w) const noexcept { return log_.unread(w); }
    void read_log(std::size_t w, std::size_t n, double* rows) const noexcept { log_.read(w, n, rows); }
    void read_statistics(std::size_t w, double* values) const noexcept { statistics_.read(w, values); }

    /// For the parent, once it has seen the holder of `seat` dead: what it had only begun is counted as aborted, what it
    /// published stays, the records it held are free again, and so is the seat. If it lives all the same, its session is over.
    void reap(std::size_t seat) const {
        expect_seat();
        if (seat == seat_) throw std::invalid_argument("reap: this is the caller's own seat; close the session instead");
        Seat& its = region_->seat(seat);
        // An RMW reads the latest: a holder that has just left in order is not to be reaped, and what it counted is seen.
        if (its.taken.fetch_add(0, std::memory_order_acquire) == 0) return;
        its.incarnation.store(its.incarnation.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
        if (seat < workers()) {
            WorkerBlock& words = region_->worker(seat);
            words.aborted.store(words.begun.load(std::memory_order_relaxed) - words.published.load(std::memory_order_relaxed), std::memory_order_relaxed);
        }
        ParamStore::vacate(*region_, seat);
    }

private:
    static constexpr std::uint64_t oldest = std::uint64_t{1} << 47U;  // no gradient is staler; what seems so is from the future

    [[nodiscard]] std::size_t workers() const noexcept { return region_->layout().workers; }
    [[nodiscard]] bool hogwild() const noexcept { return region_->config().scheme == UpdateScheme::hogwild; }

    /// Whether a is after b, for counters that wrap around.
    static constexpr bool ahead(std::uint64_t a, std::uint64_t b) noexcept { return static_cast<std::int64_t>(a - b) > 0; }

    static constexpr Submitted submitted(Hogwild::Result result) noexcept {
        return result == Hogwild::Result::applied ? Submitted::applied : result == Hogwild::Result::nonfinite ? Submitted::rejected_nonfinite : Submitted::rejected_stale;
    }

    // ---- what a session may rely on -----------------------------------------------------------------

    [[nodiscard]] bool holds_seat() const noexcept { return region_->seat(seat_).incarnation.load(std::memory_order_relaxed) == incarnation_; }
    void expect_seat() const {
        if (!holds_seat()) throw SeatLost("seat " + std::to_string(seat_) + " was taken back from this session: it had been declared dead");
    }

    void expect_target(Target target) const {
        if (target == Target::step) return;
        if (hogwild()) throw std::logic_error("amend: expected lockfree, lock or queue; hogwild would lose some of it");
        if (region_->config().trace_entries > 0) throw std::logic_error("amend: expected a region without a trace, which holds gradients alone");
        if (target == Target::add_state && state_vectors(region_->config().optimizer.kind) == 0) throw std::logic_error("amend: expected an optimizer with a state, got sgd");
    }

    /// A gradient from the future would have a staleness beyond every limit.
    void expect_version(std::uint64_t version_read) {
        if (current_version() - version_read <= oldest) return;
        if (!hogwild()) look_at_current();  // what we know may be of before `initialize`
        if (const std::uint64_t version = current_version(); version - version_read > oldest)
            throw std::invalid_argument("version_read: expected at most the current version, " + std::to_string(version) + ", got " + std::to_string(version_read));
    }

    /// The word holds the low 48 bits of the version: the rest is what this session saw last, or the next.
    [[nodiscard]] std::uint64_t current_version() const noexcept {
        if (hogwild()) return region_->control().hogwild_version.load(std::memory_order_relaxed);
        const std::uint64_t word = region_->control().current.load(std::memory_order_relaxed);
        return known_version_ + ((word - (known_version_ << 16)) >> 16);
    }

    /// Notes what the protected record says of this worker's gradients.
    void look_at(std::uint64_t word) noexcept {
        const std::uint32_t record = ParamStore::record_of(word);
        plain_read(&region_->record(record), region_->layout().record_stride);
        known_consumed_ = region_->consumed(record)[seat_];
        known_ = region_->shares(record)[seat_];
        known_version_ = region_->record(record).version;
        if (known_.sums.applied != counted_) count_staleness();
    }

    /// A worker has one gradient on its way at a time, so a look finds one more applied than the look before, at most. The first look of one
    /// that takes a dead one's seat counts that one's last. (Two that are settled together: the first stays uncounted.)
    void count_staleness() noexcept {
        WorkerBlock& words = region_->worker(seat_);
        Atomic<std::uint64_t>& bucket = words.staleness[staleness_bucket(known_.staleness)];
        // In this order, so that one who dies in between leaves a gradient uncounted, and not one to be counted again.
        words.staleness_counted.store(counted_ = known_.sums.applied, std::memory_order_relaxed);
        bucket.store(bucket.load(std::memory_order_relaxed) + 1, std::memory_order_release);
    }

    /// Whether the protected record contains gradients 1 .. published[w] of each worker.
    [[nodiscard]] bool contains(std::uint32_t record, const std::array<std::uint64_t, max_workers>& published) const noexcept {
        plain_read(region_->consumed(record), workers() * sizeof(std::uint64_t));
        for (std::size_t w = 0; w < workers(); ++w)
            if (ahead(published[w], region_->consumed(record)[w])) return false;
        return true;
    }

    /// What lies in the ring before a gradient that is about to be pushed.
    bool settle_earlier(std::uint64_t sequence) {
        try {
            return settle(sequence);
        } catch (const WaitTimeout& timeout) {
            throw WaitTimeout(std::string(timeout.what()) + "; the gradient of this call was not published");
        }
    }

    void look_at_current() noexcept {
        look_at(store_.protect());
        store_.unprotect();
    }

    // ---- lockfree -----------------------------------------------------------------------------------

    void build_until_consumed(std::uint64_t sequence, const AtHand* at_hand) {
        for (;;) {
            const std::uint64_t base = store_.protect();
            look_at(base);
            if (!ahead(sequence, known_consumed_)) break;
            const std::uint32_t target = store_.claim();
            if (builder_.build(store_, base, target, at_hand) == 0 || !store_.commit(base)) count_retry();
        }
        store_.unprotect();
    }

    void count_retry() const noexcept {
        Atomic<std::uint64_t>& retries = region_->worker(seat_).retries;
        retries.store(retries.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    }

    // ---- lock ---------------------------------------------------------------------------------------

    bool settle_locked(std::uint64_t sequence, const AtHand* at_hand) {
        RobustMutex& mutex = region_->control().mutex;
        Patience patience(std::chrono::milliseconds(region_->config().wait_deadline_ms));
        while (!mutex.try_lock_for(poll_interval)) {
            beat();
            if (stop_requested()) return false;
            if (patience.ends()) throw WaitTimeout(timeout_message("the lock"));
        }
        build_until_consumed(sequence, at_hand);  // at once, since nobody else commits
        mutex.unlock();
        return true;
    }

    // ---- queue --------------------------------------------------------------------------------------

    bool settle_queued(std::uint64_t sequence) {
        Atomic<std::uint32_t>& pushed = region_->control().pushed_signal;
        const Atomic<std::uint32_t>& consumed = region_->worker(seat_).consumed_signal;
        pushed.fetch_add(1, std::memory_order_release);
        futex_wake_all(pushed);
        Patience patience(std::chrono::milliseconds(region_->config().wait_deadline_ms));
        for (;;) {
            const std::uint32_t seen = consumed.load(std::memory_order_acquire);
            if (static_cast<std::int32_t>(seen - static_cast<std::uint32_t>(sequence)) >= 0) break;
            beat();
            if (stop_requested()) return false;
            if (patience.ends()) throw WaitTimeout(timeout_message("the learner of the queue"));
            futex_wait(consumed, seen, Clock::now() + poll_interval);
        }
        look_at_current();
        return true;
    }

    /// Tells each worker how many of its gradients are in the protected record. Forwards only: of two who drain,
    /// the slower one must not take back what the faster one has said.
    void wake_consumed(std::uint32_t record) const noexcept {
        if (region_->config().scheme != UpdateScheme::queue) return;
        plain_read(region_->consumed(record), workers() * sizeof(std::uint64_t));
        for (std::size_t w = 0; w < workers(); ++w) {
            Atomic<std::uint32_t>& signal = region_->worker(w).consumed_signal;
            const auto now = static_cast<std::uint32_t>(region_->consumed(record)[w]);
            std::uint32_t said = signal.load(std::memory_order_relaxed);
            while (static_cast<std::int32_t>(now - said) > 0) {
                // Release: pairs with the acquire load in settle_queued, after which the worker refills its slot.
                if (!signal.compare_exchange_weak(said, now, std::memory_order_acq_rel, std::memory_order_relaxed)) continue;
                futex_wake_all(signal);
                break;
            }
        }
    }

    [[nodiscard]] std::string timeout_message(const std::string& whom) const {
        return "worker " + std::to_string(seat_) + " waited " + std::to_string(region_->config().wait_deadline_ms) + " ms for " + whom +
               "; what it has published stays published and will be applied";
    }

    const SharedRegion* region_;
    std::size_t seat_;
    std::uint32_t incarnation_ = 0;
    GradBuffer buffer_;
    ParamStore store_;
    EventLog log_;
    Statistics statistics_;
    RecordBuilder builder_;
    Hogwild hogwild_;
    std::uint64_t known_consumed_ = 0;  // of this worker's gradients: a lower bound
    Share known_{};                     // and what became of those
    std::uint64_t counted_ = 0;         // how many of them the histogram of its staleness has seen
    std::uint64_t known_version_ = 0;   // of the parameters: a lower bound
};

}  // namespace fastac
