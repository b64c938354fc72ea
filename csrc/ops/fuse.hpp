// Several maps of resolutions of their own become one map. Below the ops that have a name of their own: distance_maps
// and the scorer share it.
#pragma once

#include <span>

#include "normscan/ops.hpp"

namespace normscan {

// maps [N,h_m,w_m], checked and not empty -> out [N,H,W]: the sum or the product over m of factors[m] * maps[m], each
// brought to H x W bilinearly (align_corners false). There is no temporary of that size.
void fuse(std::span<const Tensor> maps, std::span<const double> factors, const Tensor& out, Fuse how);

}  // namespace normscan
