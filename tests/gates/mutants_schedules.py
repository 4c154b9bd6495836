"""Seeded bugs of the shared core for `gate_schedules` (cpp/schedules): those that it must catch, and weaker code that
it passes because nothing is lost by it, with the reasons."""

from __future__ import annotations

import re

from mutant import Mutant


def seeded(
    name: str, header: str, replacements: list[tuple[str, str]], schedules: int = 2_000, first: int = 0
) -> Mutant:
    """`schedules`: from seed `first` on, twice what it took, or more. Any violation counts, for the code as it is has
    none; which one comes first hangs on the seeds, and is told in docs/mutants.md."""
    changes = tuple((header, old, new) for old, new in replacements)
    return Mutant(name, changes, "gate_schedules", says="seed ", arguments=(str(schedules), str(first)))


def weaker(name: str, header: str, text: str, order: str, schedules: int = 2_000) -> Mutant:
    """The one memory order in `text` becomes `order`."""
    new, n = re.subn(r"std::memory_order_\w+", f"std::memory_order_{order}", text)
    assert n == 1, f"expected one memory order, got {n}: {text}"
    return seeded(name, header, [(text, new)], schedules)


BUFFER, STORE, LOG, HOGWILD = "grad_buffer.hpp", "param_store.hpp", "event_log.hpp", "hogwild.hpp"
UPDATES, RECORD, LAYOUT = "updates.hpp", "next_record.hpp", "layout.hpp"

PUBLISH = "words.published.store(sequence, std::memory_order_release);"
ROOM = "published - consumed >= region_->layout().slots"
HAZARD = "hazard.store(record_of(word) + 1, std::memory_order_seq_cst)"
SECOND_LOOK = "again = current.load(std::memory_order_seq_cst)"
HAZARDED = "hazard.load(std::memory_order_seq_cst) == r + 1"
UNPROTECT = "region_->seat(seat_).hazard.store(0, std::memory_order_release)"
CLAIM = "compare_exchange_strong(nobody, static_cast<std::uint32_t>(seat_) + 1, std::memory_order_seq_cst)"
LOOK = "record_of(region_->control().current.load(std::memory_order_seq_cst)) != r"
FREE = f"{LOOK} && !hazarded(r)"
BUILT = "const std::uint64_t next = pack("
SAME_RECORD = "if (const auto now = region_->control().current.load(); record_of(now) == record_of(base)) base = now;"
COMMIT = "compare_exchange_strong(base, next, std::memory_order_seq_cst)"
COMMITTED = "region_->owner(std::exchange(owned_, none)).store(0, std::memory_order_release)"
VACATE_OWNER = "compare_exchange_strong(its, 0, std::memory_order_acq_rel)"
VACATE_HAZARD = "region.seat(seat).hazard.store(0, std::memory_order_release);"
VACATE_SEAT = "region.seat(seat).taken.store(0, std::memory_order_release);"
REAP_LOOK = "its.taken.fetch_add(0, std::memory_order_acquire) == 0"
SIT = "taken.compare_exchange_strong(free, 1, std::memory_order_acq_rel)"
ABORTED = "words.aborted.store(words.begun.load(std::memory_order_relaxed) - "
LOG_ROOM = "written - words.log_read.load(std::memory_order_acquire) >= region_->layout().log_rows"
WAKE = "            wake_consumed(ParamStore::record_of(base));\n"
DRAINED = "store_.commit(base)) applied += n;\n"
SIGNAL = "compare_exchange_weak(said, now, std::memory_order_acq_rel, "
PUSHED = "pushed.fetch_add(1, std::memory_order_release)"
COUNTED = "write(tally, words.tallies[(published + 1) % 2]);"
PUBLISHED = "words.published.store(published + 1, std::memory_order_release);"
TALLY_STORE = "(&to)[i]).store(words[i], std::memory_order_release);"
TALLY_LOAD = "(&from)[i]).load(std::memory_order_acquire);"
SAME_TALLY = "if (words.published.load(std::memory_order_relaxed) == published) return tally;"
LEDGER_AT = "sum.at = hogwild() ? hogwild_.snapshot() : store_.snapshot(record);"
POOL = "records(2 * (c.workers + 2) + 2)"
COUNTED_BEFORE = "counted_ = region.worker(seat).staleness_counted.load(std::memory_order_relaxed);"
COUNTING = "words.staleness_counted.store(counted_ = known_.sums.applied, std::memory_order_relaxed);"
COUNTED_ONE = "bucket.store(bucket.load(std::memory_order_relaxed) + 1, std::memory_order_release);"


