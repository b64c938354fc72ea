// Squared distances of positions to Gaussians, for gaussian.cu and gaussian_backward.cu.
//
// A position's result does not depend on the others of the call: sums run in an order that its channels alone decide.
#pragma once

#include "ops/kernels/gaussian_layout.cuh"
#include "ops/kernels/gaussian_output.cuh"
#include "ops/kernels/gaussian_product.cuh"

namespace normscan::cuda {
namespace {

constexpr int distance_threads = 256;
constexpr int lane_positions = 4;  // positions that a thread works on at once: as many loads on their way

// K Gaussians (one, or the components of a mixture) and the latents to be measured against them.
template <class T>
struct Gaussians {
    Latents<T> z;
    const T *means, *whiteners;
    std::int64_t components, mean_step, whitener_step, row_step;  // row_step: of a full whitener
    bool full, isotropic;
    bool mean_vectors, whitener_vectors;

    // mean [D] or means [K,D], whitener [1], [D], [D,D] or whiteners [K,..]: `rank` is that of one whitener.
    Gaussians(const Latents<T>& latents, const Tensor& m, const Tensor& w, int rank)
        : z(latents), means(m.as<const T>()), whiteners(w.as<const T>()) {
        const bool several = w.rank > rank;
        components = several ? m.size(0) : 1;
        mean_step = several ? m.step(0) : 0;
        whitener_step = several ? w.step(0) : 0;
        row_step = rank == 2 ? step(w, w.rank - 2) : 0;
        full = rank == 2;
        isotropic = !full && w.size(w.rank - 1) != z.channels;
        mean_vectors = in_vectors(means, {mean_step});
        whitener_vectors = in_vectors(whiteners, {whitener_step, row_step});
    }
};

inline unsigned grid_of(std::string_view op, std::int64_t blocks) {
    if (blocks > 0x7fffffff) Check(op).fail("z has too many positions for one call; pass fewer images");
    return static_cast<unsigned>(blocks);
}

// --- Isotropic and diagonal whiteners: bound by reading z once (from the first-level cache for further components).

template <class T>
struct Diagonal {
    Gaussians<T> g;
    Output<T> output;
    T* out;
    Steps out_steps;
    int lanes;  // of a position
};

template <class T>
__device__ T whitened_square(T z, T mean, T whitener) {
    const T y = whitener * (z - mean);
    return y * y;
}

// Neighbours in memory are channels: `lanes` threads share a position, each with four channels at a time.
template <class T>
__global__ void __launch_bounds__(distance_threads) diagonal_by_channels(Diagonal<T> a) {
    const Latents<T>& z = a.g.z;
    const int lane = static_cast<int>(threadIdx.x) % a.lanes, group = static_cast<int>(threadIdx.x) / a.lanes;
    const std::int64_t total = z.layout.positions();
    const std::int64_t first =
        (static_cast<std::int64_t>(blockIdx.x) * (distance_threads / a.lanes) + group) * lane_positions;
    std::int64_t place[lane_positions];
#pragma unroll
    for (int i = 0; i < lane_positions; ++i) {  // beyond the end: the last once more
        place[i] = z.steps.at_any(z.layout, first + i < total ? first + i : total - 1);
    }
    Result<T> result[lane_positions];
    for (int k = 0; k < a.g.components; ++k) {
        const T* const mean = a.g.means + k * a.g.mean_step;
        const T* const whitener = a.g.whiteners + k * a.g.whitener_step;
        T squares[lane_positions] = {};
        for (std::int64_t c = 4 * lane; c < z.channels; c += 4 * a.lanes) {
            T m[4], w[4], v[lane_positions][4];
#pragma unroll
            for (int i = 0; i < lane_positions; ++i) z.four_channels(place[i], c, v[i]);
            load_four(mean + c, z.channels - c, a.g.mean_vectors, m);
            if (a.g.isotropic) {
                w[0] = w[1] = w[2] = w[3] = whitener[0];
            } else {
                load_four(whitener + c, z.channels - c, a.g.whitener_vectors, w);
            }
#pragma unroll
            for (int i = 0; i < lane_positions; ++i) {
#pragma unroll
                for (int j = 0; j < 4; ++j) squares[i] += whitened_square(v[i][j], m[j], w[j]);
            }
        }
#pragma unroll
        for (int i = 0; i < lane_positions; ++i) {
            for (int bits = a.lanes / 2; bits > 0; bits /= 2) {
                squares[i] += __shfl_xor_sync(0xffffffffu, squares[i], bits);
            }
            result[i].add(a.output, a.output.log_density(k), squares[i]);
        }
    }
#pragma unroll
    for (int i = 0; i < lane_positions; ++i) {
        if (lane == 0 && first + i < total) {
            a.out[a.out_steps.at_any(z.layout, first + i)] = result[i].value(a.output);
        }
    }
}

// Neighbours in memory are positions: a warp takes 128 of them, the warps of a block share the channels.
constexpr int plane_positions = 32 * lane_positions, plane_warps = distance_threads / 32;

template <class T>
__global__ void __launch_bounds__(distance_threads) diagonal_by_positions(Diagonal<T> a) {
    __shared__ T sums[plane_warps][plane_positions];
    const Latents<T>& z = a.g.z;
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    const int own = static_cast<int>(threadIdx.x);  // the position that this thread finishes, if below 128
    const std::int64_t per_image = ceil_div(z.layout.plane(), plane_positions);
    const std::int64_t n = blockIdx.x / per_image, first = blockIdx.x % per_image * plane_positions;
    const std::int64_t q = first + lane_positions * lane;
    Result<T> result;
    for (int k = 0; k < a.g.components; ++k) {
        const T* const mean = a.g.means + k * a.g.mean_step;
        const T* const whitener = a.g.whiteners + k * a.g.whitener_step;
        T squares[lane_positions] = {};
#pragma unroll 4
        for (std::int64_t c = warp; c < z.channels; c += plane_warps) {
            T v[lane_positions];
            z.four_positions(n, q, c, v);
            const T m = mean[c], w = whitener[a.g.isotropic ? 0 : c];
#pragma unroll
            for (int i = 0; i < lane_positions; ++i) squares[i] += whitened_square(v[i], m, w);
        }
        __syncthreads();  // the sums of the component before have been read
#pragma unroll
        for (int i = 0; i < lane_positions; ++i) sums[warp][lane_positions * lane + i] = squares[i];
        __syncthreads();
        if (own < plane_positions) {
            T sum = T(0);
            for (int w = 0; w < plane_warps; ++w) sum += sums[w][own];
            result.add(a.output, a.output.log_density(k), sum);
        }
    }
    if (own < plane_positions && first + own < z.layout.plane()) {
        a.out[n * a.out_steps.image + a.out_steps.at(z.layout, first + own)] = result.value(a.output);
    }
}

template <class T>
void launch_diagonal(std::string_view op, Stream stream, const Gaussians<T>& g, const Output<T>& output, T* out,
                     const Steps& out_steps) {
    const Layout& l = g.z.layout;
    Diagonal<T> a = {g, output, out, out_steps, 1};
    if (!g.z.by_channels) {
        const std::int64_t blocks = l.plane() == 0 ? 0 : l.images * ceil_div(l.plane(), plane_positions);
        launch(op, stream, {grid_of(op, blocks), distance_threads}, diagonal_by_positions<T>, a);
        return;
    }
    while (a.lanes < 32 && 4 * a.lanes < g.z.channels) a.lanes *= 2;
    const std::int64_t blocks = ceil_div(l.positions(), distance_threads / a.lanes * lane_positions);
    launch(op, stream, {grid_of(op, blocks), distance_threads}, diagonal_by_channels<T>, a);
}

// --- Full whiteners: y = W (z - mean), 64 positions by 64 rows of W a block, D^2 / 2 multiply-adds a position. Bound
// by arithmetic from D of about 64 on; below, by reading z.

template <class T>
struct Centred {
    const Latents<T>& z;
    const T* mean;
    bool mean_vectors;

