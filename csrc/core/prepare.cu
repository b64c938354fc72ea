// Pixels to network input on the GPU: grey or colour, resize (Pillow's BILINEAR: a triangle filter, widened when
// shrinking), normalise. Memory-bound: a source pixel is read by the two or so output rows that see it.
//
// A block makes 64 pixels of one output row, in all channels. It adds the source rows that the row sees, each value
// weighed, into a stretch of shared memory, and from there along the row; stretch after stretch, so that a picture of
// any width fits. Weights are computed where they are needed: no table has to be made or copied.
#include "core/geometry.hpp"
#include "core/prepare.hpp"
#include "normscan/cuda.hpp"
#include "ops/check.hpp"
#include "ops/kernels/launch.cuh"

namespace normscan::cuda {
namespace {

constexpr int threads = 256, columns = 64;
constexpr int stretch = 3072;  // values in shared memory: whole pixels and whole packs
constexpr int pack = 4;        // source values that are read at once

// One axis of the filter.
struct Filter {
    double begin, scale, support;
    int side, offset, size;  // source pixels; the picture's part of the output
};

Filter filter_of(const Placement& place, std::int64_t side) {
    const double scale = place.extent / static_cast<double>(place.size);
    return {place.begin,
            scale,
            scale > 1.0 ? scale : 1.0,
            static_cast<int>(side),
            static_cast<int>(place.offset),
            static_cast<int>(place.size)};
}

// The source pixels that one output pixel sees, and their weights before these are divided by their sum.
struct Taps {
    int first, count;
    float from_centre, inverse_support;  // from_centre: of the first pixel

