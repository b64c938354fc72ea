// In whole numbers as far as they go: a rounded scale may not decide on which side of a half a size falls, nor whether
// a pixel's centre is inside the box.
#include "core/geometry.hpp"

#include <algorithm>

namespace normscan {
namespace {

// Pixels of the input per pixel of the picture.
struct Scale {
    std::int64_t to, from;
};

bool less(Scale a, Scale b) {
    return a.to * b.from < b.to * a.from;
}

Placement stretched(std::int64_t from, std::int64_t to) {
    return {0.0, static_cast<double>(from), 0, to};
}

// The whole axis, letter-boxed: from * scale, rounded half up, centred.
Placement fitted(std::int64_t from, std::int64_t to, Scale scale) {
    const std::int64_t rounded = (2 * from * scale.to + scale.from) / (2 * scale.from);
    const std::int64_t size = std::max<std::int64_t>(1, rounded);
    return {0.0, static_cast<double>(from), (to - size) / 2, size};
}

// The middle of the axis, of fractional extent.
Placement cropped(std::int64_t from, std::int64_t to, Scale scale) {
    const double extent = static_cast<double>(to * scale.from) / static_cast<double>(scale.to);
    return {(static_cast<double>(from) - extent) / 2.0, extent, 0, to};
}

}  // namespace

Geometry geometry(std::int64_t height, std::int64_t width, std::int64_t to_height, std::int64_t to_width,
                  Resize resize) {
    const Scale rows = {to_height, height}, columns = {to_width, width};
    const Scale smaller = less(columns, rows) ? columns : rows, larger = less(columns, rows) ? rows : columns;
    switch (resize) {
        case Resize::fit:
            return {fitted(height, to_height, smaller), fitted(width, to_width, smaller)};
        case Resize::crop:
            return {cropped(height, to_height, larger), cropped(width, to_width, larger)};
        case Resize::stretch:
            break;
    }
    return {stretched(height, to_height), stretched(width, to_width)};
}

}  // namespace normscan
