// What the Gaussian ops share: their outputs, and the log-determinant that the likelihood needs.
#pragma once

#include <cmath>
#include <numbers>

#include "normscan/ops.hpp"
#include "ops/check.hpp"
#include "ops/kernels/gaussian.hpp"

namespace normscan {

inline void check_saturation(const Check& check, double saturation) {
    if (!(saturation > 0.0 && std::isfinite(saturation))) {
        check.fail("saturation is ", saturation, ", expected a finite number > 0");
    }
}

// The part of the negative log-likelihood that no whitener changes.
inline double nll_offset(std::int64_t channels) {
    return 0.5 * static_cast<double>(channels) * std::log(2.0 * std::numbers::pi);
}

// log |det W| of a contiguous whitener: [1] and [D] are diagonals.
template <class T>
double log_determinant(const T* whitener, kernels::Whitener form, std::int64_t channels) {
    const std::int64_t step = form == kernels::Whitener::full ? channels + 1 : form == kernels::Whitener::diagonal;
    double sum = 0.0;
    for (std::int64_t i = 0; i < channels; ++i) sum += std::log(std::abs(static_cast<double>(whitener[i * step])));
    return sum;
}

template <class T>
kernels::Output<T> kernel_output(GaussianOutput output, double saturation, double offset) {
    return {static_cast<kernels::OutputKind>(output), static_cast<T>(saturation), static_cast<T>(offset)};
}

}  // namespace normscan
