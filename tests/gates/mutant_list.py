"""Wrong versions of the core that its tests and native gates must catch; the explorer's: mutants_schedules.py."""

from __future__ import annotations

from mutant import Mutant

PUBLISH = "words.published.store(sequence, std::memory_order_release);"
LOOK = "tag.nonfinite = !tag.known_finite"
COMMIT = "current.compare_exchange_strong(base, next, std::memory_order_seq_cst)"
NEXT = "                ++consumed[w];\n"
COPY = "buffer_.copy(w, consumed[w], grad_)"
RELEASED = "region_->seat(seat_).hazard.store(0, std::memory_order_release)"
FLOAT_STORE = "AtomicRef<float>(to[i]).store(from[i], std::memory_order_relaxed);"
TAKEN = "words.log_read.store(from + n, std::memory_order_release);"
WRITTEN = "words.log_written.store(written + 1, std::memory_order_release);"
MET = "meetings_.store(seen + 1, std::memory_order_release);"

MUTANTS = [
    Mutant(
        "published without release, by threads",
        (("grad_buffer.hpp", PUBLISH, PUBLISH.replace("release", "relaxed")),),
        "test_grad_buffer",
        "tsan",
        "data race",
    ),
    Mutant(
        "a meeting without release, by threads",
        (("team.hpp", MET, MET.replace("release", "relaxed")),),
        "test_team",
        "tsan",
        "data race",
    ),
    Mutant(
        "blocks added from the last",
        (("gradient.hpp", "std::size_t b = 1; b < blocks; ++b)", "std::size_t b = blocks; --b > 0;)"),),
        "test_team",
        says="CHECK failed: other[0] > 1.0F",
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
        "statistics are replaced in place",
        (
            ("statistics.hpp", "region_->statistics(w, next)", "region_->statistics(w, 0)"),
            ("statistics.hpp", "region_->statistics(w, now)", "region_->statistics(w, 0)"),
        ),
        "test_statistics",
    ),
    Mutant(
        "statistics are not looked at again",
        (("statistics.hpp", "if (after == now) return;", "return;"),),
        "test_statistics",
    ),
    Mutant(
        "statistics are told before they are there",
        (
            ("statistics.hpp", "        written.store(next, std::memory_order_release);\n", ""),
            (
                "statistics.hpp",
                "std::uint64_t* copy = region_->statistics(w, next);",
                "std::uint64_t* copy = region_->statistics(w, next); written.store(next, std::memory_order_release);",
            ),
        ),
        "test_statistics",
    ),
    Mutant(
        "learner signals after its commit only",
        (
            ("updates.hpp", "wake_consumed(ParamStore::record_of(base));", ""),
            ("updates.hpp", "applied += n;\n        }", "applied += n, wake_consumed(target);\n        }"),
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
        "sines are taken for proved",
        (("sincos.hpp", "0.001 + 0.9 * z + (z < 0.0155 ? 0.0 : 0.02)", "0.0 * z"),),
        "test_cartpole",
        says="sincos_is_exact()",
    ),
    Mutant(
        "the self-test always passes",
        (
            ("sincos.hpp", "0.001 + 0.9 * z + (z < 0.0155 ? 0.0 : 0.02)", "0.0 * z"),
            ("sincos.hpp", "exact = sincos_mismatches(256) == 0", "exact = true"),
        ),
        "test_cartpole",
    ),
    Mutant(
        "stale gradients applied",
        (("next_record.hpp", "if (staleness > config.max_staleness) {", "if (false) {"),),
        "test_updates",
        says="rejected_stale",
    ),
    Mutant(
        "clipped when applied, but not what is at hand",
        (("next_record.hpp", " && region_->config().optimizer.max_grad_norm <= 0.0", ""),),
        "test_updates_threads",
    ),
    Mutant(
        "entries of a record that is built upon are not kept",
        (("trace.hpp", "        publish(from);\n", ""),),
        "test_trace",
        says="read_at == read_at",
    ),
    Mutant(
        "entries kept one place too far",
        (("trace.hpp", "trace_words(first + i)[k]", "trace_words(first + i + (first > 0 ? 1 : 0))[k]"),),
        "test_trace",
        says="read_at",
    ),
    Mutant(
        "entries kept by the next builder's commit only where it succeeds",
        (
            ("trace.hpp", "        publish(from);\n", ""),
            (
                "trace.hpp",
                "        block(target).added = 0;",
                "        block(target).added = 0;\n        if (from % 2 == 0) publish(from);",
            ),
        ),
        "test_trace",
        says="read_at",
    ),
    Mutant(
        "a record goes on with the entries it had before",
        (("trace.hpp", "block(target).added = 0;", ""),),
        "test_trace",
    ),
    Mutant(
        "the last record's entries are left out",
        (("trace.hpp", "if (n > published)", "if (n > published + 1)"),),
        "test_trace",
    ),
    Mutant(
        "an entry does not say who had died before",
        (("updates.hpp", "tag.incarnation = incarnation_;", ""),),
        "test_trace",
        says="e.incarnation == incarnation",
    ),
    # the native gates
    Mutant(
        "one applied in another's place",
        (("next_record.hpp", COPY, COPY.replace("consumed[w]", "consumed[w] - (n == 1 ? 1 : 0)")),),
        "gate_conservation",
        says="params[i] == expected[i]",
        arguments=("pushes=200000", "floats=65"),
    ),
    Mutant(
        "applied, not consumed",
        (("next_record.hpp", NEXT, "if (n != 1) " + NEXT.strip()),),
        "gate_conservation",
        says="is == should_be",
        arguments=("pushes=200000", "floats=65", "workers=3"),
    ),
    Mutant(
        "consumed, not applied",
        (("next_record.hpp", "written |= apply(", "if (n != 1) written |= apply("),),
        "gate_conservation",
        says="version >= at_least",
        arguments=("pushes=200000", "floats=65", "workers=3"),
    ),
    Mutant(
        "submit does not wait for the learner",
        (
            (
                "updates.hpp",
                "(seen - static_cast<std::uint32_t>(sequence))",
                "(seen + 1 - static_cast<std::uint32_t>(sequence))",
            ),
        ),
        "gate_conservation",
        says="version >= at_least",
        arguments=("pushes=20000", "floats=65", "scheme=queue"),
    ),
    Mutant(
        "published before the payload, by kills",
        (("grad_buffer.hpp", PUBLISH, ""), ("grad_buffer.hpp", LOOK, PUBLISH + LOOK)),
        "gate_kills",
        says="params[i] == expected[i]",
        arguments=("kills=200",),
    ),
    Mutant(
        "the dead keep their records",
        (("param_store.hpp", "region.owner(r).compare_exchange_strong(its, 0, std::memory_order_acq_rel);", ""),),
        "gate_kills",
        says="blocked",
        arguments=("kills=200",),
    ),
    Mutant(
        "a dead holder's lock is not made consistent",
        (("wait.hpp", "pthread_mutex_consistent(&mutex_);", ""),),
        "gate_kills",
        says="blocked",
        arguments=("kills=200", "scheme=lock"),
    ),
    Mutant(
        "lockfree waits for a lock",
        (
            (
                "updates.hpp",
                "case UpdateScheme::lockfree: build_until_consumed(sequence, at_hand); return true;",
                "case UpdateScheme::lockfree: return settle_locked(sequence, at_hand);",
            ),
        ),
        "gate_stops",
        says="blocked",
        arguments=("stops=100", "stop_ms=5"),
    ),
    Mutant(
        "hazard released before the read",
        (("updates.hpp", "plain_read(region_->vectors(record).params, params.size_bytes());", "store_.unprotect();"),),
        "gate_stops",
        says="torn",
        arguments=("stops=100", "stop_ms=5"),
    ),
    Mutant(
        "waits for who protects a record",
        (
            (
                "param_store.hpp",
                "== r + 1) return true;",
                "== r + 1) return true;\n"
                "        else if (s != seat_ && region_->seat(s).hazard.load() != 0) usleep(500);",
            ),
        ),
        "gate_stops",
        says="below the mark",
        arguments=("stops=40", "stop_ms=20"),
    ),
    Mutant(
        "a single gradient is counted as merged",
        (("next_record.hpp", "sums.merged += tag.n_summed - 1;", "sums.merged += tag.n_summed;"),),
        "gate_stops",
        says="merged == 0U",
        arguments=("stops=10", "stop_ms=5"),
    ),
    Mutant(
        "the last float is not looked at",
        (("grad_buffer.hpp", "i < n; ++i) any |=", "i + 1 < n; ++i) any |="),),
        "gate_nonfinite",
        arguments=("pushes=200",),
    ),
    Mutant(
        "after a rejected gradient built on the old record",
        (("next_record.hpp", "written |= apply(", "written = apply("),),
        "gate_nonfinite",
        arguments=("pushes=200",),
    ),
    Mutant(
        "hogwild counts a version before it looks",
        (
            (
                "hogwild.hpp",
                "if (has_nonfinite(grad.data(), grad.size())) {",
                "if (has_nonfinite(grad.data(), grad.size())) { region_->control().hogwild_version.fetch_add(1);",
            ),
        ),
        "gate_nonfinite",
        arguments=("pushes=200",),
    ),
    *(
        Mutant(f"{name}, by races", ((header, old, new),), "gate_races", "tsan", "data race", ("pushes=20000",))
        for name, header, old, new in (
            ("hazard released without release", "param_store.hpp", RELEASED, RELEASED.replace("release)", "relaxed)")),
            ("commit without release", "param_store.hpp", COMMIT, COMMIT.replace("seq_cst", "relaxed")),
            ("hogwild stores plain floats", "hogwild.hpp", FLOAT_STORE, "to[i] = from[i];"),
            ("log row taken without release", "event_log.hpp", TAKEN, TAKEN.replace("release", "relaxed")),
        )
    ),
]
