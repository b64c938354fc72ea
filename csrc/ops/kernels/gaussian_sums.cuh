// Sums over positions in an order that their number alone decides, for gaussian_backward.cu: partial sums in a
// workspace, added by one more kernel.
#pragma once

#include "ops/kernels/launch.cuh"

namespace normscan::cuda {
namespace {

constexpr int sum_warps = 16;

// to[c] = sum over parts of from[part][c]: a block adds 32 columns, each warp every 16th part. Bound by reading.
template <class T>
__global__ void __launch_bounds__(32 * sum_warps)
    sum_parts_kernel(const T* from, std::int64_t parts, std::int64_t columns, T* to) {
    __shared__ T sums[sum_warps][32];
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    const std::int64_t column = static_cast<std::int64_t>(blockIdx.x) * 32 + lane;
    T sum = T(0);
    if (column < columns) {
#pragma unroll 4
        for (std::int64_t part = warp; part < parts; part += sum_warps) sum += from[part * columns + column];
    }
    sums[warp][lane] = sum;
    __syncthreads();
    if (warp != 0 || column >= columns) return;
    for (int w = 1; w < sum_warps; ++w) sum += sums[w][lane];
    to[column] = sum;
}

template <class T>
void launch_sum_parts(std::string_view op, Stream stream, const T* from, std::int64_t parts, std::int64_t columns,
                      T* to) {
    launch(op, stream, {blocks_for(columns, 32), 32 * sum_warps}, sum_parts_kernel<T>, from, parts, columns, to);
}

// The sum of a block's values, in thread 0.
template <int warps, class T>
__device__ T block_sum(T value) {
    __shared__ T sums[warps];
    value = warp_sum(value);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = value;
    __syncthreads();
    T total = T(0);
    if (threadIdx.x == 0) {
        for (int w = 0; w < warps; ++w) total += sums[w];
    }
    return total;
}

}  // namespace
}  // namespace normscan::cuda
