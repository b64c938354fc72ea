// Distances of several levels as one map and one score, on the GPU: a small map a level, these fused (fuse.cu), then
// smoothing and pooling. Bound by reading the features, once; maps are a fraction of them.
#include <algorithm>

#include "normscan/cuda.hpp"
#include "ops/dispatch.hpp"
#include "ops/distance_maps.hpp"
#include "ops/kernels/fuse.cuh"
#include "ops/kernels/workspace.cuh"

namespace normscan::cuda {
namespace {

// One part after the other needs this room.
std::int64_t shared_room(std::span<const FeaturePair> levels, const Tensor& out_map, Metric metric, double sigma,
                         PoolMethod pool) {
    std::int64_t bytes = pool_workspace(out_map, pool);
    if (sigma > 0.0) bytes = std::max(bytes, smooth_workspace(out_map));
    for (const FeaturePair& level : levels) bytes = std::max(bytes, distance_workspace(level.b, metric));
    return bytes;
}

template <class T>
struct Scratch {
    Tensor shared, maps[most_fused], sharp;

    Scratch(Workspace& room, std::span<const FeaturePair> levels, const Tensor& out_map, Metric metric, double sigma,
            PoolMethod pool) {
        const std::int64_t images = out_map.size(0), height = out_map.size(1), width = out_map.size(2);
        const std::int64_t bytes = shared_room(levels, out_map, metric, sigma, pool);
        shared = contiguous(room.take<std::uint8_t>(bytes), {bytes});
        for (std::size_t l = 0; l < levels.size(); ++l) {
            const std::int64_t h = levels[l].a.size(2), w = levels[l].a.size(3);
            maps[l] = contiguous(room.take<T>(images * h * w), {images, h, w});
        }
        if (sigma > 0.0) sharp = contiguous(room.take<T>(images * height * width), {images, height, width});
    }
};

// More do not fit into the parameters of the kernel.
void check_count(std::span<const FeaturePair> levels) {
    if (levels.size() <= most_fused) return;
    Check("distance_maps").fail("levels has ", levels.size(), " pairs, expected at most ", most_fused, " on a GPU");
}

template <class T>
void run(Stream stream, std::span<const FeaturePair> levels, const Tensor& out_map, const Tensor& out_score,
         Metric metric, std::span<const double> weights, Fuse how, double sigma, PoolMethod pooling, double parameter,
         const Scratch<T>& scratch) {
    const std::span<const Tensor> maps(scratch.maps, levels.size());
    for (std::size_t l = 0; l < levels.size(); ++l) {
        distance(stream, levels[l].a, levels[l].b, maps[l], scratch.shared, metric, 11);
    }
    if (sigma == 0.0) {
        fuse("distance_maps", stream, maps, weights, out_map, how);
    } else {
        fuse("distance_maps", stream, maps, weights, scratch.sharp, how);
        smooth(stream, scratch.sharp, out_map, scratch.shared, sigma);
    }
    pool(stream, out_map, out_score, scratch.shared, pooling, parameter);
}

}  // namespace

std::int64_t distance_maps_workspace(std::span<const FeaturePair> levels, const Tensor& out_map, Metric metric,
                                     double sigma, PoolMethod pool) {
    check_count(levels);
    Workspace counted;
    for_dtype(out_map.dtype, [&]<class T>() { Scratch<T>(counted, levels, out_map, metric, sigma, pool); });
    return counted.bytes();
}

void distance_maps(Stream stream, std::span<const FeaturePair> levels, const Tensor& out_map, const Tensor& out_score,
                   const Tensor& workspace, Metric metric, std::span<const double> weights, Fuse fuse, double sigma,
                   PoolMethod pool, double parameter) {
    check_count(levels);
    if (!check_distance_maps(levels, out_map, out_score, weights, fuse, sigma, pool, parameter)) return;
    Workspace room(Check("distance_maps"), workspace, distance_maps_workspace(levels, out_map, metric, sigma, pool));
    for_dtype(out_map.dtype, [&]<class T>() {
        const Scratch<T> scratch(room, levels, out_map, metric, sigma, pool);
        run<T>(stream, levels, out_map, out_score, metric, weights, fuse, sigma, pool, parameter, scratch);
    });
}

}  // namespace normscan::cuda
