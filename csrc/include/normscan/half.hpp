// Numbers of 16 bits as they lie in memory. Nothing computes with them: kernels widen them to float32. No std:: here,
// since kernels include it.
#pragma once

#include <cstdint>

namespace normscan {

struct Float16 {
    std::uint16_t bits;
};
struct BFloat16 {
    std::uint16_t bits;
};

// What sums of S are kept in: float32 for the 16-bit types, else S.
template <class S>
struct AccumulatorOf {
    using type = S;
};
template <>
struct AccumulatorOf<Float16> {
    using type = float;
};
template <>
struct AccumulatorOf<BFloat16> {
    using type = float;
};
template <class S>
using Accumulator = typename AccumulatorOf<S>::type;

}  // namespace normscan
