// Who applies a published gradient: the update schemes. Stages 4 to 6 in the order in which a worker goes
// through them: read the parameters, submit a gradient (push it, see it applied), read again.
//
//   lockfree  every worker, optimistically: it builds the next record from the current one and every gradient
//             published and not yet consumed, its own and the others', and commits by compare-and-swap. Where
//             that fails somebody else committed; if our gradient is in, we are done, else we try again. At most
//             W - 1 builds that began before our push can win against it, so the retries are bounded.
//   lock      the same build and commit under a robust mutex: no retries, but a worker waits for the holder.
//   queue     one learner builds and commits; a worker sleeps until its gradient is in.
//   hogwild   in place on record 0, unsynchronised: racy by design, additions get lost (canaries count how many).
//
// Under every scheme a worker's next read contains all that it has submitted itself; with one worker all
// schemes therefore do the same arithmetic in the same order.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "fastac/event_log.hpp"
#include "fastac/grad_buffer.hpp"
#include "fastac/optimizer.hpp"
#include "fastac/param_store.hpp"

namespace fastac {

/// A moment of the run, as one record holds it.
struct Snapshot {
    std::uint64_t version = 0;
    std::uint64_t env_steps = 0;
    Counts counts{};
};

/// Where all gradients went. `applied` .. `rejected_stale` are in `counts`.
struct Ledger {
    std::uint64_t begun = 0;
    std::uint64_t published = 0;
    std::uint64_t aborted = 0;
    std::uint64_t pending = 0;
    std::uint64_t retries = 0;
    std::uint64_t canaries = 0;        // hogwild: additions watched ...
    std::uint64_t canaries_lost = 0;   // ... and how many of them another worker overwrote
    Snapshot at{};
};

enum class Submitted : std::uint32_t { applied = 0, rejected_nonfinite = 1, stopped = 2 };

/// One seat at the region: a worker (0 .. W-1), the observer (W) or the learner (W + 1).
///
/// Who may call: one thread at a time for each session; a second session for a taken seat is refused.
/// What may wait: `submit` under `lock` and `queue`, up to the config's deadline (WaitTimeout); `serve` as long
///   as it is told. Nothing else waits. After the constructor nothing allocates.
class Session {
public:
    Session(const SharedRegion& region, std::size_t seat)
        : region_(&region), seat_(seat), buffer_(region), store_(region, seat), log_(region), scratch_(region.layout().parameters) {
        if (seat >= region.layout().seats)
            throw std::out_of_range("seat: expected 0 to " + std::to_string(region.layout().seats - 1) + ", got " + std::to_string(seat));
        std::uint32_t free = 0;
        if (!region.seat(seat).taken.compare_exchange_strong(free, 1, std::memory_order_acq_rel))
            throw std::logic_error("seat " + std::to_string(seat) + " of this region is taken: each worker, the observer and the learner may have one session at a time");
        if (seat < workers()) known_consumed_ = consumed_in(store_.protect());
        store_.unprotect();
    }
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;
    ~Session() { ParamStore::vacate(*region_, seat_); }

    [[nodiscard]] const SharedRegion& region() const noexcept { return *region_; }
    [[nodiscard]] std::size_t seat() const noexcept { return seat_; }
    [[nodiscard]] bool is_worker() const noexcept { return seat_ < workers(); }

    /// Before any worker or learner starts: record 0 gets params float32[P], state float32[S, P] (empty: zeros), the version
    /// and the env steps to count on from.
    void initialize(std::span<const float> params, std::span<const float> state, std::uint64_t version, std::uint64_t env_steps = 0) {
        const auto vectors = region_->vectors(0);
        const std::size_t n = region_->layout().parameters;
        std::memcpy(vectors.params, params.data(), n * sizeof(float));
        for (std::size_t k = 0; k * n < state.size(); ++k) std::memcpy(vectors.state[k], state.data() + k * n, n * sizeof(float));
        region_->record(0).version = version;
        region_->record(0).env_steps = env_steps;
        region_->control().hogwild_version.store(version, std::memory_order_relaxed);
        region_->control().hogwild_env_steps.store(env_steps, std::memory_order_relaxed);
        region_->control().current.store(ParamStore::pack(version, 0), std::memory_order_seq_cst);
    }

    // ---- the worker's verbs -------------------------------------------------------------------------

