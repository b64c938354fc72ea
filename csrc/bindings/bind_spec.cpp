// ScoringSpec and Scorer.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <memory>

#include "bindings/bindings.hpp"
#include "bindings/named.hpp"
#include "normscan/scorer.hpp"

namespace py = pybind11;
using namespace py::literals;

namespace normscan::bindings {
namespace {

std::unique_ptr<Scorer> make_scorer(const ScoringSpec& spec, const py::object& stats) {
    const ImportedDict imported("scorer: statistic", stats, nullptr);
    return std::make_unique<Scorer>(spec, imported.tensors());
}

py::tuple score(const Scorer& scorer, const py::object& outputs) {
    const ImportedDict imported("scorer: output", outputs, &scorer.outputs());
    const std::int64_t n = scorer.check(imported.tensors()), h = scorer.map_height(), w = scorer.map_width();
    const auto t = static_cast<std::int64_t>(scorer.spec().terms.size());
    py::array_t<float> maps({n, h, w});
    py::array_t<double> terms({n, t}), scores(n);
    const Tensor map_tensor = contiguous(maps.mutable_data(), {n, h, w});
    const Tensor term_tensor = contiguous(terms.mutable_data(), {n, t});
    const Tensor score_tensor = contiguous(scores.mutable_data(), {n});
    {
        const py::gil_scoped_release release;
        scorer.score(imported.tensors(), map_tensor, term_tensor, score_tensor);
    }
    return py::make_tuple(maps, terms, scores);
}

}  // namespace

void bind_spec(py::module_& module) {
    py::class_<ScoringSpec>(module, "ScoringSpec")
        .def(py::init([](const std::string& json) { return ScoringSpec::parse(json); }), "json"_a)
        .def("json", &ScoringSpec::json);
    py::class_<Scorer>(module, "Scorer")
        .def(py::init(&make_scorer), "spec"_a, "stats"_a)
        .def("score", &score, "outputs"_a)
        .def_property_readonly("threshold", &Scorer::threshold)
        .def_property_readonly("outputs", &Scorer::outputs);
}

}  // namespace normscan::bindings
