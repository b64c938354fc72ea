// Fusion of maps on the GPU: one kernel looks up all of them at every pixel. Bound by writing the fused map, once.
#include "ops/kernels/fuse.cuh"

#include "ops/dispatch.hpp"
#include "ops/kernels/bilinear.cuh"

namespace normscan::cuda {
namespace {

template <class T>
struct Fused {
    MapView<const T> maps[most_fused];
    T factors[most_fused];
    int count;
    bool product, onto;
};

template <class T>
__global__ void __launch_bounds__(tile_side* tile_groups) fuse_kernel(Tiles tiles, Fused<T> all, MapView<T> out) {
    constexpr int each = tile_side / tile_groups;
    __shared__ Places<T> places[most_fused];
    const Tile tile(tiles);
    const int column = static_cast<int>(threadIdx.x), first = static_cast<int>(threadIdx.y), x = tile.left + column;
    for (int m = 0; m < all.count; ++m) {
        places[m].lay(first * tile_side + column, tile.top, tile.left, all.maps[m], out.height, out.width);
    }
    __syncthreads();
    const auto inside = [&](int y) { return x < out.width && y < out.height; };
    T fused[each];
    for (int i = 0; i < each; ++i) {
        const int y = tile.top + first + i * tile_groups;
        fused[i] = all.onto && inside(y) ? out.at(tile.n, y)[x] : T(0);
    }
    for (int m = 0; m < all.count; ++m) {
        for (int i = 0; i < each; ++i) {
            const T value = all.factors[m] * look_up(all.maps[m], tile.n, places[m].rows[first + i * tile_groups],
                                                     places[m].columns[column]);
            fused[i] = m == 0 && !all.onto ? value : all.product ? fused[i] * value : fused[i] + value;
        }
    }
    for (int i = 0; i < each; ++i) {
        const int y = tile.top + first + i * tile_groups;
        if (inside(y)) out.at(tile.n, y)[x] = fused[i];
    }
}

}  // namespace

void fuse(std::string_view op, Stream stream, std::span<const Tensor> maps, std::span<const double> factors,
          const Tensor& out, Fuse how, bool onto) {
    const std::int64_t images = out.size(0);
    const Tiles tiles = tiles_of(Check(op), images, out.size(1), out.size(2));
    for_dtype(out.dtype, [&]<class T>() {
        Fused<T> all = {{}, {}, static_cast<int>(maps.size()), how == Fuse::product, onto};
        for (std::size_t m = 0; m < maps.size(); ++m) {
            all.maps[m] = map_view<const T>(maps[m]);
            all.factors[m] = static_cast<T>(factors[m]);
        }
        launch(op, stream, tiles.grid(images), fuse_kernel<T>, tiles, all, map_view<T>(out));
    });
}

}  // namespace normscan::cuda
