// Stage 6. New parameters and optimizer state in -> current for every worker, or dropped whole.
// Before it: optimizer.hpp. After it: the next rollout reads them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include "fastac/shared_region.hpp"

namespace fastac {

/// A moment of the run, as one record holds it.
struct Snapshot {
    std::uint64_t version = 0;
    std::uint64_t env_steps = 0;
    Counts counts{};
};

/// The parameter store: a pool of records {version, parameters, optimizer state, consumed[W], counts}, one of
/// them current. A record is written out of place, by the one seat that owns it, and becomes current by a single
/// compare-and-swap on the {version, record} word. From then on it is immutable until it is claimed again.
///
/// Who may call: each seat (W workers, the observer, the learner) from one thread at a time.
/// What it may do: everything here is lock-free and allocates nothing. `protect` and `claim` repeat only when
///   somebody else has just committed or claimed.
/// A seat that dies leaves at most one record protected and one owned. The pool holds 2 * seats + 2, so the
///   others always find a free one; the parent takes the dead seat's back by `vacate`.
/// Reuse is guarded by hazard words. A reader announces the record, then looks whether it is still current; a claimer
///   takes the owner word, then looks whether the record is current or announced. Both pairs are sequentially
///   consistent, so at least one of the two sees the other.
/// A record that is built from must stay protected until the commit: where all gradients were rejected the version does not
///   change, and the {version, record} word alone would not tell such a record from its reuse.
/// Not for: data that must be updated in place (hogwild does that, on record 0, and bypasses claim and commit).
class ParamStore {
public:
    static constexpr std::uint32_t none = UINT32_MAX;

    ParamStore(const SharedRegion& region, std::size_t seat) noexcept : region_(&region), seat_(seat) {}

    static constexpr std::uint64_t pack(std::uint64_t version, std::uint32_t record) noexcept { return version << 16 | record; }
    static constexpr std::uint32_t record_of(std::uint64_t word) noexcept { return static_cast<std::uint32_t>(word & 0xffffU); }

    /// Protects the current record and returns its word. It stays as it is until `unprotect`.
    std::uint64_t protect() const noexcept {
        Atomic<std::uint64_t>& current = region_->control().current;
        Atomic<std::uint32_t>& hazard = region_->seat(seat_).hazard;
        for (std::uint64_t word = current.load(std::memory_order_acquire);;) {
            hazard.store(record_of(word) + 1, std::memory_order_seq_cst);  // pairs with the loads in `hazarded`
            const std::uint64_t again = current.load(std::memory_order_seq_cst);
            if (again == word) return word;
            word = again;
        }
    }

    /// Release: our reads of the record happen before whoever claims it writes.
    void unprotect() const noexcept { region_->seat(seat_).hazard.store(0, std::memory_order_release); }

    /// What a protected record says.
    [[nodiscard]] Snapshot snapshot(std::uint32_t record) const noexcept {
        const RecordHeader& header = region_->record(record);
        plain_read(&header, sizeof header);
        return {header.version, header.env_steps, header.counts};
    }

    [[nodiscard]] bool is_current(std::uint64_t word) const noexcept {
        return region_->control().current.load(std::memory_order_relaxed) == word;
    }

    /// A record that only this seat may write, until it commits it or `vacate` frees it.
    std::uint32_t claim() noexcept {
        const auto records = static_cast<std::uint32_t>(region_->layout().records);
        for (std::uint32_t r = static_cast<std::uint32_t>(2 * seat_) % records; owned_ == none; r = (r + 1) % records) {
            Atomic<std::uint32_t>& owner = region_->owner(r);
            std::uint32_t nobody = 0;
            if (owner.load(std::memory_order_relaxed) != 0) continue;
            if (!owner.compare_exchange_strong(nobody, static_cast<std::uint32_t>(seat_) + 1, std::memory_order_seq_cst)) continue;
            // In this order: a reader announces the record and then looks whether it is current. With the hazards first, one
            // that announces it after our look and still finds it current would read what we write.
            if (record_of(region_->control().current.load(std::memory_order_seq_cst)) != r && !hazarded(r)) {
                owned_ = r;
            } else {
                owner.store(0, std::memory_order_release);
            }
        }
        return owned_;
    }

    /// Makes the claimed record current if `base` still is. Returns whether it did.
    bool commit(std::uint64_t base) noexcept {
        const std::uint64_t next = pack(region_->record(owned_).version, owned_);
        // Release: who protects the new record sees all of it. Sequentially consistent for the pairs described above.
        if (!region_->control().current.compare_exchange_strong(base, next, std::memory_order_seq_cst)) return false;
        // The current record needs no owner: claimers look whether a record is current.
        region_->owner(std::exchange(owned_, none)).store(0, std::memory_order_release);
        return true;
    }

    /// Frees what a seat holds: its own when it leaves in order, a dead one's when the parent has seen it dead.
    static void vacate(const SharedRegion& region, std::size_t seat) noexcept {
        for (std::size_t r = 0; r < region.layout().records; ++r) {
            std::uint32_t its = static_cast<std::uint32_t>(seat) + 1;
            region.owner(r).compare_exchange_strong(its, 0, std::memory_order_acq_rel);
        }
        // The last word of a holder that lives and is taken for dead: what it has read, it has read before the next claimer writes.
        region.seat(seat).hazard.fetch_add(0, std::memory_order_acquire);
        region.seat(seat).hazard.store(0, std::memory_order_release);
        region.seat(seat).taken.store(0, std::memory_order_release);
    }

private:
    [[nodiscard]] bool hazarded(std::uint32_t r) const noexcept {
        for (std::size_t s = 0; s < region_->layout().seats; ++s)
            if (region_->seat(s).hazard.load(std::memory_order_seq_cst) == r + 1) return true;
        return false;
    }

    const SharedRegion* region_;
    std::size_t seat_;
    std::uint32_t owned_ = none;
};

}  // namespace fastac
