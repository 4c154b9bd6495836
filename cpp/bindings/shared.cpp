#include "bindings.hpp"
void bind_shared(py::module_&) {}
