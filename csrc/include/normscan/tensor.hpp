// A tensor that somebody else owns: address, dtype, shape, strides. No allocation, no reference count.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>

#include "normscan/half.hpp"

namespace normscan {

enum class DType : std::uint8_t { float32, float64, uint8, uint16, int64, float16, bfloat16 };

template <class T>
inline constexpr DType dtype_of = DType::float32;
template <>
inline constexpr DType dtype_of<double> = DType::float64;
template <>
inline constexpr DType dtype_of<std::uint8_t> = DType::uint8;
template <>
inline constexpr DType dtype_of<std::uint16_t> = DType::uint16;
template <>
inline constexpr DType dtype_of<std::int64_t> = DType::int64;
template <>
inline constexpr DType dtype_of<Float16> = DType::float16;
template <>
inline constexpr DType dtype_of<BFloat16> = DType::bfloat16;

struct Tensor {
    static constexpr int max_rank = 6;

    void* data = nullptr;
    DType dtype = DType::float32;
    int rank = 0;
    std::array<std::int64_t, max_rank> shape{};
    std::array<std::int64_t, max_rank>
        stride{};  // in elements; 1 in dimensions of size 0 and 1, where it means nothing
    bool read_only = false;

    std::int64_t size(int dimension) const { return shape[static_cast<std::size_t>(dimension)]; }
    std::int64_t step(int dimension) const { return stride[static_cast<std::size_t>(dimension)]; }

    template <class T>
    T* as() const {
        return static_cast<T*>(data);
    }
};

// A tensor over contiguous memory.
template <class T>
Tensor contiguous(T* data, std::initializer_list<std::int64_t> shape) {
    Tensor t;
    t.data = data;
    t.dtype = dtype_of<T>;
    t.rank = static_cast<int>(shape.size());
    std::size_t i = 0;
    for (const std::int64_t n : shape) t.shape[i++] = n;
    std::int64_t stride = 1;
    while (i-- > 0) {
        t.stride[i] = t.shape[i] > 1 ? stride : 1;
        stride *= t.shape[i];
    }
    return t;
}

}  // namespace normscan
