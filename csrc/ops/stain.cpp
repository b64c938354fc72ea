// Comparison of two pictures by how red they are: checks and threading. Blocks are 32 rows of one image; to count in
// windows as many rows as a window has, where that is more, since each block begins with the rows of one.
#include "ops/stain.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "ops/buffer.hpp"
#include "ops/check.hpp"
#include "ops/dispatch.hpp"
#include "ops/parallel.hpp"
#include "ops/planes.hpp"

namespace normscan {
namespace {

constexpr std::int64_t rows_per_task = 32;
constexpr int most_window = 46339;  // its square, the largest count, fits in 31 bits

// Calls f(image, first row, end) for every block.
template <class F>
void for_bands(const Tensor& out, std::int64_t rows, const F& f) {
    const std::int64_t height = out.size(1), bands = (height + rows - 1) / rows;
    parallel_for(out.size(0) * bands, [&](std::int64_t task) {
        const std::int64_t begin = task % bands * rows;
        f(task / bands, begin, std::min(begin + rows, height));
    });
}

template <class T>
void run_residual(const Tensor& a, const Tensor& b, const Tensor& out, double cut) {
    const auto kernel = kernels_of<T>(NORMSCAN_CHOOSE(stain)).residual;
    for_bands(out, rows_per_task, [&](std::int64_t n, std::int64_t begin, std::int64_t end) {
        kernel({planes<const T>(a, n), planes<const T>(b, n), map_of<T>(out, n), begin, end, cut - cut_slack});
    });
}

double whole_ratio(const std::uint8_t* marks, std::int64_t pixels) {
    std::int64_t a = 0, b = 0;
    int all = 0;
    for (std::int64_t i = 0; i < pixels; ++i) {
        a += (marks[i] & kernels::red_in_a) != 0;
        b += (marks[i] & kernels::red_in_b) != 0;
        all |= marks[i];
    }
    if ((all & kernels::not_finite) != 0) return std::numeric_limits<double>::quiet_NaN();
    return static_cast<double>(b + 1) / static_cast<double>(a + 1);
}

template <class T>
void fill(const kernels::Map<T>& map, std::int64_t height, T value) {
    for (std::int64_t y = 0; y < height; ++y) {
        for (std::int64_t x = 0; x < map.width; ++x) map.data[y * map.row + x * map.column] = value;
    }
}

template <class T>
void run_ratio(const Tensor& a, const Tensor& b, const Tensor& out, const Stain& how) {
    const auto& kernel = kernels_of<T>(NORMSCAN_CHOOSE(stain));
    const std::int64_t height = out.size(1), width = out.size(2), pixels = height * width;
    const Buffer<std::uint8_t> marks(out.size(0) * pixels);
    const kernels::RedRange red = red_range(how);
    for_bands(out, rows_per_task, [&](std::int64_t n, std::int64_t begin, std::int64_t end) {
        kernel.marks({planes<const T>(a, n), planes<const T>(b, n), begin, end, red, marks.get() + n * pixels});
    });
    if (!how.window) {
        parallel_for(out.size(0), [&](std::int64_t n) {
            fill(map_of<T>(out, n), height, static_cast<T>(whole_ratio(marks.get() + n * pixels, pixels)));
        });
        return;
    }
    const std::int64_t radius = std::min<std::int64_t>(*how.window / 2, std::max(height, width));
    for_bands(out, std::max(rows_per_task, 2 * radius + 1), [&](std::int64_t n, std::int64_t begin, std::int64_t end) {
        const Buffer<std::int32_t> scratch(kernels::stain_scratch(width, radius));
        kernel.ratio({marks.get() + n * pixels, height, radius, map_of<T>(out, n), begin, end, scratch.get()});
    });
}

void check_options(const Check& check, const Stain& how) {
    if (!(how.cut >= -1.0 && how.cut <= 1.0)) check.fail("cut is ", how.cut, ", expected -1..1");
    for (const double end : how.hue) {
        if (!(end >= 0.0 && end <= 360.0)) check.fail("hue has ", end, ", expected two of 0..360 degrees");
    }
    if (!(how.least_saturation >= 0.0 && how.least_saturation <= 1.0)) {
        check.fail("least_saturation is ", how.least_saturation, ", expected 0..1");
    }
    if (how.window && (*how.window < 1 || *how.window > most_window || *how.window % 2 == 0)) {
        check.fail("window is ", *how.window, ", expected an odd number in 1..", most_window);
    }
}

}  // namespace

kernels::RedRange red_range(const Stain& how) {
    const auto [from, to] = how.hue;
    const double width = to - from + (from > to ? 360.0 : 0.0);
    const double begin = from - hue_slack + (from < hue_slack ? 360.0 : 0.0);
    return {begin, width + 2.0 * hue_slack, how.least_saturation - saturation_slack};
}

bool check_stain(const Tensor& a, const Tensor& b, const Tensor& out, const Stain& how) {
    const Check check("stain");
    check.rank({"a", a}, {4}, "[N,3,H,W]");
    check.rank({"b", b}, {4}, "[N,3,H,W]");
    check.floating({{"a", a}, {"b", b}, {"out", out}});
    check.shape({"a", a}, {a.size(0), 3, a.size(2), a.size(3)}, "[N,3,H,W]");
    check.same_shape({"b", b}, {"a", a});
    check.shape({"out", out}, {a.size(0), a.size(2), a.size(3)}, "[N,H,W]");
    check.output({"out", out});
    check.apart({{"out", out}}, {{"a", a}, {"b", b}});
    check_options(check, how);
    return out.size(0) * out.size(1) * out.size(2) > 0;
}

void stain(const Tensor& a, const Tensor& b, const Tensor& out, const Stain& how) {
    if (!check_stain(a, b, out, how)) return;
    for_dtype(out.dtype, [&]<class T>() {
        if (how.metric == StainMetric::residual) {
            run_residual<T>(a, b, out, how.cut);
        } else {
            run_ratio<T>(a, b, out, how);
        }
    });
}

}  // namespace normscan
