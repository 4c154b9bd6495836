// Translation only: the shared region and its sessions as Python sees them.
#include <pthread.h>

#include <atomic>
#include <cmath>
#include <limits>
#include <memory>
#include <optional>
#include <system_error>

#include "fastac/dense.hpp"
#include "session.hpp"

using namespace fastac;

namespace {

template <class Enum>
struct Name {
    const char* text;
    Enum value;
};
constexpr Name<UpdateScheme> scheme_names[] = {
    {"lockfree", UpdateScheme::lockfree}, {"lock", UpdateScheme::lock}, {"queue", UpdateScheme::queue}, {"hogwild", UpdateScheme::hogwild}};
constexpr Name<OptimizerKind> optimizer_names[] = {{"sgd", OptimizerKind::sgd}, {"rmsprop", OptimizerKind::rmsprop}, {"adam", OptimizerKind::adam}, {"sum", OptimizerKind::sum}};
constexpr Name<Target> target_names[] = {{"add_params", Target::add_params}, {"set_params", Target::set_params}, {"add_state", Target::add_state}};
constexpr Name<StalenessLr> staleness_lr_names[] = {{"constant", StalenessLr::constant}, {"inverse", StalenessLr::inverse}};
constexpr const char* submitted_names[] = {"applied", "rejected_nonfinite", "rejected_stale", "stopped"};

template <class Enum, std::size_t N>
Enum parse(const Name<Enum> (&names)[N], const py::str& text, const char* field) {
    std::string known;
    for (const auto& name : names) {
        if (text.equal(py::str(name.text))) return name.value;
        known += (known.empty() ? "" : ", ") + std::string(name.text);
    }
    throw py::value_error(std::string(field) + ": expected one of " + known + ", got " + written(text));
}

template <class Enum, std::size_t N>
py::tuple texts(const Name<Enum> (&names)[N]) {
    py::tuple all(N);
    for (std::size_t i = 0; i < N; ++i) all[i] = names[i].text;
    return all;
}

py::dict to_dict(const Counts& counts, std::uint64_t env_steps) {
    py::dict d;
    d["env_steps"] = env_steps;
    d["applied"] = counts.applied;
    d["merged"] = counts.merged;
    d["rejected_nonfinite"] = counts.rejected_nonfinite;
    d["rejected_stale"] = counts.rejected_stale;
    d["amended"] = counts.amended;
    d["staleness_sum"] = counts.staleness_sum;
    d["staleness_max"] = counts.staleness_max;
    d["staleness"] = py::array_t<std::uint64_t>(staleness_buckets, counts.staleness);
    return d;
}

py::dict to_dict(const Snapshot& s) {
    py::dict d = to_dict(s.counts, s.env_steps);
    d["version"] = s.version;
    return d;
}

GradientTag gradient_tag(std::uint64_t version_read, std::uint64_t env_steps, double learning_rate, std::uint32_t n_summed) {
    expect_rate(learning_rate);
    if (n_summed < 1) throw py::value_error("n_summed: expected at least 1, got 0");
    return {version_read, env_steps, learning_rate, n_summed, false, false};
}

/// n times read, push, settle, without the GIL: what `fastac bench updates`, `fastac check` and the tests of
/// conservation run. grads float32[M, P]: the gradient with sequence number s is row (s - 1) % M, so that whoever knows
/// how many were published knows their sum. Returns the seconds spent in each of the three.
std::tuple<double, double, double> submit_many(Session& session, std::span<const float> grads, std::uint64_t n, double learning_rate) {
    const std::size_t p = session.region().layout().parameters;
    std::vector<float> params(p);
    Clock::duration spent[3] = {};
    const bool in_place = session.region().config().scheme == UpdateScheme::hogwild;
    // What was pushed in this seat and not settled: the ring may be full of it.
    if (!in_place) session.settle(session.published(session.seat()));
    for (std::uint64_t i = 0; i < n && !session.stop_requested(); ++i) {
        const auto t0 = Clock::now();
        const GradientTag tag{session.read(params).version, 1, learning_rate, 1, false, false};
        const std::span<const float> grad = grads.subspan(session.published(session.seat()) % (grads.size() / p) * p, p);
        const auto t1 = Clock::now();
        const auto sequence = in_place ? std::nullopt : session.push(grad, tag);
        const auto t2 = Clock::now();
        if (in_place) session.submit(grad, tag);
        else session.settle(sequence.value());
        spent[0] += t1 - t0;
        spent[1] += t2 - t1;
        spent[2] += Clock::now() - t2;
    }
    const auto s = [](Clock::duration d) { return std::chrono::duration<double>(d).count(); };
    return {s(spent[0]), s(spent[1]), s(spent[2])};
}

FASTAC_CLONES static void add(float* sum, const float* grad, std::size_t n) noexcept {
    FASTAC_INDEPENDENT
    for (std::size_t i = 0; i < n; ++i) sum[i] += grad[i];
}

/// n times a push of a gradient float32[P] that nobody contends for (read before it, settled after it, outside of the
/// clock), and beside each the plain way to hand it over: memcpy to one array, addition to another. Which of the two
/// comes first, and brings the gradient into the cache, changes. Before the clock runs, the ring has been filled twice:
/// the first time the system still gives out its pages. Returns the seconds spent in each, with one look at the clock in
/// every time.
std::pair<double, double> push_beside_copy_and_add(std::uint32_t p, std::uint64_t n) {
    const SharedRegion region = SharedRegion::create({.parameters = p, .optimizer = {.kind = OptimizerKind::sgd}}, 0);
    std::vector<float> params(p);
    // As the native engine's gradient and the ring's slots are aligned: neither way is slowed down by split cache lines.
    dense::Floats grad(p), copied(p), sum(p);
    std::fill_n(grad.at(0), p, 1.0F);
    Session(region, 1).initialize(params, {}, 0, 0);
    Session session(region, 0);
    Clock::duration spent[2] = {};
    const std::uint64_t warm_up = n == 0 ? 0 : 2 * region.layout().slots;
    for (std::uint64_t i = 0; i < warm_up || i - warm_up < n; ++i) {
        const GradientTag tag{session.read(params).version, 1, 1.0, 1, false, false};
        std::uint64_t sequence = 0;
        for (const std::uint64_t which : {i % 2, 1 - i % 2}) {
            const auto started = Clock::now();
            if (which == 0) {
                sequence = session.push({grad.at(0), p}, tag).value();
            } else {
                std::memcpy(copied.at(0), grad.at(0), p * sizeof(float));
                __asm__ volatile("" : : "r"(copied.at(0)) : "memory");  // somebody reads it, for all the compiler knows
                add(sum.at(0), grad.at(0), p);
            }
            if (i >= warm_up) spent[which] += Clock::now() - started;
        }
        session.settle(sequence);
    }
    const auto s = [](Clock::duration d) { return std::chrono::duration<double>(d).count(); };
    return {s(spent[0]), s(spent[1])};
}

void bind_region(py::module_& m) {
    py::class_<PyRegion, std::shared_ptr<PyRegion>> regions(m, "Region");
    refuse_copies(regions, "it is shared; another process attaches to it by its `fd` and `nonce`");
    regions
        .def_static(
            "create",
            [](std::uint32_t workers, std::uint32_t parameters, const py::str& scheme, const py::str& optimizer, double alpha, double beta1,
               double beta2, double eps, bool eps_inside_root, double max_grad_norm, std::uint32_t slots, std::uint32_t log_rows,
               std::uint32_t wait_deadline_ms, std::optional<std::uint64_t> max_staleness, const py::str& staleness_lr, std::uint64_t trace_entries,
               std::uint32_t statistics, std::uint64_t nonce) {
                const OptimizerConfig optimizer_config{parse(optimizer_names, optimizer, "optimizer"), eps_inside_root ? 1U : 0U, alpha, beta1, beta2, eps, max_grad_norm};
                const RegionConfig config{workers, parameters, slots, log_rows, parse(scheme_names, scheme, "scheme"), wait_deadline_ms,
                                          max_staleness.value_or(no_staleness_limit), parse(staleness_lr_names, staleness_lr, "staleness_lr"), optimizer_config, trace_entries, statistics};
                return std::make_shared<PyRegion>(SharedRegion::create(config, nonce));
            },
            py::kw_only(), py::arg("workers"), py::arg("parameters"), py::arg("scheme") = "lockfree", py::arg("optimizer") = "rmsprop",
            py::arg("alpha") = 0.99, py::arg("beta1") = 0.9, py::arg("beta2") = 0.999, py::arg("eps") = 1e-5, py::arg("eps_inside_root") = false,
            py::arg("max_grad_norm") = 0.0, py::arg("slots") = 4, py::arg("log_rows") = 1024, py::arg("wait_deadline_ms") = 30'000,
            py::arg("max_staleness") = py::none(), py::arg("staleness_lr") = "constant", py::arg("trace_entries") = 0, py::arg("statistics") = 0, py::arg("nonce") = 0)
        .def_static(
            "attach", [](int fd, std::uint64_t nonce) { return std::make_shared<PyRegion>(SharedRegion::attach(fd, nonce)); }, py::arg("fd"), py::arg("nonce"))
        .def_property_readonly("fd", [](const PyRegion& r) { return r.fd(); })
        .def_property_readonly("nonce", [](const PyRegion& r) { return r.header().nonce; })
        .def_property_readonly("nbytes", [](const PyRegion& r) { return r.layout().bytes; })
        .def_property_readonly("workers", [](const PyRegion& r) { return r.layout().workers; })
        .def_property_readonly("parameters", [](const PyRegion& r) { return r.layout().parameters; })
        .def_property_readonly("slots", [](const PyRegion& r) { return r.layout().slots; })
        .def_property_readonly("state_vectors", [](const PyRegion& r) { return state_vectors(r.config().optimizer.kind); })
        .def_property_readonly("scheme", [](const PyRegion& r) { return scheme_names[static_cast<std::size_t>(r.config().scheme)].text; });
}

void bind_session(py::module_& m) {
    using NoGil = py::gil_scoped_release;
    py::class_<PySession, std::shared_ptr<PySession>> sessions(m, "Session");
    refuse_copies(sessions, "a seat has one holder; open a session of your own at another seat");
    sessions
        .def(py::init([](const std::shared_ptr<PyRegion>& region, std::size_t seat) { return std::make_shared<PySession>(region, seat); }),
             py::arg("region").none(false), py::arg("seat"))
        .def("close", &PySession::close)
        .def_property_readonly("seat", [](const PySession& s) { return s.flags().seat(); })
        .def("initialize",
             [](const PySession& s, const py::object& params, const py::object& state, std::uint64_t version, std::uint64_t env_steps) {
                 const auto p = s.vector(params, "params", Access::read);
                 if (state.is_none()) return s.get()->initialize(p, {}, version, env_steps);
                 s.get()->initialize(p, expect_array<float>(state, "state", {s.states(), s.parameters()}), version, env_steps);
             },
             py::arg("params"), py::arg("state") = py::none(), py::arg("version") = 0, py::arg("env_steps") = 0)
        .def("read",
             [](const PySession& s, const py::object& params) {
                 const Snapshot now = s.get()->read(s.vector(params, "params", Access::write));
                 return py::make_tuple(now.version, now.env_steps);
             },
             py::arg("params"))
        .def("submit",
             [](const PySession& s, const py::object& grad, std::uint64_t version_read, std::uint64_t env_steps, double learning_rate, std::uint32_t n_summed) {
                 const auto session = s.worker();
                 const auto g = s.vector(grad, "grad", Access::read);
                 const GradientTag tag = gradient_tag(version_read, env_steps, learning_rate, n_summed);
                 Submitted how;
                 {
                     // The caller's array is alive and, by contract, not written to until we return.
                     const NoGil unlocked;
                     how = session->submit(g, tag);
                 }
                 return submitted_names[static_cast<std::size_t>(how)];
             },
             py::arg("grad"), py::kw_only(), py::arg("version_read"), py::arg("env_steps"), py::arg("learning_rate"), py::arg("n_summed") = 1)
        .def("amend",
             [](const PySession& s, const py::object& values, const py::str& target, std::uint64_t env_steps) {
                 const auto session = s.worker();
                 const auto v = s.vector(values, "values", Access::read);
                 const GradientTag tag{.version_read = session->snapshot().version, .env_steps = env_steps, .target = parse(target_names, target, "target")};
                 Submitted how;
                 {
                     const NoGil unlocked;
                     how = session->submit(v, tag);
                 }
                 return submitted_names[static_cast<std::size_t>(how)];
             },
             py::arg("values"), py::kw_only(), py::arg("target"), py::arg("env_steps") = 0)
        .def("push",
             [](const PySession& s, const py::object& grad, std::uint64_t version_read, std::uint64_t env_steps, double learning_rate) {
                 return s.worker()->push(s.vector(grad, "grad", Access::read), gradient_tag(version_read, env_steps, learning_rate, 1));
             },
             py::arg("grad"), py::kw_only(), py::arg("version_read"), py::arg("env_steps"), py::arg("learning_rate"))
        .def("settle",
             [](const PySession& s, std::uint64_t sequence) {
                 const auto session = s.worker();  // under the GIL: close() of another thread comes before or after
                 const NoGil unlocked;
                 return session->settle(sequence);
             },
             py::arg("sequence"))
        .def("submit_many",
             [](const PySession& s, const py::object& grads, std::uint64_t n, double learning_rate) {
                 const auto session = s.worker();
                 const auto g = expect_array<float>(grads, "grads", {any_length, s.parameters()});
                 if (g.empty()) throw py::value_error("grads: expected at least one gradient, got none");
                 expect_rate(learning_rate);
                 const NoGil unlocked;
                 return submit_many(*session, g, n, learning_rate);
             },
             py::arg("grads"), py::arg("n"), py::arg("learning_rate"))
        .def("log", [](const PySession& s, const py::object& row) {
                 return s.worker()->log(expect_array<double>(row, "row", {static_cast<py::ssize_t>(log_columns)}).data());
             }, py::arg("row"))
        .def("write_statistics",
             [](const PySession& s, const py::object& values) { s.worker()->write_statistics(expect_array<double>(values, "values", {s.statistics()}).data()); },
             py::arg("values"))
        .def("statistics",
             [](const PySession& s, std::size_t w) {
                 const auto session = s.get();
                 py::array_t<double> values(s.statistics());
                 session->read_statistics(s.check_worker(w), values.mutable_data());
                 return values;
             },
             py::arg("worker"))
        .def_property_readonly("go", [](const PySession& s) { return s.flags().go(); })
        .def_property_readonly("stop_requested", [](const PySession& s) { return s.flags().stop_requested(); })
        .def_property_readonly("held", [](const PySession& s) { return s.flags().held(); })
        .def("hold", [](const PySession& s, bool held) { s.flags().hold(held); }, py::arg("held"))
        .def("give_go", [](const PySession& s) { s.flags().give_go(); })
        .def("request_stop", [](const PySession& s) { s.flags().request_stop(); })
        .def("drain", [](const PySession& s) { return s.get()->drain(); }, py::call_guard<NoGil>())
        .def("serve", [](const PySession& s, std::uint32_t duration_ms) { return s.get()->serve(std::chrono::milliseconds(duration_ms)); },
             py::arg("duration_ms"), py::call_guard<NoGil>())
        .def("copy_record",
             [](const PySession& s, const py::object& params, const py::object& state) {
                 return to_dict(s.get()->copy_record(s.vector(params, "params", Access::write), expect_array<float>(state, "state", {s.states(), s.parameters()}, Access::write)));
             },
             py::arg("params"), py::arg("state"))
        .def("snapshot", [](const PySession& s) { return to_dict(s.get()->snapshot()); })
        .def("ledger",
             [](const PySession& s) {
                 const Ledger ledger = s.get()->ledger();
                 py::dict d = to_dict(ledger.at);
                 d["begun"] = ledger.begun;
                 d["published"] = ledger.published;
                 d["aborted"] = ledger.aborted;
                 d["pending"] = ledger.pending;
                 d["retries"] = ledger.retries;
                 d["canaries"] = ledger.canaries;
                 d["canaries_lost"] = ledger.canaries_lost;
                 return d;
             })
        .def("tallies",
             [](const PySession& s) {
                 const auto session = s.get();
                 py::list all;
                 for (std::size_t w = 0; w < session->region().layout().workers; ++w) {
                     const Tally tally = session->tally(w);
                     all.append(to_dict(tally.counts, tally.env_steps));
                 }
                 return all;
             })
        .def_property_readonly("staleness", [](const PySession& s) { return s.worker()->staleness(); })
        .def("read_log",
             [](const PySession& s, std::size_t w) {
                 const auto session = s.observer();
                 const std::size_t n = session->unread_log(s.check_worker(w));
                 py::array_t<double> rows({n, log_columns});
                 session->read_log(w, n, rows.mutable_data());
                 return rows;
             },
             py::arg("worker"))
        .def("trace",
             [](const PySession& s) {
                 const std::vector<TraceEntry> entries = s.get()->trace();
                 py::array_t<std::uint64_t> words({entries.size(), sizeof(TraceEntry) / sizeof(std::uint64_t)});
                 if (!entries.empty()) std::memcpy(words.mutable_data(), entries.data(), entries.size() * sizeof(TraceEntry));
                 return words;
             })
        .def("beat", [](const PySession& s) { s.get()->beat(); })
        .def("published", [](const PySession& s, std::size_t w) { return s.flags().published(s.check_worker(w)); }, py::arg("worker"))
        .def("heartbeat", [](const PySession& s, std::size_t seat) { return s.flags().heartbeat(s.check_seat(seat)); }, py::arg("seat"))
        .def("incarnation", [](const PySession& s, std::size_t seat) { return s.flags().incarnation(s.check_seat(seat)); }, py::arg("seat"))
        .def("reap", [](const PySession& s, std::size_t seat) { s.observer()->reap(s.check_seat(seat)); }, py::arg("seat"));
}

}  // namespace

