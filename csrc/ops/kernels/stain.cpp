// In double whatever the pictures are: differences of float32 colours are exact then, so that every instruction set
// finds the same colours red.
#include "ops/kernels/stain.hpp"

#include "ops/kernels/simd.hpp"

namespace normscan::kernels {
namespace {

struct Colour {
    double red, green, blue;
};

template <class T>
inline Colour colour(const T* at, std::int64_t channel) {
    return {static_cast<double>(at[0]), static_cast<double>(at[channel]), static_cast<double>(at[2 * channel])};
}

// Times 0, so that what is infinite becomes NaN and not 0.
inline double redness(Colour c, double cut) {
    const double r = c.red - 0.5 * (c.green + c.blue);
    return r < cut ? 0.0 * r : r;
}

template <class T>
void residual(const StainResidual<T>& s) {
    for (std::int64_t y = s.begin; y < s.end; ++y) {
        const T *const a = s.a.data + y * s.a.row, *const b = s.b.data + y * s.b.row;
        T* const to = s.out.data + y * s.out.row;
        for (std::int64_t x = 0; x < s.out.width; ++x) {
            const double difference = redness(colour(b + x * s.b.column, s.b.channel), s.cut) -
                                      redness(colour(a + x * s.a.column, s.a.channel), s.cut);
            to[x * s.out.column] = static_cast<T>(difference * difference);
        }
    }
}

// 1 or 0, numbers so that vectors may hold them. The hue of HSV (Smith 1978), of a grey pixel none; in degrees times
// the spread of the channels, which needs no division.
inline double is_red(Colour c, const RedRange& range) {
    const double upper = c.green > c.blue ? c.green : c.blue, lower = c.green > c.blue ? c.blue : c.green;
    const double most = c.red > upper ? c.red : upper, least = c.red < lower ? c.red : lower;
    const double spread = most - least;
    const bool first = most == c.red, second = most == c.green;
    const double along = first ? c.green - c.blue : second ? c.blue - c.red : c.red - c.green;
    const double sector = first ? 0.0 : second ? 120.0 : 240.0;
    double turn = (sector - range.from) * spread + 60.0 * along;  // -420..300 of them
    turn += turn < 0.0 ? 360.0 * spread : 0.0;
    turn += turn < 0.0 ? 360.0 * spread : 0.0;
    const double in_range = turn <= range.width * spread ? 1.0 : 0.0;
    const double saturated = spread >= range.least_saturation * most ? 1.0 : 0.0;
    return spread > 0.0 ? in_range * saturated : 0.0;
}

inline double is_finite(Colour c) {
    return absolute(c.red + c.green + c.blue) <= __DBL_MAX__ ? 1.0 : 0.0;
}

template <class T>
void mark(const StainMarks<T>& s) {
    // Copies, for a byte that is written might be any of these to the compiler.
    const Planes<const T> a = s.a, b = s.b;
    const RedRange red = s.red;
    for (std::int64_t y = s.begin; y < s.end; ++y) {
        std::uint8_t* const to = s.marks + y * a.width;
        for (std::int64_t x = 0; x < a.width; ++x) {
            const Colour p = colour(a.data + y * a.row + x * a.column, a.channel);
            const Colour q = colour(b.data + y * b.row + x * b.column, b.channel);
            const auto in_a = static_cast<std::int32_t>(is_red(p, red));
            const auto in_b = static_cast<std::int32_t>(is_red(q, red));
            const auto finite = static_cast<std::int32_t>(is_finite(p) * is_finite(q));
            to[x] = static_cast<std::uint8_t>(red_in_a * in_a + red_in_b * in_b + not_finite * (1 - finite));
        }
    }
}

struct Counts {
    std::int32_t *a, *b, *broken;  // at column 0
};

// `times` is 1 or -1: a row comes into the windows, or leaves them.
inline void add_row(const std::uint8_t* marks, std::int64_t width, std::int32_t times, const Counts& to) {
    for (std::int64_t x = 0; x < width; ++x) {
        const std::int32_t mark = marks[x];
        to.a[x] += times * (mark & 1);
        to.b[x] += times * (mark >> 1 & 1);
        to.broken[x] += times * (mark >> 2);
    }
}

// What comes into the window on the right less what leaves it on the left.
inline std::int32_t change(const std::int32_t* counts, std::int64_t x, std::int64_t radius) {
    return counts[x + radius] - counts[x - radius - 1];
}

// One number in, one out, for each row of a column and each column of a row, however wide the window is.
template <class T>
void ratio(const StainRatio<T>& s) {
    const std::int64_t width = s.out.width, radius = s.radius, padded = width + 2 * radius + 1;
    const Counts columns = {s.scratch + radius + 1, s.scratch + padded + radius + 1,
                            s.scratch + 2 * padded + radius + 1};
    for (std::int64_t i = 0; i < 3 * padded; ++i) s.scratch[i] = 0;
    for (std::int64_t y = larger(s.begin - radius, 0); y < smaller(s.begin + radius, s.height); ++y) {
        add_row(s.marks + y * width, width, 1, columns);
    }
    for (std::int64_t y = s.begin; y < s.end; ++y) {
        if (y + radius < s.height) add_row(s.marks + (y + radius) * width, width, 1, columns);
        std::int32_t a = 0, b = 0, broken = 0;
        for (std::int64_t x = 0; x < smaller(radius, width); ++x) {
            a += columns.a[x], b += columns.b[x], broken += columns.broken[x];
        }
        T* const to = s.out.data + y * s.out.row;
        for (std::int64_t x = 0; x < width; ++x) {
            a += change(columns.a, x, radius), b += change(columns.b, x, radius);
            broken += change(columns.broken, x, radius);
            const double found = static_cast<double>(b + 1) / static_cast<double>(a + 1);
            to[x * s.out.column] = static_cast<T>(broken > 0 ? __builtin_nan("") : found);
        }
        if (y >= radius) add_row(s.marks + (y - radius) * width, width, -1, columns);
    }
}

}  // namespace

const StainTable NORMSCAN_TABLE(stain) = {{residual<float>, mark<float>, ratio<float>},
                                          {residual<double>, mark<double>, ratio<double>}};

}  // namespace normscan::kernels
