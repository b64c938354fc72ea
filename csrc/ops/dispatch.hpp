// From a dtype and a processor to one kernel.
#pragma once

#include <cstdint>

#include "normscan/ops.hpp"

namespace normscan {

enum class SimdLevel : std::uint8_t { baseline, avx2, avx512 };

// The level in use: NORMSCAN_CPU_ISA, or the best that the processor has. Throws where the variable is wrong.
SimdLevel level_in_use();

#ifdef NORMSCAN_X86_KERNELS
template <class Table>
const Table& choose(const Table& baseline, const Table& avx2, const Table& avx512) {
    switch (level_in_use()) {
        case SimdLevel::avx512:
            return avx512;
        case SimdLevel::avx2:
            return avx2;
        case SimdLevel::baseline:
            break;
    }
    return baseline;
}
#define NORMSCAN_CHOOSE(op)                                                                \
    ::normscan::choose(::normscan::kernels::op##_baseline, ::normscan::kernels::op##_avx2, \
                       ::normscan::kernels::op##_avx512)
#else
#define NORMSCAN_CHOOSE(op) (::normscan::kernels::op##_baseline)
#endif

// The half of a table that is for T.
template <class T, class Table>
const auto& kernels_of(const Table& table) {
    if constexpr (sizeof(T) == sizeof(double)) {
        return table.f64;
    } else {
        return table.f32;
    }
}

// Calls f.operator()<float>() or <double>(), as the dtype says (checked before).
template <class F>
void for_dtype(DType dtype, F&& f) {
    if (dtype == DType::float64) {
        f.template operator()<double>();
    } else {
        f.template operator()<float>();
    }
}

}  // namespace normscan
