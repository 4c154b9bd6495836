// Translation only: a worker's policy, envs and gradient in C++, as Python sees them.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fastac/worker.hpp"
#include "session.hpp"
#include "words.hpp"

namespace {

using namespace fastac;

constexpr const char* ended_names[] = {"not yet", "finished", "stopped", "diverged"};  // in the order of Worker::Ended

Activation activation_of(const py::str& name) {
    if (name.equal(py::str("tanh"))) return Activation::tanh;
    if (name.equal(py::str("relu"))) return Activation::relu;
    throw py::value_error("activation: expected 'tanh' or 'relu', got " + written(name));
}

template <class T>
void put(py::dict& into, const char* name, const std::vector<T>& values, std::vector<py::ssize_t> shape) {
    into[name] = py::array_t<T>(std::move(shape), values.data());
}

/// What a policy answers, some rows at a time.
py::tuple act(const MlpShape& shape, py::handle params_given, py::handle obs_given) {
    constexpr std::size_t most = 64, actions = Collector::n_actions;
    const auto obs = expect_array<float>(obs_given, "obs", {any_length, static_cast<py::ssize_t>(CartPole::state_size)});
    const std::size_t n = obs.size() / CartPole::state_size;
    Mlp policy(shape, std::min(n, most));
    policy.load(expect_array<float>(params_given, "params", {static_cast<py::ssize_t>(shape.parameters())}));
    py::array_t<float> probabilities({n, actions});
    py::array_t<float> values(static_cast<py::ssize_t>(n));
    std::vector<float> log_probabilities(most * actions);
    for (std::size_t first = 0; first < n; first += most) {
        const std::size_t rows = std::min(most, n - first);
        policy.forward(0, rows, obs.data() + first * CartPole::state_size);
        softmax(rows, actions, policy.outputs(0), probabilities.mutable_data() + first * actions, log_probabilities.data());
        for (std::size_t i = 0; i < rows; ++i) values.mutable_data()[first + i] = policy.outputs(i)[actions];
    }
    return py::make_tuple(probabilities, values);
}

struct WorkerInUse : std::runtime_error {
    WorkerInUse() : std::runtime_error("this worker is in use by another thread; each thread needs one of its own") {}
};

void expect_points(const Schedule& schedule, const char* name) {
    if (schedule.points.empty()) throw py::value_error(std::string(name) + ": expected at least one factor, got none");
    for (const double factor : schedule.points)
        if (!std::isfinite(factor)) throw py::value_error(std::string(name) + ": expected finite factors, got " + std::to_string(factor));
}

class PyWorker : public MadeByInit {
public:
    PyWorker(const MlpShape& shape, const RolloutConfig& config, const std::vector<Pcg64::Words>& env_seeds, const std::vector<Pcg64::Words>& action_seeds,
             std::size_t members, std::vector<double> pauses)
        : worker_(shape, config, env_seeds, action_seeds, members, std::move(pauses)) {}

    /// Calls give up the GIL, and could meet another thread's: that one is refused.
    class InUse {
    public:
        explicit InUse(PyWorker& of) : of_(of) {
            if (of.busy_.exchange(true, std::memory_order_acquire)) throw WorkerInUse();
        }
        InUse(const InUse&) = delete;
        InUse& operator=(const InUse&) = delete;
        ~InUse() { of_.busy_.store(false, std::memory_order_release); }

    private:
        PyWorker& of_;
    };

    [[nodiscard]] const char* run(const PySession& session, const LoopConfig& config, std::uint32_t duration_ms, std::uint64_t most_updates) {
        const InUse mine(*this);
        const auto seat = session.worker();
        if (session.parameters() != parameters())
            throw py::value_error("session: expected a region of " + std::to_string(parameters()) + " parameters, got one of " + std::to_string(session.parameters()));
        expect_rate(config.learning_rate.value);
        expect_finite({config.vf_coef, config.ent_coef.value, config.max_grad_norm});
        expect_points(config.learning_rate, "lr_points");
        expect_points(config.ent_coef, "ent_points");
        if (!std::isfinite(config.delay_compensation))
            throw py::value_error("delay_compensation: expected a finite number, got " + std::to_string(config.delay_compensation));
        rollout_ = Rollout::none;  // it may end with parameters of which there is no rollout
        const py::gil_scoped_release unlocked;
        return ended_names[static_cast<std::size_t>(worker_.run(*seat, config, std::chrono::milliseconds(duration_ms), most_updates))];
    }

    [[nodiscard]] std::size_t flush(const PySession& session) {
        const InUse mine(*this);
        return worker_.flush(*session.worker());
    }

