// Squared Mahalanobis distances of a centred block x [D][64]; y is scratch [gaussian_rows][64].
// Only for kernels/*.cpp: everything is in an anonymous namespace.
#pragma once

#include "ops/kernels/gaussian.hpp"
#include "ops/kernels/multiply.hpp"

namespace normscan::kernels {
namespace {

// Rows first..first+rows-1 of the whitener times the centred block, into y [rows][64].
template <class T>
inline void whiten(const T* whitener, std::int64_t channels, std::int64_t first, std::int64_t rows, const T* x, T* y) {
    const Matrix<const T> w = {whitener + first * channels, channels, 1};
    multiply(rows, gaussian_positions, first + rows, w, x, gaussian_positions, y, gaussian_positions, false);
}

template <class T>
inline void add_squares(const T* y, std::int64_t rows, T* sum) {
    for (std::int64_t r = 0; r < rows; ++r) {
        for (std::int64_t p = 0; p < gaussian_positions; ++p) {
            sum[p] += y[r * gaussian_positions + p] * y[r * gaussian_positions + p];
        }
    }
}

template <class T>
inline void add_squared_distances(const T* whitener, Whitener form, std::int64_t channels, const T* x, T* y, T* sum) {
    constexpr std::int64_t B = gaussian_positions;
    if (form == Whitener::full) {
        for (std::int64_t i = 0; i < channels; i += gaussian_rows) {
            const std::int64_t rows = smaller(gaussian_rows, channels - i);
            whiten(whitener, channels, i, rows, x, y);
            add_squares(y, rows, sum);
        }
        return;
    }
    for (std::int64_t c = 0; c < channels; ++c) {
        const T w = whitener[form == Whitener::diagonal ? c : 0];
        for (std::int64_t p = 0; p < B; ++p) sum[p] += (w * x[c * B + p]) * (w * x[c * B + p]);
    }
}

}  // namespace
}  // namespace normscan::kernels
