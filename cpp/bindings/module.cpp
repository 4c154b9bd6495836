// The extension module: one function for each room of the core that Python sees.
#include "bindings.hpp"

PYBIND11_MODULE(_core, m) {
    m.doc() = "The native core of fastac: the batched CartPole, the shared-memory update schemes and the native engine.";
    m.attr("__version__") = FASTAC_VERSION;
    bind_env(m);
    bind_shared(m);
    bind_native(m);
}
