// What the Gaussian kernels make of squared distances (the CPU's: gaussian_output.hpp). Included by gaussian*.cu only.
#pragma once

#include <math.h>

#include "ops/kernels/launch.cuh"

namespace normscan::cuda {
namespace {

constexpr double half_log_two_pi = 0.91893853320467274;

template <class T>
struct Output {
    GaussianOutput kind = GaussianOutput::squared_distance;  // nll: of one Gaussian or of a mixture
    T saturation = T(1);
    const T* logs = nullptr;  // nll: of each component, the logarithm of its density at its mean, with its weight

    __device__ T log_density(int component) const { return kind == GaussianOutput::nll ? logs[component] : T(0); }
};

// -log sum of e^(log - d2 / 2), one component after the other: a sum of exponentials beside its largest exponent. A NaN
// stays in the sum; a component of weight 0 (log -inf) adds nothing.
template <class T>
struct Likelihood {
    T top = static_cast<T>(-INFINITY), sum = T(0);

    __device__ void add(T log_density, T squared_distance) {
        const T exponent = log_density - T(0.5) * squared_distance;
        const T larger = exponent < top ? top : exponent;
        const T shift = larger == static_cast<T>(-INFINITY) ? T(0) : larger;  // -inf - -inf is no number
        sum = sum * exp(top - shift) + exp(exponent - shift);
        top = larger;
    }
    __device__ T value() const { return -top - log(sum); }
};

// The result at one position: fed with the squared distance to each component, and the component's log_density.
template <class T>
struct Result {
    Likelihood<T> likelihood;
    T distance = T(0);

    __device__ void add(const Output<T>& output, T log_density, T squared_distance) {
        if (output.kind == GaussianOutput::nll) {
            likelihood.add(log_density, squared_distance);
        } else {
            distance = squared_distance;
        }
    }
    __device__ T value(const Output<T>& output) const {
        if (output.kind == GaussianOutput::nll) return likelihood.value();
        return output.kind == GaussianOutput::saturated ? -expm1(-distance / output.saturation) : distance;
    }
};

}  // namespace
}  // namespace normscan::cuda