    /// Copies the current parameters to params float32[P]; says of which version they are.
    Snapshot read(std::span<float> params) noexcept {
        if (hogwild()) {
            Snapshot now = hogwild_snapshot();
            load_relaxed(region_->vectors(0).params, params);
            return now;
        }
        const std::uint32_t record = ParamStore::record_of(store_.protect());
        std::memcpy(params.data(), region_->vectors(record).params, params.size_bytes());
        const Snapshot now = snapshot_of(record);
        store_.unprotect();
        return now;
    }

    /// Publishes grad float32[P] and sees it consumed: when this returns `applied`, the next read contains it.
    Submitted submit(std::span<const float> grad, const GradientTag& tag) {
        if (hogwild()) return apply_in_place(grad, tag);
        std::uint64_t sequence = buffer_.push(seat_, grad, tag, known_consumed_);
        if (sequence == 0) {  // full of what was pushed and not settled, by us or by those who died in this seat
            if (!settle(buffer_.published(seat_))) return Submitted::stopped;
            sequence = buffer_.push(seat_, grad, tag, known_consumed_);
        }
        const bool nonfinite = region_->slot(seat_, sequence).nonfinite.load(std::memory_order_relaxed) != 0;
        if (!settle(sequence)) return Submitted::stopped;
        return nonfinite ? Submitted::rejected_nonfinite : Submitted::applied;
    }

    /// The first half of submit alone: publishes and returns the sequence number, 0 when the ring is full.
    std::uint64_t push(std::span<const float> grad, const GradientTag& tag) {
        if (hogwild()) throw std::logic_error("hogwild applies in place: use submit");
        return buffer_.push(seat_, grad, tag, known_consumed_);
    }

    /// The second half: returns once gradient `sequence` of this worker is consumed; false if the run was stopped
    /// while it waited (the gradient stays published, whoever drains last applies it).
    bool settle(std::uint64_t sequence) {
        const std::uint64_t published = buffer_.published(seat_);
        if (sequence < 1 || sequence > published)  // it would never be consumed
            throw std::invalid_argument("settle: expected a sequence number from push, 1 to " + std::to_string(published) + ", got " + std::to_string(sequence));
        switch (region_->config().scheme) {
            case UpdateScheme::lockfree: build_until_consumed(sequence); return true;
            case UpdateScheme::lock: return settle_locked(sequence);
            case UpdateScheme::queue: return settle_queued(sequence);
            case UpdateScheme::hogwild: break;
        }
        throw std::logic_error("hogwild applies in place: use submit");
    }

    bool log(const double* row) const noexcept { return log_.write(seat_, row); }

    [[nodiscard]] bool stop_requested() const noexcept { return region_->control().stop.load(std::memory_order_acquire) != 0; }
    [[nodiscard]] bool go() const noexcept { return region_->control().go.load(std::memory_order_acquire) != 0; }

    // ---- the learner's and the observer's -----------------------------------------------------------

    /// Applies everything published so far. Returns how many gradients that were.
    std::uint64_t drain() {
        std::uint64_t consumed = 0;
        if (hogwild()) return consumed;
        for (;;) {
            const std::uint64_t base = store_.protect();
            // Not right after the commit: by then the record may be somebody else's again, and a learner that died
            // in between would never have said so.
            wake_consumed(ParamStore::record_of(base));
            const std::uint32_t target = store_.claim();
            const std::uint64_t n = build(base, target);
            if (n > 0 && store_.commit(base)) {
                consumed += n;
            } else if (store_.is_current(base)) {
                break;  // nothing was left to apply
            }
        }
        store_.unprotect();
        return consumed;
    }

