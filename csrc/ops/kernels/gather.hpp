// Blocks of positions of an image, as rows of channels in contiguous scratch, and back.
// Only for kernels/*.cpp: everything is in an anonymous namespace.
#pragma once

#include "ops/kernels/isa.hpp"
#include "ops/kernels/simd.hpp"

namespace normscan::kernels {
namespace {

// Calls f(address of the first position, step to the next, index in the block, length) for each run within one row.
template <class T, class F>
inline void for_runs(const Planes<T>& image, std::int64_t first, std::int64_t count, F&& f) {
    for (std::int64_t done = 0; done < count;) {
        const std::int64_t y = (first + done) / image.width, x = (first + done) % image.width;
        const std::int64_t length = smaller(count - done, image.width - x);
        f(image.data + y * image.row + x * image.column, image.column, done, length);
        done += length;
    }
}

// Calls f(position, channel) for all of both, in tiles: in channels_last memory either way round is then read and
// written in whole cache lines (scratch rows lie a power of two apart, and would evict each other).
template <class F>
inline void for_tiles(std::int64_t positions, std::int64_t channels, F&& f) {
    constexpr std::int64_t side = 16;
    for (std::int64_t i = 0; i < positions; i += side) {
        for (std::int64_t c = 0; c < channels; c += side) {
            const std::int64_t last_i = smaller(i + side, positions), last_c = smaller(c + side, channels);
            for (std::int64_t p = i; p < last_i; ++p) {
                for (std::int64_t q = c; q < last_c; ++q) f(p, q);
            }
        }
    }
}

// into[c * row + i] = position first + i, channel c, minus shift[c] (if any). i in count..row-1 is filled with 0.
template <class T>
inline void gather(const Planes<const T>& image, std::int64_t first, std::int64_t count, std::int64_t channels,
                   const T* shift, T* into, std::int64_t row) {
    for_runs(image, first, count, [&](const T* from, std::int64_t step, std::int64_t at, std::int64_t length) {
        if (image.channel == 1 && step != 1) {
            for_tiles(length, channels,
                      [&](std::int64_t i, std::int64_t c) { into[c * row + at + i] = from[i * step + c]; });
        } else {
            for (std::int64_t c = 0; c < channels; ++c) {
                const T* const plane = from + c * image.channel;
                T* const to = into + c * row + at;
                for (std::int64_t i = 0; i < length; ++i) to[i] = plane[i * step];
            }
        }
    });
    for (std::int64_t c = 0; c < channels; ++c) {
        T* const to = into + c * row;
        if (shift != nullptr) {
            for (std::int64_t i = 0; i < count; ++i) to[i] -= shift[c];
        }
        for (std::int64_t i = count; i < row; ++i) to[i] = T(0);
    }
}

// The inverse: writes rows of channels to positions of the image.
template <class T>
inline void scatter(const T* from, std::int64_t row, const Planes<T>& image, std::int64_t first, std::int64_t count,
                    std::int64_t channels) {
    for_runs(image, first, count, [&](T* to, std::int64_t step, std::int64_t at, std::int64_t length) {
        if (image.channel == 1 && step != 1) {
            for_tiles(length, channels,
                      [&](std::int64_t i, std::int64_t c) { to[i * step + c] = from[c * row + at + i]; });
        } else {
            for (std::int64_t c = 0; c < channels; ++c) {
                T* const plane = to + c * image.channel;
                for (std::int64_t i = 0; i < length; ++i) plane[i * step] = from[c * row + at + i];
            }
        }
    });
}

template <class T>
inline void gather(const Map<const T>& map, std::int64_t first, std::int64_t count, T* into) {
    const Planes<const T> plane = {map.data, 0, map.row, map.column, map.width};
    for_runs(plane, first, count, [&](const T* from, std::int64_t step, std::int64_t at, std::int64_t length) {
        for (std::int64_t i = 0; i < length; ++i) into[at + i] = from[i * step];
    });
}

template <class T>
inline void scatter(const T* from, const Map<T>& map, std::int64_t first, std::int64_t count) {
    const Planes<T> plane = {map.data, 0, map.row, map.column, map.width};
    for_runs(plane, first, count, [&](T* to, std::int64_t step, std::int64_t at, std::int64_t length) {
        for (std::int64_t i = 0; i < length; ++i) to[i * step] = from[at + i];
    });
}

}  // namespace
}  // namespace normscan::kernels
