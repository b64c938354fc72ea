#include "ops/kernels/gaussian_positions_fit.hpp"

#include "ops/kernels/simd.hpp"

namespace normscan::kernels {
namespace {

static_assert(fit_granule == granule<double>);

inline double* row_of(double* triangle, std::int64_t i) {
    return triangle + i * (i + 1) / 2;
}

void add_products(std::int64_t rows, std::int64_t channels, const double* x, double* triangle) {
    constexpr std::int64_t step = fit_granule;
    const std::int64_t width = whole_granules<double>(channels);
    for (std::int64_t i = 0; i < channels; ++i) {
        double* const row = row_of(triangle, i);
        for (std::int64_t j = 0; j <= i; j += step) {
            double sum[step] = {};
            for (std::int64_t n = 0; n < rows; ++n) {
                const double* const vector = x + n * width;
                for (std::int64_t l = 0; l < step; ++l) sum[l] += vector[i] * vector[j + l];
            }
            const std::int64_t last = smaller(step, i + 1 - j);
            for (std::int64_t l = 0; l < last; ++l) row[j + l] += sum[l];
        }
    }
}

// Row by row, so that every inner loop runs along rows.
bool factorise(std::int64_t channels, double least, double* triangle) {
    for (std::int64_t i = 0; i < channels; ++i) {
        double* const row = row_of(triangle, i);
        for (std::int64_t j = 0; j <= i; ++j) {
            const double* const other = row_of(triangle, j);
            double dot = 0.0;
            for (std::int64_t k = 0; k < j; ++k) dot += row[k] * other[k];
            const double rest = row[j] - dot;
            if (j < i) {
                row[j] = rest / other[j];
            } else if (rest > least) {
                row[j] = square_root(rest);
            } else {
                return false;
            }
        }
    }
    return true;
}

bool invert_factor(std::int64_t channels, double least, double* triangle, double* inverse) {
    if (!factorise(channels, least, triangle)) return false;
    for (std::int64_t i = 0; i < channels; ++i) {
        const double* const row = row_of(triangle, i);
        double* const into = row_of(inverse, i);
        const double scale = 1.0 / row[i];
        for (std::int64_t j = 0; j < i; ++j) into[j] = 0.0;
        for (std::int64_t k = 0; k < i; ++k) {
            const double* const above = row_of(inverse, k);
            const double factor = row[k] * scale;
            for (std::int64_t j = 0; j <= k; ++j) into[j] -= factor * above[j];
        }
        into[i] = scale;
    }
    return true;
}

}  // namespace

const GaussianPositionsFitTable NORMSCAN_TABLE(gaussian_positions_fit) = {add_products, invert_factor};

}  // namespace normscan::kernels
