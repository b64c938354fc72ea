// Structural similarity on the GPU, with the windows, shares and constants of kernels/ssim.hpp.
//
// A block makes a tile of one image (backwards: of one channel). The window is separable: a thread takes a column of
// the tile and its border, reads its pixels once and adds each to the rows that see it, in registers; the sums go to
// shared memory, where they are added along rows. Bound by arithmetic: with 11 taps about 200 instructions for each
// pixel and channel, for 8 bytes read.
#include "ops/kernels/ssim.cuh"

#include <algorithm>
#include <cmath>

#include "ops/kernels/features.cuh"

namespace normscan::cuda {
namespace {

constexpr int tile_rows = 8, tile_columns = 32, tile_threads = 128;
constexpr int most_radius = 64;  // beyond, weights are 0 in double too: exp(-(64 / 1.5)^2 / 2)

template <class T>
constexpr T c1 = T(0.01 * 0.01);
template <class T>
constexpr T c2 = T(0.03 * 0.03);
// Pixels are shifted by the middle of 0..1, which variances do not feel: E[x^2] - E[x]^2 loses four times less.
template <class T>
constexpr T shift = T(0.5);

template <class T>
struct Window {
    int radius;
    T weights[most_radius + 1];  // by distance from the middle
};

template <class T>
Window<T> window_of(int taps) {
    Window<T> window = {std::min(taps / 2, most_radius), {}};
    for (int k = 0; k <= window.radius; ++k) {
        const double x = static_cast<double>(k) / ssim_sigma;
        window.weights[k] = static_cast<T>(std::exp(-0.5 * x * x));
    }
    return window;
}

// The part of a picture that a block makes: `tiles_across` tiles a row of tiles, `tiles` a picture.
struct Pictures {
    int height, width;
    unsigned tiles_across, tiles;
};

struct Tile {
    std::int64_t picture;
    int top, left;

    __device__ explicit Tile(const Pictures& p)
        : picture(blockIdx.x / p.tiles),
          top(static_cast<int>(blockIdx.x % p.tiles / p.tiles_across) * tile_rows),
          left(static_cast<int>(blockIdx.x % p.tiles_across) * tile_columns) {}
};

// Of M maps the sums of a window: along columns into shared memory [M][tile_rows][tile_columns + 2 radius], then along
// rows. Nothing outside the picture, and nothing outside the window (it may be NaN), is looked at.
template <class T, int M>
struct Blur {
    const Window<T>& window;
    const Pictures& size;
    const Tile& tile;
    T* sums;

    __device__ int across() const { return tile_columns + 2 * window.radius; }

    // values(row, column, into [M])
    template <class F>
    __device__ void along_columns(const F& values) const {
        const int radius = window.radius;
        const int first = tile.top > radius ? tile.top - radius : 0;
        const int end = tile.top + tile_rows + radius < size.height ? tile.top + tile_rows + radius : size.height;
        for (int i = static_cast<int>(threadIdx.x); i < across(); i += tile_threads) {
            const int x = tile.left + i - radius;
            T sum[tile_rows][M] = {};
            for (int y = first; x >= 0 && x < size.width && y < end; ++y) {
                T value[M];
                values(y, x, value);
                NORMSCAN_UNROLL
                for (int row = 0; row < tile_rows; ++row) {
                    const int away = y > tile.top + row ? y - tile.top - row : tile.top + row - y;
                    if (away > radius) continue;
                    NORMSCAN_UNROLL
                    for (int m = 0; m < M; ++m) sum[row][m] += window.weights[away] * value[m];
                }
            }
            NORMSCAN_UNROLL
            for (int row = 0; row < tile_rows; ++row) {
                NORMSCAN_UNROLL
                for (int m = 0; m < M; ++m) sums[(m * tile_rows + row) * across() + i] = sum[row][m];
            }
        }
        __syncthreads();
    }

    __device__ void along_row(int row, int column, T (&out)[M]) const {
        const int radius = window.radius, x = tile.left + column;
        NORMSCAN_UNROLL
        for (int m = 0; m < M; ++m) out[m] = T(0);
        for (int k = x < radius ? -x : -radius; k <= radius && x + k < size.width; ++k) {
            const T weight = window.weights[k < 0 ? -k : k];
            NORMSCAN_UNROLL
            for (int m = 0; m < M; ++m) out[m] += weight * sums[(m * tile_rows + row) * across() + column + radius + k];
        }
    }
};

// 1 / (sum of the weights inside the picture) around place i of a side.
template <class T>
__device__ T share_at(const Window<T>& window, int i, int side) {
    T sum = T(0);
    for (int k = -window.radius; k <= window.radius; ++k) {
        if (i + k >= 0 && i + k < side) sum += window.weights[k < 0 ? -k : k];
    }
    return T(1) / sum;
}

// The four factors of SSIM = (light contrast) / (light_norm contrast_norm), from the windowed means of a, b, aa, bb,
// ab. Without light that quotient is the contrast-structure factor alone (Wang et al. 2003, eq. 7).
template <class T>
struct Similarity {
    T mean_a, mean_b;  // of the shifted pixels
    T light, contrast, light_norm, contrast_norm;

