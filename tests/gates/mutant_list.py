"""Wrong versions of the core that its tests and native gates must catch; the explorer's: mutants_schedules.py."""

from __future__ import annotations

from mutant import Mutant

PUBLISH = "words.published.store(sequence, std::memory_order_release);"
LOOK = "tag.nonfinite = has_nonfinite("
COMMIT = "current.compare_exchange_strong(base, next, std::memory_order_seq_cst)"
WRITTEN = "words.log_written.store(written + 1, std::memory_order_release);"

MUTANTS = [
    Mutant(
        "published without release, by threads",
        (("grad_buffer.hpp", PUBLISH, PUBLISH.replace("release", "relaxed")),),
        "test_grad_buffer",
        "tsan",
        "data race",
    ),
    Mutant(
        "published before the payload, by a test",
        (("grad_buffer.hpp", PUBLISH, ""), ("grad_buffer.hpp", LOOK, PUBLISH + LOOK)),
        "test_grad_buffer",
        says="published(0) == 0U",
    ),
    Mutant(
        "full ring overwritten, by a test",
        (("grad_buffer.hpp", "published - consumed >= region_", "published - consumed > region_"),),
        "test_grad_buffer",
    ),
    Mutant(
        "claim ignores hazards, by a test",
        (("param_store.hpp", " && !hazarded(r)", ""),),
        "test_param_store",
        says="CHECK failed: uniform",
    ),
    Mutant(
        "protect does not look again",
        (("param_store.hpp", "if (again == word) return word;", "if (again != 0 || word == 0) return word;"),),
        "test_every_store",
        says="reader.is_current(seen)",
    ),
    Mutant(
        "commit without release, by threads",
        (("param_store.hpp", COMMIT, COMMIT.replace("seq_cst", "relaxed")),),
        "test_param_store",
        "tsan",
        "data race",
    ),
    Mutant(
        "pool too small", (("layout.hpp", "(c.workers + 2) + 2)", "(c.workers + 2))"),), "test_param_store", says=""
    ),
    Mutant(
        "log row published without release, by threads",
        (("event_log.hpp", WRITTEN, WRITTEN.replace("release", "relaxed")),),
        "test_event_log",
        "tsan",
        "data race",
    ),
    Mutant(
        "learner signals after its commit only",
        (
            ("updates.hpp", "wake_consumed(ParamStore::record_of(base));", ""),
            ("updates.hpp", "consumed += n;\n            } else", "consumed += n;\n wake_consumed(target);\n } else"),
        ),
        "test_every_store",
        says="waited 300 ms for the learner",
    ),
    Mutant(
        "another's gradient consumed but not applied",
        (("next_record.hpp", "if (tag.nonfinite) {", "if (tag.nonfinite || (w > 0 && from == target)) {"),),
        "test_updates",
    ),
    Mutant(
        "reap forgets what was begun",
        (
            (
                "updates.hpp",
                "words.aborted.store(words.begun.load(std::memory_order_relaxed) - ",
                "words.aborted.store(0 * ",
            ),
        ),
        "test_every_store",
        says="l.published + l.aborted",
    ),
    Mutant(
        "a lost session vacates the seat",
        (("updates.hpp", "if (holds_seat()) ParamStore", "ParamStore"),),
        "test_updates",
        says="region.seat(0).taken.load() == 1U",
    ),
    Mutant(
        "a lost session goes on pushing",
        (("updates.hpp", "if (!holds_seat()) throw SeatLost(", "if (false) throw SeatLost("),),
        "test_updates",
        says="did not throw SeatLost",
    ),
    Mutant(
        "numbers compared without wrap-around",
        (("updates.hpp", "return static_cast<std::int64_t>(a - b) > 0;", "return a > b;"),),
        "test_updates",
    ),
    Mutant(
        "stale gradients applied",
        (("next_record.hpp", "if (staleness > config.max_staleness) {", "if (false) {"),),
        "test_updates",
        says="rejected_stale",
    ),
]
