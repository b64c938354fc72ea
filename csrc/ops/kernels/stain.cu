// Stains on the GPU, in double as on the CPU, which has the reasons. The residual is bound by memory, or by doubles on
// cards that have few units for them. To count red pixels a warp goes along a row and writes how many there are up to
// each pixel (12 bytes of workspace); then threads go down columns, each with a window that a row comes into and
// another leaves. Only whole numbers are added.
#include <algorithm>
#include <cfloat>
#include <limits>

#include "normscan/cuda.hpp"
#include "ops/dispatch.hpp"
#include "ops/kernels/bilinear.cuh"
#include "ops/kernels/features.cuh"
#include "ops/kernels/workspace.cuh"
#include "ops/stain.hpp"

namespace normscan::cuda {
namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();
constexpr unsigned everyone = 0xffffffffu;
constexpr int warps = 8, columns = 128, rows_per_task = 32;
constexpr int kinds = 3;  // of counts: red in a, red in b, not finite

template <class T>
struct Pair {
    Features<const T> a, b;
    int height, width;
    std::int64_t rows;  // of all images
};

struct Colour {
    double red, green, blue;
};

template <class T>
__device__ __forceinline__ Colour colour(const Features<const T>& picture, std::int64_t n, int y, int x) {
    const T* const at = picture.at(n, y, x);
    return {static_cast<double>(at[0]), static_cast<double>(at[picture.channel]),
            static_cast<double>(at[2 * picture.channel])};
}

// Calls f(image, y) with every row, for a warp each.
template <class T, class F>
__device__ __forceinline__ void for_rows(const Pair<T>& pair, const F& f) {
    const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * warps + threadIdx.y;
    for (std::int64_t row = first; row < pair.rows; row += static_cast<std::int64_t>(gridDim.x) * warps) {
        f(row / pair.height, static_cast<int>(row % pair.height));
    }
}

__device__ __forceinline__ double redness(const Colour& c, double cut) {
    const double r = c.red - 0.5 * (c.green + c.blue);
    return r < cut ? 0.0 * r : r;
}

template <class T>
__global__ void __launch_bounds__(32 * warps) residual_kernel(Pair<T> pair, double cut, MapView<T> out) {
    for_rows(pair, [&](std::int64_t n, int y) {
        for (int x = static_cast<int>(threadIdx.x); x < pair.width; x += 32) {
            const double difference = redness(colour(pair.b, n, y, x), cut) - redness(colour(pair.a, n, y, x), cut);
            out.at(n, y)[x] = static_cast<T>(difference * difference);
        }
    });
}

__device__ __forceinline__ bool is_red(const Colour& c, const kernels::RedRange& range) {
    const double most = fmax(fmax(c.red, c.green), c.blue), spread = most - fmin(fmin(c.red, c.green), c.blue);
    double hue = 240.0 * spread + 60.0 * (c.red - c.green);  // in degrees times the spread, as on the CPU
    if (most == c.green) hue = 120.0 * spread + 60.0 * (c.blue - c.red);
    if (most == c.red) hue = 60.0 * (c.green - c.blue);
    double turn = hue - range.from * spread;
    if (turn < 0.0) turn += 360.0 * spread;
    if (turn < 0.0) turn += 360.0 * spread;
    return spread > 0.0 && turn <= range.width * spread && spread >= range.least_saturation * most;
}

__device__ __forceinline__ bool is_finite(const Colour& c) {
    return fabs(c.red + c.green + c.blue) <= DBL_MAX;
}

// Numbers of marks from the left end of a row up to each pixel, [N,3,H,W].
struct Counts {
    int* data;
    int height, width;

