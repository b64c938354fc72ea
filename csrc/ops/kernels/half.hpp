// float16 and bfloat16 in memory, float32 in registers: conversions by whole vectors, rounded to nearest even.
// Only for kernels/*.cpp: everything is in an anonymous namespace. Arithmetic is always in Accumulator<S>.
#pragma once

#include "normscan/half.hpp"
#include "ops/kernels/simd.hpp"

#if defined(__F16C__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace normscan::kernels {
namespace {

typedef std::uint16_t VecH __attribute__((vector_size(NORMSCAN_VECTOR_BYTES / 2)));  // as many as a VecF has numbers
typedef std::uint32_t VecU __attribute__((vector_size(NORMSCAN_VECTOR_BYTES)));

// Whether S is computed with as it lies in memory.
template <class S>
constexpr bool is_wide = sizeof(S) >= sizeof(float);

inline VecU bits_of(VecF x) {
    VecU bits;
    __builtin_memcpy(&bits, &x, sizeof bits);
    return bits;
}
inline VecF number_of(VecU bits) {
    VecF x;
    __builtin_memcpy(&x, &bits, sizeof x);
    return x;
}

template <class S>
inline VecF widen(VecH half);
template <class S>
inline VecH narrow(VecF x);

template <>
inline VecF widen<BFloat16>(VecH half) {
    return number_of(__builtin_convertvector(half, VecU) << 16);
}

template <>
inline VecH narrow<BFloat16>(VecF x) {
    const VecU bits = bits_of(x);
    const VecU rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const VecU nan = (bits >> 16) | 0x40u;  // quiet: rounding could carry its payload into infinity
    return __builtin_convertvector((bits & 0x7fffffffu) > 0x7f800000u ? nan : rounded, VecH);
}

#if defined(__AVX512F__)
// The masked forms, with all lanes on: the plain ones start from an undefined register, of which g++ 12 warns.
template <>
inline VecF widen<Float16>(VecH half) {
    __m256i bits;
    __builtin_memcpy(&bits, &half, sizeof bits);
    return _mm512_maskz_cvtph_ps(0xffff, bits);
}

template <>
inline VecH narrow<Float16>(VecF x) {
    const __m256i bits = _mm512_maskz_cvtps_ph(0xffff, x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    VecH half;
    __builtin_memcpy(&half, &bits, sizeof half);
    return half;
}
#elif defined(__F16C__)
template <>
inline VecF widen<Float16>(VecH half) {
    __m128i bits;
    __builtin_memcpy(&bits, &half, sizeof bits);
    return _mm256_cvtph_ps(bits);
}

template <>
inline VecH narrow<Float16>(VecF x) {
    const __m128i bits = _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    VecH half;
    __builtin_memcpy(&half, &bits, sizeof half);
    return half;
}
#else
// By bit arithmetic (F. Giesen's float_to_half_fast3_rtne and its inverse). Subnormals go through one float addition,
// whose own rounding aligns or normalises them.
template <>
inline VecF widen<Float16>(VecH half) {
    const VecU all = __builtin_convertvector(half, VecU);
    const VecU exponent = all & 0x7c00u;
    const VecU magnitude = ((all & 0x7fffu) << 13) + (112u << 23);
    const VecU subnormal = bits_of(number_of(magnitude + (1u << 23)) - number_of(VecU{} + (113u << 23)));
    const VecU finite = exponent == 0u ? subnormal : magnitude;
    return number_of((exponent == 0x7c00u ? magnitude + (112u << 23) : finite) | ((all & 0x8000u) << 16));
}

template <>
inline VecH narrow<Float16>(VecF x) {
    const VecU all = bits_of(x), magnitude = all & 0x7fffffffu;
    const VecU aligner = VecU{} + (126u << 23);  // 0.5: its last place is the smallest float16
    const VecU subnormal = bits_of(number_of(magnitude) + number_of(aligner)) - aligner;
    const VecU normal = (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    const VecU finite = magnitude < (113u << 23) ? subnormal : normal;
    const VecU special = magnitude > 0x7f800000u ? VecU{} + 0x7e00u : VecU{} + 0x7c00u;  // NaN, infinity
    const VecU result = (magnitude >= (143u << 23) ? special : finite) | ((all >> 16) & 0x8000u);
    return __builtin_convertvector(result, VecH);
}
#endif

// to[i] = from[i]
template <class S>
inline void widen_run(const S* from, std::int64_t n, float* to) {
    constexpr std::int64_t L = lanes<float>;
    VecH half = {};
    std::int64_t i = 0;
    for (; i + L <= n; i += L) {
        __builtin_memcpy(&half, from + i, sizeof half);
        store(to + i, widen<S>(half));
    }
    if (i == n) return;
    const auto rest = static_cast<unsigned long>(n - i);
    half = VecH{};
    __builtin_memcpy(&half, from + i, rest * sizeof(S));
    const VecF x = widen<S>(half);
    __builtin_memcpy(to + i, &x, rest * sizeof(float));
}

// to[i] = from[i]
template <class S>
inline void narrow_run(const float* from, std::int64_t n, S* to) {
    constexpr std::int64_t L = lanes<float>;
    std::int64_t i = 0;
    for (; i + L <= n; i += L) {
        const VecH half = narrow<S>(load(from + i));
        __builtin_memcpy(to + i, &half, sizeof half);
    }
    if (i == n) return;
    const auto rest = static_cast<unsigned long>(n - i);
    VecF x = {};
    __builtin_memcpy(&x, from + i, rest * sizeof(float));
    const VecH half = narrow<S>(x);
    __builtin_memcpy(to + i, &half, rest * sizeof(S));
}

// `from` [rows][columns] in Accumulator<S>: itself, or widened into space for rows * columns numbers.
template <class S>
inline Matrix<const Accumulator<S>> widened(Matrix<const S> from, std::int64_t rows, std::int64_t columns,
                                            [[maybe_unused]] Accumulator<S>* space) {
    if constexpr (is_wide<S>) {
        return from;
    } else if (from.row == 1 && from.column != 1) {
        for (std::int64_t c = 0; c < columns; ++c) widen_run(from.data + c * from.column, rows, space + c * rows);
        return {space, 1, rows};
    } else {
        const std::int64_t run = from.column == 1 ? columns : 1;
        for (std::int64_t r = 0; r < rows; ++r) {
            for (std::int64_t c = 0; c < columns; c += run) {
                widen_run(from.data + r * from.row + c * from.column, run, space + r * columns + c);
            }
        }
        return {space, columns, 1};
    }
}

// to [n] with a stride = from [n]
template <class S>
inline void put_run(const Accumulator<S>* from, std::int64_t n, S* to, std::int64_t step) {
    if constexpr (is_wide<S>) {
        for (std::int64_t i = 0; i < n; ++i) to[i * step] = from[i];
    } else {
        const std::int64_t run = step == 1 ? n : 1;
        for (std::int64_t i = 0; i < n; i += run) narrow_run(from + i, run, to + i * step);
    }
}

}  // namespace
}  // namespace normscan::kernels
