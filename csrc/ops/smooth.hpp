// What smoothing asks of its arguments, on every device.
#pragma once

#include "normscan/tensor.hpp"

namespace normscan {

// False where there is nothing to write.
bool check_smooth(const Tensor& map, const Tensor& out, double sigma);

// Taps on either side of the middle: 4 sigmas, as in scipy.ndimage.gaussian_filter.
inline std::int64_t smooth_radius(double sigma) {
    return static_cast<std::int64_t>(4.0 * sigma + 0.5);
}

}  // namespace normscan