    // Zeros where the position or the channel is not there.
    __device__ void four_channels(std::int64_t n, std::int64_t q, std::int64_t c, T (&v)[4]) const {
        if (q >= z.layout.plane()) {
            v[0] = v[1] = v[2] = v[3] = T(0);
            return;
        }
        T m[4];
        z.four_channels(n * z.steps.image + z.steps.at(z.layout, q), c, v);
        load_four(mean + c, z.channels - c, mean_vectors, m);
#pragma unroll
        for (int i = 0; i < 4; ++i) v[i] -= m[i];
    }
    __device__ void four_positions(std::int64_t n, std::int64_t q, std::int64_t c, T (&v)[4]) const {
        if (c >= z.channels) {
            v[0] = v[1] = v[2] = v[3] = T(0);
            return;
        }
        z.four_positions(n, q, c, v);
        const T m = mean[c];
#pragma unroll
        for (int i = 0; i < 4; ++i) v[i] = q + i < z.layout.plane() ? v[i] - m : T(0);
    }
};

// Operands (gaussian_product.cuh): rows are positions from `first` on, k is channels; and rows of the whitener.
template <class T>
struct CentredPositions {
    Centred<T> centred;
    std::int64_t n, first;

    __device__ bool along_k() const { return centred.z.by_channels; }
    __device__ void start(std::int64_t) {}
    __device__ void four(int row, std::int64_t k, T (&v)[4]) const {
        if (along_k()) {
            centred.four_channels(n, first + row, k, v);
        } else {
            centred.four_positions(n, first + row, k, v);
        }
    }
};

template <class T>
struct TriangleRows {
    Triangle<T> triangle;
    std::int64_t first;

