// Tiles of attention on the GPU: heads of tensors in the device's memory, their blocks of rows in shared memory, and
// the bias by relative position.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "normscan/ops.hpp"
#include "ops/check.hpp"
#include "ops/kernels/launch.cuh"

#ifdef NORMSCAN_EMULATED
#define NORMSCAN_UNROLL
#else
#define NORMSCAN_UNROLL _Pragma("unroll")
#endif

namespace normscan::cuda::attention_tiles {

constexpr int threads = 128, warps = threads / 32;
constexpr int side = 64;  // columns of a tile of scores

// Depths in shared memory are multiples of 16, at least 16, so that no product needs a mask.
constexpr int rounded(std::int64_t n) {
    return n < 16 ? 16 : static_cast<int>((n + 15) / 16 * 16);
}

// Entries of a row of shared memory, for a width that is a multiple of 16: an odd number of 16 bytes, so that eight
// rows at one column lie in different banks.
template <class T>
__host__ __device__ constexpr int stride_of(int width) {
    constexpr int unit = 16 / static_cast<int>(sizeof(T));
    return (width / unit | 1) * unit;
}

// One head [L,C] of a tensor.
template <class T>
struct Rows {
    T* data;
    std::int64_t row, column;
    bool vectors;  // every row starts on 16 bytes and lies side by side
};

// A tensor [N,H,L,C].
template <class T>
struct Heads {
    T* data = nullptr;
    std::int64_t image = 0, head = 0, row = 0, column = 0;
    bool vectors = false;

    __device__ Rows<T> of(std::int64_t n, std::int64_t h) const {
        return {data + n * image + h * head, row, column, vectors};
    }
};

template <class T>
Heads<T> heads_of(const Tensor& t) {
    constexpr std::int64_t unit = 16 / sizeof(T);
    bool vectors = t.step(3) == 1 && reinterpret_cast<std::uintptr_t>(t.data) % 16 == 0;
    for (int i = 0; i < 3; ++i) vectors = vectors && (t.size(i) == 1 || t.step(i) % unit == 0);
    return {t.as<T>(), t.step(0), t.step(1), t.step(2), t.step(3), vectors};
}

// A tensor [N,H,L].
template <class T>
struct Lines {
    T* data = nullptr;
    std::int64_t image = 0, head = 0, row = 0;

    __device__ T* of(std::int64_t n, std::int64_t h) const { return data + n * image + h * head; }
};

template <class T>
Lines<T> lines_of(const Tensor& t) {
    return {t.as<T>(), t.step(0), t.step(1), t.step(2)};
}

// 16 bytes from the device's memory to shared memory, where they have arrived after await_copies() and a barrier.
__device__ __forceinline__ void copy_16_bytes(void* to, const void* from) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(static_cast<unsigned>(__cvta_generic_to_shared(to))),
                 "l"(__cvta_generic_to_global(from))
                 : "memory");
#else
    *static_cast<uint4*>(to) = *static_cast<const uint4*>(from);
#endif
}

__device__ __forceinline__ void await_copies() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

// f(row, column) for each entry once, by the threads of the block: neighbours along columns, or (`down`) along rows.
template <class F>
__device__ __forceinline__ void for_entries(int rows, int columns, bool down, F&& f) {
    const int fast = down ? rows : columns, slow = down ? columns : rows;
    const int bits = fast > 16 ? 5 : fast > 8 ? 4 : fast > 4 ? 3 : fast > 2 ? 2 : 1;
    const int thread = static_cast<int>(threadIdx.x), first = thread & ((1 << bits) - 1);
    for (int i = thread >> bits; i < slow; i += threads >> bits) {
        for (int j = first; j < fast; j += 1 << bits) f(down ? j : i, down ? i : j);
    }
}

__device__ __forceinline__ int within(std::int64_t n, int most) {
    return n < most ? static_cast<int>(n) : most;
}

