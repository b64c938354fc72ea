// What resampling asks of its arguments, on every device.
#pragma once

#include "normscan/tensor.hpp"

namespace normscan {

// False where there is nothing to write.
bool check_resample(const Tensor& map, const Tensor& out);

}  // namespace normscan
