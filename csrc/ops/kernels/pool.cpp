#include "ops/kernels/pool.hpp"

#include "ops/kernels/simd.hpp"

namespace normscan::kernels {
namespace {

template <class T>
RowSummary summarise(const PoolRow<T>& row) {
    T maximum = row.data[0];
    int nans = 0;
    for (std::int64_t i = 0; i < row.count; ++i) {
        const T x = row.data[i * row.step];
        maximum = x > maximum ? x : maximum;
        nans |= x != x;
    }
    const double sum =
        sum_in_lanes<double>(row.count, [&](std::int64_t i) { return static_cast<double>(row.data[i * row.step]); });
    return {sum, static_cast<double>(maximum), nans != 0};
}

}  // namespace

const PoolTable NORMSCAN_TABLE(pool) = {summarise<float>, summarise<double>};

}  // namespace normscan::kernels
