"""Seeded bugs of the shared core that `gate_schedules` must catch: weakened orders, skipped looks, lost wrap-arounds."""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """A header of cpp/include/fastac with each old text, which it holds once, replaced by the new one."""

    name: str
    header: str
    replacements: list[tuple[str, str]]
    says: str  # what the gate must say, so that a failure for another reason does not count
    gate: str = "schedules"
    schedules: int = 2_000  # how many from seed 0 are enough


STORE, LOAD, CAS = ".store(", ".load(", ".compare_exchange_strong("


def order(header: str, name: str, text: str, weak: str, says: str, schedules: int = 2_000) -> Mutant:
    """`text` holds one memory order, which becomes `weak`."""
    start = text.index("std::memory_order_")
    end = start + len("std::memory_order_")
    while end < len(text) and (text[end].isalnum() or text[end] == "_"):
        end += 1
    return Mutant(
        name,
        header,
        [(text, text[:start] + f"std::memory_order_{weak}" + text[end:])],
        says,
        schedules=schedules,
    )


MUTANTS = [
    order(
        "grad_buffer.hpp",
        "published without release",
        "words.published.store(sequence, std::memory_order_release);",
        "relaxed",
        "",
    ),
    Mutant(
        "published before the payload",
        "grad_buffer.hpp",
        [
            ("words.published.store(sequence, std::memory_order_release);", ""),
            (
                "tag.nonfinite = has_nonfinite(",
                "words.published.store(sequence, std::memory_order_release); tag.nonfinite = has_nonfinite(",
            ),
        ],
        "",
    ),
    order("grad_buffer.hpp", "published read relaxed", "published.load(std::memory_order_acquire)", "relaxed", ""),
    Mutant(
        "full ring overwritten",
        "grad_buffer.hpp",
        [("published - consumed >= region_->layout().slots", "published - consumed > region_->layout().slots")],
        "",
    ),
    Mutant(
        "ring room by <",
        "grad_buffer.hpp",
        [("published - consumed >= region_->layout().slots", "published >= consumed + region_->layout().slots")],
        "",
    ),
    order(
        "param_store.hpp",
        "hazard relaxed",
        "hazard.store(record_of(word) + 1, std::memory_order_seq_cst)",
        "relaxed",
        "",
    ),
    order(
        "param_store.hpp",
        "hazard release",
        "hazard.store(record_of(word) + 1, std::memory_order_seq_cst)",
        "release",
        "",
    ),
    Mutant(
        "no second look",
        "param_store.hpp",
        [("if (again == word) return word;", "if (again != 0 || word == 0) return word;")],
        "",
    ),
    order("param_store.hpp", "second look acquire", "again = current.load(std::memory_order_seq_cst)", "acquire", ""),
    order("param_store.hpp", "second look relaxed", "again = current.load(std::memory_order_seq_cst)", "relaxed", ""),
    order("param_store.hpp", "first look relaxed", "word = current.load(std::memory_order_acquire)", "relaxed", ""),
    order("param_store.hpp", "hazarded relaxed", "hazard.load(std::memory_order_seq_cst) == r + 1", "relaxed", ""),
    order("param_store.hpp", "hazarded acquire", "hazard.load(std::memory_order_seq_cst) == r + 1", "acquire", ""),
    order(
        "param_store.hpp",
        "commit relaxed",
        "compare_exchange_strong(base, next, std::memory_order_seq_cst)",
        "relaxed",
        "",
    ),
    order(
        "param_store.hpp",
        "commit release",
        "compare_exchange_strong(base, next, std::memory_order_seq_cst)",
        "release",
        "",
    ),
    order(
        "param_store.hpp",
        "commit acquire",
        "compare_exchange_strong(base, next, std::memory_order_seq_cst)",
        "acquire",
        "",
    ),
    order(
        "param_store.hpp",
        "commit acq_rel",
        "compare_exchange_strong(base, next, std::memory_order_seq_cst)",
        "acq_rel",
        "",
    ),
    Mutant(
        "owner freed before the commit",
        "param_store.hpp",
        [
            (
                "const std::uint64_t next = pack(",
                "region_->owner(owned_).store(0, std::memory_order_release);\n        const std::uint64_t next = pack(",
            )
        ],
        "",
    ),
    order(
        "param_store.hpp",
        "owner freed relaxed (commit)",
        "region_->owner(std::exchange(owned_, none)).store(0, std::memory_order_release)",
        "relaxed",
        "",
    ),
    order("param_store.hpp", "owner freed relaxed (claim)", "owner.store(0, std::memory_order_release)", "relaxed", ""),
    order(
        "param_store.hpp",
        "unprotect relaxed",
        "region_->seat(seat_).hazard.store(0, std::memory_order_release)",
        "relaxed",
        "",
    ),
    Mutant("claim ignores hazards", "param_store.hpp", [(" && !hazarded(r)", "")], ""),
    Mutant(
        "claim ignores current",
        "param_store.hpp",
        [("record_of(region_->control().current.load(std::memory_order_seq_cst)) != r && ", "")],
        "",
    ),
    order(
        "param_store.hpp",
        "claim looks at current acquire",
        "record_of(region_->control().current.load(std::memory_order_seq_cst)) != r",
        "acquire",
        "",
    ),
    order(
        "param_store.hpp",
        "claim looks at current relaxed",
        "record_of(region_->control().current.load(std::memory_order_seq_cst)) != r",
        "relaxed",
        "",
    ),
    order(
        "param_store.hpp",
        "owner CAS relaxed",
        "static_cast<std::uint32_t>(seat_) + 1, std::memory_order_seq_cst)",
        "relaxed",
        "",
    ),
    order(
        "param_store.hpp",
        "owner CAS acquire",
        "static_cast<std::uint32_t>(seat_) + 1, std::memory_order_seq_cst)",
        "acquire",
        "",
    ),
    order(
        "param_store.hpp",
        "owner CAS release",
        "static_cast<std::uint32_t>(seat_) + 1, std::memory_order_seq_cst)",
        "release",
        "",
    ),
    Mutant(
        "owner word not swapped but stored",
        "param_store.hpp",
        [
            (
                "if (!owner.compare_exchange_strong(nobody, static_cast<std::uint32_t>(seat_) + 1, std::memory_order_seq_cst)) continue;",
                "owner.store(static_cast<std::uint32_t>(seat_) + 1 + nobody, std::memory_order_seq_cst);",
            )
        ],
        "",
    ),
    Mutant(
        "look before the owner word",
        "param_store.hpp",
        [
            (
                "std::uint32_t nobody = 0;\n",
                "std::uint32_t nobody = 0;\n            const bool free = record_of(region_->control().current.load(std::memory_order_seq_cst)) != r && !hazarded(r);\n",
            ),
            (
                "if (record_of(region_->control().current.load(std::memory_order_seq_cst)) != r && !hazarded(r)) {",
                "if (free) {",
            ),
        ],
        "",
    ),
    Mutant(
        "commit compares the record without its version",
        "param_store.hpp",
        [
            (
                "const std::uint64_t next = pack(",
                "if (const std::uint64_t now = region_->control().current.load(std::memory_order_seq_cst); record_of(now) == record_of(base)) base = now;\n        const std::uint64_t next = pack(",
            )
        ],
        "",
    ),
    Mutant(
        "commit does not compare",
        "param_store.hpp",
        [
            (
                "const std::uint64_t next = pack(",
                "base = region_->control().current.load(std::memory_order_seq_cst);\n        const std::uint64_t next = pack(",
            )
        ],
        "",
    ),
    Mutant(
        "vacate forgets owner words",
        "param_store.hpp",
        [("region.owner(r).compare_exchange_strong(its, 0, std::memory_order_acq_rel);", "static_cast<void>(its);")],
        "",
    ),
    Mutant(
        "vacate frees any owner word",
        "param_store.hpp",
        [
            (
                "std::uint32_t its = static_cast<std::uint32_t>(seat) + 1;",
                "std::uint32_t its = region.owner(r).load(std::memory_order_relaxed);",
            )
        ],
        "",
    ),
    order(
        "param_store.hpp",
        "vacate owner relaxed",
        "compare_exchange_strong(its, 0, std::memory_order_acq_rel)",
        "relaxed",
        "",
    ),
    order(
        "param_store.hpp",
        "vacate owner acquire",
        "compare_exchange_strong(its, 0, std::memory_order_acq_rel)",
        "acquire",
        "",
    ),
    order(
        "param_store.hpp",
        "vacate owner release",
        "compare_exchange_strong(its, 0, std::memory_order_acq_rel)",
        "release",
        "",
    ),
    Mutant(
        "vacate forgets the hazard",
        "param_store.hpp",
        [("region.seat(seat).hazard.store(0, std::memory_order_release);", "")],
        "",
    ),
    order(
        "param_store.hpp",
        "vacate hazard relaxed",
        "region.seat(seat).hazard.store(0, std::memory_order_release);",
        "relaxed",
        "",
    ),
    order(
        "param_store.hpp",
        "vacate taken relaxed",
        "region.seat(seat).taken.store(0, std::memory_order_release);",
        "relaxed",
        "",
    ),
    Mutant(
        "vacate frees the seat first",
        "param_store.hpp",
        [
            ("region.seat(seat).taken.store(0, std::memory_order_release);", ""),
            (
                "for (std::size_t r = 0; r < region.layout().records; ++r) {",
                "region.seat(seat).taken.store(0, std::memory_order_release);\n        for (std::size_t r = 0; r < region.layout().records; ++r) {",
            ),
        ],
        "",
    ),
    Mutant("lost session vacates", "updates.hpp", [("if (holds_seat()) ParamStore::vacate", "ParamStore::vacate")], ""),
    Mutant(
        "lost session goes on", "updates.hpp", [("if (!holds_seat()) throw SeatLost", "if (false) throw SeatLost")], ""
    ),
    Mutant(
        "reap does not count aborted",
        "updates.hpp",
        [
            (
                "words.aborted.store(words.begun.load(std::memory_order_relaxed) - words.published.load(std::memory_order_relaxed), std::memory_order_relaxed);",
                "static_cast<void>(words);",
            )
        ],
        "",
    ),
    Mutant(
        "reap counts aborted by adding",
        "updates.hpp",
        [
            (
                "words.aborted.store(words.begun",
                "words.aborted.store(words.aborted.load(std::memory_order_relaxed) + words.begun",
            )
        ],
        "",
    ),
    Mutant(
        "reap does not vacate",
        "updates.hpp",
        [("        ParamStore::vacate(*region_, seat);\n", "        its.taken.store(0, std::memory_order_release);\n")],
        "",
    ),
    order(
        "event_log.hpp",
        "log_written relaxed",
        "words.log_written.store(written + 1, std::memory_order_release)",
        "relaxed",
        "",
    ),
    order(
        "event_log.hpp", "log_written read relaxed", "words.log_written.load(std::memory_order_acquire)", "relaxed", ""
    ),
    order(
        "event_log.hpp", "log_read relaxed", "words.log_read.store(from + n, std::memory_order_release)", "relaxed", ""
    ),
    order("event_log.hpp", "log_read read relaxed", "words.log_read.load(std::memory_order_acquire)", "relaxed", ""),
    Mutant(
        "log room by <",
        "event_log.hpp",
        [
            (
                "written - words.log_read.load(std::memory_order_acquire) >= region_->layout().log_rows",
                "written >= words.log_read.load(std::memory_order_acquire) + region_->layout().log_rows",
            )
        ],
        "",
    ),
    Mutant(
        "log full overwritten",
        "event_log.hpp",
        [
            (
                "(std::memory_order_acquire) >= region_->layout().log_rows",
                "(std::memory_order_acquire) > region_->layout().log_rows",
            )
        ],
        "",
    ),
    Mutant(
        "consumed compared by <",
        "next_record.hpp",
        [("consumed[w] != published; ++n", "consumed[w] < published; ++n")],
        "",
    ),
    Mutant(
        "settled compared by <", "updates.hpp", [("return static_cast<std::int64_t>(a - b) > 0;", "return a > b;")], ""
    ),
    Mutant(
        "version compared with 64 bits",
        "updates.hpp",
        [("ahead(version_read << 16, version << 16)", "ahead(version_read, version)")],
        "",
    ),
    Mutant("signal compared by <", "updates.hpp", [("static_cast<std::int32_t>(now - said) > 0", "now > said")], ""),
    Mutant(
        "wait compared by <",
        "updates.hpp",
        [
            (
                "static_cast<std::int32_t>(seen - static_cast<std::uint32_t>(sequence)) >= 0",
                "seen >= static_cast<std::uint32_t>(sequence)",
            )
        ],
        "",
    ),
    Mutant(
        "slot index wrong at wrap",
        "shared_region.hpp",
        [("(sequence - 1) % layout_.slots", "(sequence - 1) % (layout_.slots + 1) % layout_.slots")],
        "",
    ),
    Mutant(
        "pool too small (2S)", "layout.hpp", [("records(2 * (c.workers + 2) + 2)", "records(2 * (c.workers + 2))")], ""
    ),
    Mutant(
        "pool too small (2S-1)",
        "layout.hpp",
        [("records(2 * (c.workers + 2) + 2)", "records(2 * (c.workers + 2) - 1)")],
        "",
    ),
    Mutant(
        "pool too small (2S-2)",
        "layout.hpp",
        [("records(2 * (c.workers + 2) + 2)", "records(2 * (c.workers + 2) - 2)")],
        "",
    ),
    Mutant("pool too small (2W)", "layout.hpp", [("records(2 * (c.workers + 2) + 2)", "records(2 * c.workers)")], ""),
    Mutant("pool too small (W+2)", "layout.hpp", [("records(2 * (c.workers + 2) + 2)", "records(c.workers + 2)")], ""),
    Mutant(
        "learner signals after its commit only",
        "updates.hpp",
        [
            ("            wake_consumed(ParamStore::record_of(base));\n", ""),
            (
                "                consumed += n;\n",
                "                consumed += n;\n                wake_consumed(target);\n",
            ),
        ],
        "",
    ),
    order(
        "updates.hpp", "signal relaxed", "compare_exchange_weak(said, now, std::memory_order_acq_rel, ", "relaxed", ""
    ),
    order(
        "updates.hpp", "signal release", "compare_exchange_weak(said, now, std::memory_order_acq_rel, ", "release", ""
    ),
    order("updates.hpp", "signal read relaxed", "seen = consumed.load(std::memory_order_acquire)", "relaxed", ""),
    order("updates.hpp", "pushed_signal relaxed", "pushed.fetch_add(1, std::memory_order_release)", "relaxed", ""),
    order("updates.hpp", "pushed_signal read relaxed", "seen = pushed.load(std::memory_order_acquire)", "relaxed", ""),
    Mutant("no wake of the learner", "updates.hpp", [("        futex_wake_all(pushed);\n", "")], ""),
    Mutant("no wake of the worker", "updates.hpp", [("                futex_wake_all(signal);\n", "")], ""),
    Mutant(
        "signal goes back",
        "updates.hpp",
        [("while (static_cast<std::int32_t>(now - said) > 0)", "while (now != said)")],
        "",
    ),
    Mutant("nonfinite applied", "next_record.hpp", [("if (tag.nonfinite) {", "if (false) {")], ""),
    Mutant(
        "another's gradient consumed but not applied",
        "next_record.hpp",
        [("if (tag.nonfinite) {", "if (tag.nonfinite || (w == 1 && header.counts.applied > 2)) {")],
        "",
    ),
    Mutant("stale not counted per worker", "next_record.hpp", [("++region_->stale(target)[w];", "")], ""),
    Mutant(
        "build goes on with an outdated base", "next_record.hpp", [("if (!store.is_current(base)) return 0;", "")], ""
    ),
    Mutant(
        "rejected record without vectors",
        "next_record.hpp",
        [("if (!written && n > 0) copy_vectors(from, target);", "")],
        "",
    ),
    Mutant(
        "first gradient steps from the old record each time",
        "next_record.hpp",
        [("written ? target : from, target", "from, target")],
        "",
    ),
    Mutant(
        "submit does not settle what was left",
        "updates.hpp",
        [("known_consumed_ != before && !settle(before)", "false")],
        "",
    ),
    Mutant(
        "read unprotects before it copies",
        "updates.hpp",
        [
            (
                "        plain_read(region_->vectors(record).params, params.size_bytes());\n",
                "        store_.unprotect();\n        plain_read(region_->vectors(record).params, params.size_bytes());\n",
            )
        ],
        "",
    ),
    order(
        "updates.hpp",
        "sitting down relaxed",
        "taken.compare_exchange_strong(free, 1, std::memory_order_acq_rel)",
        "relaxed",
        "",
    ),
    Mutant(
        "hogwild counts first",
        "hogwild.hpp",
        [
            ("        count_applied(counts, tag, staleness);\n", ""),
            ("        step_in_place(", "        count_applied(counts, tag, staleness);\n        step_in_place("),
        ],
        "",
    ),
    Mutant(
        "hogwild publishes before it steps",
        "hogwild.hpp",
        [
            (
                "        words.published.store(words.published.load(std::memory_order_relaxed) + 1, std::memory_order_release);\n",
                "",
            ),
            (
                "        const Result result = judge",
                "        words.published.store(words.published.load(std::memory_order_relaxed) + 1, std::memory_order_release);\n        const Result result = judge",
            ),
        ],
        "",
    ),
    Mutant(
        "hogwild reap does not publish",
        "updates.hpp",
        [("if (hogwild()) hogwild_.publish_what_was_counted(seat);", "")],
        "",
    ),
]
