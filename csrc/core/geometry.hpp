// Where a picture lies in the network's input: shared by prepare and its inverse.
#pragma once

#include <cstdint>

#include "normscan/ops.hpp"

namespace normscan {

// One axis. The source interval [begin, begin + extent) of the picture fills `size` pixels of the input from `offset`.
struct Placement {
    double begin, extent;       // in pixels of the picture
    std::int64_t offset, size;  // in pixels of the input; the rest is padding
};

struct Geometry {
    Placement rows, columns;
};

// Picture of height x width -> input of to_height x to_width, all >= 1.
Geometry geometry(std::int64_t height, std::int64_t width, std::int64_t to_height, std::int64_t to_width,
                  Resize resize);

}  // namespace normscan
