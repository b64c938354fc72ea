// What the fused distance of several levels asks of its arguments, on every device.
#pragma once

#include <span>

#include "normscan/ops.hpp"

namespace normscan {

// False where there is nothing to write.
bool check_distance_maps(std::span<const FeaturePair> levels, const Tensor& out_map, const Tensor& out_score,
                         std::span<const double> weights, Fuse fuse, double sigma, PoolMethod pool, double parameter);

}  // namespace normscan
