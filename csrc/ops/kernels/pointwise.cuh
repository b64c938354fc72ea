// Distances that look at one position at a time: what forward and backward have in common on a GPU.
#pragma once

#include <initializer_list>

#include "ops/distance.hpp"
#include "ops/kernels/features.cuh"

namespace normscan::cuda {
namespace {

using kernels::Pointwise;

// A norm below this counts as this one (and has no gradient), as in torch.nn.functional.normalize.
template <class T>
constexpr T least_norm = T(1e-12);

template <class T>
__device__ __forceinline__ T absolute(T x) {
    return x < T(0) ? -x : x;
}

__device__ __forceinline__ float square_root(float x) {
    return sqrtf(x);
}
__device__ __forceinline__ double square_root(double x) {
    return sqrt(x);
}

// Calls f(channel) for each of a thread's chunks of channels. The first one is in its registers already; `again` is a
// later pass, which must load it anew where there is more than one.
template <class Team, class Load, class F>
__device__ __forceinline__ void for_chunks(const Team& team, const Load& load, bool again, const F& f) {
    int c = team.first;
    if (again && !team.holds_all()) load(c);
    f(c);
    while ((c += Team::packs_held * team.step) < team.channels) {
        load(c);
        f(c);
    }
}

// Of each position 1 / max(|a|, least_norm), and the same of b.
template <class T, class Team, class Load>
__device__ __forceinline__ void inverse_norms(const Team& team, const typename Team::Values& a,
                                              const typename Team::Values& b, const Load& load,
                                              T (&inverse)[2 * Team::sums]) {
    for (T& value : inverse) value = T(0);
    for_chunks(team, load, false, [&](int) {
        Team::each([&](int k, int i, int s) {
            inverse[2 * s] += a[k].value[i] * a[k].value[i];
            inverse[2 * s + 1] += b[k].value[i] * b[k].value[i];
        });
    });
    team.add_up(inverse);
    for (T& value : inverse) {
        const T norm = square_root(value);
        value = T(1) / (norm < least_norm<T> ? least_norm<T> : norm);
    }
}

// Calls f<metric, Team>() with the team that suits the memory of these tensors.
template <class T, Pointwise metric, class F>
void with_metric(const DistanceSizes& s, std::initializer_list<Features<const T>> all, const F& f) {
    constexpr int full = 16 / static_cast<int>(sizeof(T)), held = 4 * full;  // values of a thread and a tensor
    const auto each = [&](const auto& holds) {
        for (const Features<const T>& one : all) {
            if (!holds(one)) return false;
        }
        return true;
    };
    if (s.channels >= 2 * full && each([](const auto& one) { return one.channel == 1; })) {
        const bool packed = each([&](const auto& one) { return along_channels(one, s.channels, full); });
        if constexpr (metric == Pointwise::cosine) {
            if (s.channels > 32 * held) {
                if (packed) return f.template operator()<metric, Team<T, full, 8, Packs::channels>>();
                return f.template operator()<metric, Team<T, full, 8, Packs::single_channels>>();
            }
        }
        if (packed) return f.template operator()<metric, Team<T, full, 4, Packs::channels>>();
        return f.template operator()<metric, Team<T, full, 4, Packs::single_channels>>();
    }
    const auto packed = [&](int width) {
        return each([&](const auto& one) { return along_positions(one, s.height, s.width, width); });
    };
    // A wide pack leaves room for few channels in the registers.
    if constexpr (metric == Pointwise::cosine) {
        if (s.channels > 16 * held) return f.template operator()<metric, Team<T, 1, 2 * held, Packs::positions>>();
        if (s.channels <= 16 * held / full && packed(full)) {
            return f.template operator()<metric, Team<T, full, 4, Packs::positions>>();
        }
        if constexpr (full > 2) {
            if (s.channels <= 16 * held / 2 && packed(2)) {
                return f.template operator()<metric, Team<T, 2, held / 2, Packs::positions>>();
            }
        }
    } else if (packed(full)) {
        return f.template operator()<metric, Team<T, full, 4, Packs::positions>>();
    }
    f.template operator()<metric, Team<T, 1, held, Packs::positions>>();
}

template <class T, class F>
void with_team(Pointwise metric, const DistanceSizes& s, std::initializer_list<Features<const T>> all, const F& f) {
    if (metric == Pointwise::l1) return with_metric<T, Pointwise::l1>(s, all, f);
    if (metric == Pointwise::l2) return with_metric<T, Pointwise::l2>(s, all, f);
    with_metric<T, Pointwise::cosine>(s, all, f);
}

}  // namespace
}  // namespace normscan::cuda
