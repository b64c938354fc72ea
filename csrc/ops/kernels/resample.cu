// Bilinear resampling of maps on the GPU. Memory-bound: the map is read about once, the output written.
#include "normscan/cuda.hpp"
#include "ops/check.hpp"
#include "ops/dispatch.hpp"
#include "ops/kernels/bilinear.cuh"
#include "ops/resample.hpp"

namespace normscan::cuda {
namespace {

template <class T>
__global__ void __launch_bounds__(tile_side* tile_groups)
    resample_kernel(Tiles tiles, MapView<const T> map, MapView<T> out) {
    __shared__ Places<T> places;
    const Tile tile(tiles);
    const int column = static_cast<int>(threadIdx.x), x = tile.left + column;
    places.lay(static_cast<int>(threadIdx.y) * tile_side + column, tile.top, tile.left, map, out.height, out.width);
    __syncthreads();
    for (int row = static_cast<int>(threadIdx.y); row < tile_side; row += tile_groups) {
        const int y = tile.top + row;
        if (x < out.width && y < out.height) {
            out.at(tile.n, y)[x] = look_up(map, tile.n, places.rows[row], places.columns[column]);
        }
    }
}

template <class T>
void run(Stream stream, const Tensor& map, const Tensor& out) {
    const Tiles tiles = tiles_of(Check("resample"), out.size(0), out.size(1), out.size(2));
    launch("resample", stream, tiles.grid(out.size(0)), resample_kernel<T>, tiles, map_view<const T>(map),
           map_view<T>(out));
}

}  // namespace

void resample(Stream stream, const Tensor& map, const Tensor& out) {
    if (!check_resample(map, out)) return;
    for_dtype(map.dtype, [&]<class T>() { run<T>(stream, map, out); });
}

}  // namespace normscan::cuda
