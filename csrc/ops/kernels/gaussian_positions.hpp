// Squared Mahalanobis distances where every position has a Gaussian of its own.
//
// The triangle of a position is read once for 8 images, whose values lie side by side in the lanes of a vector: reading
// it is most of the time, and an image's value never depends on the others.
#pragma once

#include "ops/kernels/gaussian_output.hpp"
#include "ops/kernels/isa.hpp"

namespace normscan::kernels {

constexpr std::int64_t position_images = 8;  // images of a call
constexpr std::int64_t position_tile = 16;   // positions of a call: the values of a channel fill a cache line

template <class T>
struct GaussianPositions {
    Planes<const T> z;  // of the first image
    std::int64_t z_image, images;
    Planes<const T> mean;
    Planes<const T> whitener;  // a channel is a row of the triangle; its step is 0 where triangles are packed
    Output<T> output;          // its offset without the determinants
    Map<T> out;                // of the first image
    std::int64_t out_image;
    std::int64_t first, count, channels;  // positions first..first+count-1
    T* scratch;                           // position_tile * channels * position_images, aligned to 64 bytes
};

template <class T>
struct GaussianPositionsKernels {
    void (*forward)(const GaussianPositions<T>&);
};

struct GaussianPositionsTable {
    GaussianPositionsKernels<float> f32;
    GaussianPositionsKernels<double> f64;
};
NORMSCAN_DECLARE_KERNELS(GaussianPositionsTable, gaussian_positions);

}  // namespace normscan::kernels
