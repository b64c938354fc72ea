// Several maps of resolutions of their own become one, on the GPU: distance_maps and the scorer share it.
#pragma once

#include <span>

#include "normscan/cuda.hpp"

namespace normscan::cuda {

inline constexpr std::size_t most_fused = 8;  // maps of one call: they travel in the kernel's parameters

// As normscan::fuse (ops/fuse.hpp), in the name of `op`. onto: `out` already holds a map, the first of those that are
// fused.
void fuse(std::string_view op, Stream stream, std::span<const Tensor> maps, std::span<const double> factors,
          const Tensor& out, Fuse how, bool onto = false);

}  // namespace normscan::cuda
