// A mixture of Gaussians: checks and threading. Blocks are 64 positions of one image, all components.
#include "ops/kernels/gaussian_mixture.hpp"

#include <algorithm>

#include "normscan/ops.hpp"
#include "ops/buffer.hpp"
#include "ops/check.hpp"
#include "ops/dispatch.hpp"
#include "ops/gaussian.hpp"
#include "ops/gaussian_layout.hpp"
#include "ops/gaussian_output.hpp"
#include "ops/parallel.hpp"

namespace normscan {
namespace {

kernels::Whitener form_of(const Tensor& z, const Tensor& whiteners) {
    if (whiteners.rank == 3) return kernels::Whitener::full;
    return whiteners.size(1) == z.size(1) ? kernels::Whitener::diagonal : kernels::Whitener::isotropic;
}

// In contiguous memory; `logs` holds log weight + log |det W| - D log(2 pi) / 2.
template <class T>
struct Components {
    std::int64_t count, channels, entries;
    Buffer<T> means, whiteners, logs;

    Components(const Tensor& m, const Tensor& w, const Tensor& log_weights, kernels::Whitener form)
        : count(m.size(0)),
          channels(m.size(1)),
          entries(w.size(1) * (w.rank == 3 ? channels : 1)),
          means(count * channels),
          whiteners(count * entries),
          logs(count) {
        for (std::int64_t k = 0; k < count; ++k) {
            T* const whitener = whiteners.get() + k * entries;
            const T* const from = w.as<const T>() + k * w.step(0);
            copy_vector(m.as<const T>() + k * m.step(0), m.step(1), channels, means.get() + k * channels);
            if (form == kernels::Whitener::full) {
                copy_triangle(from, w.step(1), channels, whitener);
            } else {
                copy_vector(from, w.step(1), entries, whitener);
            }
            const auto weight = static_cast<double>(log_weights.as<const T>()[k * log_weights.step(0)]);
            logs[k] = static_cast<T>(weight + log_determinant(whitener, form, channels) - nll_offset(channels));
        }
    }
};

template <class T>
void run(const Tensor& z, const Components<T>& components, kernels::Whitener form, const Tensor& out) {
    constexpr std::int64_t block = kernels::gaussian_positions, run = block * gaussian_blocks;
    const auto kernel = kernels_of<T>(NORMSCAN_CHOOSE(gaussian_mixture)).forward;
    const std::int64_t d = components.channels, images = z.rank == 2 ? 1 : z.size(0);
    const std::int64_t positions = z.rank == 2 ? z.size(0) : z.size(2) * z.size(3), tasks = (positions + run - 1) / run;
    parallel_for(images * tasks, [&](std::int64_t task) {
        const std::int64_t n = task / tasks, begin = task % tasks * run, end = std::min(begin + run, positions);
        const Buffer<T> scratch((2 * d + kernels::gaussian_rows) * block);
        for (std::int64_t first = begin; first < end; first += block) {
            kernel({gaussian_image<const T>(z, n), first, std::min(block, end - first), d, components.count,
                    components.means.get(), components.whiteners.get(), form, components.logs.get(),
                    gaussian_map<T>(out, n), scratch.get()});
        }
    });
}

}  // namespace

void check_gaussian_mixture(const Tensor& z, const Tensor& means, const Tensor& whiteners, const Tensor& log_weights,
                            const Tensor& out) {
    const Check check("gaussian_mixture");
    check.rank({"z", z}, {2, 4}, "[N,D] or [N,C,H,W]");
    check.rank({"means", means}, {2}, "[K,D]");
    check.rank({"whiteners", whiteners}, {2, 3}, "[K,1], [K,D] or [K,D,D]");
    check.floating({{"z", z}, {"means", means}, {"whiteners", whiteners}, {"log_weights", log_weights}, {"out", out}});
    const std::int64_t k = means.size(0), d = z.size(1);
    if (k == 0) check.fail("means has no component, expected at least one");
    check.shape({"means", means}, {k, d}, "[K,D] of z");
    check.shape({"log_weights", log_weights}, {k}, "[K] of means");
    if (z.rank == 2) {
        check.shape({"out", out}, {z.size(0)}, "[N]");
    } else {
        check.shape({"out", out}, {z.size(0), z.size(2), z.size(3)}, "[N,H,W]");
    }
    check.output({"out", out});
    check.apart({{"out", out}}, {{"z", z}, {"means", means}, {"whiteners", whiteners}, {"log_weights", log_weights}});
    if (whiteners.rank == 3) {
        check.shape({"whiteners", whiteners}, {k, d, d}, "[K,D,D] of means");
    } else if (whiteners.size(0) != k || (whiteners.size(1) != d && whiteners.size(1) != 1)) {
        check.fail("whiteners has shape ", shape_text(whiteners), ", expected [", k, ",1], [", k, ",", d, "] or [", k,
                   ",", d, ",", d, "] as means");
    }
}

void gaussian_mixture(const Tensor& z, const Tensor& means, const Tensor& whiteners, const Tensor& log_weights,
                      const Tensor& out) {
    check_gaussian_mixture(z, means, whiteners, log_weights, out);
    const kernels::Whitener form = form_of(z, whiteners);
    for_dtype(z.dtype, [&]<class T>() { run(z, Components<T>(means, whiteners, log_weights, form), form, out); });
}

}  // namespace normscan