    void collect(py::handle params, const PySession* session) {
        const InUse mine(*this);
        std::optional<PySession::InUse> seat;
        if (session != nullptr) seat.emplace(*session);
        const auto from = expect_array<float>(params, "params", {parameters()});
        rollout_ = Rollout::none;  // until it is whole: a sign of life may find that the seat is lost
        {
            const py::gil_scoped_release unlocked;
            worker_.collect(from, [&] {
                if (seat) (*seat)->beat();
            });
        }
        rollout_ = Rollout::collected;
    }

    void reweigh(py::handle params) {
        const InUse mine(*this);
        if (rollout_ != Rollout::collected) throw std::logic_error("reweigh: expected a rollout first, and once for each");
        const auto now = expect_array<float>(params, "params", {parameters()});
        rollout_ = Rollout::reweighed;
        const py::gil_scoped_release unlocked;
        worker_.reweigh(now);
    }

    [[nodiscard]] py::tuple gradient(py::handle grad, double vf_coef, double ent_coef, double max_grad_norm) {
        const InUse mine(*this);
        expect_finite({vf_coef, ent_coef, max_grad_norm});
        expect_collected("gradient");
        const std::span<float> to = expect_array<float>(grad, "grad", {parameters()}, Access::write);
        const GradientStats s = worker_.gradient({vf_coef, ent_coef, max_grad_norm}, to);
        return py::make_tuple(s.grad_norm, s.grad_norm_clipped, s.policy_loss, s.value_loss, s.entropy, s.return_mean, s.return_var, s.explained_variance);
    }

    [[nodiscard]] py::dict rollout() {
        const InUse mine(*this);
        expect_collected("rollout");
        py::dict d;
        put(d, "obs", batch(&Collector::obs, CartPole::state_size), {steps(), envs(), 4});
        put(d, "actions", batch(&Collector::actions), {steps(), envs()});
        put(d, "values", batch(&Collector::values), {steps(), envs()});
        put(d, "advantages", batch(&Collector::advantages), {steps(), envs()});
        put(d, "returns", batch(&Collector::returns), {steps(), envs()});
        return d;
    }

    [[nodiscard]] py::list episodes() {
        const InUse mine(*this);
        expect_collected("episodes");
        py::list all;
        for (const Collector& block : worker_.blocks())
            for (const Episode& episode : block.episodes()) all.append(py::make_tuple(episode.episode_return, episode.length));
        return all;
    }

    [[nodiscard]] py::dict get_state() {
        const InUse mine(*this);
        std::vector<double> state, returns;
        std::vector<std::uint8_t> status;
        std::vector<std::int64_t> elapsed, lengths;
        std::vector<Pcg64::Words> env_streams, action_streams;
        for (Collector& block : worker_.blocks()) {
            const CartPole::Snapshot saved = block.envs().snapshot();
            const std::size_t n = block.config().n_envs;
            for (std::size_t i = 0; i < n; ++i) {
                for (std::size_t k = 0; k < 4; ++k) state.push_back(saved.state[k * n + i]);
                elapsed.push_back(saved.elapsed[i]);
                status.push_back(static_cast<std::uint8_t>(saved.status[i]));
                returns.push_back(block.running()[i].episode_return);
                lengths.push_back(block.running()[i].length);
            }
            append(env_streams, saved.rng);
            append(action_streams, block.streams().words());
        }
        py::dict d;
        put(d, "env_state", state, {envs(), 4});
        put(d, "env_elapsed", elapsed, {envs()});
        put(d, "env_status", status, {envs()});
        d["env_stream"] = words_to_array(env_streams);
        d["action_stream"] = words_to_array(action_streams);
        put(d, "episode_return", returns, {envs()});
        put(d, "episode_length", lengths, {envs()});
        return d;
    }

