// The arithmetic of one position's fit, in double. Triangles are packed: row i, of i + 1 entries, begins at i (i + 1)
// / 2.
#pragma once

#include "ops/kernels/isa.hpp"

namespace normscan::kernels {

constexpr std::int64_t fit_granule = 8;  // rows of vectors are whole granules, and may be read to their end

struct GaussianPositionsFitTable {
    // triangle += the lower triangle of x' x; x [rows][channels in whole granules].
    void (*add_products)(std::int64_t rows, std::int64_t channels, const double* x, double* triangle);
    // A symmetric positive definite matrix becomes its Cholesky factor in place, and `inverse` the inverse of that.
    // False where a pivot is not above `least`.
    bool (*invert_factor)(std::int64_t channels, double least, double* triangle, double* inverse);
};
NORMSCAN_DECLARE_KERNELS(GaussianPositionsFitTable, gaussian_positions_fit);

}  // namespace normscan::kernels
