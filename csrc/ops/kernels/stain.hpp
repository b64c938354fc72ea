// Redness of RGB pixels: residuals, marks of what is red, and numbers of marks in windows. Rows of one image at a time.
#pragma once

#include "ops/kernels/isa.hpp"

namespace normscan::kernels {

// (r(b) - r(a))^2
template <class T>
struct StainResidual {
    Planes<const T> a, b;
    Map<T> out;
    std::int64_t begin, end;
    double cut;  // r below it is 0
};

// Red is a hue that lies at most `width` degrees after `from`, round the circle, and is saturated enough.
struct RedRange {
    double from, width, least_saturation;
};

// What a mark, one byte for a position of both pictures, is the sum of.
enum StainMark : std::uint8_t { red_in_a = 1, red_in_b = 2, not_finite = 4 };

template <class T>
struct StainMarks {
    Planes<const T> a, b;
    std::int64_t begin, end;
    RedRange red;
    std::uint8_t* marks;  // of all rows of the image: [height, width]
};

// (reds of b + 1) / (reds of a + 1) in windows that are cut off at the edges; NaN where one holds what is not finite.
template <class T>
struct StainRatio {
    const std::uint8_t* marks;  // [height, width]
    std::int64_t height, radius;
    Map<T> out;
    std::int64_t begin, end;
    std::int32_t* scratch;  // stain_scratch
};

// Three counts a column, with zeros for the windows that reach over the edges.
static constexpr std::int64_t stain_scratch(std::int64_t width, std::int64_t radius) {
    return 3 * (width + 2 * radius + 1);
}

template <class T>
struct StainKernels {
    void (*residual)(const StainResidual<T>&);
    void (*marks)(const StainMarks<T>&);
    void (*ratio)(const StainRatio<T>&);
};

struct StainTable {
    StainKernels<float> f32;
    StainKernels<double> f64;
};
NORMSCAN_DECLARE_KERNELS(StainTable, stain);

}  // namespace normscan::kernels
