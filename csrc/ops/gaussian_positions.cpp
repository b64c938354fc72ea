// Gaussian distance, a Gaussian a position: checks and threading. Blocks are 16 positions of all images.
#include <algorithm>

#include "ops/kernels/gaussian_positions.hpp"

#include "normscan/ops.hpp"
#include "ops/buffer.hpp"
#include "ops/check.hpp"
#include "ops/dispatch.hpp"
#include "ops/gaussian.hpp"
#include "ops/gaussian_output.hpp"
#include "ops/parallel.hpp"
#include "ops/planes.hpp"

namespace normscan {
namespace {

template <class T>
void run(const Tensor& z, const Tensor& mean, const Tensor& whitener, const Tensor& out,
         const kernels::Output<T>& output) {
    constexpr std::int64_t tile = kernels::position_tile, group = kernels::position_images;
    const auto kernel = kernels_of<T>(NORMSCAN_CHOOSE(gaussian_positions)).forward;
    const std::int64_t images = z.size(0), channels = z.size(1), width = z.size(3), positions = z.size(2) * width;
    const kernels::Planes<const T> means = {mean.as<T>(), mean.step(0), mean.step(1), mean.step(2), width};
    const kernels::Planes<const T> whiteners = {whitener.as<T>(), whitener.rank == 4 ? whitener.step(2) : 0,
                                                whitener.step(0), whitener.step(1), width};
    parallel_for((positions + tile - 1) / tile, [&](std::int64_t task) {
        const std::int64_t first = task * tile;
        const Buffer<T> scratch(tile * channels * group);
        for (std::int64_t n = 0; n < images; n += group) {
            kernel({planes<const T>(z, n), z.step(0), std::min(group, images - n), means, whiteners, output,
                    map_of<T>(out, n), out.step(0), first, std::min(tile, positions - first), channels, scratch.get()});
        }
    });
}

}  // namespace

void check_gaussian_positions(const Tensor& z, const Tensor& mean, const Tensor& whitener, const Tensor& out,
                              double saturation) {
    const Check check("gaussian_positions");
    check.rank({"z", z}, {4}, "[N,C,H,W]");
    check.rank({"mean", mean}, {3}, "[C,H,W]");
    check.rank({"whitener", whitener}, {3, 4}, "[H,W,C,C] or packed [H,W,C(C+1)/2]");
    check.floating({{"z", z}, {"mean", mean}, {"whitener", whitener}, {"out", out}});
    const std::int64_t c = z.size(1), h = z.size(2), w = z.size(3);
    check.shape({"mean", mean}, {c, h, w}, "[C,H,W] of z");
    if (whitener.rank == 4) {
        check.shape({"whitener", whitener}, {h, w, c, c}, "[H,W,C,C] of z");
        if (whitener.step(3) != 1) {
            check.fail("whitener has stride ", whitener.step(3), " along the rows of its triangles, expected 1");
        }
    } else {
        check.shape({"whitener", whitener}, {h, w, c * (c + 1) / 2}, "packed [H,W,C(C+1)/2] of z");
    }
    check.shape({"out", out}, {z.size(0), h, w}, "[N,H,W]");
    check.output({"out", out});
    check.apart({{"out", out}}, {{"z", z}, {"mean", mean}, {"whitener", whitener}});
    check_saturation(check, saturation);
}

void gaussian_positions(const Tensor& z, const Tensor& mean, const Tensor& whitener, const Tensor& out,
                        GaussianOutput output, double saturation) {
    check_gaussian_positions(z, mean, whitener, out, saturation);
    for_dtype(z.dtype, [&]<class T>() {
        run<T>(z, mean, whitener, out, kernel_output<T>(output, saturation, nll_offset(z.size(1))));
    });
}

}  // namespace normscan