MUTANTS = [
    # the gradient buffer
    weaker("published without release", BUFFER, PUBLISH, "relaxed"),
    weaker("published read relaxed", BUFFER, "published.load(std::memory_order_acquire)", "relaxed"),
    seeded(
        "published before the payload",
        BUFFER,
        [(PUBLISH, ""), ("tag.nonfinite = !tag.known_finite", f"{PUBLISH} tag.nonfinite = !tag.known_finite")],
    ),
    seeded("full ring overwritten", BUFFER, [(ROOM, ROOM.replace(">=", ">"))]),
    seeded("room in the ring by <", BUFFER, [(ROOM, "published >= consumed + region_->layout().slots")]),
    seeded(
        "slot index wrong at the wrap",
        "shared_region.hpp",
        [("(sequence - 1) % layout_.slots", "(sequence - 1) % (layout_.slots + 1) % layout_.slots")],
    ),
    # hazard words
    weaker("hazard relaxed", STORE, HAZARD, "relaxed"),
    weaker("hazard release", STORE, HAZARD, "release"),
    weaker("second look acquire", STORE, SECOND_LOOK, "acquire"),
    weaker("second look relaxed", STORE, SECOND_LOOK, "relaxed"),
    seeded(
        "no second look",
        STORE,
        [("if (again == word) return word;", "if (again != 0 || word == 0) return word;")],
    ),
    weaker("hazarded acquire", STORE, HAZARDED, "acquire"),
    weaker("hazarded relaxed", STORE, HAZARDED, "relaxed"),
    weaker("unprotect relaxed", STORE, UNPROTECT, "relaxed"),
    seeded("claim ignores hazards", STORE, [(" && !hazarded(r)", "")]),
    seeded(
        "a read unprotects before it copies",
        UPDATES,
        [("        plain_read(region_->vectors(", "        store_.unprotect();\n        plain_read(region_->vectors(")],
    ),
    # owner words
    seeded("claim ignores that a record is current", STORE, [(f"{LOOK} && ", "")]),
    weaker("claim looks at current relaxed", STORE, LOOK, "relaxed", schedules=30_000),
    weaker("owner taken relaxed", STORE, CLAIM, "relaxed"),
    weaker("owner taken release", STORE, CLAIM, "release"),
    seeded(
        "owner stored, not swapped",
        STORE,
        [(f"if (!owner.{CLAIM}) continue;", "owner.store(static_cast<std::uint32_t>(seat_) + 1 + nobody);")],
    ),
    seeded(
        "hazards looked at before the owner word is taken",
        STORE,
        [
            ("std::uint32_t nobody = 0;\n", f"std::uint32_t nobody = 0;\n            const bool free = {FREE};\n"),
            (f"if ({FREE}) {{", "if (free) {"),
        ],
    ),
    seeded(
        "owner freed before the commit",
        STORE,
        [(BUILT, f"region_->owner(owned_).store(0);\n        {BUILT}")],
    ),
    weaker("owner freed relaxed after the commit", STORE, COMMITTED, "relaxed", schedules=10_000),
    seeded(
        "pool too small for all to stand at their commits",
        LAYOUT,
        [(POOL, "records(2 * c.workers + 2)")],
        schedules=500_000,
    ),
    seeded("pool of one record for each seat", LAYOUT, [(POOL, "records(c.workers + 2)")]),
    # the commit
    weaker("commit relaxed", STORE, COMMIT, "relaxed"),
    weaker("commit acquire", STORE, COMMIT, "acquire"),
    seeded(
        "commit compares nothing",
        STORE,
        [(BUILT, f"base = region_->control().current.load();\n        {BUILT}")],
    ),
    # seats
    seeded("vacate forgets the owner words", STORE, [(f"region.owner(r).{VACATE_OWNER};", "static_cast<void>(its);")]),
    seeded(
        "vacate frees everybody's",
        STORE,
        [("its = static_cast<std::uint32_t>(seat) + 1;", "its = region.owner(r).load(std::memory_order_relaxed);")],
    ),
    weaker("vacate frees owner words acquire", STORE, VACATE_OWNER, "acquire", schedules=5_000),
    seeded("vacate forgets the hazard", STORE, [(VACATE_HAZARD, "")]),
    weaker("vacate frees the hazard relaxed", STORE, VACATE_HAZARD, "relaxed"),
    weaker("vacate frees the seat relaxed", STORE, VACATE_SEAT, "relaxed"),
    seeded(
        "vacate frees the seat first",
        STORE,
        [
            (VACATE_SEAT, ""),
            (
                "for (std::size_t r = 0; r < region.layout().records; ++r) {",
                f"{VACATE_SEAT}\n        for (std::size_t r = 0; r < region.layout().records; ++r) {{",
            ),
        ],
    ),
    # No x86 processor shows this: who leaves does so by read-modify-writes, and what it has published is seen before.
    seeded(
        "reap looks at the seat by a plain load",
        UPDATES,
        [(REAP_LOOK, "its.taken.load(std::memory_order_acquire) == 0")],
        schedules=100_000,
    ),
    weaker("sitting down relaxed", UPDATES, SIT, "relaxed"),
    seeded(
        "a lost session vacates",
        UPDATES,
        [("if (holds_seat()) ParamStore::vacate", "ParamStore::vacate")],
        schedules=2_000,
    ),
    seeded(
        "a lost session goes on",
        UPDATES,
        [("if (!holds_seat()) throw SeatLost", "if (false) throw SeatLost")],
    ),
    seeded("reap does not count aborted", UPDATES, [(ABORTED, f"if (false) {ABORTED}")]),
    seeded(
        "reap counts aborted twice",
        UPDATES,
        [(ABORTED, ABORTED.replace("store(", "store(words.aborted.load(std::memory_order_relaxed) + "))],
        schedules=5_000,
    ),
    seeded(
        "reap forgets what the dead one held",
        UPDATES,
        [("        ParamStore::vacate(*region_, seat);\n", "        its.taken.store(0);\n")],
    ),
    seeded(
        "hogwild: counted in place",
        HOGWILD,
        [(COUNTED, COUNTED.replace("(published + 1)", "published") + " " + COUNTED)],
    ),
    seeded(
        "hogwild: published before it is counted",
        HOGWILD,
        [(COUNTED, ""), (PUBLISHED, PUBLISHED + " " + COUNTED)],
    ),
    weaker("hogwild: a tally is written relaxed", HOGWILD, TALLY_STORE, "relaxed", schedules=100_000),
    weaker("hogwild: a tally is read relaxed", HOGWILD, TALLY_LOAD, "relaxed", schedules=100_000),
    seeded("hogwild: a tally is read once", HOGWILD, [(SAME_TALLY, "return tally;")]),
    weaker("hogwild: published relaxed", HOGWILD, PUBLISHED, "relaxed"),
    seeded(
        "hogwild: the version counts steps that were begun",
        UPDATES,
        [(LEDGER_AT, LEDGER_AT + " if (hogwild()) sum.at.version = hogwild_.version();")],
    ),
    # the log
    weaker("log_written relaxed", LOG, "words.log_written.store(written + 1, std::memory_order_release)", "relaxed"),
    weaker("log_written read relaxed", LOG, "words.log_written.load(std::memory_order_acquire)", "relaxed"),
    weaker("log_read relaxed", LOG, "words.log_read.store(from + n, std::memory_order_release)", "relaxed"),
    weaker("log_read read relaxed", LOG, "words.log_read.load(std::memory_order_acquire)", "relaxed"),
    seeded("full log overwritten", LOG, [(LOG_ROOM, LOG_ROOM.replace(">=", ">"))]),
    seeded(
        "room in the log by <",
        LOG,
        [(LOG_ROOM, "written >= words.log_read.load(std::memory_order_acquire) + region_->layout().log_rows")],
    ),
    # what wraps around
    seeded("consumed compared by <", RECORD, [("consumed[w] != published; ++n", "consumed[w] < published; ++n")]),
    seeded("settled compared by <", UPDATES, [("return static_cast<std::int64_t>(a - b) > 0;", "return a > b;")]),
    seeded(
        "version compared with the bits of the word",
        UPDATES,
        [("return known_version_ + ((word - (known_version_ << 16)) >> 16);", "return word >> 16;")],
    ),
    seeded("signal compared by <", UPDATES, [("static_cast<std::int32_t>(now - said) > 0", "now > said")]),
    seeded(
        "a worker of queue compares by <",
        UPDATES,
        [
            (
                "static_cast<std::int32_t>(seen - static_cast<std::uint32_t>(sequence)) >= 0",
                "seen >= static_cast<std::uint32_t>(sequence)",
            )
        ],
    ),
    # the queue's signals
    weaker("consumed_signal relaxed", UPDATES, SIGNAL, "relaxed", schedules=10_000),
    weaker(
        "consumed_signal read relaxed",
        UPDATES,
        "seen = consumed.load(std::memory_order_acquire)",
        "relaxed",
        schedules=10_000,
    ),
    weaker("pushed_signal relaxed", UPDATES, PUSHED, "relaxed"),
    weaker("pushed_signal read relaxed", UPDATES, "seen = pushed.load(std::memory_order_acquire)", "relaxed"),
    seeded("the learner is not woken", UPDATES, [("        futex_wake_all(pushed);\n", "")]),
    seeded("the worker is not woken", UPDATES, [("                futex_wake_all(signal);\n", "")]),
    seeded(
        "the learner signals after its commit only",
        UPDATES,
        [(WAKE, ""), (DRAINED, DRAINED.replace(";", ", wake_consumed(target);"))],
        schedules=20_000,
    ),
    # what is applied
    seeded("a gradient that is not finite is applied", RECORD, [("if (tag.nonfinite) {", "if (false) {")]),
    seeded(
        "another's gradient is consumed and not applied",
        RECORD,
        [("if (tag.nonfinite) {", "if (tag.nonfinite || (w == 1 && header.counts.applied > 2)) {")],
    ),
    seeded("stale ones are not told to their worker", RECORD, [("++its.sums.rejected_stale;", "")]),
    # each worker's share, and the staleness of its gradients
    seeded(
        "a worker's share is not carried over", RECORD, [("shares(from), workers * sizeof(Share)", "shares(from), 0")]
    ),
    seeded("a worker is not told the staleness", RECORD, [("        its.staleness = staleness;\n", "")]),
    seeded("an heir counts what was counted", UPDATES, [(COUNTED_BEFORE, "counted_ = 0;")]),
    seeded(
        "a staleness is counted before it is said to be",
        UPDATES,
        [(COUNTING, ""), (COUNTED_ONE, f"{COUNTED_ONE}\n        {COUNTING}")],
        schedules=20_000,
    ),
    seeded(
        "a record of rejections alone has no parameters",
        RECORD,
        [("if (!written && n > 0) copy_vectors(region_->vectors(from), region_->vectors(target));", "")],
    ),
    seeded(
        "every gradient steps from the old record",
        RECORD,
        [("written ? target : from, target", "from, target")],
    ),
    seeded(
        "submit does not settle what was left",
        UPDATES,
        [("known_consumed_ != before && !settle_earlier(before)", "false")],
    ),
]

