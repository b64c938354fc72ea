// ScoringSpec and Scorer.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <memory>

#include "bindings/bindings.hpp"
#include "bindings/dlpack.hpp"
#include "normscan/scorer.hpp"

namespace py = pybind11;
using namespace py::literals;

namespace normscan::bindings {
namespace {

// Those arrays of a mapping that `wanted` names (all where it is null), alive until the end of the call.
class ImportedDict {
  public:
    ImportedDict(const char* what, const py::object& arrays, const std::vector<std::string>* wanted) {
        if (!py::hasattr(arrays, "keys")) {
            throw Error(Error::Kind::argument, std::string(what) + "s are no mapping; expected names and tensors");
        }
        for (const auto& [key, array] : py::dict(arrays)) {
            if (!py::isinstance<py::str>(key)) {
                throw Error(Error::Kind::argument, std::string(what) + " has a key that is no text; expected names");
            }
            const auto name = key.cast<std::string>();
            if (wanted != nullptr && std::find(wanted->begin(), wanted->end(), name) == wanted->end()) continue;
            held_.push_back(
                std::make_unique<Imported>(what + (" \"" + name + "\""), py::reinterpret_borrow<py::object>(array)));
            tensors_.emplace(name, held_.back()->tensor());
        }
    }
    const NamedTensors& tensors() const { return tensors_; }

  private:
    std::vector<std::unique_ptr<Imported>> held_;
    NamedTensors tensors_;
};

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
