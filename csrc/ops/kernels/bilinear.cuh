// Looking up maps of any size at the pixels of another: for kernels/resample.cu and fuse.cu.
#pragma once

#include "ops/check.hpp"
#include "ops/kernels/launch.cuh"

namespace normscan::cuda {
namespace {

// A block makes a tile of 32 x 32 pixels; a thread 4 of them, one below the other.
constexpr int tile_side = 32, tile_groups = 8;

template <class T>
struct MapView {
    T* data;
    std::int64_t image, row;
    int height, width;

    __device__ T* at(std::int64_t n, int y) const { return data + n * image + y * row; }
};

// [N,H,W], whose inner stride is 1.
template <class T>
MapView<T> map_view(const Tensor& t) {
    return {t.as<T>(), t.step(0), t.step(1), static_cast<int>(t.size(1)), static_cast<int>(t.size(2))};
}

// Where a pixel lies between those of a map: half-pixel centres (align_corners false), held at the first and the last.
// The same table as Axis (ops/axis.hpp).
template <class T>
struct Place {
    int low, high;
    T share;

    __device__ static Place of(int i, int from, int to) {
        const double scale = static_cast<double>(from) / static_cast<double>(to);
        const double at = fmax(0.0, (static_cast<double>(i) + 0.5) * scale - 0.5);
        const int low = static_cast<int>(at) < from - 1 ? static_cast<int>(at) : from - 1;
        const T share = static_cast<T>(fmin(1.0, at - static_cast<double>(low)));
        return {low, share > T(0) && low + 1 < from ? low + 1 : low, share};
    }
};

// The places of a tile's rows and columns in one map, in shared memory: computed once for all of its pixels.
template <class T>
struct Places {
    Place<T> rows[tile_side], columns[tile_side];

    // By 64 threads; others do nothing. A barrier is to follow.
    __device__ void lay(int thread, int top, int left, const MapView<const T>& map, int height, int width) {
        const int i = thread % tile_side;
        if (thread < tile_side) {
            rows[i] = Place<T>::of(top + i < height ? top + i : height - 1, map.height, height);
        } else if (thread < 2 * tile_side) {
            columns[i] = Place<T>::of(left + i < width ? left + i : width - 1, map.width, width);
        }
    }
};

// (1 - share) a + share b, and no look at a neighbour that has no share: it may be NaN.
template <class T>
__device__ __forceinline__ T between(T a, T b, T share) {
    return share > T(0) ? (T(1) - share) * a + share * b : a;
}

template <class T>
__device__ __forceinline__ T look_up(const MapView<const T>& map, std::int64_t n, const Place<T>& row,
                                     const Place<T>& column) {
    const T *const upper = map.at(n, row.low), *const lower = map.at(n, row.high);
    const T above = between(upper[column.low], upper[column.high], column.share);
    return between(above, between(lower[column.low], lower[column.high], column.share), row.share);
}

// The tiles of maps, image by image and row by row.
struct Tiles {
    unsigned across, image;

    Grid grid(std::int64_t images) const {
        return {static_cast<unsigned>(image * images), dim3(tile_side, tile_groups)};
    }
};

inline Tiles tiles_of(const Check& check, std::int64_t images, std::int64_t height, std::int64_t width) {
    constexpr std::int64_t most = 0x7fffffff;
    const std::int64_t across = ceil_div(width, tile_side), tiles = across * ceil_div(height, tile_side);
    if (height > most - tile_side || width > most - tile_side || tiles > most / images) {
        check.fail("the output has ", images, " images of ", height, " x ", width,
                   ", too much for one call on a GPU; split the batch");
    }
    return {static_cast<unsigned>(across), static_cast<unsigned>(tiles)};
}

// A block's place among them.
struct Tile {
    std::int64_t n;
    int top, left;

    __device__ explicit Tile(const Tiles& t)
        : n(blockIdx.x / t.image),
          top(static_cast<int>(blockIdx.x % t.image / t.across) * tile_side),
          left(static_cast<int>(blockIdx.x % t.image % t.across) * tile_side) {}
};

}  // namespace
}  // namespace normscan::cuda
