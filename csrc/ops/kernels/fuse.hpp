// One map, brought to the size of the fused map, enters it: rows of both at a time.
#pragma once

#include "ops/kernels/resample.hpp"

namespace normscan::kernels {

// What a map does to what is in the fused map already; the first one sets it.
enum class FuseStep : std::uint8_t { set, add, multiply };

template <class T>
struct FuseRows {
    Map<const T> map;
    Taps<T> rows, columns;
    T factor;
    FuseStep step;
    Map<T> out;
    std::int64_t begin, end;  // rows of out
    T* scratch;               // 2 widths of out
};

struct FuseTable {
    void (*f32)(const FuseRows<float>&);
    void (*f64)(const FuseRows<double>&);
};
NORMSCAN_DECLARE_KERNELS(FuseTable, fuse);

}  // namespace normscan::kernels
