// Two pictures by their red: residuals, and numbers of red pixels in windows or in the whole picture.
#include <optional>

#include "arrays.hpp"

using namespace normscan;

namespace {

struct Colour {
    double red, green, blue;
};

Colour colour(const Doubles& picture, std::size_t pixels, std::size_t n, std::size_t p) {
    const std::size_t at = 3 * n * pixels + p;
    return {picture[at], picture[at + pixels], picture[at + 2 * pixels]};
}

double redness(const Colour& c, double cut) {
    const double r = c.red - (c.green + c.blue) / 2.0;
    return r < cut ? 0.0 : r;
}

// Hues from 340 to 30 degrees, by the middle of the three: R is the largest, and the other two hardly differ.
bool is_red(const Colour& c) {
    const double least = std::min(c.green, c.blue), spread = c.red - least;
    if (c.red <= c.green || c.red <= c.blue) return false;
    return c.green > c.blue ? c.green - c.blue <= spread / 2.0 : c.blue - c.green <= spread / 3.0;
}

Doubles ratios(const Doubles& a, const Doubles& b, const Shape& shape, std::int64_t window) {
    const std::int64_t height = shape[2], width = shape[3], radius = window / 2;
    const auto pixels = static_cast<std::size_t>(height * width);
    Doubles found;
    for (std::size_t n = 0; n < static_cast<std::size_t>(shape[0]); ++n) {
        for (std::int64_t p = 0; p < height * width; ++p) {
            double in_a = 1.0, in_b = 1.0;
            for (std::int64_t q = 0; q < height * width; ++q) {
                if (std::abs(q / width - p / width) > radius || std::abs(q % width - p % width) > radius) continue;
                in_a += is_red(colour(a, pixels, n, static_cast<std::size_t>(q)));
                in_b += is_red(colour(b, pixels, n, static_cast<std::size_t>(q)));
            }
            found.push_back(in_b / in_a);
        }
    }
    return found;
}

template <class T>
void compared(const Shape& shape, Layout layout) {
    Array<T> a(shape, layout), b(shape, layout), out({shape[0], shape[2], shape[3]}, layout);
    a.fill(1, 0.0), b.fill(2, 0.0);
    const Doubles x = a.doubles(), y = b.doubles();
    const auto pixels = static_cast<std::size_t>(shape[2] * shape[3]);
    Doubles wanted;
    for (std::size_t n = 0; n < static_cast<std::size_t>(shape[0]); ++n) {
        for (std::size_t p = 0; p < pixels; ++p) {
            const double difference = redness(colour(y, pixels, n, p), 0.2) - redness(colour(x, pixels, n, p), 0.2);
            wanted.push_back(difference * difference);
        }
    }
    Stain how;
    how.cut = 0.2;
    with_any_threads([&] { stain(a, b, out, how); }, out);
    expect("residual", out, wanted, bound<T>());
    how.metric = StainMetric::red_ratio;
    how.hue = {340.0, 30.0};
    for (const std::optional<int> window : {std::optional<int>(), std::optional(1), std::optional(7)}) {
        how.window = window;
        with_any_threads([&] { stain(a, b, out, how); }, out);
        expect("red_ratio", out, ratios(x, y, shape, window.value_or(1000)), bound<T>());
    }
}

TEST(stain_everywhere) {
    for (const Layout layout : layouts) {
        for (const Shape& shape : {Shape{2, 3, 1, 1}, Shape{1, 3, 19, 13}, Shape{2, 3, 37, 5}, Shape{0, 3, 4, 4}}) {
            compared<float>(shape, layout);
            compared<double>(shape, layout);
        }
    }
}

TEST(stain_where_a_pixel_is_not_finite) {
    Array<float> a({1, 3, 9, 11}), b({1, 3, 9, 11}), out({1, 9, 11});
    a.fill(1, 0.0), b.fill(2, 0.0);
    a.element(2 * 99 + 4 * 11 + 5) = std::numeric_limits<float>::quiet_NaN();
    Stain how;
    how.metric = StainMetric::red_ratio;
    how.window = 3;
    stain(a, b, out, how);
    for (std::int64_t p = 0; p < 99; ++p) {
        CHECK(std::isnan(out.element(p)) == (std::abs(p / 11 - 4) <= 1 && std::abs(p % 11 - 5) <= 1));
    }
}

}  // namespace
