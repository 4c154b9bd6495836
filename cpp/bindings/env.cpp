#include "bindings.hpp"
void bind_env(py::module_&) {}
