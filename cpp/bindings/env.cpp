// Python's way to Pcg64, UniformStreams and CartPole: dtypes, shapes and ownership; no logic of the env.
#include <algorithm>
#include <array>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "words.hpp"
#include "fastac/cartpole.hpp"

namespace {

using fastac::AutoresetMode;
using fastac::CartPole;
using fastac::EnvStatus;
using fastac::Pcg64;
using fastac::UniformStreams;

constexpr const char* mode_names[] = {"next_step", "same_step", "disabled"};  // in the order of AutoresetMode

template <class T>
py::array copy_of(const std::vector<T>& values, std::vector<py::ssize_t> shape) {
    return py::array_t<T>(std::move(shape), values.data());
}

// What Python holds: the env and the views of its output buffers, made once. The views keep the env alive (through a
// capsule), not this handle: a handle that owns views that own it would never be freed.
class CartPoleHandle : public MadeByInit {
public:
    CartPoleHandle(std::size_t num_envs, std::int64_t max_episode_steps, const py::str& autoreset_mode,
                   bool sutton_barto_reward)
        : env_(std::make_shared<CartPole>(num_envs, max_episode_steps, parse_mode(autoreset_mode),
                                          sutton_barto_reward)),
          sutton_barto_reward_(sutton_barto_reward),
          obs(view(env_->obs(), {size(), 4})),
          final_obs(view(env_->final_obs(), {size(), 4})),
          reward(view(env_->reward(), {size()})),
          terminated(view(env_->terminated(), {size()})),
          truncated(view(env_->truncated(), {size()})) {}

    // The GIL is kept: a step of 1,024 envs takes tens of microseconds, and releasing it would let another thread read
    // half-written views or step the same env at once. The native rollout steps in C++ and releases it there.
    void step(py::handle actions) {
        env_->step(expect_array<std::int64_t>(actions, "actions", {size()}));
    }

    void reset(py::handle mask, double low, double high) {
        if (mask.is_none()) {
            env_->reset(low, high);
            return;
        }
        // A bool of numpy may be a view of any byte; in C++ it may be 0 or 1 and nothing else.
        const std::span<const bool> flags = expect_array<bool>(mask, "mask", {size()});
        const auto bytes = std::as_bytes(flags);
        const auto checked = std::make_unique<bool[]>(bytes.size());
        std::transform(bytes.begin(), bytes.end(), checked.get(), [](std::byte b) { return b != std::byte{0}; });
        env_->reset({checked.get(), bytes.size()}, low, high);
    }

    void seed(py::handle indices, py::handle words) {
        const std::span<const std::int64_t> envs = expect_array<std::int64_t>(indices, "indices", {any_length});
        const std::vector<Pcg64::Words> seeds = words_from(words, "words", static_cast<py::ssize_t>(envs.size()));
        for (const std::int64_t i : envs) {
            if (i < 0 || i >= size()) {
                throw py::value_error("indices: expected 0 to " + std::to_string(size() - 1) + ", got " +
                                      std::to_string(i));
            }
        }
        for (std::size_t k = 0; k < seeds.size(); ++k) {
            env_->seed(static_cast<std::size_t>(envs[k]), seeds[k]);
        }
    }

    [[nodiscard]] py::array state() const { return copy_of(env_->state(), {4, size()}); }

    void set_state_array(py::handle state) {
        env_->set_state(expect_array<double>(state, "state", {4, size()}));
    }

    [[nodiscard]] py::dict get_state() const {
        const CartPole::Snapshot saved = env_->snapshot();
        py::array_t<std::uint8_t> status(size());
        std::transform(saved.status.begin(), saved.status.end(), status.mutable_data(),
                       [](EnvStatus s) { return static_cast<std::uint8_t>(s); });
        py::dict dict;
        dict["state"] = copy_of(saved.state, {4, size()});
        dict["elapsed"] = copy_of(saved.elapsed, {size()});
        dict["status"] = status;
        dict["rng"] = words_to_array(saved.rng);
        return dict;
    }

