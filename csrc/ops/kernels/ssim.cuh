// SSIM and its contrast-structure factor on a GPU, for distance.cu and distance_backward.cu. T: float, double.
#pragma once

#include "ops/distance.hpp"
#include "ops/kernels/launch.cuh"

namespace normscan::cuda {

template <class T>
void ssim(Stream stream, const DistanceSizes& s, const Tensor& a, const Tensor& b, const Tensor& out, bool with_light,
          int window);

// maps: 4 C H W values an image
template <class T>
void ssim_backward(Stream stream, const DistanceSizes& s, const Tensor& grad_out, const Tensor& a, const Tensor& b,
                   const Tensor& grad_a, const Tensor& grad_b, bool with_light, int window, T* maps);

}  // namespace normscan::cuda
