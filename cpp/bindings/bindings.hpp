// What the binding files share: how arguments are checked and objects are made, and the functions that fill the module.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstddef>
#include <span>
#include <string>

namespace py = pybind11;

void bind_env(py::module_& m);
void bind_shared(py::module_& m);
void bind_native(py::module_& m);

constexpr py::ssize_t any_length = -1;

inline std::string shape_text(const py::ssize_t* shape, std::size_t rank) {
    std::string text = "[";
    for (std::size_t k = 0; k < rank; ++k) text += (k > 0 ? ", " : "") + (shape[k] == any_length ? std::string("n") : std::to_string(shape[k]));
    return text + "]";
}

/// The base of every class that Python sees. Where an object's __init__ never ran (`Class.__new__(Class)`) pybind11 asks the
/// class for memory and would hand it to us as it is; here that is refused. Objects are made by std::make_shared, which asks
/// nobody.
struct MadeByInit {
    static void* operator new(std::size_t) { throw py::type_error("expected an object that was made by calling its class, got one whose __init__ never ran"); }
};

/// What pickle and copy are told of a class that they cannot copy. Without it pickle's protocols 0 and 1 would call pybind11's
/// base class, and that ends the program.
template <class Class>
void refuse_copies(Class& c, const char* instead) {
    c.def("__reduce__", [instead](py::handle self) -> py::object {
        throw py::type_error("cannot copy or pickle a " + std::string(py::str(py::type::of(self).attr("__name__"))) + ": " + instead);
    });
}

/// A value as Python writes it, in ASCII and cut where it is long: for messages.
inline std::string written(const py::handle& value) {
    const std::string text = py::reinterpret_steal<py::str>(PyObject_ASCII(value.ptr()));
    return text.size() <= 80 ? text : text.substr(0, 77) + "...";
}

enum class Access { read, write };

/// The elements of `object` where they lie, never a converted copy, if it is a T[shape...] that C++ can walk through.
/// TypeError for another type or dtype; ValueError for another shape, for strides, and for a read-only array to write to.
/// `object` must stay alive as long as the span is used.
template <class T, std::size_t Rank>
std::span<T> expect_array(const py::handle& object, const char* name, const py::ssize_t (&shape)[Rank], Access access = Access::read) {
    const auto wanted = [&] {
        return std::string(name) + ": expected " + std::string(py::str(py::dtype::of<T>())) + shape_text(shape, Rank) + ", got ";
    };
    if (!py::isinstance<py::array>(object)) throw py::type_error(wanted() + std::string(py::str(py::type::of(object).attr("__name__"))));
    const auto array = py::reinterpret_borrow<py::array>(object);
    if (!py::array_t<T, 0>::check_(object)) throw py::type_error(wanted() + std::string(py::str(array.dtype())));
    bool fits = array.ndim() == static_cast<py::ssize_t>(Rank);
    for (std::size_t k = 0; fits && k < Rank; ++k) fits = shape[k] == any_length || array.shape(static_cast<py::ssize_t>(k)) == shape[k];
    if (!fits) throw py::value_error(wanted() + "shape " + shape_text(array.shape(), static_cast<std::size_t>(array.ndim())));
    // Aligned: a vectorised loop may count on it.
    constexpr int walkable = py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_ | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
    if ((array.flags() & walkable) != walkable) throw py::value_error(wanted() + "an array that is not C-contiguous and aligned");
    if (access == Access::write && !array.writeable()) throw py::value_error(wanted() + "a read-only array");
    return {static_cast<T*>(const_cast<void*>(array.data())), static_cast<std::size_t>(array.size())};
}
