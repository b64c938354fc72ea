// Whether tensors share memory.
#pragma once

#include "normscan/tensor.hpp"

namespace normscan {

// Where the bytes of t begin and end, counted from `data` (negative strides go before it).
struct Extent {
    std::int64_t before, after;
};
// False where they, or the bytes of all elements (sizes of 0 count as 1), are more than 2^60: no memory holds them.
bool extent(const Tensor& t, Extent& found);

// Whether two indices of t may be the same element. Exact for slices and transposes of one array.
bool overlaps_itself(const Tensor& t);

// Whether an element of a and one of b have a byte in common. Exact for slices of one array, such as every second
// channel; where the strides are so odd that the answer takes thousands of steps, it is yes. Extents must be right.
bool overlap(const Tensor& a, const Tensor& b);

}  // namespace normscan
