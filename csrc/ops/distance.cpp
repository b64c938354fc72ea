// Distances: checks and threading. Blocks are 128 positions, or 32 rows (ssim), or one channel (ssim backwards).
#include <algorithm>
#include <cmath>
#include <vector>

#include "normscan/ops.hpp"
#include "ops/buffer.hpp"
#include "ops/check.hpp"
#include "ops/dispatch.hpp"
#include "ops/distance.hpp"
#include "ops/kernels/distance.hpp"
#include "ops/parallel.hpp"
#include "ops/planes.hpp"

namespace normscan {
namespace {

constexpr std::int64_t block = kernels::distance_positions;
constexpr std::int64_t run = 8 * block;  // positions of a task
constexpr std::int64_t ssim_rows = 32;   // rows of a task

using Sizes = DistanceSizes;

Sizes check(const Check& check, const Tensor& a, const Tensor& b, const Tensor& out, std::string_view out_name,
            Metric metric, int window) {
    check.rank({"a", a}, {4}, "[N,C,H,W]");
    check.rank({"b", b}, {4}, "[N,C,H,W]");
    check.floating({{"a", a}, {"b", b}, {out_name, out}});
    check.same_shape({"b", b}, {"a", a});
    check.shape({out_name, out}, {a.size(0), a.size(2), a.size(3)}, "[N,H,W]");
    if (a.size(1) == 0) check.fail("a has no channels, shape ", shape_text(a), "; expected C >= 1");
    if (windowed(metric) && (window < 1 || window % 2 == 0)) {
        check.fail("window is ", window, ", expected an odd number of at least 1");
    }
    return {a.size(0), a.size(1), a.size(2), a.size(3), a.size(2) * a.size(3)};
}

// The Gaussian window of SSIM and its shares at every row and column. Padding columns have share 0.
template <class T>
class SsimWindow {
  public:
    SsimWindow(std::int64_t taps, const Sizes& s)
        : radius_(taps / 2),
          weights_(static_cast<std::size_t>(taps)),
          row_share_(shares(s.height, s.height)),
          column_share_(shares(s.width, kernels::ssim_width(s.width))) {
        for (std::int64_t k = 0; k < taps; ++k) weights_[static_cast<std::size_t>(k)] = static_cast<T>(weight(k));
    }
    kernels::Window<T> view() const { return {radius_, weights_.data(), row_share_.data(), column_share_.data()}; }

  private:
    double weight(std::int64_t k) const {
        const double x = static_cast<double>(k - radius_) / ssim_sigma;
        return std::exp(-0.5 * x * x);
    }
    std::vector<T> shares(std::int64_t side, std::int64_t padded) const {
        std::vector<T> result(static_cast<std::size_t>(padded), T(0));
        for (std::int64_t i = 0; i < side; ++i) {
            double sum = 0.0;
            for (std::int64_t k = 0; k <= 2 * radius_; ++k) {
                if (i + k >= radius_ && i + k - radius_ < side) sum += weight(k);
            }
            result[static_cast<std::size_t>(i)] = static_cast<T>(1.0 / sum);
        }
        return result;
    }

