// Tensors by name: outputs and statistics of the scorer.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "bindings/bindings.hpp"
#include "bindings/dlpack.hpp"
#include "normscan/scorer.hpp"

namespace normscan::bindings {

// Those arrays of a mapping that `wanted` names (all where it is null), alive until the end of the call.
class ImportedDict {
  public:
    ImportedDict(const char* what, const pybind11::object& arrays, const std::vector<std::string>* wanted,
                 const Device& device = {}) {
        if (!pybind11::hasattr(arrays, "keys")) {
            throw Error(Error::Kind::argument, std::string(what) + "s are no mapping; expected names and tensors");
        }
        for (const auto& [key, array] : pybind11::dict(arrays)) {
            if (!pybind11::isinstance<pybind11::str>(key)) {
                throw Error(Error::Kind::argument, std::string(what) + " has a key that is no text; expected names");
            }
            const auto name = key.cast<std::string>();
            if (wanted != nullptr && std::find(wanted->begin(), wanted->end(), name) == wanted->end()) continue;
            held_.push_back(std::make_unique<Imported>(what + (" \"" + name + "\""),
                                                       pybind11::reinterpret_borrow<pybind11::object>(array), device));
            tensors_.emplace(name, held_.back()->tensor());
        }
    }
    const NamedTensors& tensors() const { return tensors_; }

  private:
    std::vector<std::unique_ptr<Imported>> held_;
    NamedTensors tensors_;
};

}  // namespace normscan::bindings
