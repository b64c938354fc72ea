// One Gaussian: checks and threading. Blocks are 64 positions of one image.
#include <algorithm>

#include "normscan/ops.hpp"
#include "ops/buffer.hpp"
#include "ops/check.hpp"
#include "ops/dispatch.hpp"
#include "ops/gaussian.hpp"
#include "ops/gaussian_layout.hpp"
#include "ops/gaussian_output.hpp"
#include "ops/kernels/gaussian.hpp"
#include "ops/parallel.hpp"

namespace normscan {
namespace {

constexpr std::int64_t block = kernels::gaussian_positions;
constexpr std::int64_t most_parts = 32;  // partial gradients of mean and whitener; fixed, so that sums are, too

// [N,D] is one image with a row of N positions, so that both layouts share one path.
struct Sizes {
    std::int64_t images, positions, channels;
    kernels::Whitener form;
};

Sizes sizes_of(const Tensor& z, const Tensor& whitener) {
    const std::int64_t d = z.size(1);
    const auto form = whitener.rank == 2      ? kernels::Whitener::full
                      : whitener.size(0) == d ? kernels::Whitener::diagonal
                                              : kernels::Whitener::isotropic;
    if (z.rank == 2) return {1, z.size(0), d, form};
    return {z.size(0), z.size(2) * z.size(3), d, form};
}

void check(const Check& check, const Tensor& z, const Tensor& mean, const Tensor& whitener, const Tensor& out,
           std::string_view out_name) {
    check.rank({"z", z}, {2, 4}, "[N,D] or [N,C,H,W]");
    check.rank({"mean", mean}, {1}, "[D]");
    check.rank({"whitener", whitener}, {1, 2}, "[1], [D] or [D,D]");
    check.floating({{"z", z}, {"mean", mean}, {"whitener", whitener}, {out_name, out}});
    const std::int64_t d = z.size(1);
    if (mean.size(0) != d) check.fail("mean has ", mean.size(0), " channels, z has ", d);
    if (whitener.rank == 2) {
        if (whitener.size(0) != d || whitener.size(1) != d) {
            check.fail("whitener has shape ", shape_text(whitener), ", z has ", d, " channels; expected [", d, ",", d,
                       "]");
        }
    } else if (whitener.size(0) != d && whitener.size(0) != 1) {
        check.fail("whitener has ", whitener.size(0), " entries, z has ", d, " channels; expected 1, D or [D,D]");
    }
    if (z.rank == 2) {
        check.shape({out_name, out}, {z.size(0)}, "[N]");
    } else {
        check.shape({out_name, out}, {z.size(0), z.size(2), z.size(3)}, "[N,H,W]");
    }
}

// Mean and whitener in contiguous memory, the upper triangle zero (it is never read).
template <class T>
struct Statistics {
    Buffer<T> mean, whitener;

    Statistics(const Tensor& m, const Tensor& w)
        : mean(m.size(0)), whitener(w.rank == 2 ? w.size(0) * w.size(0) : w.size(0)) {
        copy_vector(m.as<const T>(), m.step(0), m.size(0), mean.get());
        if (w.rank == 2) {
            copy_triangle(w.as<const T>(), w.step(0), w.size(0), whitener.get());
        } else {
            copy_vector(w.as<const T>(), w.step(0), w.size(0), whitener.get());
        }
    }
};

// The output of a call, and its saturation.
struct Choice {
    GaussianOutput output;
    double saturation;
};

template <class T>
kernels::Output<T> with_offset(const Choice& choice, const Sizes& s, const T* whitener) {
    const bool likelihood = choice.output == GaussianOutput::nll;
    const double offset = likelihood ? nll_offset(s.channels) - log_determinant(whitener, s.form, s.channels) : 0.0;
    return kernel_output<T>(choice.output, choice.saturation, offset);
}

template <class T>
void run_forward(const Sizes& s, const Tensor& z, const Tensor& mean, const Tensor& whitener, const Tensor& out,
                 const Choice& choice) {
    const auto kernel = kernels_of<T>(NORMSCAN_CHOOSE(gaussian)).forward;
    const Statistics<T> statistics(mean, whitener);
    const kernels::Output<T> output = with_offset(choice, s, statistics.whitener.get());
    const std::int64_t run = block * gaussian_blocks, tasks = (s.positions + run - 1) / run;
    parallel_for(s.images * tasks, [&](std::int64_t task) {
        const std::int64_t n = task / tasks, begin = task % tasks * run, end = std::min(begin + run, s.positions);
        const Buffer<T> scratch((s.channels + kernels::gaussian_rows) * block);
        for (std::int64_t first = begin; first < end; first += block) {
            kernel({gaussian_image<const T>(z, n), first, std::min(block, end - first), s.channels,
                    statistics.mean.get(), statistics.whitener.get(), s.form, output, gaussian_map<T>(out, n),
                    scratch.get()});
        }
    });
}

// Partial gradients of one part, and their sums in the order of parts.
template <class T>
struct Parts {
    std::int64_t count, width, size;  // width: a row of the whitener's gradient; size: elements of a part
    Buffer<T> data;

    Parts(const Sizes& s, std::int64_t n)
        : count(n),
          width((s.channels + kernels::gaussian_granule - 1) / kernels::gaussian_granule * kernels::gaussian_granule),
          size(s.channels + (s.form == kernels::Whitener::full ? s.channels * width : s.channels) + 1),
          data(n * size) {
        std::fill_n(data.get(), n * size, T(0));
    }

    T sum(std::int64_t element) const {
        T total = T(0);
        for (std::int64_t i = 0; i < count; ++i) total += data[i * size + element];
        return total;
    }