    void set_state(const py::dict& saved) {
        std::vector<py::object> kept;  // a subclass of dict may make up what it returns
        const auto entry = [&](const char* key) -> py::handle {
            if (!saved.contains(key)) {
                throw py::value_error(std::string("saved state: expected the key '") + key + "', got none");
            }
            return kept.emplace_back(saved[key]);
        };
        const auto state = expect_array<double>(entry("state"), "state", {4, size()});
        const auto elapsed = expect_array<std::int64_t>(entry("elapsed"), "elapsed", {size()});
        const auto status = expect_array<std::uint8_t>(entry("status"), "status", {size()});
        CartPole::Snapshot snapshot{{state.begin(), state.end()},
                                    {elapsed.begin(), elapsed.end()},
                                    std::vector<EnvStatus>(status.size()),
                                    words_from(entry("rng"), "rng", size())};
        std::transform(status.begin(), status.end(), snapshot.status.begin(),
                       [](std::uint8_t s) { return static_cast<EnvStatus>(s); });
        env_->restore(snapshot);
    }

    // For pickle and copy: the constructor's arguments, and what set_state takes.
    [[nodiscard]] py::tuple pickled() const {
        return py::make_tuple(size(), env_->max_episode_steps(), mode_name(), sutton_barto_reward_, get_state());
    }

    static std::shared_ptr<CartPoleHandle> unpickled(const py::tuple& saved) {
        if (saved.size() != 5) throw py::value_error("expected what pickle has saved of a CartPole");
        auto env = std::make_shared<CartPoleHandle>(saved[0].cast<std::size_t>(), saved[1].cast<std::int64_t>(),
                                                    saved[2].cast<py::str>(), saved[3].cast<bool>());
        env->set_state(saved[4].cast<py::dict>());
        return env;
    }

    [[nodiscard]] const char* mode_name() const { return mode_names[static_cast<std::size_t>(env_->autoreset_mode())]; }
    [[nodiscard]] CartPole& core() const { return *env_; }
    [[nodiscard]] py::ssize_t size() const { return static_cast<py::ssize_t>(env_->num_envs()); }

private:
    std::shared_ptr<CartPole> env_;  // before the views, which are built from it
    bool sutton_barto_reward_;

    static AutoresetMode parse_mode(const py::str& name) {
        const auto* found = std::find_if(std::begin(mode_names), std::end(mode_names),
                                         [&name](const char* known) { return name.equal(py::str(known)); });
        if (found == std::end(mode_names)) {
            throw py::value_error("autoreset_mode: expected 'next_step', 'same_step' or 'disabled', got " + written(name));
        }
        return static_cast<AutoresetMode>(found - std::begin(mode_names));
    }

    template <class T>
    py::array view(T* data, std::vector<py::ssize_t> shape) {
        auto* owner = new std::shared_ptr<CartPole>(env_);
        const py::capsule keep_alive(owner, [](void* p) { delete static_cast<std::shared_ptr<CartPole>*>(p); });
        return py::array_t<T>(std::move(shape), data, keep_alive);
    }

public:
    const py::array obs;
    const py::array final_obs;
    const py::array reward;
    const py::array terminated;
    const py::array truncated;
};

struct Streams : UniformStreams, MadeByInit {
    using UniformStreams::UniformStreams;
};

void bind_streams(py::module_& m) {
    py::class_<Streams, std::shared_ptr<Streams>> streams(
        m, "UniformStreams",
        "n independent PCG64 streams, equal to numpy's Generator(PCG64).random().\n\n"
        "seeds: uint64[n, 4], row i = SeedSequence(seed_i).generate_state(4, uint64). Threads may share an object: every\n"
        "call holds the GIL from its start to its end.");
    refuse_copies(streams, "keep its `state`, and give it to another one");
    streams
        .def(py::init([](py::handle seeds) { return std::make_shared<Streams>(words_from(seeds, "seeds", any_length)); }),
             py::arg("seeds"))
        .def("__len__", [](const Streams& self) { return self.size(); })
        .def(
            "random",
            [](Streams& self) {
                py::array_t<double> out(static_cast<py::ssize_t>(self.size()));
                self.fill(out.mutable_data());
                return out;
            },
            "One draw in [0, 1) from each stream: float64[n], a copy.")
        .def(
            "random_into",
            [](Streams& self, py::handle out) {
                self.fill(expect_array<double>(out, "out", {static_cast<py::ssize_t>(self.size())}, Access::write).data());
            },
            py::arg("out"), "The same draws, written into out: float64[n].")
        .def_property(
            "state", [](const Streams& self) { return words_to_array(self.words()); },
            [](Streams& self, py::handle state) {
                self.set_words(words_from(state, "state", static_cast<py::ssize_t>(self.size())));
            },
            "uint64[n, 4], a copy: state high, state low, increment high, increment low.");
}

}  // namespace

