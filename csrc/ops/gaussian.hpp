// What the Gaussian ops ask of their arguments, on every device.
#pragma once

#include "normscan/tensor.hpp"

namespace normscan {

void check_gaussian(const Tensor& z, const Tensor& mean, const Tensor& whitener, const Tensor& out, double saturation);
void check_gaussian_backward(const Tensor& grad_out, const Tensor& z, const Tensor& mean, const Tensor& whitener,
                             const Tensor& grad_z, const Tensor& grad_mean, const Tensor& grad_whitener,
                             double saturation);
void check_gaussian_mixture(const Tensor& z, const Tensor& means, const Tensor& whiteners, const Tensor& log_weights,
                            const Tensor& out);
void check_gaussian_positions(const Tensor& z, const Tensor& mean, const Tensor& whitener, const Tensor& out,
                              double saturation);

}  // namespace normscan
