// The products of the backward of a full whitener, for gaussian_backward.cu: as many multiply-adds each as the forward.
#pragma once

#include "ops/kernels/gaussian_distances.cuh"

namespace normscan::cuda {
namespace {

// Rows of y are whole vectors.
inline std::int64_t y_step_of(std::int64_t channels) {
    return ceil_div(channels, 4) * 4;
}

// The whitener's gradient is summed by tiles of its lower triangle, one after the other.
inline std::int64_t tile_pairs(std::int64_t channels) {
    const std::int64_t tiles = ceil_div(channels, tile);
    return tiles * (tiles + 1) / 2;
}
__device__ inline std::int64_t place_in_tiles(std::int64_t i, std::int64_t j) {
    const std::int64_t row = i / tile, column = j / tile;
    return ((row * (row + 1) / 2 + column) * tile + i % tile) * tile + j % tile;
}

// In how many parts the positions are summed: about a thousand blocks, 64 positions each or more.
inline std::int64_t whitener_parts_of(std::int64_t positions, std::int64_t channels) {
    const std::int64_t pairs = tile_pairs(channels), most = ceil_div(positions, tile);
    const std::int64_t wanted = pairs == 0 ? 0 : ceil_div(1024, pairs), bounded = wanted < 256 ? wanted : 256;
    return bounded < most ? bounded : most;
}

// 2 s y.
template <class T>
struct Scaled {
    const T *y, *slopes;
    std::int64_t y_step;

    // Rows i..i+3 of position p; zeros behind the last row.
    __device__ void four(std::int64_t p, std::int64_t i, T (&v)[4]) const {
        load_four(y + p * y_step + i, y_step - i, true, v);
        const T slope = slopes[p];
#pragma unroll
        for (int j = 0; j < 4; ++j) v[j] *= slope;
    }
};

template <class T>
struct FullBackward {
    Gaussians<T> g;
    Scaled<T> scaled;
    T* grad_z;
    Steps grad_steps;
    T* sums;  // [tiles][D]: of grad_z over the positions of a tile
    std::int64_t parts;
    T* whitener_sums;  // [parts][tile pairs][64][64]
};

// Operands: rows are positions from `first` on, k is rows of W; and the columns of W, k is its rows.
template <class T>
struct ScaledPositions {
    Scaled<T> scaled;
    std::int64_t place, count;  // number of the first position, and how many there are

    __device__ bool along_k() const { return true; }
    __device__ void start(std::int64_t) {}
    __device__ void four(int row, std::int64_t k, T (&v)[4]) const {
        if (row < count) {
            scaled.four(place + row, k, v);
        } else {
            v[0] = v[1] = v[2] = v[3] = T(0);
        }
    }
};

template <class T>
struct TriangleColumns {
    Triangle<T> triangle;
    std::int64_t first;

    __device__ bool along_k() const { return false; }
    __device__ void start(std::int64_t) {}
    __device__ void four(int row, std::int64_t k, T (&v)[4]) const { triangle.four(k, first + row, v); }
};

// grad_z, 64 positions by 64 channels a block, and its sums over the positions.
template <class Product>
__global__ void __launch_bounds__(tile_threads, Product::blocks) grad_z_kernel(FullBackward<typename Product::T> a) {
    using T = typename Product::T;
    __shared__ Slabs<Product> shared;
    __shared__ T of_warps[tile_threads / 32][tile];
    const Latents<T>& z = a.g.z;
    const std::int64_t column_tiles = ceil_div(z.channels, tile), per_image = ceil_div(z.layout.plane(), tile);
    const std::int64_t position_tile = blockIdx.x / column_tiles, columns = blockIdx.x % column_tiles * tile;
    const std::int64_t n = position_tile / per_image, first = position_tile % per_image * tile;
    const std::int64_t count = z.layout.plane() - first;
    ScaledPositions<T> positions = {a.scaled, n * z.layout.plane() + first, count};
    TriangleColumns<T> triangle = {{a.g.whiteners, a.g.row_step, z.channels, a.g.whitener_vectors}, columns};
    Product product;
    accumulate(product, positions, triangle, columns, z.channels, shared);  // a column of W is zero above its diagonal
    T* const to = a.grad_z + n * a.grad_steps.image;
    const int t = static_cast<int>(threadIdx.x);
#pragma unroll
    for (int j = 0; j < Product::columns; ++j) {
        T sum = T(0);
        const std::int64_t c = columns + Product::column(j);
#pragma unroll
        for (int i = 0; i < Product::rows; ++i) {
            sum += product.at(i, j);
            if (Product::row(i) < count && c < z.channels) {
                to[a.grad_steps.at(z.layout, first + Product::row(i)) + c * a.grad_steps.channel] = product.at(i, j);
            }
        }
#pragma unroll
        for (int bits = Product::lanes; bits < 32; bits *= 2) sum += __shfl_xor_sync(0xffffffffu, sum, bits);
        if (t % 32 < Product::lanes) of_warps[t / 32][Product::column(j)] = sum;
    }
    __syncthreads();
    if (columns + t < z.channels) a.sums[position_tile * z.channels + columns + t] = of_warps[0][t] + of_warps[1][t];
}

// Operands whose k is positions, slab after slab of each image; rows are rows of y, and channels of z - mean.
struct PositionSlab {
    Layout layout;
    std::int64_t per_image;
    std::int64_t k = 0, n = 0, first = 0;

