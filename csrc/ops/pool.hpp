// What pooling asks of its arguments, on every device.
#pragma once

#include <algorithm>
#include <cmath>

#include "normscan/ops.hpp"

namespace normscan {

void check_pool(const Tensor& map, const Tensor& out, PoolMethod method, double parameter);

// How many of `pixels` topk takes.
inline std::int64_t topk_count(double share, std::int64_t pixels) {
    const double wanted = std::ceil(share * static_cast<double>(pixels));
    return static_cast<std::int64_t>(std::clamp(wanted, 1.0, static_cast<double>(pixels)));
}

}  // namespace normscan
