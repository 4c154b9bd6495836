// What lies where in the shared region. Fixed-width fields and offsets, never pointers: every process
// maps the region at another address. Both sides compute the same Layout from the same RegionConfig, and a
// hash of it is compared when a process attaches, so two builds that disagree refuse each other.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "fastac/atomics.hpp"
#include "fastac/optimizer.hpp"
#include "fastac/wait.hpp"

namespace fastac {

inline constexpr std::size_t cache_line = 64;  // our own: the standard's constant may change with compiler flags
inline constexpr std::uint64_t region_magic = 0x3143'4154'5341'4601ULL;
inline constexpr std::uint32_t layout_version = 7;
inline constexpr std::uint32_t max_workers = 64;
inline constexpr std::uint32_t max_slots = 1U << 16;  // with it no product of sizes reaches 2^64
inline constexpr std::uint64_t max_trace_entries = 1U << 26;  // a GiB
inline constexpr std::uint32_t max_statistics = 1U << 22;  // 32 MiB, twice for each worker
inline constexpr std::size_t staleness_buckets = 64;
inline constexpr std::size_t log_columns = 24;  // whole cache lines: no two writers share one
inline constexpr std::size_t hogwild_block = cache_line / sizeof(float);  // floats that hogwild reads, steps and writes back together

static_assert(Atomic<std::uint64_t>::is_always_lock_free);
static_assert(Atomic<std::uint32_t>::is_always_lock_free);
static_assert(AtomicRef<float>::is_always_lock_free);
static_assert(std::endian::native == std::endian::little);

/// Who applies a published gradient, and whether anybody waits for it: see updates.hpp.
enum class UpdateScheme : std::uint32_t { lockfree = 0, lock = 1, queue = 2, hogwild = 3 };

/// What becomes of the learning rate of a gradient that was computed from old parameters. `inverse`: it is divided by
/// the staleness (Zhang et al. 2016, arXiv:1511.05950), where that is above 1.
enum class StalenessLr : std::uint32_t { constant = 0, inverse = 1 };

/// What becomes of what is pushed: an optimizer step with it, or, for what comes from other nodes of a cluster, a vector of the record
/// that it is added to or put in the place of.
enum class Target : std::uint32_t { step = 0, add_params = 1, set_params = 2, add_state = 3 };

inline constexpr std::uint64_t no_staleness_limit = UINT64_MAX;

/// Buckets of a histogram of staleness: each of 0 .. 47 has its own, then two for each doubling (from 48, 64, 96, 128, 192 on ..);
/// the last holds 8,192 and more.
constexpr std::size_t staleness_bucket(std::uint64_t staleness) noexcept {
    if (staleness < 48) return static_cast<std::size_t>(staleness);
    const auto octave = static_cast<std::size_t>(std::bit_width(staleness)) - 1;
    const std::size_t bucket = 37 + 2 * octave + (staleness >> (octave - 1) & 1U);
    return bucket < staleness_buckets ? bucket : staleness_buckets - 1;
}
/// The smallest staleness in a bucket.
constexpr std::uint64_t staleness_from(std::size_t bucket) noexcept {
    return bucket < 48 ? bucket : std::uint64_t{2 + (bucket + 1) % 2} << ((bucket - 37) / 2 - 1);
}

/// What a run chooses, equal in all its processes.
struct RegionConfig {
    std::uint32_t workers = 1;     // W
    std::uint32_t parameters = 1;  // P
    // Both powers of two, so that a ring goes on in its order where a counter wraps around.
    std::uint32_t slots = 4;  // K, gradients that one worker may have published and not yet applied
    std::uint32_t log_rows = 1024;
    UpdateScheme scheme = UpdateScheme::lockfree;
    std::uint32_t wait_deadline_ms = 30'000;  // after which a wait (lock, queue) is an error, not a hang
    std::uint64_t max_staleness = no_staleness_limit;  // a gradient staler than this is rejected and counted
    StalenessLr staleness_lr = StalenessLr::constant;
    OptimizerConfig optimizer{};
    std::uint64_t trace_entries = 0;  // gradients whose order is recorded (trace.hpp); 0: none
    std::uint32_t statistics = 0;  // doubles that each worker shares with the others (statistics.hpp)
};

/// What became of the gradients that were applied so far. Plain fields: they live in a record, which is
/// immutable once it is current. (hogwild reaches those in a Tally through atomic_ref.)
struct Sums {
    std::uint64_t applied;
    std::uint64_t merged;              // gradients that a worker itself summed into one push, beyond the first
    std::uint64_t rejected_nonfinite;
    std::uint64_t rejected_stale;
    std::uint64_t amended;  // no gradients: see Target
    std::uint64_t staleness_sum;
    std::uint64_t staleness_max;
};
struct Counts : Sums {
    std::uint64_t staleness[staleness_buckets];  // how many were applied with a staleness in each bucket
};

/// Of what was published, consumed so far: applied, rejected or, no gradient, amended.
constexpr std::uint64_t consumed(const Counts& counts) noexcept { return counts.applied + counts.rejected_nonfinite + counts.rejected_stale + counts.amended; }

/// What became of one worker's gradients.
struct Tally {
    Counts counts;
    std::uint64_t env_steps;
};

/// The same as a record holds it for each worker: without a histogram, which would make every record longer by 512 bytes a worker.
struct Share {
    Sums sums;
    std::uint64_t env_steps;
    std::uint64_t staleness;  // of its latest applied gradient
};

/// Head of a record of the parameter store. Behind it: consumed uint64[W] (how many of each worker's gradients went into the
/// record), Share[W], params float32[P], state float32[S, P].
struct alignas(cache_line) RecordHeader {
    std::uint64_t version;    // optimizer updates applied so far
    std::uint64_t env_steps;  // env steps behind the gradients consumed so far
    Counts counts;
};

enum class TraceOutcome : std::uint16_t { applied = 0, rejected_nonfinite = 1, rejected_stale = 2 };

/// One gradient of the schedule.
struct TraceEntry {
    std::uint64_t read_at;      // gradients consumed by the time its worker read the parameters for it
    std::uint32_t incarnation;  // of that worker: how many before it died in its seat
    std::uint16_t worker;
    TraceOutcome outcome;
};
static_assert(sizeof(TraceEntry) == 2 * sizeof(std::uint64_t));

/// With a trace only, behind a record's vectors: the entries that the record adds. Behind it: TraceEntry[W * K] at most.
struct TraceBlock {
    std::uint64_t added;
};

/// Head of a slot of a worker's ring. Behind it: float32[P]. All are atomics because a helper that is
/// about to fail its commit may still read a slot that its worker already fills again.
struct alignas(cache_line) SlotHeader {
    Atomic<std::uint64_t> version_read;
    Atomic<std::uint64_t> env_steps;
    Atomic<std::uint64_t> learning_rate_bits;  // a double
    Atomic<std::uint32_t> n_summed;
    Atomic<std::uint32_t> nonfinite;
    Atomic<std::uint64_t> read_at;
    Atomic<std::uint32_t> incarnation;
    Atomic<std::uint32_t> target;
};

/// One worker's words. Each has a single writer: the worker, or the parent once it has seen the worker dead.
struct WorkerBlock {
    alignas(cache_line) Atomic<std::uint64_t> begun;
    Atomic<std::uint64_t> published;  // the commit point of a push: slots 1 .. published can be read
    Atomic<std::uint64_t> aborted;
    Atomic<std::uint64_t> retries;  // builds thrown away because somebody else committed first
    alignas(cache_line) Atomic<std::uint64_t> log_written;
    alignas(cache_line) Atomic<std::uint64_t> log_read;
    alignas(cache_line) Atomic<std::uint32_t> consumed_signal;  // queue: low half of consumed, the word the worker sleeps on
    // All but hogwild: the worker's own histogram of its gradients that were applied, counted as it finds them in a record.
    alignas(cache_line) Atomic<std::uint64_t> staleness_counted;
    Atomic<std::uint64_t> staleness[staleness_buckets];
    alignas(cache_line) Atomic<std::uint64_t> statistics_written;
    alignas(cache_line) Tally tallies[2];  // hogwild only: [published % 2] is that of all that is published, the other the next
};

/// One seat for each who may protect and own records: W workers, then the observer, then the learner.
struct alignas(cache_line) Seat {
    Atomic<std::uint32_t> taken;        // a second holder of a role is refused
    Atomic<std::uint32_t> hazard;       // record being read or built from, plus 1; 0: none
    Atomic<std::uint32_t> incarnation;  // how many holders were reaped; whoever is of an earlier one has lost the seat
    Atomic<std::uint64_t> heartbeat;    // counts the holder's verbs: one that stands still is stopped or hangs
};

struct Control {
    alignas(cache_line) Atomic<std::uint32_t> go;
    Atomic<std::uint32_t> stop;
    Atomic<std::uint32_t> held;  // workers wait before their next update
    alignas(cache_line) Atomic<std::uint64_t> current;  // {version: 48 bits, record: 16 bits}
    alignas(cache_line) Atomic<std::uint32_t> pushed_signal;  // queue: the word the learner sleeps on
    alignas(cache_line) RobustMutex mutex;                   // lock
    alignas(cache_line) Atomic<std::uint64_t> hogwild_version;  // steps begun, from the version of record 0 on
};

struct RegionHeader {
    std::uint64_t magic;
    std::uint64_t layout_hash;
    std::uint64_t nonce;  // of the run: a descriptor of another run is refused
    std::uint64_t bytes;
    RegionConfig config;
};

constexpr std::size_t align_up(std::size_t n, std::size_t to) noexcept { return (n + to - 1) / to * to; }

/// Offsets and strides in bytes, all from the config.
struct Layout {
    explicit Layout(const RegionConfig& c)
        : workers(c.workers),
          seats(c.workers + 2),
          records(2 * (c.workers + 2) + 2),  // each seat protects one and owns one, one is current, one is left to claim
          slots(c.slots),
          log_rows(c.log_rows),
          parameters(c.parameters),
          statistics(c.statistics),
          canaries((c.parameters + hogwild_block - 1) / hogwild_block) {
        if (c.workers < 1 || c.workers > max_workers)
            throw std::invalid_argument("workers: expected 1 to 64, got " + std::to_string(c.workers));
        if (c.parameters < 1) throw std::invalid_argument("parameters: expected at least 1, got 0");
        if (!std::has_single_bit(c.slots) || c.slots > max_slots)
            throw std::invalid_argument("slots: expected a power of two up to " + std::to_string(max_slots) + ", got " + std::to_string(c.slots));
        if (!std::has_single_bit(c.log_rows)) throw std::invalid_argument("log_rows: expected a power of two, got " + std::to_string(c.log_rows));
        if (c.scheme > UpdateScheme::hogwild || c.staleness_lr > StalenessLr::inverse || c.optimizer.kind > OptimizerKind::sum)
            throw std::invalid_argument("config: expected a scheme, a staleness_lr and an optimizer that exist, got a number beyond the last");
        expect_usable(c.optimizer);
        if (c.trace_entries > max_trace_entries) throw std::invalid_argument("trace_entries: expected at most " + std::to_string(max_trace_entries) + ", got " + std::to_string(c.trace_entries));
        if (c.trace_entries > 0 && c.scheme == UpdateScheme::hogwild) throw std::invalid_argument("trace_entries: expected 0 under hogwild, whose updates have no order");
        if (c.statistics > max_statistics) throw std::invalid_argument("statistics: expected at most " + std::to_string(max_statistics) + ", got " + std::to_string(c.statistics));
        const std::size_t vector_bytes = align_up(parameters * sizeof(float), cache_line);
        std::size_t end = 0;
        const auto place = [&end](std::size_t size) {
            const std::size_t at = align_up(end, cache_line);
            end = at + size;
            return at;
        };
        header = place(sizeof(RegionHeader));
        control = place(sizeof(Control));
        worker_blocks = place(workers * sizeof(WorkerBlock));
        seat_blocks = place(seats * sizeof(Seat));
        owner_words = place(records * sizeof(Atomic<std::uint32_t>));
        canary_words = place(canaries * sizeof(std::uint64_t));
        record_consumed = sizeof(RecordHeader);
        record_shares = record_consumed + workers * sizeof(std::uint64_t);
        record_vectors = align_up(record_shares + workers * sizeof(Share), cache_line);
        vector_stride = vector_bytes;
        record_trace = record_vectors + vector_bytes * (1 + state_vectors(c.optimizer.kind));
        record_stride = record_trace + (c.trace_entries == 0 ? 0 : align_up(sizeof(TraceBlock) + workers * slots * sizeof(TraceEntry), cache_line));
        record_blocks = place(records * record_stride);
        slot_stride = sizeof(SlotHeader) + vector_bytes;
        ring_blocks = place(workers * slots * slot_stride);
        log_blocks = place(workers * log_rows * log_columns * sizeof(double));
        trace_blocks = place(c.trace_entries * sizeof(TraceEntry));
        statistics_stride = align_up(statistics * sizeof(double), cache_line);
        statistics_blocks = place(workers * 2 * statistics_stride);
        bytes = align_up(end, 4096);
    }

