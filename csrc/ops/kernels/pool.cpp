#include "ops/kernels/pool.hpp"

namespace normscan::kernels {
namespace {

template <class T>
RowSummary summarise(const PoolRow<T>& row) {
    double sum = 0.0;
    T maximum = row.data[0];
    int nans = 0;
    for (std::int64_t i = 0; i < row.count; ++i) {
        const T x = row.data[i * row.step];
        sum += static_cast<double>(x);
        maximum = x > maximum ? x : maximum;
        nans |= x != x;
    }
    return {sum, static_cast<double>(maximum), nans != 0};
}

}  // namespace

const PoolTable NORMSCAN_TABLE(pool) = {summarise<float>, summarise<double>};

}  // namespace normscan::kernels