    __device__ Taps(const Filter& f, int i) {
        const double centre = f.begin + (static_cast<double>(i) + 0.5) * f.scale;
        first = static_cast<int>(fmax(0.0, centre - f.support + 0.5));
        const int end = static_cast<int>(centre + f.support + 0.5);
        count = (end < f.side ? end : f.side) - first;
        from_centre = static_cast<float>(static_cast<double>(first) - centre + 0.5);
        inverse_support = static_cast<float>(1.0 / f.support);
    }
    __device__ int end() const { return first + count; }
    __device__ float weight(int k) const {
        return fmaxf(0.0f, 1.0f - fabsf(from_centre + static_cast<float>(k)) * inverse_support);
    }
    __device__ float sum() const {
        float total = 0.0f;
        for (int k = 0; k < count; ++k) total += weight(k);
        return total;
    }
};

template <class Pixel>
struct Prepare {
    const Pixel* image;
    std::int64_t row, column, channel;
    Filter rows, columns;
    bool packs;  // a row's values lie side by side, and packs are aligned
    int to_channels;
    float factor, mean[3], std[3];
    float* out;
    std::int64_t out_channel, out_row;
    int width;
    unsigned tiles;  // blocks a row
};

template <class Pixel>
struct alignas(sizeof(Pixel) * pack) PixelPack {
    Pixel value[pack];
};

// Values at..at+3 of a source row of C channels; those beyond its end are not written.
template <class Pixel, int C>
__device__ __forceinline__ void read(const Prepare<Pixel>& a, const Pixel* row, int at, float (&into)[pack]) {
    const int all = a.columns.side * C;
    if (a.packs && at + pack <= all) {
        const auto values = *reinterpret_cast<const PixelPack<Pixel>*>(row + at);
        for (int i = 0; i < pack; ++i) into[i] = static_cast<float>(values.value[i]);
        return;
    }
    for (int i = 0; i < pack; ++i) {
        if (at + i < all) into[i] = static_cast<float>(row[(at + i) / C * a.column + (at + i) % C * a.channel]);
    }
}

// The values begin..end-1 of the source rows that one output row sees, weighed and added, in 0..1.
template <class Pixel, int C>
__device__ void add_rows(const Prepare<Pixel>& a, const Taps& rows, float share, int begin, int end, float* into) {
    for (int at = begin + static_cast<int>(threadIdx.x) * pack; at < end; at += threads * pack) {
        float sum[pack] = {};
        const Pixel* row = a.image + rows.first * a.row;
        for (int k = 0; k < rows.count; ++k, row += a.row) {
            const float weight = rows.weight(k);
            float value[pack] = {};
            read<Pixel, C>(a, row, at, value);
            for (int i = 0; i < pack; ++i) sum[i] += weight * value[i];
        }
        for (int i = 0; i < pack; ++i) into[at - begin + i] = sum[i] * share;
    }
}

template <class Pixel, int C>
__global__ void __launch_bounds__(threads) prepare_kernel(Prepare<Pixel> a) {
    __shared__ float values[stretch];
    const int y = static_cast<int>(blockIdx.x / a.tiles), left = static_cast<int>(blockIdx.x % a.tiles) * columns;
    const int x = left + static_cast<int>(threadIdx.x) % columns, c = static_cast<int>(threadIdx.x) / columns;
    const int top = y - a.rows.offset, first_x = left - a.columns.offset, own = x - a.columns.offset;
    const bool writes = x < a.width && c < a.to_channels, inside = own >= 0 && own < a.columns.size;
    const int begin_x = first_x > 0 ? first_x : 0;
    const int end_x = first_x + columns < a.columns.size ? first_x + columns : a.columns.size;
    float sum = 0.0f, weights = 0.0f;
    if (top >= 0 && top < a.rows.size && begin_x < end_x) {
        const Taps rows(a.rows, top), taps(a.columns, inside ? own : begin_x);
        const float share = a.factor / rows.sum();
        const int end = Taps(a.columns, end_x - 1).end() * C;
        for (int begin = Taps(a.columns, begin_x).first / pack * pack * C; begin < end; begin += stretch) {
            const int past = begin + stretch < end ? begin + stretch : end;
            add_rows<Pixel, C>(a, rows, share, begin, past, values);
            __syncthreads();
            const int low = taps.first > begin / C ? taps.first : begin / C;
            const int high = taps.end() < past / C ? taps.end() : past / C;
            for (int p = low; writes && inside && p < high; ++p) {
                const float* const pixel = values + (p * C - begin);
                const float weight = taps.weight(p - taps.first);
                const bool grey = C == 3 && a.to_channels == 1;
                constexpr float red = luma[0], green = luma[1], blue = luma[2];  // an array is not there on the GPU
                sum += weight *
                       (grey ? red * pixel[0] + green * pixel[C / 2] + blue * pixel[C - 1] : pixel[C == 3 ? c : 0]);
                weights += weight;
            }
            __syncthreads();
        }
    }
    if (!writes) return;
    const float value = weights > 0.0f ? sum / weights : 0.0f;  // 0: padding
    a.out[c * a.out_channel + y * a.out_row + x] = (value - a.mean[c]) / a.std[c];
}

template <class Pixel>
void run(Stream stream, const Tensor& image, const Tensor& out, const Geometry& place, const Pixels& pixels,
         std::span<const double> mean, std::span<const double> std) {
    const std::int64_t tiles = ceil_div(out.size(2), columns), most = 0x7fffffff / 8;
    if (image.size(0) > most || image.size(1) > most || out.size(2) > most || tiles > most / out.size(1)) {
        Check("prepare").fail("image has shape ", shape_text(image), ", out has ", shape_text(out),
                              "; too large for a GPU");
    }
    const std::int64_t channel = image.rank == 3 && pixels.channels > 1 ? image.step(2) : 0;
    const bool side_by_side =
        (image.size(1) == 1 || image.step(1) == pixels.channels) && (pixels.channels == 1 || channel == 1);
    const bool packs = side_by_side && (image.size(0) == 1 || image.step(0) % pack == 0) &&
                       reinterpret_cast<std::uintptr_t>(image.data) % (sizeof(Pixel) * pack) == 0;
    Prepare<Pixel> a = {image.as<const Pixel>(),
                        image.step(0),
                        image.step(1),
                        channel,
                        filter_of(place.rows, image.size(0)),
                        filter_of(place.columns, image.size(1)),
                        packs,
                        static_cast<int>(pixels.to_channels),
                        pixels.factor,
                        {},
                        {},
                        out.as<float>(),
                        out.step(0),
                        out.step(1),
                        static_cast<int>(out.size(2)),
                        static_cast<unsigned>(tiles)};
    for (std::size_t c = 0; c < mean.size(); ++c) {
        a.mean[c] = static_cast<float>(mean[c]);
        a.std[c] = static_cast<float>(std[c]);
    }
    const Grid grid = {static_cast<unsigned>(tiles * out.size(1)), threads};
    launch("prepare", stream, grid, pixels.channels == 3 ? prepare_kernel<Pixel, 3> : prepare_kernel<Pixel, 1>, a);
}

}  // namespace

void prepare(Stream stream, const Tensor& image, const Tensor& out, Resize resize, std::span<const double> mean,
             std::span<const double> std) {
    const Pixels pixels = check_prepare(image, out, mean, std);
    const Geometry place = geometry(image.size(0), image.size(1), out.size(1), out.size(2), resize);
    if (image.dtype == DType::uint8) return run<std::uint8_t>(stream, image, out, place, pixels, mean, std);
    if (image.dtype == DType::uint16) return run<std::uint16_t>(stream, image, out, place, pixels, mean, std);
    run<float>(stream, image, out, place, pixels, mean, std);
}

}  // namespace normscan::cuda