    // `likelihood`: through -log |det W|, too; `whitener` is contiguous.
    void store(const Sizes& s, bool likelihood, const T* whitener, const Tensor& grad_mean,
               const Tensor& grad_whitener) const {
        const std::int64_t d = s.channels;
        const T through_offset = likelihood ? sum(size - 1) : T(0);
        const auto of_diagonal = [&](std::int64_t at) { return likelihood ? through_offset / whitener[at] : T(0); };
        for (std::int64_t c = 0; c < d; ++c) grad_mean.as<T>()[c * grad_mean.step(0)] = sum(c);
        T* const to = grad_whitener.as<T>();
        if (s.form != kernels::Whitener::full) {
            const T repeated = s.form == kernels::Whitener::isotropic ? static_cast<T>(d) : T(1);
            for (std::int64_t c = 0; c < grad_whitener.size(0); ++c) {
                to[c * grad_whitener.step(0)] = sum(d + c) - repeated * of_diagonal(c);
            }
            return;
        }
        for (std::int64_t i = 0; i < d; ++i) {
            T* const row = to + i * grad_whitener.step(0);
            for (std::int64_t j = 0; j < d; ++j)
                row[j * grad_whitener.step(1)] = j <= i ? sum(d + i * width + j) : T(0);
            row[i * grad_whitener.step(1)] -= of_diagonal(i * d + i);
        }
    }
};

template <class T>
void run_backward(const Sizes& s, const Tensor& grad_out, const Tensor& z, const Tensor& mean, const Tensor& whitener,
                  const Tensor& grad_z, const Tensor& grad_mean, const Tensor& grad_whitener, const Choice& choice) {
    const auto kernel = kernels_of<T>(NORMSCAN_CHOOSE(gaussian)).backward;
    const Statistics<T> statistics(mean, whitener);
    const kernels::Output<T> output = kernel_output<T>(choice.output, choice.saturation, 0.0);
    const std::int64_t per_image = (s.positions + block - 1) / block, blocks = s.images * per_image;
    const Parts<T> parts(s, std::min(blocks, most_parts));
    parallel_for(parts.count, [&](std::int64_t part) {
        const Buffer<T> scratch((4 * s.channels + kernels::gaussian_granule) * block);
        T* const sums = parts.data.get() + part * parts.size;
        for (std::int64_t b = part * blocks / parts.count; b < (part + 1) * blocks / parts.count; ++b) {
            const std::int64_t n = b / per_image, first = b % per_image * block;
            kernel({gaussian_image<const T>(z, n), gaussian_map<const T>(grad_out, n), first,
                    std::min(block, s.positions - first), s.channels, statistics.mean.get(), statistics.whitener.get(),
                    s.form, output, gaussian_image<T>(grad_z, n), sums, sums + s.channels, sums + parts.size - 1,
                    scratch.get()});
        }
    });
    parts.store(s, choice.output == GaussianOutput::nll, statistics.whitener.get(), grad_mean, grad_whitener);
}

}  // namespace

void check_gaussian(const Tensor& z, const Tensor& mean, const Tensor& whitener, const Tensor& out, double saturation) {
    const Check checks("gaussian");
    check(checks, z, mean, whitener, out, "out");
    checks.output({"out", out});
    checks.apart({{"out", out}}, {{"z", z}, {"mean", mean}, {"whitener", whitener}});
    check_saturation(checks, saturation);
}

void check_gaussian_backward(const Tensor& grad_out, const Tensor& z, const Tensor& mean, const Tensor& whitener,
                             const Tensor& grad_z, const Tensor& grad_mean, const Tensor& grad_whitener,
                             double saturation) {
    const Check checks("gaussian_backward");
    check(checks, z, mean, whitener, grad_out, "grad_out");
    checks.floating({{"z", z}, {"grad_z", grad_z}, {"grad_mean", grad_mean}, {"grad_whitener", grad_whitener}});
    checks.same_shape({"grad_z", grad_z}, {"z", z});
    checks.same_shape({"grad_mean", grad_mean}, {"mean", mean});
    checks.same_shape({"grad_whitener", grad_whitener}, {"whitener", whitener});
    checks.output({"grad_z", grad_z});
    checks.output({"grad_mean", grad_mean});
    checks.output({"grad_whitener", grad_whitener});
    checks.apart({{"grad_z", grad_z}, {"grad_mean", grad_mean}, {"grad_whitener", grad_whitener}},
                 {{"grad_out", grad_out}, {"z", z}, {"mean", mean}, {"whitener", whitener}});
    check_saturation(checks, saturation);
}

void gaussian(const Tensor& z, const Tensor& mean, const Tensor& whitener, const Tensor& out, GaussianOutput output,
              double saturation) {
    check_gaussian(z, mean, whitener, out, saturation);
    const Sizes s = sizes_of(z, whitener);
    for_dtype(z.dtype, [&]<class T>() { run_forward<T>(s, z, mean, whitener, out, {output, saturation}); });
}

void gaussian_backward(const Tensor& grad_out, const Tensor& z, const Tensor& mean, const Tensor& whitener,
                       const Tensor& grad_z, const Tensor& grad_mean, const Tensor& grad_whitener,
                       GaussianOutput output, double saturation) {
    check_gaussian_backward(grad_out, z, mean, whitener, grad_z, grad_mean, grad_whitener, saturation);
    const Sizes s = sizes_of(z, whitener);
    for_dtype(z.dtype, [&]<class T>() {
        run_backward<T>(s, grad_out, z, mean, whitener, grad_z, grad_mean, grad_whitener, {output, saturation});
    });
}

}  // namespace normscan