    __device__ void start(std::int64_t at) {
        k = at;
        n = layout.images == 1 ? 0 : at / slab / per_image;
        first = (at / slab - n * per_image) * slab;
    }
    __device__ std::int64_t position(std::int64_t at) const { return first + at - k; }
};

template <class T>
struct ScaledRows {
    Scaled<T> scaled;
    PositionSlab at;
    std::int64_t first;

    __device__ bool along_k() const { return false; }
    __device__ void start(std::int64_t k) { at.start(k); }
    __device__ void four(int row, std::int64_t k, T (&v)[4]) const {
        const std::int64_t q = at.position(k), plane = at.layout.plane();
        if (q < plane && first + row < scaled.y_step) {
            scaled.four(at.n * plane + q, first + row, v);
        } else {
            v[0] = v[1] = v[2] = v[3] = T(0);
        }
    }
};

template <class T>
struct CentredChannels {
    Centred<T> centred;
    PositionSlab at;
    std::int64_t first;

    __device__ bool along_k() const { return !centred.z.by_channels; }
    __device__ void start(std::int64_t k) { at.start(k); }
    __device__ void four(int row, std::int64_t k, T (&v)[4]) const {
        if (along_k()) {
            centred.four_positions(at.n, at.position(k), first + row, v);
        } else {
            centred.four_channels(at.n, at.position(k), first + row, v);
        }
    }
};

// A tile of the whitener's gradient over a part of the positions.
template <class Product>
__global__ void __launch_bounds__(tile_threads, Product::blocks)
    grad_whitener_kernel(FullBackward<typename Product::T> a) {
    using T = typename Product::T;
    __shared__ Slabs<Product> shared;
    const Latents<T>& z = a.g.z;
    const std::int64_t part = blockIdx.x % a.parts, pair = blockIdx.x / a.parts;
    std::int64_t row_tile = 0, column_tile = pair;
    while (column_tile > row_tile) column_tile -= ++row_tile;
    const PositionSlab start = {z.layout, ceil_div(z.layout.plane(), slab)};
    const std::int64_t slabs = z.layout.images * start.per_image;
    ScaledRows<T> rows = {a.scaled, start, row_tile * tile};
    CentredChannels<T> channels = {{z, a.g.means, a.g.mean_vectors}, start, column_tile * tile};
    Product product;
    accumulate(product, rows, channels, part * slabs / a.parts * slab, (part + 1) * slabs / a.parts * slab, shared);
    T* const to = a.whitener_sums + (part * (gridDim.x / a.parts) + pair) * tile * tile;
#pragma unroll
    for (int i = 0; i < Product::rows; ++i) {
#pragma unroll
        for (int j = 0; j < Product::columns; ++j) to[Product::row(i) * tile + Product::column(j)] = product.at(i, j);
    }
}

template <class T>
void launch_full_backward(std::string_view op, Stream stream, const FullBackward<T>& a, std::int64_t tiles,
                          bool allow_tf32) {
    const Grid of_z = {grid_of(op, tiles * ceil_div(a.g.z.channels, tile)), tile_threads};
    const Grid of_whitener = {grid_of(op, tile_pairs(a.g.z.channels) * a.parts), tile_threads};
    if constexpr (sizeof(T) == sizeof(float)) {
        if (allow_tf32) {
            launch(op, stream, of_z, grad_z_kernel<Tf32>, a);
            launch(op, stream, of_whitener, grad_whitener_kernel<Tf32>, a);
            return;
        }
    }
    launch(op, stream, of_z, grad_z_kernel<Exact<T>>, a);
    launch(op, stream, of_whitener, grad_whitener_kernel<Exact<T>>, a);
}

}  // namespace
}  // namespace normscan::cuda