# No bugs: the gate passes them, and why it may.
WEAKER_WOULD_DO = [
    (
        weaker("first look relaxed", STORE, "word = current.load(std::memory_order_acquire)", "relaxed"),
        "only a guess: what counts is the second look",
    ),
    (
        weaker("commit release", STORE, COMMIT, "release"),
        "base was acquired when it was protected. The pair with hazard words needs no seq_cst commit: a claimer looks "
        "at current by a seq_cst load, and a second look that is later in S returns no older word than that",
    ),
    (
        weaker("owner taken acquire", STORE, CLAIM, "acquire"),
        "from the release that freed the word it knows the commit; the looks after it are seq_cst themselves",
    ),
    (weaker("vacate frees owner words release", STORE, VACATE_OWNER, "release"), "nothing is read afterwards"),
    (
        weaker("consumed_signal release", UPDATES, SIGNAL, "release"),
        "nothing is read afterwards; what an earlier drainer released goes on through the read-modify-write",
    ),
    (
        seeded("commit compares the record without its version", STORE, [(BUILT, f"{SAME_RECORD}\n        {BUILT}")]),
        "base is protected, so it cannot be claimed and become current again",
    ),
    (
        seeded("a build with an outdated base goes on", RECORD, [("if (!store.is_current(base)) return 0;", "")]),
        "its commit fails: it only takes longer",
    ),
    (
        seeded("a pool of two records for each seat", LAYOUT, [(POOL, "records(2 * (c.workers + 2))")]),
        "who committed last protects the current record or owns none, so one less is held than the seats could hold "
        "(the bare store in test_param_store holds them all)",
    ),
]
