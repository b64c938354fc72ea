// How the Gaussian ops see their tensors: [N,D] is one image with a row of N positions, so that both layouts share one
// path; statistics are copied to contiguous memory.
#pragma once

#include <algorithm>

#include "ops/planes.hpp"

namespace normscan {

constexpr std::int64_t gaussian_blocks = 8;  // blocks of positions of a task

template <class T>
kernels::Planes<T> gaussian_image(const Tensor& z, std::int64_t n) {
    if (z.rank == 2) return {z.as<T>(), z.step(1), 0, z.step(0), std::max<std::int64_t>(1, z.size(0))};
    return planes<T>(z, n);
}

template <class T>
kernels::Map<T> gaussian_map(const Tensor& out, std::int64_t n) {
    if (out.rank == 1) return {out.as<T>(), 0, out.step(0), std::max<std::int64_t>(1, out.size(0))};
    return map_of<T>(out, n);
}

template <class T>
void copy_vector(const T* from, std::int64_t step, std::int64_t size, T* to) {
    for (std::int64_t i = 0; i < size; ++i) to[i] = from[i * step];
}

// The lower triangle of rows that are contiguous in themselves; zeros above.
template <class T>
void copy_triangle(const T* from, std::int64_t row_step, std::int64_t size, T* to) {
    for (std::int64_t i = 0; i < size; ++i) {
        std::copy_n(from + i * row_step, i + 1, to + i * size);
        std::fill_n(to + i * size + i + 1, size - i - 1, T(0));
    }
}

}  // namespace normscan
