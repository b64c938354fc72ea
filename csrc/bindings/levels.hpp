// The levels of distance_maps: pairs (a, b) of tensors.
#pragma once

#include <deque>
#include <span>
#include <string>
#include <vector>

#include "bindings/bindings.hpp"
#include "bindings/dlpack.hpp"

namespace normscan::bindings {

// Alive until the end of the call.
class ImportedLevels {
  public:
    explicit ImportedLevels(const pybind11::sequence& levels, const Device& device = {}) {
        for (std::size_t l = 0; l < levels.size(); ++l) {
            const std::string name = "distance_maps: levels[" + std::to_string(l) + "]";
            const pybind11::object pair = levels[l];
            const Imported& a = held_.emplace_back(name + ".a", part(name, pair, 0), device);
            const Imported& b = held_.emplace_back(name + ".b", part(name, pair, 1), device);
            pairs_.push_back({a, b});
        }
    }
    std::span<const FeaturePair> get() const { return pairs_; }

  private:
    static pybind11::object part(const std::string& name, const pybind11::object& pair, std::size_t i) {
        const bool sequence = pybind11::isinstance<pybind11::tuple>(pair) || pybind11::isinstance<pybind11::list>(pair);
        if (!sequence || pybind11::len(pair) != 2) {
            const std::string found = pybind11::str(pybind11::type::of(pair).attr("__name__"));
            throw Error(Error::Kind::argument, name + " is " + found + ", expected a pair (a, b)");
        }
        return pair[pybind11::int_(i)];
    }

    std::deque<Imported> held_;
    std::vector<FeaturePair> pairs_;
};

}  // namespace normscan::bindings