void bind_shared(py::module_& m) {
    m.attr("LAYOUT_VERSION") = layout_version;
    m.attr("LOG_COLUMNS") = log_columns;
    py::tuple from(staleness_buckets);
    for (std::size_t k = 0; k < staleness_buckets; ++k) from[k] = staleness_from(k);
    m.attr("STALENESS_BUCKETS") = from;
    m.attr("MAX_WORKERS") = max_workers;
    m.attr("MAX_TRACE_ENTRIES") = max_trace_entries;
    m.attr("UPDATE_SCHEMES") = texts(scheme_names);
    // What a user may choose: those that make steps.
    m.attr("OPTIMIZERS") = py::make_tuple(optimizer_names[0].text, optimizer_names[1].text, optimizer_names[2].text);
    m.attr("STALENESS_LRS") = texts(staleness_lr_names);
    pthread_atfork(nullptr, nullptr, [] { forks.fetch_add(1, std::memory_order_relaxed); });
    py::register_local_exception_translator([](std::exception_ptr thrown) {
        try {
            if (thrown) std::rethrow_exception(thrown);
        } catch (const std::system_error& error) {
            PyErr_SetObject(PyExc_OSError, py::make_tuple(error.code().value(), error.what()).ptr());
        }
    });
    py::register_exception<WaitTimeout>(m, "WaitTimeout", PyExc_TimeoutError);
    py::register_exception<SeatLost>(m, "SeatLost", PyExc_RuntimeError);
    py::register_exception<SessionClosed>(m, "SessionClosed", PyExc_RuntimeError);
    py::register_exception<SessionInUse>(m, "SessionInUse", PyExc_RuntimeError);
    py::register_exception<SessionForked>(m, "SessionForked", PyExc_RuntimeError);
    bind_region(m);
    bind_session(m);
    m.def(
        "state_vectors", [](const py::str& optimizer) { return state_vectors(parse(optimizer_names, optimizer, "optimizer")); }, py::arg("optimizer"));
    m.def(
        "clip_grad_norm",
        [](const py::object& grad, double max_norm) {
            const auto g = expect_array<float>(grad, "grad", {any_length}, Access::write);
            if (std::isnan(max_norm)) throw py::value_error("max_norm: expected a number, got nan");
            return clip_grad_norm(g.data(), g.size(), max_norm);
        },
        py::arg("grad"), py::arg("max_norm"));
    m.def("push_beside_copy_and_add", &push_beside_copy_and_add, py::arg("parameters"), py::arg("n"), py::call_guard<py::gil_scoped_release>());
}
