// What the comparison of stains asks of its arguments, on every device.
#pragma once

#include "normscan/ops.hpp"
#include "ops/kernels/stain.hpp"

namespace normscan {

// False where there is nothing to write.
bool check_stain(const Tensor& a, const Tensor& b, const Tensor& out, const Stain& how);

// The ends of what counts as red are in it, and colours of 8 bits lie on them: c / 255 in float32 lies beside. These
// are above the error that makes (6e-8 of a colour, 7e-4 degrees) and below the distance to the next colour (0.004
// degrees from a whole one, 1.5e-5 of a saturation, 0.002 of a residual).
inline constexpr double hue_slack = 1e-3, saturation_slack = 1e-6, cut_slack = 1e-6;

kernels::RedRange red_range(const Stain& how);

}  // namespace normscan
