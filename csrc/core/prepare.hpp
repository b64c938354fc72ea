// What preparing and restoring ask of their arguments, on every device.
#pragma once

#include <span>

#include "normscan/ops.hpp"

namespace normscan {

inline constexpr float luma[3] = {0.299f, 0.587f, 0.114f};  // Rec.601

// A picture's pixels: of this many channels, to be brought to that many and, by the factor, to 0..1.
struct Pixels {
    std::int64_t channels, to_channels;
    float factor;
};

Pixels check_prepare(const Tensor& image, const Tensor& out, std::span<const double> mean, std::span<const double> std);

// False where there is nothing to write.
bool check_restore(const Tensor& map, const Tensor& out);

}  // namespace normscan
