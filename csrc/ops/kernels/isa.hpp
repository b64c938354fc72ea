// One kernel source, several objects: NORMSCAN_ISA (baseline, avx2, avx512) comes from the build.
//
// Rules for kernels/*.cpp, so that nothing compiled for AVX is ever linked into what every processor runs: no std::
// templates or inline functions, all code in an anonymous namespace, one exported table per object.
#pragma once

#include <cstdint>

#define NORMSCAN_JOIN_(a, b) a##_##b
#define NORMSCAN_JOIN(a, b) NORMSCAN_JOIN_(a, b)

// In a header: declares the tables <op>_baseline, <op>_avx2, <op>_avx512.
#define NORMSCAN_DECLARE_KERNELS(Table, op) extern const Table op##_baseline, op##_avx2, op##_avx512
// In a source: the name of the table of this object.
#define NORMSCAN_TABLE(op) NORMSCAN_JOIN(op, NORMSCAN_ISA)

namespace normscan::kernels {

// Plain views that kernels take; all strides in elements.

template <class T>
struct Matrix {
    T* data;
    std::int64_t row, column;
};

// One image of a [N,C,H,W] tensor. Position p is (p / width, p % width). A [N,D] tensor is one row of N positions.
template <class T>
struct Planes {
    T* data;
    std::int64_t channel, row, column, width;
};

// One image of a [N,H,W] tensor.
template <class T>
struct Map {
    T* data;
    std::int64_t row, column, width;
};

}  // namespace normscan::kernels
