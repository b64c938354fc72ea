// Distances between two images: per position over channels (l1, l2, cosine), and SSIM over a window.
#pragma once

#include "ops/kernels/isa.hpp"

namespace normscan::kernels {

constexpr std::int64_t distance_positions = 128;  // a block of the per-position metrics

enum class Pointwise : std::uint8_t { l1, l2, cosine };

template <class T>
struct PointwiseForward {
    Planes<const T> a, b;
    std::int64_t first, count, channels;  // count <= distance_positions
    Pointwise metric;
    T factor;  // of the sum over channels: 1 / C, and for relative_l1 1 / (C denominator)
    Map<T> out;
    T* scratch;  // 2 C * distance_positions
};

template <class T>
struct PointwiseBackward {
    Planes<const T> a, b;
    Map<const T> grad_out;
    std::int64_t first, count, channels;
    Pointwise metric;
    T factor;
    Planes<T> grad_a, grad_b;
    T* scratch;  // 4 C * distance_positions
};

// sum of |b| over channels and positions first..first+count-1
template <class T>
struct MagnitudeSum {
    Planes<const T> b;
    std::int64_t first, count, channels;
    T* scratch;  // C * distance_positions
};

// The window: weights [2 radius + 1], and 1 / (sum of the weights inside the image) for each row and column.
template <class T>
struct Window {
    std::int64_t radius;
    const T *weights, *row_share, *column_share;
};

// Rows `begin`..`end`-1 of one image, all channels.
template <class T>
struct SsimForward {
    Planes<const T> a, b;
    std::int64_t height, channels, begin, end;
    bool with_light;  // SSIM; else its contrast-structure factor
    Window<T> window;
    Map<T> out;
    T* scratch;  // ssim_forward_scratch
};

// One channel of one image: a and b start at it.
template <class T>
struct SsimBackward {
    Planes<const T> a, b;
    Map<const T> grad_out;
    std::int64_t height;
    T factor;  // - 1 / C
    bool with_light;
    Window<T> window;
    Planes<T> grad_a, grad_b;
    T* scratch;  // ssim_backward_scratch
};

// Widths of scratch rows: whole granules of 16, and the same with a window's border.
static constexpr std::int64_t ssim_width(std::int64_t width) {
    return (width + 15) / 16 * 16;
}

static constexpr std::int64_t ssim_forward_scratch(std::int64_t width, std::int64_t rows, std::int64_t radius) {
    const std::int64_t w = ssim_width(width);
    return (2 * (rows + 2 * radius) + 5 + rows) * w + 5 * (w + 2 * radius);
}

static constexpr std::int64_t ssim_backward_scratch(std::int64_t width, std::int64_t height, std::int64_t radius) {
    const std::int64_t w = ssim_width(width);
    return (2 * height + 5 + 4 * height) * w + 5 * (w + 2 * radius);
}

template <class T>
struct DistanceKernels {
    void (*pointwise)(const PointwiseForward<T>&);
    void (*pointwise_backward)(const PointwiseBackward<T>&);
    double (*magnitude)(const MagnitudeSum<T>&);
    void (*ssim)(const SsimForward<T>&);
    void (*ssim_backward)(const SsimBackward<T>&);
};

struct DistanceTable {
    DistanceKernels<float> f32;
    DistanceKernels<double> f64;
};
NORMSCAN_DECLARE_KERNELS(DistanceTable, distance);

}  // namespace normscan::kernels
