#include "core/geometry.hpp"

#include <algorithm>
#include <cmath>

namespace normscan {
namespace {

Placement stretched(std::int64_t from, std::int64_t to) {
    return {0.0, static_cast<double>(from), 0, to};
}

// The whole axis, letter-boxed: `from * scale` rounded half up, centred.
Placement fitted(std::int64_t from, std::int64_t to, double scale) {
    const auto rounded = static_cast<std::int64_t>(std::floor(static_cast<double>(from) * scale + 0.5));
    const std::int64_t size = std::clamp<std::int64_t>(rounded, 1, to);
    return {0.0, static_cast<double>(from), (to - size) / 2, size};
}

// The middle of the axis, of fractional extent.
Placement cropped(std::int64_t from, std::int64_t to, double scale) {
    const double extent = std::min(static_cast<double>(from), static_cast<double>(to) / scale);
    return {(static_cast<double>(from) - extent) / 2.0, extent, 0, to};
}

}  // namespace

Geometry geometry(std::int64_t height, std::int64_t width, std::int64_t to_height, std::int64_t to_width,
                  Resize resize) {
    const double y = static_cast<double>(to_height) / static_cast<double>(height);
    const double x = static_cast<double>(to_width) / static_cast<double>(width);
    switch (resize) {
        case Resize::fit: {
            const double scale = std::min(y, x);
            return {fitted(height, to_height, scale), fitted(width, to_width, scale)};
        }
        case Resize::crop: {
            const double scale = std::max(y, x);
            return {cropped(height, to_height, scale), cropped(width, to_width, scale)};
        }
        case Resize::stretch:
            break;
    }
    return {stretched(height, to_height), stretched(width, to_width)};
}

}  // namespace normscan
