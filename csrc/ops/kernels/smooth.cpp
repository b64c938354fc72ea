#include "ops/kernels/smooth.hpp"

namespace normscan::kernels {
namespace {

template <class T>
void smooth(const SmoothRows<T>& a) {
    const std::int64_t width = a.map.width, taps = 2 * a.radius + 1;
    T* const column_sums = a.scratch;
    T* const extended = column_sums + width;
    for (std::int64_t y = a.begin; y < a.end; ++y) {
        for (std::int64_t x = 0; x < width; ++x) column_sums[x] = T(0);
        for (std::int64_t k = 0; k < taps; ++k) {
            const T* const row = a.map.data + a.row_at[y + k] * a.map.row;
            const T w = a.weights[k];
            for (std::int64_t x = 0; x < width; ++x) column_sums[x] += w * row[x * a.map.column];
        }
        for (std::int64_t i = 0; i < width + 2 * a.radius; ++i) extended[i] = column_sums[a.column_at[i]];
        for (std::int64_t x = 0; x < width; ++x) column_sums[x] = T(0);
        for (std::int64_t k = 0; k < taps; ++k) {
            const T w = a.weights[k];
            for (std::int64_t x = 0; x < width; ++x) column_sums[x] += w * extended[x + k];
        }
        T* const to = a.out.data + y * a.out.row;
        for (std::int64_t x = 0; x < width; ++x) to[x * a.out.column] = column_sums[x];
    }
}

}  // namespace

const SmoothTable NORMSCAN_TABLE(smooth) = {smooth<float>, smooth<double>};

}  // namespace normscan::kernels