    /// The learner of `queue`: drains, sleeps until the next push, drains again, for `duration` or until the stop.
    std::uint64_t serve(std::chrono::milliseconds duration) {
        const std::atomic<std::uint32_t>& pushed = region_->control().pushed_signal;
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

    void request_stop() const noexcept { region_->control().stop.store(1, std::memory_order_release); }
    void give_go() const noexcept { region_->control().go.store(1, std::memory_order_release); }

    /// Copies parameters float32[P] and optimizer state float32[S, P] of one version.
    Snapshot copy_record(std::span<float> params, std::span<float> state) noexcept {
        const std::size_t n = params.size();
        const std::uint32_t record = ParamStore::record_of(store_.protect());
        const auto vectors = region_->vectors(record);
        Snapshot now = hogwild() ? hogwild_snapshot() : snapshot_of(record);
        load_relaxed(vectors.params, params);
        for (std::size_t k = 0; k * n < state.size(); ++k) load_relaxed(vectors.state[k], state.subspan(k * n, n));
        store_.unprotect();
        return now;
    }

    [[nodiscard]] Snapshot snapshot() noexcept {
        if (hogwild()) return hogwild_snapshot();
        const Snapshot now = snapshot_of(ParamStore::record_of(store_.protect()));
        store_.unprotect();
        return now;
    }

    /// Adds up the run. Exact once the workers have left; a moment's mixture while they run.
    [[nodiscard]] Ledger ledger() noexcept {
        Ledger sum;
        const std::uint32_t record = ParamStore::record_of(store_.protect());
        sum.at = hogwild() ? hogwild_snapshot() : snapshot_of(record);
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
            std::uint64_t kept = 0;
            for (std::size_t i = 0; i < region_->layout().canaries; ++i) kept += relaxed(region_->canary(i)).load(std::memory_order_relaxed);
            // A step that is under way, or that a worker died in, has added to some of them and is not counted yet.
            sum.canaries_lost = sum.canaries - std::min(kept, sum.canaries);
        }
        return sum;
    }

    [[nodiscard]] std::size_t unread_log(std::size_t w) const noexcept { return log_.unread(w); }
    void read_log(std::size_t w, std::size_t n, double* rows) const noexcept { log_.read(w, n, rows); }

    /// For the parent, once it has seen worker w dead: what it had only begun is counted as aborted, what it
    /// published stays, the records it held are free again.
    void reap(std::size_t w) const noexcept {
        WorkerBlock& words = region_->worker(w);
        // hogwild counts a gradient after its last step and then publishes it; who died in between has applied it.
        if (hogwild())
            words.published.store(relaxed(words.direct.applied).load(std::memory_order_relaxed) +
                                      relaxed(words.direct.rejected_nonfinite).load(std::memory_order_relaxed),
                                  std::memory_order_relaxed);
        words.aborted.store(words.begun.load(std::memory_order_relaxed) - words.published.load(std::memory_order_relaxed),
                            std::memory_order_relaxed);
        ParamStore::vacate(*region_, w);
    }

private:
    static constexpr std::chrono::milliseconds poll_interval{50};  // how soon a sleeper notices a stop

    [[nodiscard]] std::size_t workers() const noexcept { return region_->layout().workers; }
    [[nodiscard]] bool hogwild() const noexcept { return region_->config().scheme == UpdateScheme::hogwild; }
    [[nodiscard]] std::uint64_t consumed_in(std::uint64_t word) const noexcept { return region_->consumed(ParamStore::record_of(word))[seat_]; }
    [[nodiscard]] Snapshot snapshot_of(std::uint32_t record) const noexcept {
        const RecordHeader& header = region_->record(record);
        return {header.version, header.env_steps, header.counts};
    }

    // ---- building the next record -------------------------------------------------------------------

    /// Writes to `target` the record that follows `base`: every published, unconsumed gradient applied by its
    /// own optimizer step, in each worker's order. Returns how many were consumed; 0 also when the build was
    /// given up because `base` is no longer current.
    std::uint64_t build(std::uint64_t base, std::uint32_t target) {
        const std::uint32_t from = ParamStore::record_of(base);
        const auto source = region_->vectors(from);
        const auto result = region_->vectors(target);
        RecordHeader& header = region_->record(target);
        std::uint64_t* consumed = region_->consumed(target);
        header = region_->record(from);
        std::memcpy(consumed, region_->consumed(from), workers() * sizeof *consumed);
        bool written = false;
        std::uint64_t n = 0;
        for (std::size_t w = 0; w < workers(); ++w) {
            for (const std::uint64_t published = buffer_.published(w); consumed[w] < published; ++n) {
                if (!store_.is_current(base)) return 0;
                const GradientTag tag = buffer_.copy(w, ++consumed[w], scratch_);
                header.env_steps += tag.env_steps;
                if (tag.nonfinite) {
                    ++header.counts.rejected_nonfinite;
                    continue;
                }
                const OptimizerStep step(region_->config().optimizer, tag.learning_rate, header.version + 1);
                clip(scratch_);
                step.apply(scratch_.size(), scratch_.data(), written ? as_const(result) : as_const(source), result);
                written = true;
                count_applied(header.counts, tag, header.version);
                ++header.version;
            }
        }
        if (!written && n > 0) copy_vectors(source, result);
        return n;
    }

