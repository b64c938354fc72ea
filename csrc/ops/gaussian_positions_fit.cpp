// Fitting a Gaussian a position: checks and threading. Blocks are 8 positions; each position is added up by itself.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "ops/kernels/gaussian_positions_fit.hpp"

#include "normscan/ops.hpp"
#include "ops/buffer.hpp"
#include "ops/check.hpp"
#include "ops/dispatch.hpp"
#include "ops/parallel.hpp"
#include "ops/planes.hpp"

namespace normscan {
namespace {

constexpr std::int64_t block = 8;

// Calls f(position) for all, in blocks, each with `doubles` of scratch of its own: f(position, scratch).
template <class F>
void for_positions(std::int64_t positions, std::int64_t doubles, F&& f) {
    parallel_for((positions + block - 1) / block, [&](std::int64_t task) {
        const Buffer<double> scratch(doubles);
        const std::int64_t end = std::min((task + 1) * block, positions);
        for (std::int64_t p = task * block; p < end; ++p) f(p, scratch.get());
    });
}

// The update of Chan, Golub and LeVeque: deviations from the batch's own mean, and the step between the two means as
// one vector more. x [N+1][width] is scratch.
template <class T>
void update(const Tensor& z, std::int64_t count, const Tensor& mean, const Tensor& scatter) {
    const auto add_products = NORMSCAN_CHOOSE(gaussian_positions_fit).add_products;
    const std::int64_t n = z.size(0), c = z.size(1), w = z.size(3);
    const std::int64_t width = (c + kernels::fit_granule - 1) / kernels::fit_granule * kernels::fit_granule;
    const auto total = static_cast<double>(count + n);
    const double share = static_cast<double>(n) / total, root = std::sqrt(static_cast<double>(count) * share);
    for_positions(z.size(2) * w, (n + 1) * width, [&](std::int64_t p, double* x) {
        const T* const from = z.as<const T>() + p / w * z.step(2) + p % w * z.step(3);
        double* const means = mean.as<double>() + p / w * mean.step(1) + p % w * mean.step(2);
        std::fill_n(x, (n + 1) * width, 0.0);
        for (std::int64_t k = 0; k < c; ++k) {
            double sum = 0.0;
            for (std::int64_t i = 0; i < n; ++i) {
                x[i * width + k] = static_cast<double>(from[i * z.step(0) + k * z.step(1)]);
                sum += x[i * width + k];
            }
            const double batch = sum / static_cast<double>(n);
            for (std::int64_t i = 0; i < n; ++i) x[i * width + k] -= batch;
            double& old = means[k * mean.step(0)];
            x[n * width + k] = (batch - old) * root;
            old += (batch - old) * share;
        }
        add_products(n + 1, c, x, scatter.as<double>() + p / w * scatter.step(0) + p % w * scatter.step(1));
    });
}

// C of C (C + 1) / 2; nothing where there is none.
std::int64_t side_of_triangle(const Check& check, Named t) {
    const std::int64_t entries = t.tensor.size(2);
    std::int64_t c = 0;
    while (c * (c + 1) / 2 < entries) ++c;
    if (c == 0 || c * (c + 1) / 2 != entries) {
        check.fail(t.name, " has ", entries, " entries a position, expected C(C+1)/2: 1, 3, 6, 10, ...");
    }
    return c;
}

}  // namespace

void gaussian_positions_fit(const Tensor& z, std::int64_t count, const Tensor& mean, const Tensor& scatter) {
    const Check check("gaussian_positions_fit");
    check.rank({"z", z}, {4}, "[N,C,H,W]");
    check.floating({{"z", z}});
    check.dtype({"mean", mean}, {DType::float64});
    check.dtype({"scatter", scatter}, {DType::float64});
    const std::int64_t c = z.size(1), h = z.size(2), w = z.size(3);
    check.shape({"mean", mean}, {c, h, w}, "[C,H,W] of z");
    check.shape({"scatter", scatter}, {h, w, c * (c + 1) / 2}, "packed [H,W,C(C+1)/2] of z");
    check.output({"mean", mean});
    check.output({"scatter", scatter});
    check.apart({{"mean", mean}, {"scatter", scatter}}, {{"z", z}});
    if (count < 0) check.fail("count is ", count, ", expected the number of images before, >= 0");
    if (z.size(0) == 0) return;
    for_dtype(z.dtype, [&]<class T>() { update<T>(z, count, mean, scatter); });
}

void gaussian_positions_whitener(const Tensor& scatter, const Tensor& whitener, std::int64_t count, double shrinkage) {
    const Check check("gaussian_positions_whitener");
    check.rank({"scatter", scatter}, {3}, "packed [H,W,C(C+1)/2]");
    check.dtype({"scatter", scatter}, {DType::float64});
    check.floating({{"scatter", scatter}, {"whitener", whitener}});
    check.same_shape({"whitener", whitener}, {"scatter", scatter});
    check.output({"whitener", whitener});
    check.apart({{"whitener", whitener}}, {{"scatter", scatter}});
    if (count < 2) check.fail("count is ", count, ", a covariance needs at least 2 images");
    if (!(shrinkage >= 0.0 && shrinkage <= 1.0)) check.fail("shrinkage is ", shrinkage, ", expected a share of 0 to 1");
    const std::int64_t c = side_of_triangle(check, {"scatter", scatter}), entries = scatter.size(2);
    const std::int64_t w = scatter.size(1), positions = scatter.size(0) * w;
    const auto invert_factor = NORMSCAN_CHOOSE(gaussian_positions_fit).invert_factor;
    std::vector<char> singular(static_cast<std::size_t>(positions), false);
    for_positions(positions, 2 * entries, [&](std::int64_t p, double* triangle) {
        const double* const from = scatter.as<double>() + p / w * scatter.step(0) + p % w * scatter.step(1);
        const double scale = (1.0 - shrinkage) / static_cast<double>(count - 1);
        for (std::int64_t e = 0; e < entries; ++e) triangle[e] = scale * from[e];
        double trace = 0.0, largest = 0.0;
        for (std::int64_t i = 0; i < c; ++i) trace += from[i * (i + 3) / 2];
        const double added = shrinkage * trace / static_cast<double>((count - 1) * c);
        for (std::int64_t i = 0; i < c; ++i) {
            double& variance = triangle[i * (i + 3) / 2];
            variance += added;
            largest = std::max(largest, variance);
        }
        const double least = static_cast<double>(c) * std::numeric_limits<double>::epsilon() * largest;
        double* const inverse = triangle + entries;
        if (!invert_factor(c, least, triangle, inverse)) {
            singular[static_cast<std::size_t>(p)] = true;
            return;
        }
        std::copy_n(inverse, entries, whitener.as<double>() + p / w * whitener.step(0) + p % w * whitener.step(1));
    });
    const auto first = std::find(singular.begin(), singular.end(), true);
    if (first == singular.end()) return;
    const std::int64_t p = first - singular.begin(), found = std::count(first, singular.end(), true);
    check.fail("the covariance of ", count, " images with ", c, " channels is singular at ", found, " of ", positions,
               " positions (first: row ", p / w, ", column ", p % w, "); expected a shrinkage above ", shrinkage,
               ", or more images");
}

}  // namespace normscan
