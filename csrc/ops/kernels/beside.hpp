// Per-position distances where the channels of a position lie side by side (channels_last): read in place, one position
// at a time. Part of kernels/distance.cpp; everything is in an anonymous namespace.
#pragma once

#include "ops/kernels/distance.hpp"
#include "ops/kernels/simd.hpp"

namespace normscan::kernels {
namespace {

// A norm below this counts as this one (and has no gradient), as in torch.nn.functional.normalize.
template <class T>
constexpr T least_norm = T(1e-12);

// Whether that is how an image lies, with a vector of channels or more: below, gathering is as fast.
template <class T>
bool beside(const Planes<const T>& image, std::int64_t channels) {
    return image.channel == 1 && image.column != 1 && channels >= lanes<T>;
}

// sum of f(load, c) over channels, f called with whole vectors and then with single values; 4 fixed vectors of sums.
template <class T, class F>
inline T sum_channels(std::int64_t channels, F&& f) {
    constexpr std::int64_t L = lanes<T>;
    Vec<T> sum[4] = {};
    std::int64_t c = 0;
    for (; c + 4 * L <= channels; c += 4 * L) {
        for (int i = 0; i < 4; ++i) sum[i] += f([&](const T* p) { return load(p + c + i * L); });
    }
    for (; c + L <= channels; c += L) sum[0] += f([&](const T* p) { return load(p + c); });
    T total = T(0);
    for (; c < channels; ++c) total += f([&](const T* p) { return p[c]; });
    const Vec<T> all = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    for (int i = 0; i < L; ++i) total += all[i];
    return total;
}

inline VecF absolute(VecF x) {
    return x < 0.0f ? -x : x;
}
inline VecD absolute(VecD x) {
    return x < 0.0 ? -x : x;
}

template <class T>
T inverse_norm(const T* a, std::int64_t channels) {
    const T norm = square_root(sum_channels<T>(channels, [&](auto at) { return at(a) * at(a); }));
    return T(1) / (norm < least_norm<T> ? least_norm<T> : norm);
}

template <class T>
T distance_beside(const T* a, const T* b, std::int64_t channels, Pointwise metric) {
    if (metric == Pointwise::l1) {
        return sum_channels<T>(channels, [&](auto at) { return absolute(at(a) - at(b)); });
    }
    if (metric == Pointwise::l2) {
        return sum_channels<T>(channels, [&](auto at) { return (at(a) - at(b)) * (at(a) - at(b)); });
    }
    const T a_share = inverse_norm(a, channels), b_share = inverse_norm(b, channels);
    return sum_channels<T>(channels, [&](auto at) {
        const auto d = at(a) * a_share - at(b) * b_share;
        return d * d;
    });
}

// Calls f(row, column) for positions first..first+count-1.
template <class F>
inline void for_positions(std::int64_t first, std::int64_t count, std::int64_t width, F&& f) {
    std::int64_t y = first / width, x = first % width;
    for (std::int64_t i = 0; i < count; ++i) {
        f(y, x);
        if (++x == width) {
            x = 0;
            ++y;
        }
    }
}

template <class T>
void pointwise_beside(const PointwiseForward<T>& f) {
    for_positions(f.first, f.count, f.out.width, [&](std::int64_t y, std::int64_t x) {
        const T* const a = f.a.data + y * f.a.row + x * f.a.column;
        const T* const b = f.b.data + y * f.b.row + x * f.b.column;
        f.out.data[y * f.out.row + x * f.out.column] = f.factor * distance_beside(a, b, f.channels, f.metric);
    });
}

template <class T>
double magnitude_beside(const MagnitudeSum<T>& f) {
    double sum = 0.0;
    for_positions(f.first, f.count, f.b.width, [&](std::int64_t y, std::int64_t x) {
        const T* const b = f.b.data + y * f.b.row + x * f.b.column;
        sum += static_cast<double>(sum_channels<T>(f.channels, [&](auto at) { return absolute(at(b)); }));
    });
    return sum;
}

}  // namespace
}  // namespace normscan::kernels