// The part of a matrix [rows,columns] from (first_row, first_column) on, as tile [height][width]; zero outside it.
template <class T>
__device__ __forceinline__ void load_tile(T* tile, int height, int width, const Rows<const T>& from,
                                          std::int64_t first_row, std::int64_t rows, std::int64_t first_column,
                                          std::int64_t columns) {
    constexpr int unit = 16 / static_cast<int>(sizeof(T));
    const int stride = stride_of<T>(width);
    const int rows_here = within(rows - first_row, height), columns_here = within(columns - first_column, width);
    const T* const base = from.data + first_row * from.row + first_column * from.column;
    if (from.vectors) {
        for_entries(height, width / unit, false, [&](int i, int group) {
            const int j = group * unit;
            T* const to = tile + i * stride + j;
            const T* const at = base + i * from.row + j;
            if (i < rows_here && j + unit <= columns_here) return copy_16_bytes(to, at);
            for (int e = 0; e < unit; ++e) to[e] = i < rows_here && j + e < columns_here ? at[e] : T{};
        });
    } else {
        for_entries(height, width, from.column != 1, [&](int i, int j) {
            tile[i * stride + j] = i < rows_here && j < columns_here ? base[i * from.row + j * from.column] : T{};
        });
    }
}

// The bias of a head for positions on a grid of height x width: query (y,x) and key (y',x') take the table at
// (h-1 + y-y', w-1 + x-x'), which lies at place_of_query(query) - place_of_key(key).
template <class T>
struct RelativeBias {
    const T* table = nullptr;  // nullptr: there is none
    std::int64_t head = 0, row = 0, height = 1, width = 1;

    __device__ std::int64_t place_of_query(std::int64_t i) const {
        return (height - 1 + i / width) * row + width - 1 + i % width;
    }
    __device__ std::int64_t place_of_key(std::int64_t j) const { return j / width * row + j % width; }
};

template <class T>
RelativeBias<T> relative_bias(const GridBias* bias) {
    if (bias == nullptr) return {};
    return {bias->table.as<const T>(), bias->table.step(0), bias->table.step(1), bias->height, bias->width};
}

__device__ __forceinline__ float widened(float x) {
    return x;
}
__device__ __forceinline__ double widened(double x) {
    return x;
}
__device__ __forceinline__ float widened(__half x) {
    return __half2float(x);
}
__device__ __forceinline__ float widened(__nv_bfloat16 x) {
    return __bfloat162float(x);
}
__device__ __forceinline__ float exponential(float x) {
    return expf(x);
}
__device__ __forceinline__ double exponential(double x) {
    return exp(x);
}
__device__ __forceinline__ float logarithm(float x) {
    return logf(x);
}
__device__ __forceinline__ double logarithm(double x) {
    return log(x);
}
template <class T, class A>
__device__ __forceinline__ T narrowed(A x) {
    if constexpr (__is_same(T, __half)) {
        return __float2half_rn(x);
    } else if constexpr (__is_same(T, __nv_bfloat16)) {
        return __float2bfloat16_rn(x);
    } else {
        return x;
    }
}

inline std::size_t shared_memory(std::string_view op, Stream stream) {
    return static_cast<std::size_t>(attribute(op, stream, cudaDevAttrMaxSharedMemoryPerBlockOptin));
}

// As many of `depth` columns as a block can hold at once: all, or fewer where bytes(that) is more than it may have. On
// GPUs with much shared memory a block leaves room for another.
template <class F>
int fitting(std::string_view op, Stream stream, std::int64_t depth, F&& bytes) {
    const std::size_t most = shared_memory(op, stream), limit = most > 100 * 1024 ? most / 2 : most;
    int found = rounded(depth);
    while (found > 16 && bytes(found) > limit) found = rounded(found / 2);
    return found;
}

// Refuses what no cutting makes fit.
inline void check_shared(std::string_view op, Stream stream, std::size_t bytes, DType dtype) {
    const std::size_t most = shared_memory(op, stream);
    if (bytes <= most) return;
    throw Error(Error::Kind::device, std::string(op) + ": " + std::string(dtype_name(dtype)) + " takes " +
                                         std::to_string(bytes) + " bytes of shared memory, this GPU has " +
                                         std::to_string(most));
}

}  // namespace normscan::cuda::attention_tiles
