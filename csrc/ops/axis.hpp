// Where the pixels of a resized axis lie between those of the old one: the tables of resample and fuse.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "ops/kernels/resample.hpp"

namespace normscan {

// Half-pixel centres (align_corners false), held at the first and the last input. An output that meets an input
// exactly looks at no neighbour, which may be NaN.
template <class T>
struct Axis {
    std::vector<std::int64_t> low, high;
    std::vector<T> share;

    Axis(std::int64_t from, std::int64_t to) {
        const double scale = static_cast<double>(from) / static_cast<double>(to);
        for (std::int64_t i = 0; i < to; ++i) {
            const double at = std::max(0.0, (static_cast<double>(i) + 0.5) * scale - 0.5);
            const std::int64_t first = std::min(static_cast<std::int64_t>(at), from - 1);
            share.push_back(static_cast<T>(std::min(1.0, at - static_cast<double>(first))));
            low.push_back(first);
            high.push_back(share.back() > T(0) ? std::min(first + 1, from - 1) : first);
        }
    }
    kernels::Taps<T> view() const { return {low.data(), high.data(), share.data()}; }
};

}  // namespace normscan
