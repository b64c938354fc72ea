// What distances ask of their arguments, on every device.
#pragma once

#include <string_view>

#include "ops/check.hpp"
#include "ops/kernels/distance.hpp"

namespace normscan {

inline constexpr double ssim_sigma = 1.5;
inline constexpr double least_magnitude = 1e-12;  // of the reference of relative_l1

struct DistanceSizes {
    std::int64_t images, channels, height, width, positions;
};

// The checks of distance, and of distance_backward.
DistanceSizes check_distance(const Tensor& a, const Tensor& b, const Tensor& out, Metric metric, int window);
DistanceSizes check_distance_backward(const Tensor& grad_out, const Tensor& a, const Tensor& b, const Tensor& grad_a,
                                      const Tensor& grad_b, Metric metric, int window);

// Whether a metric looks at a window around a position.
inline bool windowed(Metric metric) {
    return metric == Metric::ssim || metric == Metric::cs;
}

// What the others sum over the channels of a position.
inline kernels::Pointwise pointwise(Metric metric) {
    if (metric == Metric::l2) return kernels::Pointwise::l2;
    return metric == Metric::cosine ? kernels::Pointwise::cosine : kernels::Pointwise::l1;
}

}  // namespace normscan
