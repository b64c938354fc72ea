// Distances that look at one position at a time. Part of kernels/distance.cpp; everything is in an anonymous namespace.
#pragma once

#include "ops/kernels/beside.hpp"
#include "ops/kernels/distance.hpp"
#include "ops/kernels/gather.hpp"

namespace normscan::kernels {
namespace {

constexpr std::int64_t P = distance_positions;

// A block as channels of contiguous positions: where it lies, if positions are adjacent in memory, else gathered.
template <class T>
struct Block {
    const T* data;
    std::int64_t channel;

    const T* operator[](std::int64_t c) const { return data + c * channel; }
};

template <class T>
Block<T> block_of(const Planes<const T>& image, std::int64_t first, std::int64_t count, std::int64_t channels,
                  T* scratch) {
    const bool one_row = first / image.width == (first + count - 1) / image.width;
    if (image.column == 1 && (image.row == image.width || one_row)) {
        return {image.data + first / image.width * image.row + first % image.width, image.channel};
    }
    gather<T>(image, first, count, channels, nullptr, scratch, P);
    return {scratch, P};
}

// inverse[p] = 1 / max(norm over channels, least_norm)
template <class T>
void inverse_norms(const Block<T>& a, std::int64_t channels, std::int64_t count, T* inverse) {
    T sum[P] = {};
    for (std::int64_t c = 0; c < channels; ++c) {
        const T* const row = a[c];
        for (std::int64_t p = 0; p < count; ++p) sum[p] += row[p] * row[p];
    }
    for (std::int64_t p = 0; p < count; ++p) {
        const T norm = square_root(sum[p]);
        inverse[p] = T(1) / (norm < least_norm<T> ? least_norm<T> : norm);
    }
}

template <class T>
void pointwise(const PointwiseForward<T>& f) {
    if (beside(f.a, f.channels) && beside(f.b, f.channels)) return pointwise_beside(f);
    const Block<T> a = block_of(f.a, f.first, f.count, f.channels, f.scratch);
    const Block<T> b = block_of(f.b, f.first, f.count, f.channels, f.scratch + f.channels * P);
    T sum[P] = {}, a_share[P], b_share[P];
    if (f.metric == Pointwise::cosine) {
        inverse_norms(a, f.channels, f.count, a_share);
        inverse_norms(b, f.channels, f.count, b_share);
    }
    for (std::int64_t c = 0; c < f.channels; ++c) {
        const T *const x = a[c], *const y = b[c];
        if (f.metric == Pointwise::l1) {
            for (std::int64_t p = 0; p < f.count; ++p) sum[p] += absolute(x[p] - y[p]);
        } else if (f.metric == Pointwise::l2) {
            for (std::int64_t p = 0; p < f.count; ++p) sum[p] += (x[p] - y[p]) * (x[p] - y[p]);
        } else {
            for (std::int64_t p = 0; p < f.count; ++p) {
                const T d = x[p] * a_share[p] - y[p] * b_share[p];
                sum[p] += d * d;
            }
        }
    }
    for (std::int64_t p = 0; p < f.count; ++p) sum[p] *= f.factor;
    scatter(sum, f.out, f.first, f.count);
}

// u = a/|a|, v = b/|b|, d = u - v: grad a = g (d - u (u.d)) / |a|, grad b = -g (d - v (v.d)) / |b|.
template <class T>
void cosine_backward(const Block<T>& a, const Block<T>& b, std::int64_t channels, std::int64_t count, const T* g,
                     T* grad_a, T* grad_b) {
    T a_share[P], b_share[P], u_d[P] = {}, v_d[P] = {};
    inverse_norms(a, channels, count, a_share);
    inverse_norms(b, channels, count, b_share);
    for (std::int64_t c = 0; c < channels; ++c) {
        const T *const x = a[c], *const y = b[c];
        for (std::int64_t p = 0; p < count; ++p) {
            const T u = x[p] * a_share[p], v = y[p] * b_share[p];
            u_d[p] += u * (u - v);
            v_d[p] += v * (u - v);
        }
    }
    const T clamped = T(1) / least_norm<T>;
    for (std::int64_t p = 0; p < count; ++p) {
        u_d[p] = a_share[p] == clamped ? T(0) : u_d[p];
        v_d[p] = b_share[p] == clamped ? T(0) : v_d[p];
    }
    for (std::int64_t c = 0; c < channels; ++c) {
        const T *const x = a[c], *const y = b[c];
        for (std::int64_t p = 0; p < count; ++p) {
            const T u = x[p] * a_share[p], v = y[p] * b_share[p], d = u - v;
            grad_a[c * P + p] = g[p] * a_share[p] * (d - u * u_d[p]);
            grad_b[c * P + p] = -g[p] * b_share[p] * (d - v * v_d[p]);
        }
    }
}

template <class T>
void difference_backward(Pointwise metric, const Block<T>& a, const Block<T>& b, std::int64_t channels,
                         std::int64_t count, const T* g, T* grad_a, T* grad_b) {
    for (std::int64_t c = 0; c < channels; ++c) {
        const T *const x = a[c], *const y = b[c];
        T *const to_a = grad_a + c * P, *const to_b = grad_b + c * P;
        for (std::int64_t p = 0; p < count; ++p) {
            const T d = x[p] - y[p];
            const T slope = metric == Pointwise::l2 ? 2 * d : d > 0 ? T(1) : d < 0 ? T(-1) : d;  // d: 0, or NaN
            to_a[p] = g[p] * slope;
            to_b[p] = -to_a[p];
        }
    }
}

template <class T>
void pointwise_backward(const PointwiseBackward<T>& f) {
    const std::int64_t size = f.channels * P;
    const Block<T> a = block_of(f.a, f.first, f.count, f.channels, f.scratch);
    const Block<T> b = block_of(f.b, f.first, f.count, f.channels, f.scratch + size);
    T *const grad_a = f.scratch + 2 * size, *const grad_b = f.scratch + 3 * size;
    T g[P];
    gather(f.grad_out, f.first, f.count, g);
    if (f.metric == Pointwise::cosine) {
        cosine_backward(a, b, f.channels, f.count, g, grad_a, grad_b);
    } else {
        for (std::int64_t p = 0; p < f.count; ++p) g[p] *= f.factor;
        difference_backward(f.metric, a, b, f.channels, f.count, g, grad_a, grad_b);
    }
    scatter(grad_a, P, f.grad_a, f.first, f.count, f.channels);
    scatter(grad_b, P, f.grad_b, f.first, f.count, f.channels);
}

template <class T>
double magnitude(const MagnitudeSum<T>& f) {
    if (beside(f.b, f.channels)) return magnitude_beside(f);
    const Block<T> b = block_of(f.b, f.first, f.count, f.channels, f.scratch);
    T sum[P] = {};
    for (std::int64_t c = 0; c < f.channels; ++c) {
        const T* const row = b[c];
        for (std::int64_t p = 0; p < f.count; ++p) sum[p] += absolute(row[p]);
    }
    return sum_in_lanes<double>(f.count, [&](std::int64_t p) { return static_cast<double>(sum[p]); });
}

}  // namespace
}  // namespace normscan::kernels
