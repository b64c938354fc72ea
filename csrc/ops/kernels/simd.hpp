// Vectors of the width that this object is compiled for, and the little arithmetic that several kernels share.
// Only for kernels/*.cpp: everything is in an anonymous namespace.
#pragma once

#include <cstdint>

namespace normscan::kernels {
namespace {

#if defined(__AVX512F__)
#define NORMSCAN_VECTOR_BYTES 64
#elif defined(__AVX2__)
#define NORMSCAN_VECTOR_BYTES 32
#else
#define NORMSCAN_VECTOR_BYTES 16
#endif

typedef float VecF __attribute__((vector_size(NORMSCAN_VECTOR_BYTES)));
typedef double VecD __attribute__((vector_size(NORMSCAN_VECTOR_BYTES)));
typedef std::int32_t VecI __attribute__((vector_size(NORMSCAN_VECTOR_BYTES)));

template <class T>
struct VecOf;
template <>
struct VecOf<float> {
    using type = VecF;
};
template <>
struct VecOf<double> {
    using type = VecD;
};
template <class T>
using Vec = typename VecOf<T>::type;

template <class T>
constexpr int lanes = NORMSCAN_VECTOR_BYTES / static_cast<int>(sizeof(T));

// Rows of scratch buffers are whole granules (64 bytes), so that loops over vectors have no tails at any width.
template <class T>
constexpr std::int64_t granule = 64 / static_cast<std::int64_t>(sizeof(T));

template <class T>
inline std::int64_t whole_granules(std::int64_t n) {
    return (n + granule<T> - 1) / granule<T> * granule<T>;
}

template <class T>
inline Vec<T> load(const T* p) {
    Vec<T> v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}

template <class T>
inline void store(T* p, Vec<T> v) {
    __builtin_memcpy(p, &v, sizeof v);
}

template <class T>
inline Vec<T> splat(T x) {
    return Vec<T>{} + x;
}

inline float absolute(float x) {
    return __builtin_fabsf(x);
}
inline double absolute(double x) {
    return __builtin_fabs(x);
}
inline float square_root(float x) {
    return __builtin_sqrtf(x);
}
inline double square_root(double x) {
    return __builtin_sqrt(x);
}
inline float logarithm(float x) {
    return __builtin_logf(x);
}
inline double logarithm(double x) {
    return __builtin_log(x);
}

inline std::int64_t smaller(std::int64_t a, std::int64_t b) {
    return a < b ? a : b;
}
inline std::int64_t larger(std::int64_t a, std::int64_t b) {
    return a > b ? a : b;
}

// sum of f(i) for i < n, over fixed lanes: the same order whatever the addresses that f reads are aligned to (a loop
// that the compiler vectorises may begin at the first aligned one).
template <class T, class F>
inline T sum_in_lanes(std::int64_t n, F&& f) {
    constexpr int width = 16;
    T lane[width] = {};
    std::int64_t i = 0;
    for (; i + width <= n; i += width) {
        for (int l = 0; l < width; ++l) lane[l] += f(i + l);
    }
    for (int l = 0; i < n; ++i, ++l) lane[l] += f(i);
    T total = T(0);
    for (int l = 0; l < width; ++l) total += lane[l];
    return total;
}

// Keeps -fassociative-math from merging what stands inside with what stands outside. Through a register: g++ 12 takes
// vectors apart for __builtin_assoc_barrier, three times the time of an exponential.
inline VecF fence(VecF x) {
#if defined(__AVX512F__)
    __asm__("" : "+v"(x));
#elif defined(__x86_64__)
    __asm__("" : "+x"(x));
#elif defined(__aarch64__)
    __asm__("" : "+w"(x));
#elif defined(__clang__)
    x = __arithmetic_fence(x);
#else
    x = __builtin_assoc_barrier(x);
#endif
    return x;
}

// e^x, relative error below 2e-7 for x in -87.3..88.3; below 0, above infinity; NaN stays NaN.
// Cody-Waite reduction and the polynomial of Cephes' expf.
inline VecF exponential(VecF x) {
    const VecF lowest = splat(-87.3f), highest = splat(88.3f);
    VecF y = x < lowest ? lowest : x;
    y = y > highest ? highest : y;
    const VecF t = y * 1.44269504088896341f;
    const VecF away = t < 0.0f ? splat(-0.5f) : splat(0.5f);
    const VecI n = __builtin_convertvector(t + away, VecI);
    const VecF nf = __builtin_convertvector(n, VecF);
    const VecF high = fence(y - nf * 0.693359375f);
    const VecF r = fence(high - nf * -2.12194440e-4f);
    VecF p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    const VecF e = fence(p * (r * r) + r) + 1.0f;
    const VecI bits = (n + 127) << 23;
    VecF power;
    __builtin_memcpy(&power, &bits, sizeof power);
    const VecF result = e * power;
    const VecF bounded = x < lowest ? VecF{} : result;
    return x > highest ? splat(__builtin_inff()) : bounded;
}

inline VecD exponential(VecD x) {
    VecD y = x;
    for (int i = 0; i < lanes<double>; ++i) y[i] = __builtin_exp(x[i]);
    return y;
}

}  // namespace
}  // namespace normscan::kernels