    __device__ Similarity(const T (&m)[5], bool with_light) : mean_a(m[0]), mean_b(m[1]) {
        const T a = mean_a + shift<T>, b = mean_b + shift<T>;
        light = with_light ? 2 * a * b + c1<T> : T(1);
        light_norm = with_light ? a * a + b * b + c1<T> : T(1);
        contrast = 2 * (m[4] - mean_a * mean_b) + c2<T>;
        contrast_norm = (m[2] - mean_a * mean_a) + (m[3] - mean_b * mean_b) + c2<T>;
    }
    __device__ T value() const { return (light * contrast) / (light_norm * contrast_norm); }
};

// a, b, aa, bb, ab of a pair of pixels.
template <class T>
__device__ __forceinline__ void products(T a, T b, T (&into)[5]) {
    a -= shift<T>;
    b -= shift<T>;
    into[0] = a;
    into[1] = b;
    into[2] = a * a;
    into[3] = b * b;
    into[4] = a * b;
}

template <class T>
struct Forward {
    Features<const T> a, b;
    Features<T> out;
    int channels;
    bool with_light;
};

template <class T>
__global__ void __launch_bounds__(tile_threads) ssim_kernel(Pictures size, Window<T> window, Forward<T> f) {
    constexpr int outputs = tile_rows * tile_columns / tile_threads, step = tile_threads / tile_columns;
    const Tile tile(size);
    const Blur<T, 5> blur = {window, size, tile, dynamic_shared<T>()};
    const int column = static_cast<int>(threadIdx.x) % tile_columns, row = static_cast<int>(threadIdx.x) / tile_columns;
    const T* const a = f.a.at(tile.picture, 0, 0);
    const T* const b = f.b.at(tile.picture, 0, 0);
    T sum[outputs] = {}, share[outputs];
    const T across = share_at(window, tile.left + column, size.width);
    for (int i = 0; i < outputs; ++i) share[i] = across * share_at(window, tile.top + row + i * step, size.height);
    for (int c = 0; c < f.channels; ++c) {
        blur.along_columns([&](int y, int x, T(&into)[5]) {
            products(a[c * f.a.channel + y * f.a.row + x * f.a.column],
                     b[c * f.b.channel + y * f.b.row + x * f.b.column], into);
        });
        NORMSCAN_UNROLL
        for (int i = 0; i < outputs; ++i) {
            T mean[5];
            blur.along_row(row + i * step, column, mean);
            for (T& value : mean) value *= share[i];
            sum[i] += T(1) - Similarity<T>(mean, f.with_light).value();
        }
        __syncthreads();
    }
    for (int i = 0; i < outputs; ++i) {
        const int y = tile.top + row + i * step, x = tile.left + column;
        if (y < size.height && x < size.width) *f.out.at(tile.picture, y, x) = sum[i] / static_cast<T>(f.channels);
    }
}

template <class T>
struct Backward {
    Features<const T> a, b, grad_out;
    Features<T> grad_a, grad_b;
    int channels;
    bool with_light;
    T* maps;  // [N C][4][H][W]: derivatives by the windowed means of a, b, aa (as bb), ab