    void set_state(const py::dict& given) {
        const InUse mine(*this);
        std::vector<py::object> kept;  // a subclass of dict may make up what it returns
        const auto entry = [&](const char* key) -> py::handle {
            if (!given.contains(key)) throw py::value_error(std::string("saved state: expected the key '") + key + "', got none");
            return kept.emplace_back(given[key]);
        };
        const auto state = expect_array<double>(entry("env_state"), "env_state", {envs(), 4});
        const auto elapsed = expect_array<std::int64_t>(entry("env_elapsed"), "env_elapsed", {envs()});
        const auto status = expect_array<std::uint8_t>(entry("env_status"), "env_status", {envs()});
        const auto returns = expect_array<double>(entry("episode_return"), "episode_return", {envs()});
        const auto lengths = expect_array<std::int64_t>(entry("episode_length"), "episode_length", {envs()});
        const auto env_streams = words_from(entry("env_stream"), "env_stream", envs());
        const auto action_streams = words_from(entry("action_stream"), "action_stream", envs());
        std::vector<std::pair<CartPole::Snapshot, std::vector<Pcg64::Words>>> before;
        for (Collector& block : worker_.blocks()) before.emplace_back(block.envs().snapshot(), block.streams().words());
        std::size_t first = 0;
        try {
            for (Collector& block : worker_.blocks()) {
                const std::size_t n = block.config().n_envs;
                CartPole::Snapshot saved{std::vector<double>(4 * n), some(elapsed, first, n), {}, some(env_streams, first, n)};
                for (std::size_t i = 0; i < n; ++i) {
                    for (std::size_t k = 0; k < 4; ++k) saved.state[k * n + i] = state[4 * (first + i) + k];
                    saved.status.push_back(static_cast<EnvStatus>(status[first + i]));
                }
                block.streams().set_words(some(action_streams, first, n));
                block.envs().restore(saved);
                first += n;
            }
        } catch (...) {
            for (std::size_t b = 0; b < before.size(); ++b) {  // all or nothing
                worker_.blocks()[b].envs().restore(before[b].first);
                worker_.blocks()[b].streams().set_words(before[b].second);
            }
            throw;
        }
        first = 0;
        for (Collector& block : worker_.blocks()) {
            const std::size_t n = block.config().n_envs;
            for (std::size_t i = 0; i < n; ++i) block.running()[i] = {returns[first + i], lengths[first + i]};
            first += n;
        }
        rollout_ = Rollout::none;
    }

    [[nodiscard]] std::uint64_t updates() {
        const InUse mine(*this);
        return worker_.updates();
    }
    [[nodiscard]] py::ssize_t parameters() { return static_cast<py::ssize_t>(worker_.parameters()); }

private:
    template <class Row>
    static std::vector<std::remove_const_t<typename Row::value_type>> some(const Row& rows, std::size_t first, std::size_t n) {
        return {rows.begin() + static_cast<std::ptrdiff_t>(first), rows.begin() + static_cast<std::ptrdiff_t>(first + n)};
    }
    static void append(std::vector<Pcg64::Words>& to, const std::vector<Pcg64::Words>& more) { to.insert(to.end(), more.begin(), more.end()); }

    /// [T, N, width] of the blocks' [T, their envs, width].
    template <class T>
    std::vector<T> batch(const std::vector<T>& (Collector::*of)() const noexcept, std::size_t width = 1) {
        std::vector<T> all;
        for (std::size_t t = 0; t < worker_.config().n_steps; ++t)
            for (const Collector& block : worker_.blocks()) {
                const auto row = (block.*of)().begin() + static_cast<std::ptrdiff_t>(t * block.config().n_envs * width);
                all.insert(all.end(), row, row + static_cast<std::ptrdiff_t>(block.config().n_envs * width));
            }
        return all;
    }

    /// The last rollout is that of `collect`, of the envs as they are.
    void expect_collected(const char* asked) const {
        if (rollout_ == Rollout::none) throw std::logic_error(std::string(asked) + ": expected a rollout first, by collect");
    }

    static void expect_finite(const LossConfig& c) {
        for (const double number : {c.vf_coef, c.ent_coef, c.max_grad_norm})
            if (!std::isfinite(number)) throw py::value_error("vf_coef, ent_coef, max_grad_norm: expected finite numbers, got " + std::to_string(number));
    }
    [[nodiscard]] py::ssize_t steps() { return static_cast<py::ssize_t>(worker_.config().n_steps); }
    [[nodiscard]] py::ssize_t envs() { return static_cast<py::ssize_t>(worker_.config().n_envs); }

    enum class Rollout : std::uint8_t { none, collected, reweighed };

    Worker worker_;
    Rollout rollout_ = Rollout::none;  // what there is of the parameters that the policy has
    std::atomic<bool> busy_{false};
};

}  // namespace

