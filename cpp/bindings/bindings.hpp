// What the binding files share: how arrays are checked, and the functions that fill the module.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace py = pybind11;

void bind_env(py::module_& m);
void bind_shared(py::module_& m);

inline std::string shape_text(const std::vector<py::ssize_t>& shape) {
    std::string text = "[";
    for (std::size_t i = 0; i < shape.size(); ++i) text += (i > 0 ? ", " : "") + std::to_string(shape[i]);
    return text + "]";
}

/// The elements of `object` where they lie, never a converted copy. TypeError for another type or dtype,
/// ValueError for another shape, for strides, or where `writable` is asked for and not given.
template <class T>
std::span<T> expect_array(const py::handle& object, const char* name, const std::vector<py::ssize_t>& shape, bool writable) {
    const std::string wanted = std::string(name) + ": expected a C-contiguous " + std::string(py::str(py::dtype::of<T>())) + shape_text(shape) + " array, got ";
    if (!py::isinstance<py::array>(object)) throw py::type_error(wanted + std::string(py::str(py::type::of(object).attr("__name__"))));
    const auto array = py::reinterpret_borrow<py::array>(object);
    if (!py::isinstance<py::array_t<T>>(array)) throw py::type_error(wanted + std::string(py::str(array.dtype())));
    const std::vector<py::ssize_t> got(array.shape(), array.shape() + array.ndim());
    if (got != shape) throw py::value_error(wanted + "shape " + shape_text(got));
    if ((array.flags() & py::array::c_style) == 0) throw py::value_error(wanted + "one with other strides");
    // A vectorised loop may count on it.
    if ((array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_) == 0) throw py::value_error(wanted + "one that is not aligned");
    if (writable && !array.writeable()) throw py::value_error(wanted + "a read-only one");
    return {static_cast<T*>(const_cast<void*>(array.data())), static_cast<std::size_t>(array.size())};
}