    __device__ T* map(std::int64_t plane, int m, const Pictures& s, int y, int x) const {
        return maps + ((plane * 4 + m) * s.height + y) * s.width + x;
    }
};

// Derivatives by the four means at every pixel, times the shares: what the transposed window is run over.
template <class T>
__global__ void __launch_bounds__(tile_threads) ssim_slopes_kernel(Pictures size, Window<T> window, Backward<T> f) {
    const Tile tile(size);
    const Blur<T, 5> blur = {window, size, tile, dynamic_shared<T>()};
    const std::int64_t n = tile.picture / f.channels, c = tile.picture % f.channels;
    const T* const pa = f.a.at(n, 0, 0) + c * f.a.channel;
    const T* const pb = f.b.at(n, 0, 0) + c * f.b.channel;
    blur.along_columns([&](int y, int x, T(&into)[5]) {
        products(pa[y * f.a.row + x * f.a.column], pb[y * f.b.row + x * f.b.column], into);
    });
    for (int i = static_cast<int>(threadIdx.x); i < tile_rows * tile_columns; i += tile_threads) {
        const int row = i / tile_columns, column = i % tile_columns, y = tile.top + row, x = tile.left + column;
        if (y >= size.height || x >= size.width) continue;
        const T share = share_at(window, y, size.height) * share_at(window, x, size.width);
        T mean[5];
        blur.along_row(row, column, mean);
        for (T& value : mean) value *= share;
        const Similarity<T> s(mean, f.with_light);
        const T scale = *f.grad_out.at(n, y, x) * share * (T(-1) / static_cast<T>(f.channels));
        const T inverse = T(1) / (s.light_norm * s.contrast_norm), value = s.light * s.contrast * inverse;
        const T by_square = -value / s.contrast_norm, by_product = 2 * s.light * inverse;
        const T light_share = f.with_light ? T(2) : T(0);
        const T by_light = light_share * s.contrast * inverse;  // of the product of the means
        const T by_norm = -light_share * value / s.light_norm;  // of the means' squares, halved
        const T a = s.mean_a + shift<T>, b = s.mean_b + shift<T>;
        const T slopes[4] = {by_light * b + by_norm * a - 2 * s.mean_a * by_square - s.mean_b * by_product,
                             by_light * a + by_norm * b - 2 * s.mean_b * by_square - s.mean_a * by_product, by_square,
                             by_product};
        for (int m = 0; m < 4; ++m) *f.map(tile.picture, m, size, y, x) = scale * slopes[m];
    }
}

template <class T>
__global__ void __launch_bounds__(tile_threads) ssim_backward_kernel(Pictures size, Window<T> window, Backward<T> f) {
    const Tile tile(size);
    const Blur<T, 4> blur = {window, size, tile, dynamic_shared<T>()};
    const std::int64_t n = tile.picture / f.channels, c = tile.picture % f.channels;
    blur.along_columns([&](int y, int x, T(&into)[4]) {
        for (int m = 0; m < 4; ++m) into[m] = *f.map(tile.picture, m, size, y, x);
    });
    for (int i = static_cast<int>(threadIdx.x); i < tile_rows * tile_columns; i += tile_threads) {
        const int row = i / tile_columns, column = i % tile_columns, y = tile.top + row, x = tile.left + column;
        if (y >= size.height || x >= size.width) continue;
        T sum[4];
        blur.along_row(row, column, sum);
        const T a = f.a.at(n, y, x)[c * f.a.channel] - shift<T>, b = f.b.at(n, y, x)[c * f.b.channel] - shift<T>;
        f.grad_a.at(n, y, x)[c * f.grad_a.channel] = sum[0] + 2 * sum[2] * a + sum[3] * b;
        f.grad_b.at(n, y, x)[c * f.grad_b.channel] = sum[1] + 2 * sum[2] * b + sum[3] * a;
    }
}

Pictures pictures_of(const Check& check, const DistanceSizes& s, std::int64_t count) {
    constexpr std::int64_t most = 0x7fffffff;
    const std::int64_t across = ceil_div(s.width, tile_columns), tiles = across * ceil_div(s.height, tile_rows);
    if (s.positions > most - 4096 || s.channels > most || tiles > most / count) {
        check.fail("a has shape [", s.images, ",", s.channels, ",", s.height, ",", s.width,
                   "], too much for one call on a GPU; split the batch");
    }
    return {static_cast<int>(s.height), static_cast<int>(s.width), static_cast<unsigned>(across),
            static_cast<unsigned>(tiles)};
}

template <class T>
Grid grid_of(const Pictures& size, std::int64_t count, const Window<T>& window, int maps) {
    const int values = maps * tile_rows * (tile_columns + 2 * window.radius);
    return {static_cast<unsigned>(size.tiles * count), tile_threads, static_cast<std::size_t>(values) * sizeof(T)};
}

}  // namespace

template <class T>
void ssim(Stream stream, const DistanceSizes& s, const Tensor& a, const Tensor& b, const Tensor& out, bool with_light,
          int window) {
    const Pictures size = pictures_of(Check("distance"), s, s.images);
    const Window<T> weights = window_of<T>(window);
    const Forward<T> f = {features<const T>(a), features<const T>(b), features<T>(out), static_cast<int>(s.channels),
                          with_light};
    launch("distance", stream, grid_of(size, s.images, weights, 5), ssim_kernel<T>, size, weights, f);
}

template <class T>
void ssim_backward(Stream stream, const DistanceSizes& s, const Tensor& grad_out, const Tensor& a, const Tensor& b,
                   const Tensor& grad_a, const Tensor& grad_b, bool with_light, int window, T* maps) {
    const std::int64_t planes = s.images * s.channels;
    const Pictures size = pictures_of(Check("distance_backward"), s, planes);
    const Window<T> weights = window_of<T>(window);
    const Backward<T> f = {features<const T>(a),
                           features<const T>(b),
                           features<const T>(grad_out),
                           features<T>(grad_a),
                           features<T>(grad_b),
                           static_cast<int>(s.channels),
                           with_light,
                           maps};
    launch("distance_backward", stream, grid_of(size, planes, weights, 5), ssim_slopes_kernel<T>, size, weights, f);
    launch("distance_backward", stream, grid_of(size, planes, weights, 4), ssim_backward_kernel<T>, size, weights, f);
}

template void ssim<float>(Stream, const DistanceSizes&, const Tensor&, const Tensor&, const Tensor&, bool, int);
template void ssim<double>(Stream, const DistanceSizes&, const Tensor&, const Tensor&, const Tensor&, bool, int);
template void ssim_backward<float>(Stream, const DistanceSizes&, const Tensor&, const Tensor&, const Tensor&,
                                   const Tensor&, const Tensor&, bool, int, float*);
template void ssim_backward<double>(Stream, const DistanceSizes&, const Tensor&, const Tensor&, const Tensor&,
                                    const Tensor&, const Tensor&, bool, int, double*);

}  // namespace normscan::cuda
