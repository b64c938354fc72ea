// What a Gaussian gives of one block of positions, and its gradients.
//
// A block is gathered as [D][64], centred; lanes are positions, so a position's value never depends on its neighbours.
#pragma once

#include "ops/kernels/gaussian_output.hpp"
#include "ops/kernels/isa.hpp"

namespace normscan::kernels {

constexpr std::int64_t gaussian_positions = 64;  // a block
constexpr std::int64_t gaussian_rows = 16;       // rows of the whitener at a time
constexpr std::int64_t gaussian_granule = 16;    // rows of `grad_whitener` are whole granules

enum class Whitener : std::uint8_t { isotropic, diagonal, full };

template <class T>
struct GaussianForward {
    Planes<const T> z;
    std::int64_t first, count, channels;  // positions first..first+count-1, count <= gaussian_positions
    const T* mean;
    const T* whitener;  // contiguous; full: [D][D] with zeros above the diagonal
    Whitener form;
    Output<T> output;
    Map<T> out;
    T* scratch;  // (D + gaussian_rows) * gaussian_positions
};

template <class T>
struct GaussianBackward {
    Planes<const T> z;
    Map<const T> grad_out;
    std::int64_t first, count, channels;
    const T* mean;
    const T* whitener;
    Whitener form;
    Output<T> output;
    Planes<T> grad_z;
    T* grad_mean;      // [D], added to
    T* grad_whitener;  // [1], [D] or [D][D in whole granules], added to; above the diagonal: meaningless
    T* grad_offset;    // [1], added to: of `output.offset`
    T* scratch;        // (4 D + 16) * gaussian_positions
};

template <class T>
struct GaussianKernels {
    void (*forward)(const GaussianForward<T>&);
    void (*backward)(const GaussianBackward<T>&);
};

struct GaussianTable {
    GaussianKernels<float> f32;
    GaussianKernels<double> f64;
};
NORMSCAN_DECLARE_KERNELS(GaussianTable, gaussian);

}  // namespace normscan::kernels
