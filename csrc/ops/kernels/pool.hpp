// Sum, maximum and NaN of one row: the sums of pooling. Selection (topk, quantile, area) is in ops/pool.cpp.
#pragma once

#include "ops/kernels/isa.hpp"

namespace normscan::kernels {

struct RowSummary {
    double sum;  // 0 where nobody asked for it
    double maximum;
    bool has_nan;
};

template <class T>
struct PoolRow {
    const T* data;
    std::int64_t step, count;  // count >= 1
    bool with_sum;
};

struct PoolTable {
    RowSummary (*f32)(const PoolRow<float>&);
    RowSummary (*f64)(const PoolRow<double>&);
};
NORMSCAN_DECLARE_KERNELS(PoolTable, pool);

}  // namespace normscan::kernels