void bind_env(py::module_& m) {
    py::register_exception<fastac::ResetNeeded>(m, "ResetNeeded", PyExc_RuntimeError);
    bind_streams(m);
    m.def("sincos_mismatches", &fastac::sincos_mismatches, py::arg("tiles") = 256,
          "Of tiles * 64 angles that a pole can have, how many sines and cosines of the vector code are not the C library's: 0,\n"
          "or the envs ask the library for all of them.");
    py::class_<CartPoleHandle, std::shared_ptr<CartPoleHandle>> cartpole(
        m, "CartPole",
        "N CartPole envs, bit-identical to Gymnasium's CartPole-v1.\n\n"
        "Threads may share an object: every call holds the GIL from its start to its end. In what order they step it, and\n"
        "what they then find in the views, is theirs to say. copy, deepcopy and pickle make an independent env that goes on\n"
        "bit for bit, as set_state does.");
    cartpole.attr("NO_TIME_LIMIT") = CartPole::no_time_limit;
    cartpole.attr("NEVER_RESET") = static_cast<int>(EnvStatus::never_reset);
    cartpole
        .def(py::init([](std::size_t num_envs, std::int64_t max_episode_steps, const py::str& autoreset_mode,
                         bool sutton_barto_reward) {
                 return std::make_shared<CartPoleHandle>(num_envs, max_episode_steps, autoreset_mode, sutton_barto_reward);
             }),
             py::arg("num_envs"), py::arg("max_episode_steps") = 500, py::arg("autoreset_mode") = "next_step",
             py::arg("sutton_barto_reward") = false)
        .def(py::pickle([](const CartPoleHandle& self) { return self.pickled(); }, &CartPoleHandle::unpickled))
        // The way of pickle's protocol 2, for all of them: by itself 0 and 1 would call pybind11's base class.
        .def("__reduce__",
             [](py::handle self) {
                 const auto new_object = py::module_::import("copyreg").attr("__newobj__");
                 return py::make_tuple(new_object, py::make_tuple(py::type::of(self)), self.attr("__getstate__")());
             })
        .def("step", &CartPoleHandle::step, py::arg("actions"),
             "Advance every env by 0.02 s. actions: int64[N], 0 (left) or 1 (right). Overwrites the views.")
        .def("reset", &CartPoleHandle::reset, py::arg("mask") = py::none(),
             py::arg("low") = fastac::CartPolePhysics::reset_low,
             py::arg("high") = fastac::CartPolePhysics::reset_high,
             "Begin a new episode where mask (bool[N] or None for all) is true, states uniform in [low, high).")
        .def("seed", &CartPoleHandle::seed, py::arg("indices"), py::arg("words"),
             "Seed the streams of envs indices (int64[k]) with words (uint64[k, 4], SeedSequence.generate_state).")
        .def("get_state", &CartPoleHandle::get_state,
             "Copies of all that decides the future: state float64[4, N], elapsed int64[N], "
             "status uint8[N] (0 running, 1 finished, 2 never reset), rng uint64[N, 4].")
        .def("set_state", &CartPoleHandle::set_state, py::arg("saved"),
             "Restore what get_state returned; all or nothing. reward, terminated, truncated, final_obs become zero.")
        .def_property("state", &CartPoleHandle::state, &CartPoleHandle::set_state_array,
                      "float64[4, N], a copy: x (m), x_dot (m/s), theta (rad), theta_dot (rad/s).")
        .def_readonly("obs", &CartPoleHandle::obs, "float32[N, 4]: a view, reused by the next step.")
        .def_readonly("reward", &CartPoleHandle::reward, "float32[N]: a view, reused by the next step.")
        .def_readonly("terminated", &CartPoleHandle::terminated, "bool[N]: a view, reused by the next step.")
        .def_readonly("truncated", &CartPoleHandle::truncated, "bool[N]: a view, reused by the next step.")
        .def_readonly("final_obs", &CartPoleHandle::final_obs,
                      "float32[N, 4]: a view, reused by the next step; valid where the episode ended, same_step only.")
        .def_property_readonly("num_envs", &CartPoleHandle::size)
        .def_property_readonly("max_episode_steps",
                               [](const CartPoleHandle& self) { return self.core().max_episode_steps(); })
        .def_property_readonly("autoreset_mode", &CartPoleHandle::mode_name);
}