    __device__ bool along_k() const { return true; }
    __device__ void start(std::int64_t) {}
    __device__ void four(int row, std::int64_t k, T (&v)[4]) const { triangle.four(first + row, k, v); }
};

template <class T>
struct Project {
    Gaussians<T> g;
    std::int64_t per_image, row_tiles;
    T* sums;  // [K][row tiles][positions]: sums of squares over the rows of a tile, if not null
    T* y;     // [positions][y_step], if not null: zeros behind the last row
    std::int64_t y_step;
};

// A product's squares, summed over the columns of the tile, for each row.
template <class Product>
__device__ void store_squares(const Product& product, typename Product::T* to, std::int64_t count) {
#pragma unroll
    for (int i = 0; i < Product::rows; ++i) {
        typename Product::T sum = 0;
#pragma unroll
        for (int j = 0; j < Product::columns; ++j) sum += product.at(i, j) * product.at(i, j);
#pragma unroll
        for (int bits = Product::lanes / 2; bits > 0; bits /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, bits);
        if (threadIdx.x % Product::lanes == 0 && Product::row(i) < count) to[Product::row(i)] = sum;
    }
}

template <class Product>
__global__ void __launch_bounds__(tile_threads, Product::blocks) project_kernel(Project<typename Product::T> a) {
    using T = typename Product::T;
    __shared__ Slabs<Product> shared;
    const Latents<T>& z = a.g.z;
    // Blocks that share positions are neighbours, and the longest row of tiles begins.
    std::int64_t b = blockIdx.x;
    const std::int64_t rows = a.row_tiles - 1 - b % a.row_tiles;
    b /= a.row_tiles;
    const std::int64_t component = b % a.g.components;
    b /= a.g.components;
    const std::int64_t n = b / a.per_image, first = b % a.per_image * tile, count = z.layout.plane() - first;
    CentredPositions<T> positions = {{z, a.g.means + component * a.g.mean_step, a.g.mean_vectors}, n, first};
    const T* const whitener = a.g.whiteners + component * a.g.whitener_step;
    TriangleRows<T> triangle = {{whitener, a.g.row_step, z.channels, a.g.whitener_vectors}, rows * tile};
    Product product;
    const std::int64_t end = (rows + 1) * tile;
    accumulate(product, positions, triangle, 0, end < z.channels ? end : z.channels, shared);
    const std::int64_t place = n * z.layout.plane() + first;
    if (a.sums != nullptr) {
        T* const sums = a.sums + (component * a.row_tiles + rows) * z.layout.positions();
        store_squares(product, sums + place, count);
    }
    if (a.y == nullptr) return;
#pragma unroll
    for (int i = 0; i < Product::rows; ++i) {
#pragma unroll
        for (int j = 0; j < Product::columns; ++j) {
            const std::int64_t column = rows * tile + Product::column(j);
            if (Product::row(i) < count && column < a.y_step) {
                a.y[(place + Product::row(i)) * a.y_step + column] = product.at(i, j);
            }
        }
    }
}

template <class T>
void launch_project(std::string_view op, Stream stream, const Gaussians<T>& g, T* sums, T* y, std::int64_t y_step,
                    bool allow_tf32) {
    const Layout& l = g.z.layout;
    const std::int64_t per_image = ceil_div(l.plane(), tile), row_tiles = ceil_div(g.z.channels, tile);
    const Project<T> a = {g, per_image, row_tiles, sums, y, y_step};
    const Grid grid = {grid_of(op, l.images * per_image * row_tiles * g.components), tile_threads};
    if constexpr (sizeof(T) == sizeof(float)) {
        if (allow_tf32) return launch(op, stream, grid, project_kernel<Tf32>, a);
    }
    launch(op, stream, grid, project_kernel<Exact<T>>, a);
}

template <class T>
struct Finish {
    const T* sums;  // [K][row tiles][positions]
    std::int64_t components, row_tiles;
    Output<T> output;
    Layout layout;
    T* out;
    Steps out_steps;
};

template <class T>
__global__ void __launch_bounds__(distance_threads) finish_kernel(Finish<T> a) {
    const std::int64_t total = a.layout.positions(), step = static_cast<std::int64_t>(gridDim.x) * distance_threads;
    for (std::int64_t p = static_cast<std::int64_t>(blockIdx.x) * distance_threads + threadIdx.x; p < total;
         p += step) {
        Result<T> result;
        for (int k = 0; k < a.components; ++k) {
            const T* const sums = a.sums + k * a.row_tiles * total + p;
            T sum = T(0);
            for (std::int64_t t = 0; t < a.row_tiles; ++t) sum += sums[t * total];
            result.add(a.output, a.output.log_density(k), sum);
        }
        a.out[a.out_steps.at_any(a.layout, p)] = result.value(a.output);
    }
}

template <class T>
void launch_finish(std::string_view op, Stream stream, const Gaussians<T>& g, const T* sums, const Output<T>& output,
                   T* out, const Steps& out_steps) {
    const Finish<T> a = {sums, g.components, ceil_div(g.z.channels, tile), output, g.z.layout, out, out_steps};
    launch(op, stream, {blocks_for(a.layout.positions(), distance_threads), distance_threads}, finish_kernel<T>, a);
}

}  // namespace
}  // namespace normscan::cuda