    void clip(std::span<float> grad) const noexcept {
        const double max_norm = region_->config().optimizer.max_grad_norm;
        if (max_norm > 0.0) clip_grad_norm(grad.data(), grad.size(), max_norm);
    }

    static OptimizerVectors<const float> as_const(const OptimizerVectors<float>& v) noexcept { return {v.params, {v.state[0], v.state[1]}}; }

    void copy_vectors(const OptimizerVectors<float>& from, const OptimizerVectors<float>& to) const noexcept {
        const std::size_t bytes = region_->layout().parameters * sizeof(float);
        std::memcpy(to.params, from.params, bytes);
        for (std::size_t k = 0; k < state_vectors(region_->config().optimizer.kind); ++k) std::memcpy(to.state[k], from.state[k], bytes);
    }

    /// staleness = version when a gradient is applied - version its worker read.
    static void count_applied(Counts& counts, const GradientTag& tag, std::uint64_t version) noexcept {
        const std::uint64_t staleness = version - tag.version_read;
        ++counts.applied;
        counts.merged += tag.n_summed - 1;
        counts.staleness_sum += staleness;
        counts.staleness_max = std::max(counts.staleness_max, staleness);
        ++counts.staleness[std::min<std::uint64_t>(staleness, staleness_buckets - 1)];
    }

    // ---- lockfree -----------------------------------------------------------------------------------

    void build_until_consumed(std::uint64_t sequence) {
        for (;;) {
            const std::uint64_t base = store_.protect();
            known_consumed_ = consumed_in(base);
            if (known_consumed_ >= sequence) break;
            const std::uint32_t target = store_.claim();
            if (build(base, target) == 0 || !store_.commit(base)) count_retry();
        }
        store_.unprotect();
    }

