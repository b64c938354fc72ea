// Distances per position on the GPU. Memory-bound: a and b are read once (relative_l1: b twice), 1 / (2 C) of that is
// written. Cosine needs the norms before the difference, so that a thread keeps its share of the channels in registers;
// of more than 512 channels (channels_last: 1024) it reads them a second time, from a cache where these are large
// enough. SSIM is in ssim.cu.
#include "normscan/cuda.hpp"
#include "ops/dispatch.hpp"
#include "ops/kernels/factors.cuh"
#include "ops/kernels/pointwise.cuh"
#include "ops/kernels/ssim.cuh"

namespace normscan::cuda {
namespace {

template <class T>
struct Forward {
    Features<const T> a, b;
    Features<T> out;
    Factors<T> factors;
};

template <class T, Pointwise metric, class Team>
__global__ void __launch_bounds__(512, Team::blocks) distance_kernel(Share share, Forward<T> f) {
    const Team team(share);
    const T* const from_a = f.a.at(team.image, team.y, team.x);
    const T* const from_b = f.b.at(team.image, team.y, team.x);
    typename Team::Values a, b;
    T sum[Team::sums] = {}, inverse[2 * Team::sums];
    const auto load = [&](int c) {
        team.load(a, from_a, f.a.channel, c);
        team.load(b, from_b, f.b.channel, c);
    };
    load(team.first);
    if constexpr (metric == Pointwise::cosine) inverse_norms(team, a, b, load, inverse);
    for_chunks(team, load, metric == Pointwise::cosine, [&](int) {
        Team::each([&](int k, int i, int s) {
            const T x = a[k].value[i], y = b[k].value[i];
            if constexpr (metric == Pointwise::l1) {
                sum[s] += absolute(x - y);
            } else if constexpr (metric == Pointwise::l2) {
                sum[s] += (x - y) * (x - y);
            } else {
                const T d = x * inverse[2 * s] - y * inverse[2 * s + 1];
                sum[s] += d * d;
            }
        });
    });
    team.add_up(sum);
    if (!team.writes_position()) return;
    const T factor = f.factors.of(team.image);
    NORMSCAN_UNROLL
    for (int s = 0; s < Team::sums; ++s) {
        const int p = team.position + s;
        *f.out.at(team.image, p / share.width, p % share.width) = factor * sum[s];
    }
}

template <class T>
void run(Stream stream, const DistanceSizes& s, const Tensor& a, const Tensor& b, const Tensor& out, Metric metric,
         const Magnitudes<T>& scratch) {
    const Check check("distance");
    const Forward<T> f = {features<const T>(a), features<const T>(b), features<T>(out),
                          factors(check, stream, b, metric, scratch)};
    with_team<T>(pointwise(metric), s, {f.a, f.b}, [&]<Pointwise which, class Team>() {
        const Plan work = plan<Team>(check, s);
        launch("distance", stream, work.grid, distance_kernel<T, which, Team>, work.share, f);
    });
}

}  // namespace

std::int64_t distance_workspace(const Tensor& b, Metric metric) {
    Workspace counted;
    for_dtype(b.dtype, [&]<class T>() { Magnitudes<T>(counted, b, metric); });
    return counted.bytes();
}

void distance(Stream stream, const Tensor& a, const Tensor& b, const Tensor& out, const Tensor& workspace,
              Metric metric, int window) {
    const DistanceSizes s = check_distance(a, b, out, metric, window);
    if (s.positions == 0 || s.images == 0) return;
    Workspace room(Check("distance"), workspace, distance_workspace(b, metric));
    for_dtype(a.dtype, [&]<class T>() {
        if (windowed(metric)) return ssim<T>(stream, s, a, b, out, metric == Metric::ssim, window);
        run<T>(stream, s, a, b, out, metric, Magnitudes<T>(room, b, metric));
    });
}

}  // namespace normscan::cuda
