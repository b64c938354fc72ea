// Products of matrices by tiles of 64 x 64, for blocks of 64 threads. Included by gaussian*.cu only.
//
// C [64,64] = sum over k of A [64,k] B [64,k]', slab by slab of 16 k: a slab is fetched into registers while the one
// before is multiplied, centred or scaled on the way, and passes through shared memory as [k][64]. An operand is
//
//   bool along_k() const                        whether its neighbours in memory are neighbours in k, else in rows
//   void start(k)                               the slab k..k+15 comes next
//   void four(row, k, T (&v)[4]) const          four neighbours, zeros outside
#pragma once

#include "ops/kernels/launch.cuh"
#include "ops/kernels/mma.cuh"

namespace normscan::cuda {
namespace {

constexpr int tile = 64, slab = 16, tile_threads = 64;

// A multiply-add for each product: a thread has 8 x 8 sums, four neighbours and four more 32 further on in each
// direction, so that its reads of shared memory meet in no bank. 64 multiply-adds for 64 bytes read.
template <class Number>
struct Exact {
    using T = Number;
    static constexpr int rows = 8, columns = 8, stride = tile + 4;
    static constexpr int lanes = 8;                                    // that share a row
    static constexpr int blocks = sizeof(T) == sizeof(float) ? 6 : 4;  // of a multiprocessor: bounds the registers
    T sums[rows][columns] = {};

    static __device__ int row(int i) { return static_cast<int>(threadIdx.x) / 8 * 4 + i % 4 + i / 4 * 32; }
    static __device__ int column(int j) { return static_cast<int>(threadIdx.x) % 8 * 4 + j % 4 + j / 4 * 32; }
    static __device__ T prepared(T x) { return x; }
    __device__ T at(int i, int j) const { return sums[i][j]; }

    __device__ void add(const T (&a)[slab][stride], const T (&b)[slab][stride]) {
#pragma unroll
        for (int k = 0; k < slab; ++k) {
            T of_rows[rows], of_columns[columns];
#pragma unroll
            for (int i = 0; i < rows; ++i) of_rows[i] = a[k][row(i)];
#pragma unroll
            for (int j = 0; j < columns; ++j) of_columns[j] = b[k][column(j)];
#pragma unroll
            for (int i = 0; i < rows; ++i) {
#pragma unroll
                for (int j = 0; j < columns; ++j) sums[i][j] += of_rows[i] * of_columns[j];
            }
        }
    }
};

// Tensor cores on numbers rounded to 11 significant bits: a warp makes 32 x 64 sums, a thread 4 x 16.
struct Tf32 {
    using T = float;
    static constexpr int rows = 4, columns = 16, stride = tile + 8;
    static constexpr int lanes = 4, blocks = 6;
    float sums[2][8][4] = {};

    static __device__ int row(int i) {
        const int t = static_cast<int>(threadIdx.x);
        return t / 32 * 32 + i / 2 * 16 + i % 2 * 8 + t % 32 / 4;
    }
    static __device__ int column(int j) { return j / 2 * 8 + static_cast<int>(threadIdx.x) % 4 * 2 + j % 2; }
    static __device__ float prepared(float x) { return __uint_as_float(tf32(x)); }
    __device__ float at(int i, int j) const { return sums[i / 2][j / 2][i % 2 * 2 + j % 2]; }

    __device__ void add(const float (&a)[slab][stride], const float (&b)[slab][stride]) {
        const int lane = static_cast<int>(threadIdx.x) % 32, first = static_cast<int>(threadIdx.x) / 32 * 32;
        const int g = lane / 4, t = lane % 4;
#pragma unroll
        for (int k = 0; k < slab; k += 8) {
            std::uint32_t of_rows[2][4];
#pragma unroll
            for (int i = 0; i < 2; ++i) {
#pragma unroll
                for (int part = 0; part < 4; ++part) {
                    of_rows[i][part] = __float_as_uint(a[k + t + part / 2 * 4][first + 16 * i + g + part % 2 * 8]);
                }
            }
#pragma unroll
            for (int j = 0; j < 8; ++j) {
                const std::uint32_t of_columns[2] = {__float_as_uint(b[k + t][8 * j + g]),
                                                     __float_as_uint(b[k + t + 4][8 * j + g])};
                multiply_tf32(sums[0][j], of_rows[0], of_columns);
                multiply_tf32(sums[1][j], of_rows[1], of_columns);
            }
        }
    }
};

template <class Product>
struct alignas(16) Slabs {
    typename Product::T a[slab][Product::stride], b[slab][Product::stride];
};

// A slab of one operand on its way: each thread has four times four neighbours.
template <class Product>
struct Staged {
    using T = typename Product::T;
    T v[4][4];

    static __device__ int by_row() { return static_cast<int>(threadIdx.x) % 16; }
    static __device__ int by_four() { return static_cast<int>(threadIdx.x) / 16; }

    template <class Operand>
    __device__ void fetch(Operand& from, std::int64_t k) {
        from.start(k);
        const bool along_k = from.along_k();
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            if (along_k) {
                from.four(by_row() + 16 * i, k + 4 * by_four(), v[i]);
            } else {
                from.four(4 * by_row(), k + by_four() + 4 * i, v[i]);
            }
        }
    }

    __device__ void put(bool along_k, T (&to)[slab][Product::stride]) const {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const int k = along_k ? 4 * by_four() + j : by_four() + 4 * i;
                const int row = along_k ? by_row() + 16 * i : 4 * by_row() + j;
                to[k][row] = Product::prepared(v[i][j]);
            }
        }
    }
};

// Adds the products of k in [begin, end), which all threads of the block agree on.
template <class Product, class A, class B>
__device__ void accumulate(Product& product, A& a, B& b, std::int64_t begin, std::int64_t end, Slabs<Product>& shared) {
    if (begin >= end) return;
    constexpr bool ahead = sizeof(typename Product::T) == sizeof(float);  // float64 would not fit in the registers
    Staged<Product> next_a, next_b;
    if constexpr (ahead) {
        next_a.fetch(a, begin);
        next_b.fetch(b, begin);
    }
    for (std::int64_t k = begin; k < end; k += slab) {
        if constexpr (!ahead) {
            next_a.fetch(a, k);
            next_b.fetch(b, k);
        }
        __syncthreads();  // the slab before has been read
        next_a.put(a.along_k(), shared.a);
        next_b.put(b.along_k(), shared.b);
        __syncthreads();
        if (ahead && k + slab < end) {
            next_a.fetch(a, k + slab);
            next_b.fetch(b, k + slab);
        }
        product.add(shared.a, shared.b);
    }
}

// The lower triangle of a whitener [D,D] whose rows are contiguous in themselves; what lies above is never used.
template <class T>
struct Triangle {
    const T* data;
    std::int64_t row_step, size;
    bool vectors;

    // Entries j..j+3 of row i.
    __device__ void four(std::int64_t i, std::int64_t j, T (&v)[4]) const {
        const std::int64_t count = i < size ? i + 1 - j : 0;
        load_four(data + i * row_step + j, count, vectors, v);
    }
};

}  // namespace
}  // namespace normscan::cuda
