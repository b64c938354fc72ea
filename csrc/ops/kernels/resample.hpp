// Bilinear resampling of rows of one map, by tables that the launcher makes.
#pragma once

#include "ops/kernels/isa.hpp"

namespace normscan::kernels {

// Output i lies between inputs low[i] and high[i], at `share` of the way to high.
template <class T>
struct Taps {
    const std::int64_t *low, *high;
    const T* share;
};

template <class T>
struct ResampleRows {
    Map<const T> map;
    Map<T> out;
    std::int64_t begin, end;  // rows of out
    Taps<T> rows, columns;
    T* scratch;  // width of map
};

struct ResampleTable {
    void (*f32)(const ResampleRows<float>&);
    void (*f64)(const ResampleRows<double>&);
};
NORMSCAN_DECLARE_KERNELS(ResampleTable, resample);

}  // namespace normscan::kernels
