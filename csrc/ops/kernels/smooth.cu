// Gaussian smoothing of maps on the GPU: along columns into the workspace, then along rows. Each pass reads and writes
// the map once; it is bound by memory up to about 20 taps, then by the taps (one fused multiply-add each).
//
// A block makes a tile of 32 lines x 32 places along the axis. Taps come in chunks, so that any radius fits: for each
// chunk the block lays the weights and the places that they reach, mirrored at the edges, into shared memory.
#include <cmath>
#include <utility>

#include "normscan/cuda.hpp"
#include "ops/dispatch.hpp"
#include "ops/kernels/launch.cuh"
#include "ops/kernels/workspace.cuh"
#include "ops/smooth.hpp"

namespace normscan::cuda {
namespace {

constexpr int side = 32, groups = 8, each = side / groups;  // a thread makes 4 adjacent places of a line
constexpr int chunk = 64;                                   // taps
constexpr int reach = side + chunk;

// One pass. Place i of line j of a map lies at i * axis + j * line.
template <class T>
struct Pass {
    const T* map;
    std::int64_t map_image, map_axis, map_line;
    T* out;
    std::int64_t out_image, out_axis, out_line;
    int places, lines, radius;
    double sigma, norm;  // norm: 1 / (sum of the weights)
    unsigned tiles_along, tiles;
    bool adjacent_places;  // in memory places lie side by side, else lines do
};

// d c b a | a b c d | d c b a, as often as needed.
__device__ __forceinline__ int mirrored(int i, int count) {
    if (i >= 0 && i < count) return i;
    const std::int64_t period = 2 * static_cast<std::int64_t>(count);
    const int place = static_cast<int>((i % period + period) % period);
    return place < count ? place : static_cast<int>(period - 1 - place);
}

// The taps first, first + 1, ... of the filter; 0 beyond the last.
template <class T>
__device__ void lay_weights(const Pass<T>& a, int first, int thread, T* weights) {
    for (int k = thread; k < chunk; k += side * groups) {
        const double x = static_cast<double>(first + k - a.radius) / a.sigma;
        const bool inside = first + k <= 2 * a.radius;
        weights[k] = !inside ? T(0) : a.radius == 0 ? T(1) : static_cast<T>(exp(-0.5 * x * x) * a.norm);
    }
}

template <class T>
__global__ void __launch_bounds__(side* groups) smooth_kernel(Pass<T> a) {
    __shared__ T values[reach][side + 1], weights[chunk];
    const int x = static_cast<int>(threadIdx.x), y = static_cast<int>(threadIdx.y), thread = y * side + x;
    const std::int64_t n = blockIdx.x / a.tiles;
    const unsigned tile = blockIdx.x % a.tiles;
    const int place = static_cast<int>(tile % a.tiles_along) * side,
              line = static_cast<int>(tile / a.tiles_along) * side;
    const T* const from = a.map + n * a.map_image;
    T sum[each] = {};
    for (int first = 0; first <= 2 * a.radius; first += chunk) {
        const int taps = 2 * a.radius + 1 - first < chunk ? 2 * a.radius + 1 - first : chunk;
        lay_weights(a, first, thread, weights);
        // Neighbouring threads take what lies side by side in memory.
        for (int i = a.adjacent_places ? x : y; i < side + taps - 1; i += a.adjacent_places ? side : groups) {
            const std::int64_t at = mirrored(place + i + first - a.radius, a.places) * a.map_axis;
            for (int j = a.adjacent_places ? y : x; j < side; j += a.adjacent_places ? groups : side) {
                values[i][j] = line + j < a.lines ? from[at + (line + j) * a.map_line] : T(0);
            }
        }
        __syncthreads();
        T window[each];
        for (int i = 0; i < each; ++i) window[i] = values[y * each + i][x];
        for (int k = 0; k < taps; ++k) {
            const T weight = weights[k];
            for (int i = 0; i < each; ++i) sum[i] += weight * window[i];
            for (int i = 0; i + 1 < each; ++i) window[i] = window[i + 1];
            if (k + 1 < taps) window[each - 1] = values[y * each + each + k][x];
        }
        __syncthreads();
    }
    for (int i = 0; i < each; ++i) values[y * each + i][x] = sum[i];
    __syncthreads();
    T* const to = a.out + n * a.out_image;
    for (int i = y; i < side; i += groups) {
        const int p = a.adjacent_places ? x : i, l = a.adjacent_places ? i : x;
        if (place + p < a.places && line + l < a.lines) {
            to[(place + p) * a.out_axis + (line + l) * a.out_line] = values[p][l];
        }
    }
}

double inverse_sum(double sigma, std::int64_t radius) {
    double sum = 0.0;
    for (std::int64_t k = -radius; k <= radius; ++k) {
        const double x = static_cast<double>(k) / sigma;
        sum += radius == 0 ? 1.0 : std::exp(-0.5 * x * x);
    }
    return 1.0 / sum;
}

template <class T>
void run(Stream stream, const Tensor& map, const Tensor& between, const Tensor& out, double sigma) {
    constexpr std::int64_t most = 0x7fffffff;
    const std::int64_t images = map.size(0), height = map.size(1), width = map.size(2);
    const std::int64_t tiles_down = ceil_div(height, side), tiles_across = ceil_div(width, side);
    if (height > most / 4 || width > most / 4 || tiles_down * tiles_across > most / images) {
        Check("smooth").fail("map has shape ", shape_text(map), ", too much for one call on a GPU; split the batch");
    }
    const auto radius = static_cast<int>(smooth_radius(sigma));
    const auto tiles = static_cast<unsigned>(tiles_down * tiles_across);
    const Pass<T> down = {map.as<const T>(),
                          map.step(0),
                          map.step(1),
                          map.step(2),
                          between.as<T>(),
                          between.step(0),
                          between.step(1),
                          between.step(2),
                          static_cast<int>(height),
                          static_cast<int>(width),
                          radius,
                          sigma,
                          inverse_sum(sigma, radius),
                          static_cast<unsigned>(tiles_down),
                          tiles,
                          false};
    Pass<T> across = down;
    across.map = between.as<const T>();
    across.map_image = between.step(0);
    across.map_axis = between.step(2);
    across.map_line = between.step(1);
    across.out = out.as<T>();
    across.out_image = out.step(0);
    across.out_axis = out.step(2);
    across.out_line = out.step(1);
    std::swap(across.places, across.lines);
    across.tiles_along = static_cast<unsigned>(tiles_across);
    across.adjacent_places = true;
    const Grid grid = {static_cast<unsigned>(tiles * images), dim3(side, groups)};
    launch("smooth", stream, grid, smooth_kernel<T>, down);
    launch("smooth", stream, grid, smooth_kernel<T>, across);
}

}  // namespace

std::int64_t smooth_workspace(const Tensor& map) {
    const std::int64_t values = map.size(0) * map.size(1) * map.size(2);
    Workspace counted;
    for_dtype(map.dtype, [&]<class T>() { counted.take<T>(values); });
    return counted.bytes();
}

void smooth(Stream stream, const Tensor& map, const Tensor& out, const Tensor& workspace, double sigma) {
    if (!check_smooth(map, out, sigma)) return;
    for_dtype(map.dtype, [&]<class T>() {
        Workspace room(Check("smooth"), workspace, smooth_workspace(map));
        const std::int64_t height = map.size(1), width = map.size(2);
        T* const memory = room.take<T>(map.size(0) * height * width);
        run<T>(stream, map, contiguous(memory, {map.size(0), height, width}), out, sigma);
    });
}

}  // namespace normscan::cuda
