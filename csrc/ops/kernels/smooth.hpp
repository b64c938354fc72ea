// Gaussian smoothing of rows of one map, by tables that the launcher makes.
#pragma once

#include "ops/kernels/isa.hpp"

namespace normscan::kernels {

template <class T>
struct SmoothRows {
    Map<const T> map;
    Map<T> out;
    std::int64_t begin, end;  // rows of out
    std::int64_t radius;
    const T* weights;  // [2 radius + 1], sum 1
    // Input row (column) that stands at place i - radius, mirrored at the edges: [side + 2 radius]
    const std::int64_t *row_at, *column_at;
    T* scratch;  // 2 width + 2 radius
};

struct SmoothTable {
    void (*f32)(const SmoothRows<float>&);
    void (*f64)(const SmoothRows<double>&);
};
NORMSCAN_DECLARE_KERNELS(SmoothTable, smooth);

}  // namespace normscan::kernels
