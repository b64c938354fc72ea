// Distances of several levels as one map and one score, on the GPU: a small map a level, one kernel that looks up all
// of them at every pixel, then smoothing and pooling. Bound by reading the features, once; maps are a fraction of them.
#include <algorithm>

#include "normscan/cuda.hpp"
#include "ops/dispatch.hpp"
#include "ops/distance_maps.hpp"
#include "ops/kernels/bilinear.cuh"
#include "ops/workspace.hpp"

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
void run(Stream stream, std::span<const FeaturePair> levels, const Tensor& out_map, const Tensor& out_score,
         Metric metric, std::span<const double> weights, Fuse how, double sigma, PoolMethod pooling, double parameter,
         Workspace& room) {
    const std::int64_t images = out_map.size(0);
    const std::int64_t shared = shared_room(levels, out_map, metric, sigma, pooling);
    const Tensor scratch = contiguous(room.take<std::uint8_t>(shared), {shared});
    Levels<T> all = {{}, {}, static_cast<int>(levels.size()), how == Fuse::product};
    for (std::size_t l = 0; l < levels.size(); ++l) {
        const std::int64_t height = levels[l].a.size(2), width = levels[l].a.size(3);
        const Tensor map = contiguous(room.take<T>(images * height * width), {images, height, width});
        distance(stream, levels[l].a, levels[l].b, map, metric, 11, scratch);
        all.maps[l] = map_view<const T>(map);
        all.factors[l] = static_cast<T>(weights[l]);
    }
    const Tiles tiles = tiles_of(Check("distance_maps"), images, out_map.size(1), out_map.size(2));
    const auto fuse = [&](const Tensor& to) {
        launch("distance_maps", stream, tiles.grid(images), fuse_kernel<T>, tiles, all, map_view<T>(to));
    };
    if (sigma == 0.0) {
        fuse(out_map);
    } else {
        T* const memory = room.take<T>(images * out_map.size(1) * out_map.size(2));
        const Tensor sharp = contiguous(memory, {images, out_map.size(1), out_map.size(2)});
        fuse(sharp);
        smooth(stream, sharp, out_map, sigma, scratch);
    }
    pool(stream, out_map, out_score, pooling, parameter, scratch);
}

}  // namespace

std::int64_t distance_maps_workspace(std::span<const FeaturePair> levels, const Tensor& out_map, Metric metric,
                                     double sigma, PoolMethod pool) {
    WorkspaceSize size;
    for_dtype(out_map.dtype, [&]<class T>() {
        size.add<std::uint8_t>(shared_room(levels, out_map, metric, sigma, pool));
        for (const FeaturePair& level : levels) {
            size.add<T>(out_map.size(0) * level.a.size(2) * level.a.size(3));
        }
        if (sigma > 0.0) size.add<T>(out_map.size(0) * out_map.size(1) * out_map.size(2));
    });
    return size.bytes();
}

void distance_maps(Stream stream, std::span<const FeaturePair> levels, const Tensor& out_map, const Tensor& out_score,
                   Metric metric, std::span<const double> weights, Fuse fuse, double sigma, PoolMethod pool,
                   double parameter, const Tensor& workspace) {
    const Check check("distance_maps");
    if (levels.size() > most_levels) {
        check.fail("levels has ", levels.size(), " pairs, expected at most ", most_levels, " on a GPU");
    }
    if (!check_distance_maps(levels, out_map, out_score, weights, fuse, sigma, pool, parameter)) return;
    Workspace room(check, workspace, distance_maps_workspace(levels, out_map, metric, sigma, pool));
    for_dtype(out_map.dtype, [&]<class T>() {
        run<T>(stream, levels, out_map, out_score, metric, weights, fuse, sigma, pool, parameter, room);
    });
}

}  // namespace normscan::cuda
