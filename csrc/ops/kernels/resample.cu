// Bilinear resampling of maps on the GPU: a thread makes one output pixel. Memory-bound.
#include "normscan/cuda.hpp"
#include "ops/check.hpp"
#include "ops/dispatch.hpp"
#include "ops/kernels/launch.cuh"
#include "ops/resample.hpp"

namespace normscan::cuda {
namespace {

constexpr int threads = 256;

template <class T>
struct Resample {
    const T* map;
    std::int64_t map_image, map_row, map_column, map_height, map_width;
    T* out;
    std::int64_t out_image, out_row, out_column, height, width, images;
};

// Half-pixel centres (align_corners false), held at the first and the last input; the same table as Axis
// (ops/axis.hpp).
template <class T>
struct Place {
    std::int64_t low, high;
    T share;

    __device__ Place(std::int64_t i, std::int64_t from, std::int64_t to) {
        const double scale = static_cast<double>(from) / static_cast<double>(to);
        const double at = fmax(0.0, (static_cast<double>(i) + 0.5) * scale - 0.5);
        low = static_cast<std::int64_t>(at) < from - 1 ? static_cast<std::int64_t>(at) : from - 1;
        share = static_cast<T>(fmin(1.0, at - static_cast<double>(low)));
        high = share > T(0) && low + 1 < from ? low + 1 : low;
    }
};

// (1 - share) a + share b, and no look at a neighbour that has no share: it may be NaN.
template <class T>
__device__ __forceinline__ T between(T a, T b, T share) {
    return share > T(0) ? (T(1) - share) * a + share * b : a;
}

template <class T>
__global__ void __launch_bounds__(threads) resample_kernel(Resample<T> a) {
    const std::int64_t pixels = a.height * a.width, total = a.images * pixels;
    const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * threads;
    for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * threads + threadIdx.x; i < total; i += step) {
        const std::int64_t n = i / pixels, y = i % pixels / a.width, x = i % a.width;
        const Place<T> row(y, a.map_height, a.height), column(x, a.map_width, a.width);
        const T* const upper = a.map + n * a.map_image + row.low * a.map_row;
        const T* const lower = a.map + n * a.map_image + row.high * a.map_row;
        const std::int64_t left = column.low * a.map_column, right = column.high * a.map_column;
        const T above = between(upper[left], upper[right], column.share);
        const T below = between(lower[left], lower[right], column.share);
        a.out[n * a.out_image + y * a.out_row + x * a.out_column] = between(above, below, row.share);
    }
}

template <class T>
void run(Stream stream, const Tensor& map, const Tensor& out) {
    const Resample<T> a = {map.as<const T>(), map.step(0), map.step(1), map.step(2), map.size(1),
                           map.size(2),       out.as<T>(), out.step(0), out.step(1), out.step(2),
                           out.size(1),       out.size(2), out.size(0)};
    const Grid grid = {blocks_for(a.images * a.height * a.width, threads), threads};
    launch("resample", stream, grid, resample_kernel<T>, a);
}

}  // namespace

void resample(Stream stream, const Tensor& map, const Tensor& out) {
    if (!check_resample(map, out)) return;
    for_dtype(map.dtype, [&]<class T>() { run<T>(stream, map, out); });
}

}  // namespace normscan::cuda
