// Threads, instruction sets, build, and the steps before and after the ops.
#include <pybind11/stl.h>

#include "bindings/bindings.hpp"
#include "bindings/dlpack.hpp"

namespace py = pybind11;
using namespace py::literals;

namespace normscan::bindings {
namespace {

using Object = const py::object&;

py::dict build_info() {
    py::dict info;
    info["version"] = NORMSCAN_VERSION;
#if defined(__clang__)
    info["compiler"] = "clang " __clang_version__;
#else
    info["compiler"] = "g++ " __VERSION__;
#endif
    info["cuda"] = "no";
    return info;
}

void py_prepare(Object image, Object out, const std::string& resize, const std::vector<double>& mean,
                const std::vector<double>& std) {
    const auto how = choice<Resize>("prepare", "resize", resize_names, resize);
    const Imported i("prepare: image", image), o("prepare: out", out);
    const py::gil_scoped_release release;
    prepare(i, o, how, mean, std);
}

void py_restore(Object map, Object out, const std::string& resize) {
    const auto how = choice<Resize>("restore", "resize", resize_names, resize);
    const Imported m("restore: map", map), o("restore: out", out);
    const py::gil_scoped_release release;
    restore(m, o, how);
}

void py_aggregate(Object scores, Object groups, Object out, const std::string& method, double parameter) {
    const auto how = choice<GroupMethod>("aggregate", "method", group_names, method);
    const Imported s("aggregate: scores", scores), g("aggregate: groups", groups), o("aggregate: out", out);
    const py::gil_scoped_release release;
    aggregate(s, g, o, how, parameter);
}

std::vector<std::string> level_list() {
    std::vector<std::string> names;
    for (const std::string_view name : simd_levels()) names.emplace_back(name);
    return names;
}

}  // namespace

void bind_core(py::module_& module) {
    module.def("set_threads", &set_threads, "n"_a);
    module.def("threads", &threads);
    module.def("simd_level", [] { return std::string(simd_level()); });
    module.def("simd_levels", &level_list);
    module.def("build_info", &build_info);
    module.def("prepare", &py_prepare, "image"_a, "out"_a, py::kw_only(), "resize"_a, "mean"_a, "std"_a);
    module.def("restore", &py_restore, "map"_a, "out"_a, py::kw_only(), "resize"_a);
    module.def("aggregate", &py_aggregate, "scores"_a, "groups"_a, "out"_a, py::kw_only(), "method"_a,
               "parameter"_a = 0.0);
}

}  // namespace normscan::bindings
