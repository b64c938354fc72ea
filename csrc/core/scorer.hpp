// What the scorer asks of its arguments, on every device.
#pragma once

#include <string>
#include <string_view>

#include "normscan/scorer.hpp"

namespace normscan {

// The tensor of that name, or an error that lists what there is: find(outputs, "image", "output").
const Tensor& find(const NamedTensors& tensors, const std::string& name, std::string_view what);

// The checks of Scorer::score. The number of images.
std::int64_t check_score(const Scorer& scorer, const NamedTensors& outputs, const Tensor& maps, const Tensor& terms,
                         const Tensor& scores);

}  // namespace normscan