    __device__ int* row(std::int64_t n, int kind, int y) const {
        return data + ((n * kinds + kind) * height + y) * width;
    }
};

template <class T>
__global__ void __launch_bounds__(32 * warps) count_kernel(Pair<T> pair, kernels::RedRange red, Counts counts) {
    const int lane = static_cast<int>(threadIdx.x);
    const unsigned up_to_here = everyone >> (31 - lane);
    for_rows(pair, [&](std::int64_t n, int y) {
        int before[kinds] = {};
        for (int first = 0; first < pair.width; first += 32) {
            const int x = first + lane;
            bool mark[kinds] = {};
            if (x < pair.width) {
                const Colour p = colour(pair.a, n, y, x), q = colour(pair.b, n, y, x);
                mark[0] = is_red(p, red);
                mark[1] = is_red(q, red);
                mark[2] = !is_finite(p) || !is_finite(q);
            }
            for (int kind = 0; kind < kinds; ++kind) {
                const unsigned found = __ballot_sync(everyone, mark[kind]);
                if (x < pair.width) counts.row(n, kind, y)[x] = before[kind] + __popc(found & up_to_here);
                before[kind] += __popc(found);
            }
        }
    });
}

template <class T, class V>
__device__ __forceinline__ T ratio(const V (&sum)[kinds]) {
    if (sum[2] > 0) return static_cast<T>(nan);
    return static_cast<T>(static_cast<double>(sum[1] + 1) / static_cast<double>(sum[0] + 1));
}

__device__ __forceinline__ int smaller(int a, int b) {
    return a < b ? a : b;
}

// `tasks` pieces of images: `rows` rows of `columns` columns, or of all.
struct Pieces {
    std::int64_t tasks;
    int rows, down, across;
};

template <class T>
__global__ void __launch_bounds__(columns) window_kernel(Counts counts, int radius, Pieces pieces, MapView<T> out) {
    for (std::int64_t task = blockIdx.x; task < pieces.tasks; task += gridDim.x) {
        const int x = static_cast<int>(task % pieces.across) * columns + static_cast<int>(threadIdx.x);
        const int begin = static_cast<int>(task / pieces.across % pieces.down) * pieces.rows;
        const int end = smaller(begin + pieces.rows, out.height), right = smaller(x + radius, out.width - 1);
        const std::int64_t n = task / pieces.across / pieces.down;
        if (x >= out.width) continue;
        int sum[kinds] = {};
        const auto add = [&](int y, int times) {
            for (int kind = 0; kind < kinds; ++kind) {
                const int* const row = counts.row(n, kind, y);
                sum[kind] += times * (row[right] - (x > radius ? row[x - radius - 1] : 0));
            }
        };
        for (int y = begin > radius ? begin - radius : 0; y < smaller(begin + radius, out.height); ++y) add(y, 1);
        for (int y = begin; y < end; ++y) {
            if (y + radius < out.height) add(y + radius, 1);
            out.at(n, y)[x] = ratio<T>(sum);
            if (y >= radius) add(y - radius, -1);
        }
    }
}

// Every warp adds up the ends of all rows of its image: few beside the pixels that its block writes.
template <class T>
__global__ void __launch_bounds__(32 * warps) whole_kernel(Counts counts, Pieces pieces, MapView<T> out) {
    for (std::int64_t task = blockIdx.x; task < pieces.tasks; task += gridDim.x) {
        const std::int64_t n = task / pieces.down;
        const int begin = static_cast<int>(task % pieces.down) * pieces.rows;
        long long sum[kinds] = {};
        for (int kind = 0; kind < kinds; ++kind) {
            for (int y = static_cast<int>(threadIdx.x); y < out.height; y += 32) {
                sum[kind] += counts.row(n, kind, y)[out.width - 1];
            }
            sum[kind] = warp_sum(sum[kind]);
        }
        for (int y = begin + static_cast<int>(threadIdx.y); y < smaller(begin + pieces.rows, out.height); y += warps) {
            for (int x = static_cast<int>(threadIdx.x); x < out.width; x += 32) out.at(n, y)[x] = ratio<T>(sum);
        }
    }
}

template <class T>
void run_ratio(Stream stream, const Pair<T>& pair, const Grid& grid, const Counts& counts, const Tensor& out,
               const Stain& how) {
    launch("stain", stream, grid, count_kernel<T>, pair, red_range(how), counts);
    const int side = std::max(pair.height, pair.width), radius = how.window ? std::min(*how.window / 2, side) : 0;
    const int rows = std::max(rows_per_task, 2 * radius + 1), across = how.window ? columns : pair.width;
    Pieces pieces = {0, rows, static_cast<int>(ceil_div(pair.height, rows)),
                     static_cast<int>(ceil_div(pair.width, across))};
    pieces.tasks = out.size(0) * pieces.down * pieces.across;
    const unsigned blocks = blocks_for(pieces.tasks, 1);
    if (how.window) {
        launch("stain", stream, {blocks, columns}, window_kernel<T>, counts, radius, pieces, map_view<T>(out));
    } else {
        launch("stain", stream, {blocks, dim3(32, warps)}, whole_kernel<T>, counts, pieces, map_view<T>(out));
    }
}

Counts counts_in(Workspace& room, const Tensor& a) {
    return {room.take<int>(kinds * a.size(0) * a.size(2) * a.size(3)), static_cast<int>(a.size(2)),
            static_cast<int>(a.size(3))};
}

}  // namespace

std::int64_t stain_workspace(const Tensor& a, StainMetric metric) {
    Workspace counted;
    if (metric == StainMetric::red_ratio) counts_in(counted, a);
    return counted.bytes();
}

void stain(Stream stream, const Tensor& a, const Tensor& b, const Tensor& out, const Tensor& workspace,
           const Stain& how) {
    if (!check_stain(a, b, out, how)) return;
    const Check check("stain");
    constexpr std::int64_t most = 0x7fffffff / 4;
    if (out.size(1) > most || out.size(2) > most) {
        check.fail("a has ", out.size(1), " x ", out.size(2), " pixels, expected sides of at most ", most, " on a GPU");
    }
    Workspace room(check, workspace, stain_workspace(a, how.metric));
    for_dtype(out.dtype, [&]<class T>() {
        const auto height = static_cast<int>(out.size(1)), width = static_cast<int>(out.size(2));
        const Pair<T> pair = {features<const T>(a), features<const T>(b), height, width, out.size(0) * height};
        const Grid grid = {blocks_for(pair.rows, warps), dim3(32, warps)};
        if (how.metric == StainMetric::residual) {
            launch("stain", stream, grid, residual_kernel<T>, pair, how.cut - cut_slack, map_view<T>(out));
        } else {
            run_ratio<T>(stream, pair, grid, counts_in(room, a), out, how);
        }
    });
}

}  // namespace normscan::cuda
