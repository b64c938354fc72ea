// What module.cpp puts together, one function a noun, and the helpers that they share.
#pragma once

#include <pybind11/pybind11.h>

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "normscan/error.hpp"
#include "normscan/ops.hpp"

namespace normscan::bindings {

void register_errors();
void bind_core(pybind11::module_& module);  // threads, instruction sets, build, prepare, restore, aggregate
void bind_ops(pybind11::module_& module);   // gaussian, distance, stain, attention, resample, smooth, pool
void bind_spec(pybind11::module_& module);  // ScoringSpec, Scorer
void bind_cuda(pybind11::module_& module);  // Stream (the module _cuda)

// The enumerator called `value`, or an error that lists what there is: choice<Metric>("distance", "metric", ...).
template <class Enum, std::size_t n>
Enum choice(std::string_view op, std::string_view argument, const std::array<std::string_view, n>& names,
            std::string_view value) {
    if (const auto found = named<Enum>(names, value)) return *found;
    std::string text = std::string(op) + ": " + std::string(argument) + " is \"" + std::string(value) + "\", expected ";
    for (std::size_t i = 0; i < n; ++i) text.append(i == 0 ? "" : i + 1 == n ? " or " : ", ").append(names[i]);
    throw Error(Error::Kind::argument, text);
}

// The options of `stain`.
inline Stain stain_of(std::string_view metric, double cut, const std::vector<double>& hue, double least_saturation,
                      std::optional<int> window) {
    if (hue.size() != 2) {
        throw Error(Error::Kind::argument,
                    "stain: hue has " + std::to_string(hue.size()) + " values, expected two: from and to");
    }
    return {choice<StainMetric>("stain", "metric", stain_metric_names, metric),
            cut,
            {hue[0], hue[1]},
            least_saturation,
            window};
}

}  // namespace normscan::bindings
