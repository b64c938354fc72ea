// How the Gaussian kernels see their tensors: images of rows of positions, with channels. Included by gaussian*.cu
// only.
#pragma once

#include <initializer_list>

#include "ops/kernels/launch.cuh"

namespace normscan::cuda {
namespace {

// Positions are numbered through: image after image, row after row.
struct Layout {
    std::int64_t images, height, width;

    __host__ __device__ std::int64_t plane() const { return height * width; }
    __host__ __device__ std::int64_t positions() const { return images * height * width; }
};

// In elements; 0 in dimensions that have one entry.
struct Steps {
    std::int64_t image, channel, row, column;

    // Of position q of an image. A layout whose rows follow one another has one row, and needs no division.
    __device__ std::int64_t at(const Layout& l, std::int64_t q) const {
        return l.height == 1 ? q * column : q / l.width * row + q % l.width * column;
    }
    __device__ std::int64_t at_any(const Layout& l, std::int64_t p) const {
        return l.images == 1 ? at(l, p) : p / l.plane() * image + at(l, p % l.plane());
    }
};

inline std::int64_t step(const Tensor& t, int dimension) {
    return t.size(dimension) > 1 ? t.step(dimension) : 0;
}

// z [N,D] or [N,C,H,W].
inline Layout layout_of(const Tensor& z) {
    return z.rank == 2 ? Layout{z.size(0), 1, 1} : Layout{z.size(0), z.size(2), z.size(3)};
}
inline Steps steps_of(const Tensor& z) {
    if (z.rank == 2) return {step(z, 0), step(z, 1), 0, 0};
    return {step(z, 0), step(z, 1), step(z, 2), step(z, 3)};
}
// [N] or [N,H,W].
inline Steps map_steps_of(const Tensor& map) {
    if (map.rank == 1) return {step(map, 0), 0, 0, 0};
    return {step(map, 0), 0, step(map, 1), step(map, 2)};
}

// Rows that follow one another in all tensors become one row, and images that do one image.
inline void merge(Layout& l, std::initializer_list<Steps*> all) {
    bool rows = l.height > 1, images = l.images > 1;
    for (const Steps* s : all) rows = rows && (l.width == 1 || s->row == l.width * s->column);
    if (rows) {
        for (Steps* s : all) s->column = l.width == 1 ? s->row : s->column;
        l = {l.images, 1, l.plane()};
    }
    for (const Steps* s : all) images = images && l.height == 1 && (l.width == 1 || s->image == l.width * s->column);
    if (images) {
        for (Steps* s : all) s->column = l.width == 1 ? s->image : s->column;
        l = {1, 1, l.positions()};
    }
}

// 16 bytes hold four neighbours of a kind wherever their number is a multiple of four.
template <class T>
bool in_vectors(const T* data, std::initializer_list<std::int64_t> other_steps) {
    bool whole = sizeof(T) == sizeof(float) && reinterpret_cast<std::uintptr_t>(data) % 16 == 0;
    for (const std::int64_t s : other_steps) whole = whole && s % 4 == 0;
    return whole;
}

// Four neighbours, or the first `count` of them and zeros.
template <class T>
__device__ __forceinline__ void load_four(const T* from, std::int64_t count, bool vectors, T (&to)[4]) {
    if constexpr (sizeof(T) == sizeof(float)) {
        if (vectors && count >= 4) {
            const float4 four = *reinterpret_cast<const float4*>(from);
            to[0] = four.x, to[1] = four.y, to[2] = four.z, to[3] = four.w;
            return;
        }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) to[i] = i < count ? from[i] : T(0);
}

template <class T>
__device__ __forceinline__ void store_four(T* to, std::int64_t count, bool vectors, const T (&from)[4]) {
    if constexpr (sizeof(T) == sizeof(float)) {
        if (vectors && count >= 4) {
            *reinterpret_cast<float4*>(to) = make_float4(from[0], from[1], from[2], from[3]);
            return;
        }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        if (i < count) to[i] = from[i];
    }
}

// z, read by fours.
template <class T>
struct Latents {
    const T* data;
    Steps steps;
    Layout layout;
    std::int64_t channels;
    bool by_channels;  // neighbours in memory are channels of a position, else positions of a channel
    bool vectors;

    Latents(const Tensor& z, const Layout& l, const Steps& s)
        : data(z.as<const T>()), steps(s), layout(l), channels(z.size(1)), by_channels(s.channel == 1) {
        vectors = by_channels ? in_vectors(data, {s.image, s.row, s.column})
                              : s.column == 1 && l.height == 1 && in_vectors(data, {s.image, s.channel});
    }

    // Channels c..c+3 of the position at `place`; zeros behind the last.
    __device__ void four_channels(std::int64_t place, std::int64_t c, T (&v)[4]) const {
        load_four(data + place + c, channels - c, vectors, v);
    }
    // Channel c of positions q..q+3 of image n; zeros behind the last.
    __device__ void four_positions(std::int64_t n, std::int64_t q, std::int64_t c, T (&v)[4]) const {
        const T* const from = data + n * steps.image + c * steps.channel;
        const std::int64_t count = layout.plane() - q;
        if (layout.height == 1 && steps.column == 1) {
            load_four(from + q, count, vectors, v);
        } else {
#pragma unroll
            for (int i = 0; i < 4; ++i) v[i] = i < count ? from[steps.at(layout, q + i)] : T(0);
        }
    }
};

}  // namespace
}  // namespace normscan::cuda
