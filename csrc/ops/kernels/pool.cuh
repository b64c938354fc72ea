// Pooling on the GPU without rounding to the map's type: for the scorer.
#pragma once

#include "normscan/cuda.hpp"

namespace normscan::cuda {

// As `pool`, to doubles [N] in the GPU's memory.
void pool_doubles(Stream stream, const Tensor& map, double* out, const Tensor& workspace, PoolMethod method,
                  double parameter);

}  // namespace normscan::cuda
