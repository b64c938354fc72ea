// __half on the CPU: the compiler's _Float16, through float.
#pragma once

#include "cuda_runtime.h"

struct __half {
    std::uint16_t bits;
};
inline float __half2float(__half x) {
    _Float16 h;
    std::memcpy(&h, &x, sizeof h);
    return static_cast<float>(h);
}
inline __half __float2half_rn(float x) {
    const auto h = static_cast<_Float16>(x);
    __half result;
    std::memcpy(&result, &h, sizeof h);
    return result;
}