    std::int64_t radius_;
    std::vector<T> weights_, row_share_, column_share_;
};

// Calls f(image, first position, end of the run, scratch) for every task.
template <class T, class F>
void for_runs(const Sizes& s, std::int64_t tiles, const F& f) {
    const std::int64_t tasks = (s.positions + run - 1) / run;
    parallel_for(s.images * tasks, [&](std::int64_t task) {
        const std::int64_t n = task / tasks, begin = task % tasks * run;
        const Buffer<T> scratch(tiles * s.channels * block);
        f(n, begin, std::min(begin + run, s.positions), scratch.get());
    });
}

// What the sum over channels is multiplied with, for each image.
template <class T>
std::vector<T> factors(const Sizes& s, const Tensor& b, Metric metric) {
    const auto images = static_cast<std::size_t>(s.images);
    if (metric == Metric::cosine) return std::vector<T>(images, T(0.5));
    const double channels = static_cast<double>(s.channels);
    std::vector<T> result(images, static_cast<T>(1.0 / channels));
    if (metric != Metric::relative_l1) return result;
    const auto magnitude = kernels_of<T>(NORMSCAN_CHOOSE(distance)).magnitude;
    const std::int64_t tasks = (s.positions + run - 1) / run;
    std::vector<double> sums(static_cast<std::size_t>(s.images * tasks), 0.0);
    for_runs<T>(s, 1, [&](std::int64_t n, std::int64_t begin, std::int64_t end, T* scratch) {
        double& sum = sums[static_cast<std::size_t>(n * tasks + begin / run)];
        for (std::int64_t first = begin; first < end; first += block) {
            sum += magnitude({planes<const T>(b, n), first, std::min(block, end - first), s.channels, scratch});
        }
    });
    for (std::size_t n = 0; n < images; ++n) {
        double sum = 0.0;
        for (std::int64_t t = 0; t < tasks; ++t)
            sum += sums[n * static_cast<std::size_t>(tasks) + static_cast<std::size_t>(t)];
        const double mean = sum / (channels * static_cast<double>(s.positions));
        result[n] = static_cast<T>(1.0 / (channels * (mean < least_magnitude ? least_magnitude : mean)));
    }
    return result;
}

template <class T>
void run_pointwise(const Sizes& s, const Tensor& a, const Tensor& b, const Tensor& out, Metric metric) {
    const auto kernel = kernels_of<T>(NORMSCAN_CHOOSE(distance)).pointwise;
    const std::vector<T> factor = factors<T>(s, b, metric);
    for_runs<T>(s, 2, [&](std::int64_t n, std::int64_t begin, std::int64_t end, T* scratch) {
        for (std::int64_t first = begin; first < end; first += block) {
            kernel({planes<const T>(a, n), planes<const T>(b, n), first, std::min(block, end - first), s.channels,
                    pointwise(metric), factor[static_cast<std::size_t>(n)], map_of<T>(out, n), scratch});
        }
    });
}

template <class T>
void run_pointwise_backward(const Sizes& s, const Tensor& grad_out, const Tensor& a, const Tensor& b,
                            const Tensor& grad_a, const Tensor& grad_b, Metric metric) {
    const auto kernel = kernels_of<T>(NORMSCAN_CHOOSE(distance)).pointwise_backward;
    const std::vector<T> factor = factors<T>(s, b, metric);
    for_runs<T>(s, 4, [&](std::int64_t n, std::int64_t begin, std::int64_t end, T* scratch) {
        for (std::int64_t first = begin; first < end; first += block) {
            kernel({planes<const T>(a, n), planes<const T>(b, n), map_of<const T>(grad_out, n), first,
                    std::min(block, end - first), s.channels, pointwise(metric), factor[static_cast<std::size_t>(n)],
                    planes<T>(grad_a, n), planes<T>(grad_b, n), scratch});
        }
    });
}

template <class T>
void run_ssim(const Sizes& s, const Tensor& a, const Tensor& b, const Tensor& out, bool with_light, int taps) {
    const auto kernel = kernels_of<T>(NORMSCAN_CHOOSE(distance)).ssim;
    const SsimWindow<T> window(taps, s);
    const std::int64_t bands = (s.height + ssim_rows - 1) / ssim_rows;
    parallel_for(s.images * bands, [&](std::int64_t task) {
        const std::int64_t n = task / bands, begin = task % bands * ssim_rows;
        const Buffer<T> scratch(kernels::ssim_forward_scratch(s.width, ssim_rows, taps / 2));
        kernel({planes<const T>(a, n), planes<const T>(b, n), s.height, s.channels, begin,
                std::min(begin + ssim_rows, s.height), with_light, window.view(), map_of<T>(out, n), scratch.get()});
    });
}

template <class T>
kernels::Planes<T> plane(const Tensor& t, std::int64_t n, std::int64_t c) {
    kernels::Planes<T> view = planes<T>(t, n);
    view.data += c * view.channel;
    return view;
}

template <class T>
void run_ssim_backward(const Sizes& s, const Tensor& grad_out, const Tensor& a, const Tensor& b, const Tensor& grad_a,
                       const Tensor& grad_b, bool with_light, int taps) {
    const auto kernel = kernels_of<T>(NORMSCAN_CHOOSE(distance)).ssim_backward;
    const SsimWindow<T> window(taps, s);
    parallel_for(s.images * s.channels, [&](std::int64_t task) {
        const std::int64_t n = task / s.channels, c = task % s.channels;
        const Buffer<T> scratch(kernels::ssim_backward_scratch(s.width, s.height, taps / 2));
        kernel({plane<const T>(a, n, c), plane<const T>(b, n, c), map_of<const T>(grad_out, n), s.height,
                static_cast<T>(-1.0 / static_cast<double>(s.channels)), with_light, window.view(),
                plane<T>(grad_a, n, c), plane<T>(grad_b, n, c), scratch.get()});
    });
}

}  // namespace

DistanceSizes check_distance(const Tensor& a, const Tensor& b, const Tensor& out, Metric metric, int window) {
    const Check checks("distance");
    const Sizes s = check(checks, a, b, out, "out", metric, window);
    checks.output({"out", out});
    checks.apart({{"out", out}}, {{"a", a}, {"b", b}});
    return s;
}

DistanceSizes check_distance_backward(const Tensor& grad_out, const Tensor& a, const Tensor& b, const Tensor& grad_a,
                                      const Tensor& grad_b, Metric metric, int window) {
    const Check checks("distance_backward");
    const Sizes s = check(checks, a, b, grad_out, "grad_out", metric, window);
    checks.floating({{"a", a}, {"grad_a", grad_a}, {"grad_b", grad_b}});
    checks.same_shape({"grad_a", grad_a}, {"a", a});
    checks.same_shape({"grad_b", grad_b}, {"b", b});
    checks.output({"grad_a", grad_a});
    checks.output({"grad_b", grad_b});
    checks.apart({{"grad_a", grad_a}, {"grad_b", grad_b}}, {{"grad_out", grad_out}, {"a", a}, {"b", b}});
    return s;
}

void distance(const Tensor& a, const Tensor& b, const Tensor& out, Metric metric, int window) {
    const Sizes s = check_distance(a, b, out, metric, window);
    if (s.positions == 0) return;
    for_dtype(a.dtype, [&]<class T>() {
        if (windowed(metric)) return run_ssim<T>(s, a, b, out, metric == Metric::ssim, window);
        run_pointwise<T>(s, a, b, out, metric);
    });
}

void distance_backward(const Tensor& grad_out, const Tensor& a, const Tensor& b, const Tensor& grad_a,
                       const Tensor& grad_b, Metric metric, int window) {
    const Sizes s = check_distance_backward(grad_out, a, b, grad_a, grad_b, metric, window);
    if (s.positions == 0) return;
    for_dtype(a.dtype, [&]<class T>() {
        if (windowed(metric)) {
            return run_ssim_backward<T>(s, grad_out, a, b, grad_a, grad_b, metric == Metric::ssim, window);
        }
        run_pointwise_backward<T>(s, grad_out, a, b, grad_a, grad_b, metric);
    });
}

}  // namespace normscan
