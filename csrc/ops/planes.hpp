// From checked tensors to the views that kernels take.
#pragma once

#include "normscan/tensor.hpp"
#include "ops/kernels/isa.hpp"

namespace normscan {

// Image n of z [N,C,H,W].
template <class T>
kernels::Planes<T> planes(const Tensor& z, std::int64_t n) {
    return {z.as<T>() + n * z.step(0), z.step(1), z.step(2), z.step(3), z.size(3)};
}

// Image n of map [N,H,W].
template <class T>
kernels::Map<T> map_of(const Tensor& map, std::int64_t n) {
    return {map.as<T>() + n * map.step(0), map.step(1), map.step(2), map.size(2)};
}

}  // namespace normscan