    void count_retry() const noexcept {
        std::atomic<std::uint64_t>& retries = region_->worker(seat_).retries;
        retries.store(retries.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    }

    // ---- lock ---------------------------------------------------------------------------------------

    bool settle_locked(std::uint64_t sequence) {
        RobustMutex& mutex = region_->control().mutex;
        const auto deadline = Clock::now() + std::chrono::milliseconds(region_->config().wait_deadline_ms);
        while (!mutex.try_lock_for(poll_interval)) {
            if (stop_requested()) return false;
            if (Clock::now() >= deadline) throw WaitTimeout(timeout_message("the lock"));
        }
        build_until_consumed(sequence);  // at once, since nobody else commits
        mutex.unlock();
        return true;
    }

    // ---- queue --------------------------------------------------------------------------------------

    bool settle_queued(std::uint64_t sequence) {
        std::atomic<std::uint32_t>& pushed = region_->control().pushed_signal;
        const std::atomic<std::uint32_t>& consumed = region_->worker(seat_).consumed_signal;
        pushed.fetch_add(1, std::memory_order_release);
        futex_wake_all(pushed);
        const auto deadline = Clock::now() + std::chrono::milliseconds(region_->config().wait_deadline_ms);
        for (;;) {
            const std::uint32_t seen = consumed.load(std::memory_order_acquire);
            if (static_cast<std::int32_t>(seen - static_cast<std::uint32_t>(sequence)) >= 0) break;
            if (stop_requested()) return false;
            if (Clock::now() >= deadline) throw WaitTimeout(timeout_message("the learner of the queue"));
            futex_wait(consumed, seen, std::min(deadline, Clock::now() + poll_interval));
        }
        known_consumed_ = sequence;
        return true;
    }

    /// Tells each worker how many of its gradients are in the protected record. Forwards only: of two who drain,
    /// the slower one must not take back what the faster one has said.
    void wake_consumed(std::uint32_t record) const noexcept {
        if (region_->config().scheme != UpdateScheme::queue) return;
        for (std::size_t w = 0; w < workers(); ++w) {
            std::atomic<std::uint32_t>& signal = region_->worker(w).consumed_signal;
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
        return "worker " + std::to_string(seat_) + " waited " + std::to_string(region_->config().wait_deadline_ms) + " ms for " + whom;
    }

    // ---- hogwild ------------------------------------------------------------------------------------

    template <class T>
    static std::atomic_ref<T> relaxed(T& word) noexcept {
        return std::atomic_ref<T>(word);
    }

    static void load_relaxed(float* from, std::span<float> to) noexcept {
        for (std::size_t i = 0; i < to.size(); ++i) to[i] = relaxed(from[i]).load(std::memory_order_relaxed);
    }

    static void store_relaxed(std::span<const float> from, float* to) noexcept {
        for (std::size_t i = 0; i < from.size(); ++i) relaxed(to[i]).store(from[i], std::memory_order_relaxed);
    }

    /// A cache line at a time is read, stepped and written back; what another worker wrote in between is lost.
    Submitted apply_in_place(std::span<const float> grad, const GradientTag& tag) noexcept {
        WorkerBlock& words = region_->worker(seat_);
        Control& control = region_->control();
        const auto add = [](std::uint64_t& word, std::uint64_t n) {
            relaxed(word).store(relaxed(word).load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
        };
        words.begun.store(words.begun.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
        const bool nonfinite = has_nonfinite(grad.data(), grad.size());
        if (nonfinite) {
            add(words.direct.rejected_nonfinite, 1);
        } else {
            std::copy(grad.begin(), grad.end(), scratch_.begin());
            clip(scratch_);
            const std::uint64_t version = control.hogwild_version.fetch_add(1, std::memory_order_relaxed);
            step_in_place(OptimizerStep(region_->config().optimizer, tag.learning_rate, version + 1));
            const std::uint64_t staleness = version - tag.version_read;
            add(words.direct.applied, 1);
            add(words.direct.merged, tag.n_summed - 1);
            add(words.direct.staleness_sum, staleness);
            if (staleness > words.direct.staleness_max) relaxed(words.direct.staleness_max).store(staleness, std::memory_order_relaxed);
            add(words.direct.staleness[std::min<std::uint64_t>(staleness, staleness_buckets - 1)], 1);
        }
        control.hogwild_env_steps.fetch_add(tag.env_steps, std::memory_order_relaxed);
        words.published.store(words.published.load(std::memory_order_relaxed) + 1, std::memory_order_release);
        return nonfinite ? Submitted::rejected_nonfinite : Submitted::applied;
    }

    void step_in_place(const OptimizerStep& step) noexcept {
        const auto shared = region_->vectors(0);
        const std::uint32_t states = state_vectors(region_->config().optimizer.kind);
        float params[hogwild_block], state0[hogwild_block], state1[hogwild_block];
        const OptimizerVectors<float> mine{params, {state0, state1}};
        for (std::size_t i = 0; i < scratch_.size(); i += hogwild_block) {
            const std::size_t n = std::min(hogwild_block, scratch_.size() - i);
            // A canary is one more addition of the same kind, to a word that only grows: what it lacks at the end was lost.
            const auto canary = relaxed(region_->canary(i / hogwild_block));
            const std::uint64_t count = canary.load(std::memory_order_relaxed);
            load_relaxed(shared.params + i, {params, n});
            for (std::uint32_t k = 0; k < states; ++k) load_relaxed(shared.state[k] + i, {mine.state[k], n});
            step.apply(n, scratch_.data() + i, as_const(mine), mine);
            for (std::uint32_t k = 0; k < states; ++k) store_relaxed({mine.state[k], n}, shared.state[k] + i);
            store_relaxed({params, n}, shared.params + i);
            canary.store(count + 1, std::memory_order_relaxed);
        }
    }

    [[nodiscard]] Snapshot hogwild_snapshot() const noexcept {
        Snapshot now{region_->control().hogwild_version.load(std::memory_order_acquire),
                     region_->control().hogwild_env_steps.load(std::memory_order_relaxed), Counts{}};
        Counts& sum = now.counts;
        for (std::size_t w = 0; w < workers(); ++w) {
            Counts& its = region_->worker(w).direct;
            const auto load = [](std::uint64_t& word) { return relaxed(word).load(std::memory_order_relaxed); };
            sum.applied += load(its.applied);
            sum.merged += load(its.merged);
            sum.rejected_nonfinite += load(its.rejected_nonfinite);
            sum.staleness_sum += load(its.staleness_sum);
            sum.staleness_max = std::max(sum.staleness_max, load(its.staleness_max));
            for (std::size_t k = 0; k < staleness_buckets; ++k) sum.staleness[k] += load(its.staleness[k]);
        }
        return now;
    }

    const SharedRegion* region_;
    std::size_t seat_;
    GradBuffer buffer_;
    ParamStore store_;
    EventLog log_;
    std::vector<float> scratch_;  // float32[P]: the gradient being applied
    std::uint64_t known_consumed_ = 0;
};

}  // namespace fastac
