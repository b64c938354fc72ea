// Gradients of the distances per position on the GPU. Memory-bound: a and b are read and as much is written (cosine of
// more than 512 channels, channels_last 1024: read three times; relative_l1: b twice). SSIM is in ssim.cu.
#include "normscan/cuda.hpp"
#include "ops/dispatch.hpp"
#include "ops/kernels/factors.cuh"
#include "ops/kernels/pointwise.cuh"
#include "ops/kernels/ssim.cuh"

namespace normscan::cuda {
namespace {

template <class T>
struct Backward {
    Features<const T> grad_out, a, b;
    Features<T> grad_a, grad_b;
    Factors<T> factors;
};

// What both kernels of a position need: its features, and the gradient that comes in.
template <class T, class Team>
struct Pair {
    const Team& team;
    const Backward<T>& f;
    typename Team::Values a, b;
    T g[Team::sums];

    __device__ Pair(const Team& its_team, const Backward<T>& its, int width, T factor) : team(its_team), f(its) {
        NORMSCAN_UNROLL
        for (int s = 0; s < Team::sums; ++s) {
            const int p = team.position + s;
            g[s] = team.inside() ? factor * *f.grad_out.at(team.image, p / width, p % width) : T(0);
        }
    }
    __device__ void load(int c) {
        team.load(a, f.a.at(team.image, team.y, team.x), f.a.channel, c);
        team.load(b, f.b.at(team.image, team.y, team.x), f.b.channel, c);
    }
    // The gradients are where the features were.
    __device__ void store(int c) const {
        team.store(a, f.grad_a.at(team.image, team.y, team.x), f.grad_a.channel, c);
        team.store(b, f.grad_b.at(team.image, team.y, team.x), f.grad_b.channel, c);
    }
};

template <class T, Pointwise metric, class Team>
__device__ void difference_backward(Pair<T, Team>& pair) {
    const auto load = [&](int c) { pair.load(c); };
    load(pair.team.first);
    for_chunks(pair.team, load, false, [&](int c) {
        Team::each([&](int k, int i, int s) {
            const T d = pair.a[k].value[i] - pair.b[k].value[i];
            const T sign = d > T(0) ? T(1) : d < T(0) ? T(-1) : d;  // d: 0, or NaN
            pair.a[k].value[i] = pair.g[s] * (metric == Pointwise::l2 ? 2 * d : sign);
            pair.b[k].value[i] = -pair.a[k].value[i];
        });
        pair.store(c);
    });
}

// u = a/|a|, v = b/|b|, d = u - v: grad a = g (d - u (u.d)) / |a|, grad b = -g (d - v (v.d)) / |b|.
template <class T, class Team>
__device__ void cosine_backward(Pair<T, Team>& pair) {
    constexpr int both = 2 * Team::sums;
    const auto load = [&](int c) { pair.load(c); };
    T inverse[both], along[both] = {};
    load(pair.team.first);
    inverse_norms(pair.team, pair.a, pair.b, load, inverse);
    for_chunks(pair.team, load, true, [&](int) {
        Team::each([&](int k, int i, int s) {
            const T u = pair.a[k].value[i] * inverse[2 * s], v = pair.b[k].value[i] * inverse[2 * s + 1];
            along[2 * s] += u * (u - v);
            along[2 * s + 1] += v * (u - v);
        });
    });
    pair.team.add_up(along);
    NORMSCAN_UNROLL
    for (int i = 0; i < both; ++i) along[i] = inverse[i] == T(1) / least_norm<T> ? T(0) : along[i];
    for_chunks(pair.team, load, true, [&](int c) {
        Team::each([&](int k, int i, int s) {
            const T u = pair.a[k].value[i] * inverse[2 * s], v = pair.b[k].value[i] * inverse[2 * s + 1], d = u - v;
            pair.a[k].value[i] = pair.g[s] * inverse[2 * s] * (d - u * along[2 * s]);
            pair.b[k].value[i] = -pair.g[s] * inverse[2 * s + 1] * (d - v * along[2 * s + 1]);
        });
        pair.store(c);
    });
}

// Two blocks of a multiprocessor would leave cosine, or packs read one by one, too few registers.
template <Pointwise metric, class Team>
constexpr int blocks = metric == Pointwise::cosine || Team::singly ? 1 : Team::blocks;

template <class T, Pointwise metric, class Team>
__global__ void __launch_bounds__(512, blocks<metric, Team>) distance_backward_kernel(Share share, Backward<T> f) {
    const Team team(share);
    if constexpr (metric == Pointwise::cosine) {
        Pair<T, Team> pair(team, f, share.width, T(1));
        cosine_backward(pair);
    } else {
        Pair<T, Team> pair(team, f, share.width, f.factors.of(team.image));
        difference_backward<T, metric>(pair);
    }
}

template <class T>
Features<const T> read_only(const Features<T>& f) {
    return {f.data, f.image, f.channel, f.row, f.column};
}

template <class T>
void run(const Check& check, Stream stream, const DistanceSizes& s, const Backward<T>& f, Metric metric) {
    with_team<T>(
        pointwise(metric), s, {f.a, f.b, read_only(f.grad_a), read_only(f.grad_b)}, [&]<Pointwise which, class Team>() {
            const Plan work = plan<Team>(check, s);
            launch("distance_backward", stream, work.grid, distance_backward_kernel<T, which, Team>, work.share, f);
        });
}

template <class T>
struct Scratch {
    Magnitudes<T> magnitudes;
    T* maps;  // four of each channel, of windowed metrics

    Scratch(Workspace& room, const Tensor& b, Metric metric)
        : magnitudes(room, b, metric),
          maps(room.take<T>(windowed(metric) ? 4 * b.size(0) * b.size(1) * b.size(2) * b.size(3) : 0)) {}
};

}  // namespace

std::int64_t distance_backward_workspace(const Tensor& b, Metric metric) {
    Workspace counted;
    for_dtype(b.dtype, [&]<class T>() { Scratch<T>(counted, b, metric); });
    return counted.bytes();
}

void distance_backward(Stream stream, const Tensor& grad_out, const Tensor& a, const Tensor& b, const Tensor& grad_a,
                       const Tensor& grad_b, const Tensor& workspace, Metric metric, int window) {
    const DistanceSizes s = check_distance_backward(grad_out, a, b, grad_a, grad_b, metric, window);
    if (s.positions == 0 || s.images == 0) return;
    const Check check("distance_backward");
    Workspace room(check, workspace, distance_backward_workspace(b, metric));
    for_dtype(a.dtype, [&]<class T>() {
        const Scratch<T> scratch(room, b, metric);
        if (windowed(metric)) {
            return ssim_backward<T>(stream, s, grad_out, a, b, grad_a, grad_b, metric == Metric::ssim, window,
                                    scratch.maps);
        }
        const Factors<T> factor = factors(check, stream, b, metric, scratch.magnitudes);
        run<T>(check, stream, s,
               {features<const T>(grad_out), features<const T>(a), features<const T>(b), features<T>(grad_a),
                features<T>(grad_b), factor},
               metric);
    });
}

}  // namespace normscan::cuda
