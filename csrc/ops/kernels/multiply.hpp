// The one matrix product of the kernels: C (+)= A B on tiles that fit the caches.
// Only for kernels/*.cpp: everything is in an anonymous namespace.
#pragma once

#include "ops/kernels/simd.hpp"

namespace normscan::kernels {
namespace {

// `rows` x one granule of C in registers; each step of depth is one row of B and `rows` broadcasts from A.
template <class T, int rows>
inline void multiply_tile(std::int64_t depth, Matrix<const T> a, const T* b, std::int64_t b_row, T* c,
                          std::int64_t c_row, bool accumulate) {
    constexpr int width = static_cast<int>(granule<T>) / lanes<T>;
    Vec<T> sum[rows][width];
    for (int r = 0; r < rows; ++r) {
        for (int w = 0; w < width; ++w) sum[r][w] = accumulate ? load(c + r * c_row + w * lanes<T>) : Vec<T>{};
    }
    for (std::int64_t k = 0; k < depth; ++k) {
        Vec<T> row[width];
        for (int w = 0; w < width; ++w) row[w] = load(b + k * b_row + w * lanes<T>);
        for (int r = 0; r < rows; ++r) {
            const Vec<T> factor = splat(a.data[r * a.row + k * a.column]);
            for (int w = 0; w < width; ++w) sum[r][w] += factor * row[w];
        }
    }
    for (int r = 0; r < rows; ++r) {
        for (int w = 0; w < width; ++w) store(c + r * c_row + w * lanes<T>, sum[r][w]);
    }
}

// C [rows,columns] = A [rows,depth] B [depth,columns], or += where accumulate. A has any strides; B and C have inner
// stride 1; columns is a whole number of granules.
template <class T>
inline void multiply(std::int64_t rows, std::int64_t columns, std::int64_t depth, Matrix<const T> a, const T* b,
                     std::int64_t b_row, T* c, std::int64_t c_row, bool accumulate) {
    constexpr int block = NORMSCAN_VECTOR_BYTES == 64 ? 8 : NORMSCAN_VECTOR_BYTES == 32 ? 4 : 2;
    std::int64_t r = 0;
    for (; r + block <= rows; r += block) {
        const Matrix<const T> part = {a.data + r * a.row, a.row, a.column};
        for (std::int64_t j = 0; j < columns; j += granule<T>) {
            multiply_tile<T, block>(depth, part, b + j, b_row, c + r * c_row + j, c_row, accumulate);
        }
    }
    for (; r < rows; ++r) {
        const Matrix<const T> part = {a.data + r * a.row, a.row, a.column};
        for (std::int64_t j = 0; j < columns; j += granule<T>) {
            multiply_tile<T, 1>(depth, part, b + j, b_row, c + r * c_row + j, c_row, accumulate);
        }
    }
}

}  // namespace
}  // namespace normscan::kernels
