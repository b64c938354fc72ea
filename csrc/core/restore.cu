// A map back into the picture's own geometry, on the GPU. Memory-bound: the map is read about once, the picture
// written.
#include "core/geometry.hpp"
#include "core/prepare.hpp"
#include "normscan/cuda.hpp"
#include "ops/check.hpp"
#include "ops/kernels/bilinear.cuh"

namespace normscan::cuda {
namespace {

// Where a pixel of the picture lies in the map: between low and high; not seen by the network at all where !seen.
struct Tap {
    int low, high;
    float share;
    bool seen;

    __device__ static Tap of(int i, const Placement& place) {
        const double centre = static_cast<double>(i) + 0.5 - place.begin;
        const double at = centre * static_cast<double>(place.size) / place.extent - 0.5;
        const double inside = fmin(fmax(at, 0.0), static_cast<double>(place.size - 1));
        const int low = static_cast<int>(inside), offset = static_cast<int>(place.offset);
        const int high = low + 1 < place.size ? low + 1 : low;
        return {offset + low, offset + high, static_cast<float>(inside - static_cast<double>(low)),
                centre >= 0.0 && centre <= place.extent};
    }
};

__global__ void __launch_bounds__(tile_side* tile_groups)
    restore_kernel(Tiles tiles, Geometry place, MapView<const float> map, MapView<float> out) {
    __shared__ Tap rows[tile_side], columns[tile_side];  // of the tile: computed once for all of its pixels
    const Tile tile(tiles);
    const int column = static_cast<int>(threadIdx.x), x = tile.left + column;
    if (threadIdx.y == 0) rows[column] = Tap::of(tile.top + column, place.rows);
    if (threadIdx.y == 1) columns[column] = Tap::of(x, place.columns);
    __syncthreads();
    for (int row = static_cast<int>(threadIdx.y); row < tile_side; row += tile_groups) {
        const int y = tile.top + row;
        if (x >= out.width || y >= out.height) continue;
        const Tap &r = rows[row], &c = columns[column];
        const float *const low = map.at(0, r.low), *const high = map.at(0, r.high);
        const float left = (1.0f - r.share) * low[c.low] + r.share * high[c.low];
        const float right = (1.0f - r.share) * low[c.high] + r.share * high[c.high];
        out.at(0, y)[x] = r.seen && c.seen ? (1.0f - c.share) * left + c.share * right : 0.0f;
    }
}

template <class T>
MapView<T> one_map(const Tensor& t) {
    return {t.as<T>(), 0, t.step(0), static_cast<int>(t.size(0)), static_cast<int>(t.size(1))};
}

}  // namespace

void restore(Stream stream, const Tensor& map, const Tensor& out, Resize resize) {
    if (!check_restore(map, out)) return;
    const Geometry place = geometry(out.size(0), out.size(1), map.size(0), map.size(1), resize);
    const Tiles tiles = tiles_of(Check("restore"), 1, out.size(0), out.size(1));
    launch("restore", stream, tiles.grid(1), restore_kernel, tiles, place, one_map<const float>(map),
           one_map<float>(out));
}

}  // namespace normscan::cuda