    /// FNV-1a over everything two builds would have to agree on.
    [[nodiscard]] std::uint64_t hash() const noexcept {
        std::uint64_t h = 0xcbf29ce484222325ULL;
        for (const std::uint64_t field : {
                 std::uint64_t{layout_version}, std::uint64_t{header}, std::uint64_t{control}, std::uint64_t{worker_blocks},
                 std::uint64_t{seat_blocks}, std::uint64_t{owner_words}, std::uint64_t{canary_words},
                 std::uint64_t{record_blocks}, std::uint64_t{record_stride}, std::uint64_t{vector_stride},
                 std::uint64_t{ring_blocks}, std::uint64_t{slot_stride}, std::uint64_t{log_blocks}, std::uint64_t{trace_blocks}, std::uint64_t{statistics_blocks}, std::uint64_t{bytes},
                 std::uint64_t{sizeof(RegionConfig)}, std::uint64_t{sizeof(Control)}, std::uint64_t{sizeof(WorkerBlock)},
                 std::uint64_t{sizeof(Seat)}, std::uint64_t{sizeof(Counts)}, std::uint64_t{sizeof(Share)}, std::uint64_t{log_columns}}) {
            h = (h ^ field) * 0x100000001b3ULL;
        }
        return h;
    }

    std::size_t workers, seats, records, slots, log_rows, parameters, statistics, canaries;
    std::size_t header, control, worker_blocks, seat_blocks, owner_words, canary_words;
    std::size_t record_consumed, record_shares, record_vectors, record_trace, vector_stride, record_stride, record_blocks;
    std::size_t slot_stride, ring_blocks, log_blocks, trace_blocks, statistics_stride, statistics_blocks, bytes;
};

}  // namespace fastac
