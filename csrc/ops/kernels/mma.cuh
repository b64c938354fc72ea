// Tensor cores: one warp multiplies small matrices, each lane holding the entries that the PTX manual gives it
// ("Matrix Fragments for mma.m16n8k16 / m16n8k8"). With g = lane / 4 and t = lane % 4:
//
//   c [16,8] float     c[0], c[1]: row g,     columns 2t, 2t + 1     c[2], c[3]: the same of row g + 8
//   16-bit a [16,16]   a[0]: row g, columns 2t, 2t + 1 (the first in the low half)     a[1]: of row g + 8
//                      a[2], a[3]: the same with columns + 8
//   16-bit b [16,8]    b[0]: rows 2t, 2t + 1 of column g     b[1]: rows + 8
//   tf32   a [16,8]    a[0]: row g, column t     a[1]: row g + 8     a[2], a[3]: the same with column + 4
//   tf32   b [8,8]     b[0]: row t, column g     b[1]: row t + 4
//
// Every multiply is c += a b with float sums. Where the instruction is missing (architecture 7.5, the emulation),
// shuffles and multiply-adds do the same, slowly.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace normscan::cuda {

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
#define NORMSCAN_TENSOR_CORES 1
#define NORMSCAN_PRODUCT __forceinline__
#elif defined(NORMSCAN_EMULATED)
#define NORMSCAN_PRODUCT inline
#else  // by shuffles it is long: once in the code of a kernel, not at each of its calls
#define NORMSCAN_PRODUCT inline __noinline__
#endif

// A 32-bit register with two 16-bit numbers.
template <class Half>
__device__ __forceinline__ std::uint32_t packed(Half low, Half high) {
    std::uint16_t bits[2];
    memcpy(&bits[0], &low, 2);
    memcpy(&bits[1], &high, 2);
    return static_cast<std::uint32_t>(bits[0]) | static_cast<std::uint32_t>(bits[1]) << 16;
}

// The same of two floats, rounded to nearest.
template <class Half>
__device__ __forceinline__ std::uint32_t packed_floats(float low, float high) {
#ifdef NORMSCAN_EMULATED
    if constexpr (__is_same(Half, __half)) {
        return packed(__float2half_rn(low), __float2half_rn(high));
    } else {
        return packed(__float2bfloat16_rn(low), __float2bfloat16_rn(high));
    }
#else
    std::uint32_t bits;
    if constexpr (__is_same(Half, __half)) {
        const __half2 pair = __floats2half2_rn(low, high);
        memcpy(&bits, &pair, 4);
    } else {
        const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
        memcpy(&bits, &pair, 4);
    }
    return bits;
#endif
}

template <class Half>
__device__ __forceinline__ float half_of(std::uint32_t pair, int which) {
    const auto bits = static_cast<std::uint16_t>(pair >> (16 * which));
    Half value;
    memcpy(&value, &bits, 2);
    if constexpr (sizeof(Half) == sizeof(__half) && __is_same(Half, __half)) {
        return __half2float(value);
    } else {
        return __bfloat162float(value);
    }
}

// c [16,8] += a [16,16] b [16,8], Half is __half or __nv_bfloat16.
template <class Half>
__device__ NORMSCAN_PRODUCT void multiply(float (&c)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
#ifdef NORMSCAN_TENSOR_CORES
    if constexpr (__is_same(Half, __half)) {
        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    } else {
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    }
#else
    const int lane = static_cast<int>(threadIdx.x % 32), g = lane / 4, t = lane % 4;
    for (int k = 0; k < 16; k += 2) {
        const int upper = k / 8, holder = k % 8 / 2;  // of columns k, k + 1 of a row, or of those rows of a column
        const std::uint32_t rows[2] = {__shfl_sync(0xffffffffu, a[2 * upper], g * 4 + holder),
                                       __shfl_sync(0xffffffffu, a[2 * upper + 1], g * 4 + holder)};
        const std::uint32_t columns[2] = {__shfl_sync(0xffffffffu, b[upper], 2 * t * 4 + holder),
                                          __shfl_sync(0xffffffffu, b[upper], (2 * t + 1) * 4 + holder)};
        for (int i = 0; i < 4; ++i) {
            c[i] += half_of<Half>(rows[i / 2], 0) * half_of<Half>(columns[i % 2], 0);
            c[i] += half_of<Half>(rows[i / 2], 1) * half_of<Half>(columns[i % 2], 1);
        }
    }
#endif
}

// The float nearest to x that tf32 holds (10 bits of mantissa), as the bits that multiply_tf32 takes.
__device__ __forceinline__ std::uint32_t tf32(float x) {
#ifdef NORMSCAN_TENSOR_CORES
    std::uint32_t bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return bits;
#else
    const std::uint32_t bits = __float_as_uint(x);
    if ((bits & 0x7f800000u) == 0x7f800000u) return bits;  // infinite or NaN
    return (bits + 0x1000u) & 0xffffe000u;
#endif
}

// c [16,8] += a [16,8] b [8,8], entries made by tf32().
__device__ NORMSCAN_PRODUCT void multiply_tf32(float (&c)[4], const std::uint32_t (&a)[4],
                                               const std::uint32_t (&b)[2]) {
#ifdef NORMSCAN_TENSOR_CORES
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    const int lane = static_cast<int>(threadIdx.x % 32), g = lane / 4, t = lane % 4;
    for (int k = 0; k < 8; ++k) {
        const int upper = k / 4, holder = k % 4;
        const float rows[2] = {__uint_as_float(__shfl_sync(0xffffffffu, a[2 * upper], g * 4 + holder)),
                               __uint_as_float(__shfl_sync(0xffffffffu, a[2 * upper + 1], g * 4 + holder))};
        const float columns[2] = {__uint_as_float(__shfl_sync(0xffffffffu, b[upper], 2 * t * 4 + holder)),
                                  __uint_as_float(__shfl_sync(0xffffffffu, b[upper], (2 * t + 1) * 4 + holder))};
        for (int i = 0; i < 4; ++i) c[i] += rows[i / 2] * columns[i % 2];
    }
#endif
}

// Four 8 x 8 matrices of 16-bit numbers from shared memory: lane i gives the address (16-byte aligned) of row i % 8 of
// matrix i / 8, and gets of each matrix columns 2t, 2t + 1 of row g.
template <class Half>
__device__ __forceinline__ void load_matrices(std::uint32_t (&r)[4], const Half* row) {
#ifdef NORMSCAN_EMULATED
    const int lane = static_cast<int>(threadIdx.x % 32), g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; ++i) {
        const Half* const of = __shfl_sync(0xffffffffu, row, 8 * i + g);
        r[i] = packed(of[2 * t], of[2 * t + 1]);
    }
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(static_cast<unsigned>(__cvta_generic_to_shared(row))));
#endif
}

// The same of the transposed matrices: rows 2t, 2t + 1 of column g.
template <class Half>
__device__ __forceinline__ void load_matrices_transposed(std::uint32_t (&r)[4], const Half* row) {
#ifdef NORMSCAN_EMULATED
    const int lane = static_cast<int>(threadIdx.x % 32), g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; ++i) {
        const Half* const low = __shfl_sync(0xffffffffu, row, 8 * i + 2 * t);
        const Half* const high = __shfl_sync(0xffffffffu, row, 8 * i + 2 * t + 1);
        r[i] = packed(low[g], high[g]);
    }
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(static_cast<unsigned>(__cvta_generic_to_shared(row))));
#endif
}

}  // namespace normscan::cuda
