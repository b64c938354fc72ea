// What a Gaussian gives of squared distances, and its slope. The functions are only for kernels/*.cpp.
#pragma once

#include "ops/kernels/isa.hpp"
#include "ops/kernels/simd.hpp"

namespace normscan::kernels {

enum class OutputKind : std::uint8_t { squared_distance, saturated, nll };

template <class T>
struct Output {
    OutputKind kind;
    T saturation;
    T offset;  // nll: what is added to half the squared distance
};

namespace {

// 1 - e^-u for u >= 0 without cancellation: below 1/2 eight terms of its series, relative error below 2e-7.
inline VecF saturate(VecF u) {
    VecF series = 1.0f - u * (1.0f / 8.0f);
    for (int k = 7; k > 1; --k) series = 1.0f - u * series * (1.0f / static_cast<float>(k));
    return u < 0.5f ? u * series : 1.0f - exponential(-u);
}

inline VecD saturate(VecD u) {
    VecD y = u;
    for (int i = 0; i < lanes<double>; ++i) y[i] = -__builtin_expm1(-u[i]);
    return y;
}

// Squared distances become outputs, in place; n is whole vectors.
template <class T>
inline void finish(const Output<T>& output, T* values, std::int64_t n) {
    if (output.kind == OutputKind::squared_distance) return;
    for (std::int64_t i = 0; i < n; i += lanes<T>) {
        const Vec<T> d2 = load(values + i);
        store(values + i,
              output.kind == OutputKind::saturated ? saturate(d2 / output.saturation) : T(0.5) * d2 + output.offset);
    }
}

// Gradients of outputs become those of squared distances, in place; n is whole vectors.
template <class T>
inline void finish_backward(const Output<T>& output, const T* squared_distances, T* grad, std::int64_t n) {
    if (output.kind == OutputKind::squared_distance) return;
    for (std::int64_t i = 0; i < n; i += lanes<T>) {
        const Vec<T> g = load(grad + i);
        store(grad + i, output.kind == OutputKind::nll
                            ? T(0.5) * g
                            : g * exponential(-load(squared_distances + i) / output.saturation) / output.saturation);
    }
}

}  // namespace
}  // namespace normscan::kernels
