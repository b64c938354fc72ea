// Distances of several levels as one map and one score, on the GPU: a small map a level, one kernel that looks up all
// of them at every pixel, then smoothing and pooling. Bound by reading the features, once; maps are a fraction of them.
#include <algorithm>

#include "normscan/cuda.hpp"
#include "ops/dispatch.hpp"
#include "ops/distance_maps.hpp"
#include "ops/kernels/bilinear.cuh"
#include "ops/kernels/workspace.cuh"

namespace normscan::cuda {
namespace {

constexpr std::size_t most_levels = 8;  // they travel in the kernel's parameters

template <class T>
struct Levels {
    MapView<const T> maps[most_levels];
    T factors[most_levels];
    int count;
    bool product;
};

template <class T>
__global__ void __launch_bounds__(tile_side* tile_groups) fuse_kernel(Tiles tiles, Levels<T> levels, MapView<T> out) {
    constexpr int each = tile_side / tile_groups;
    __shared__ Places<T> places[most_levels];
    const Tile tile(tiles);
    const int column = static_cast<int>(threadIdx.x), first = static_cast<int>(threadIdx.y), x = tile.left + column;
    for (int l = 0; l < levels.count; ++l) {
        places[l].lay(first * tile_side + column, tile.top, tile.left, levels.maps[l], out.height, out.width);
    }
    __syncthreads();
    T fused[each];
    for (int l = 0; l < levels.count; ++l) {
        for (int i = 0; i < each; ++i) {
            const T value = levels.factors[l] * look_up(levels.maps[l], tile.n, places[l].rows[first + i * tile_groups],
                                                        places[l].columns[column]);
            fused[i] = l == 0 ? value : levels.product ? fused[i] * value : fused[i] + value;
        }
    }
    for (int i = 0; i < each; ++i) {
        const int y = tile.top + first + i * tile_groups;
        if (x < out.width && y < out.height) out.at(tile.n, y)[x] = fused[i];
    }
}

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
    Tensor shared, maps[most_levels], sharp;

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
    if (levels.size() <= most_levels) return;
    Check("distance_maps").fail("levels has ", levels.size(), " pairs, expected at most ", most_levels, " on a GPU");
}

template <class T>
void run(Stream stream, std::span<const FeaturePair> levels, const Tensor& out_map, const Tensor& out_score,
         Metric metric, std::span<const double> weights, Fuse how, double sigma, PoolMethod pooling, double parameter,
         const Scratch<T>& scratch) {
    Levels<T> all = {{}, {}, static_cast<int>(levels.size()), how == Fuse::product};
    for (std::size_t l = 0; l < levels.size(); ++l) {
        distance(stream, levels[l].a, levels[l].b, scratch.maps[l], scratch.shared, metric, 11);
        all.maps[l] = map_view<const T>(scratch.maps[l]);
        all.factors[l] = static_cast<T>(weights[l]);
    }
    const std::int64_t images = out_map.size(0);
    const Tiles tiles = tiles_of(Check("distance_maps"), images, out_map.size(1), out_map.size(2));
    const auto fuse = [&](const Tensor& to) {
        launch("distance_maps", stream, tiles.grid(images), fuse_kernel<T>, tiles, all, map_view<T>(to));
    };
    if (sigma == 0.0) {
        fuse(out_map);
    } else {
        fuse(scratch.sharp);
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