void bind_native(py::module_& m) {
    m.def(
        "act",
        [](py::handle params, py::handle obs, const std::vector<std::size_t>& hidden_sizes, const py::str& activation, bool shared_trunk) {
            return act({CartPole::state_size, Collector::n_actions, hidden_sizes, activation_of(activation), shared_trunk}, params, obs);
        },
        py::arg("params"), py::arg("obs"), py::kw_only(), py::arg("hidden_sizes"), py::arg("activation"), py::arg("shared_trunk"),
        "The MLP policy with params float32[P], for obs float32[N, 4]: action probabilities float32[N, 2] and values float32[N]; new arrays.");
    m.attr("BLOCK_ENVS") = Worker::block_envs;
    m.attr("MAX_NONFINITE_IN_A_ROW") = Worker::most_nonfinite;
    py::register_exception<WorkerInUse>(m, "WorkerInUse", PyExc_RuntimeError);
    py::class_<PyWorker, std::shared_ptr<PyWorker>> worker(
        m, "NativeWorker",
        "The native engine: an MLP policy, N CartPole envs and the gradient of the actor-critic loss, in C++ and without the GIL.\n\n"
        "`members` threads share its batch, with the same results for any number of them: at most one for each BLOCK_ENVS envs, or a part of them.\n"
        "`pauses` float64[n, blocks], seconds: what the rollout of each block takes at least in `run`, update by update, beginning anew at the end.\n"
        "One thread at a time: a second one gets WorkerInUse.");
    refuse_copies(worker, "keep its state, and give it to another one");
    worker
        .def(py::init([](const std::vector<std::size_t>& hidden_sizes, const py::str& activation, bool shared_trunk, std::size_t n_steps, std::int64_t max_episode_steps,
                         double gamma, double gae_lambda, double reward_scale, py::handle env_words, py::handle action_words, std::size_t members, const py::object& pauses_given) {
                 const auto envs = words_from(env_words, "env_words", any_length);
                 const auto actions = words_from(action_words, "action_words", static_cast<py::ssize_t>(envs.size()));
                 std::vector<double> pauses;
                 if (!pauses_given.is_none()) {
                     const auto blocks = static_cast<py::ssize_t>((envs.size() + Worker::block_envs - 1) / Worker::block_envs);
                     const auto given = expect_array<double>(pauses_given, "pauses", {any_length, blocks});
                     pauses.assign(given.begin(), given.end());
                 }
                 return std::make_shared<PyWorker>(MlpShape{CartPole::state_size, Collector::n_actions, hidden_sizes, activation_of(activation), shared_trunk},
                                                   RolloutConfig{n_steps, envs.size(), max_episode_steps, gamma, gae_lambda, reward_scale}, envs, actions, members, std::move(pauses));
             }),
             py::kw_only(), py::arg("hidden_sizes"), py::arg("activation"), py::arg("shared_trunk"), py::arg("n_steps"), py::arg("max_episode_steps"), py::arg("gamma"),
             py::arg("gae_lambda"), py::arg("reward_scale"), py::arg("env_words"), py::arg("action_words"), py::arg("members") = 1,
             py::arg("pauses") = py::none())
        .def_property_readonly("parameters", &PyWorker::parameters)
        .def_property_readonly("updates", &PyWorker::updates, "Gradients submitted so far.")
        .def("run",
             [](PyWorker& self, const PySession& session, std::uint64_t total_timesteps, double learning_rate, const std::vector<double>& lr_points, double ent_coef,
                const std::vector<double>& ent_points, double vf_coef,
                double max_grad_norm, std::uint32_t duration_ms, std::uint64_t most_updates, double delay_compensation, bool v_trace) {
                 return self.run(session, {total_timesteps, {learning_rate, lr_points}, {ent_coef, ent_points}, vf_coef, max_grad_norm, delay_compensation, v_trace},
                                 duration_ms, most_updates);
             },
             py::arg("session"), py::kw_only(), py::arg("total_timesteps"), py::arg("learning_rate"), py::arg("lr_points"), py::arg("ent_coef"), py::arg("ent_points"),
             py::arg("vf_coef"), py::arg("max_grad_norm"), py::arg("duration_ms"), py::arg("most_updates") = 0, py::arg("delay_compensation") = 0.0,
             py::arg("v_trace") = false,
             "Reads, rolls out, takes the gradient, submits and reports, again and again, for duration_ms or most_updates (0: no limit).\n"
             "Returns 'not yet', 'finished' (total_timesteps are done), 'stopped' or 'diverged' (ten gradients in a row held NaN or infinity).")
        .def("flush", &PyWorker::flush, py::arg("session"), "Writes the log rows that had no room; returns how many are left.")
        .def("collect", &PyWorker::collect, py::arg("params"), py::arg("session") = py::none(),
             "One rollout alone, with params float32[P]. Each step of it is a sign of life of the session's seat.")
        .def("reweigh", &PyWorker::reweigh, py::arg("params"),
             "V-trace: the last rollout as if the parameters had been these, float32[P], of which the gradient then is. Once for each rollout.")
        .def("gradient", &PyWorker::gradient, py::arg("grad"), py::kw_only(), py::arg("vf_coef"), py::arg("ent_coef"), py::arg("max_grad_norm"),
             "Writes the gradient of the last rollout to grad float32[P], clipped to max_grad_norm (0: as it is). Returns the norm before,\n"
             "policy loss, value loss, entropy, mean and variance of the returns, and the explained variance.")
        .def("rollout", &PyWorker::rollout, "Copies of the last rollout: obs float32[T, N, 4], actions int64[T, N], values, advantages and returns float32[T, N].")
        .def("episodes", &PyWorker::episodes, "(return, length) of those that ended in the last rollout, in their order.")
        .def("get_state", &PyWorker::get_state, "Copies of all that decides the next rollouts, one row for each env.")
        .def("set_state", &PyWorker::set_state, py::arg("saved"), "Goes on, bit for bit, where get_state was called; all or nothing.");
}
