// What the binding files share: the array types, named once, and the functions that fill the module.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>

namespace py = pybind11;

// No forcecast: an array of another dtype is refused, never converted behind the caller's back.
template <class T>
using Array = py::array_t<T, py::array::c_style>;

void bind_env(py::module_& m);
void bind_shared(py::module_& m);
