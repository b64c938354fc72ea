// The negative log-likelihood of one block of positions under several Gaussians.
//
// One component after the other goes into a running sum of exponentials, kept beside its largest exponent: nothing is
// held for each component.
#pragma once

#include "ops/kernels/gaussian.hpp"

namespace normscan::kernels {

template <class T>
struct GaussianMixture {
    Planes<const T> z;
    std::int64_t first, count, channels, components;  // positions first..first+count-1, count <= gaussian_positions
    const T* means;                                   // [K][D]
    const T* whiteners;                               // [K][1], [K][D] or [K][D][D] with zeros above the diagonals
    Whitener form;
    const T* logs;  // [K]: the logarithm of a component's density at its mean, with its weight
    Map<T> out;
    T* scratch;  // (2 D + gaussian_rows) * gaussian_positions
};

template <class T>
struct GaussianMixtureKernels {
    void (*forward)(const GaussianMixture<T>&);
};

struct GaussianMixtureTable {
    GaussianMixtureKernels<float> f32;
    GaussianMixtureKernels<double> f64;
};
NORMSCAN_DECLARE_KERNELS(GaussianMixtureTable, gaussian_mixture);

}  // namespace normscan::kernels
