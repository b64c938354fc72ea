#include "ops/kernels/distance.hpp"

#include "ops/kernels/pointwise.hpp"
#include "ops/kernels/ssim.hpp"

namespace normscan::kernels {

const DistanceTable NORMSCAN_TABLE(distance) = {
    {pointwise<float>, pointwise_backward<float>, magnitude<float>, ssim<float>, ssim_backward<float>},
    {pointwise<double>, pointwise_backward<double>, magnitude<double>, ssim<double>, ssim_backward<double>}};

}  // namespace normscan::kernels
