// What pooling asks of its arguments, on every device.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>

#include "normscan/ops.hpp"
#include "ops/check.hpp"

namespace normscan {

void check_pool_map(const Check& check, const Tensor& map, PoolMethod method, double parameter);
void check_pool(const Tensor& map, const Tensor& out, PoolMethod method, double parameter);

// How many of `pixels` topk takes.
inline std::int64_t topk_count(double share, std::int64_t pixels) {
    const double wanted = std::ceil(share * static_cast<double>(pixels));
    return static_cast<std::int64_t>(std::clamp(wanted, 1.0, static_cast<double>(pixels)));
}

// Mean of the ceil(share * n) largest of n >= 1 values, which are put in another order. They are summed in order of
// size, so that ties and layouts do not matter.
template <class T>
double top_mean(T* first, T* last, double share) {
    T* const end = first + topk_count(share, last - first);
    std::nth_element(first, end - 1, last, std::greater<>());
    std::sort(first, end);
    double sum = 0.0;
    for (const T* value = first; value != end; ++value) sum += static_cast<double>(*value);
    return sum / static_cast<double>(end - first);
}

}  // namespace normscan
