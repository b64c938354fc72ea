// Gaussian smoothing: checks, tables and threading. Blocks are 32 rows of one map.
#include <algorithm>
#include <cmath>
#include <vector>

#include "normscan/ops.hpp"
#include "ops/buffer.hpp"
#include "ops/check.hpp"
#include "ops/dispatch.hpp"
#include "ops/kernels/smooth.hpp"
#include "ops/parallel.hpp"
#include "ops/planes.hpp"
#include "ops/smooth.hpp"

namespace normscan {
namespace {

constexpr std::int64_t rows_per_task = 32;

template <class T>
std::vector<T> gaussian_weights(double sigma, std::int64_t radius) {
    std::vector<double> exact;
    double sum = 0.0;
    for (std::int64_t k = -radius; k <= radius; ++k) {
        const double x = static_cast<double>(k) / sigma;
        exact.push_back(radius == 0 ? 1.0 : std::exp(-0.5 * x * x));
        sum += exact.back();
    }
    std::vector<T> weights;
    for (const double w : exact) weights.push_back(static_cast<T>(w / sum));
    return weights;
}

// d c b a | a b c d | d c b a, as often as the radius needs.
std::vector<std::int64_t> mirrored(std::int64_t side, std::int64_t radius) {
    std::vector<std::int64_t> at;
    for (std::int64_t i = -radius; i < side + radius; ++i) {
        const std::int64_t period = 2 * side, place = (i % period + period) % period;
        at.push_back(place < side ? place : period - 1 - place);
    }
    return at;
}

template <class T>
void run(const Tensor& map, const Tensor& out, double sigma) {
    const auto kernel = kernels_of<T>(NORMSCAN_CHOOSE(smooth));
    const std::int64_t radius = smooth_radius(sigma);
    const std::vector<T> weights = gaussian_weights<T>(sigma, radius);
    const std::int64_t height = map.size(1), width = map.size(2);
    const std::vector<std::int64_t> row_at = mirrored(height, radius), column_at = mirrored(width, radius);
    const std::int64_t bands = (height + rows_per_task - 1) / rows_per_task;
    parallel_for(map.size(0) * bands, [&](std::int64_t task) {
        const std::int64_t n = task / bands, begin = task % bands * rows_per_task;
        const Buffer<T> scratch(2 * width + 2 * radius);
        kernel({map_of<const T>(map, n), map_of<T>(out, n), begin, std::min(begin + rows_per_task, height), radius,
                weights.data(), row_at.data(), column_at.data(), scratch.get()});
    });
}

}  // namespace

bool check_smooth(const Tensor& map, const Tensor& out, double sigma) {
    const Check check("smooth");
    check.rank({"map", map}, {3}, "[N,H,W]");
    check.floating({{"map", map}, {"out", out}});
    check.same_shape({"out", out}, {"map", map});
    check.output({"out", out});
    check.sigma(sigma);
    check.apart({{"out", out}}, {{"map", map}});
    return map.size(0) * map.size(1) * map.size(2) > 0;
}

void smooth(const Tensor& map, const Tensor& out, double sigma) {
    if (!check_smooth(map, out, sigma)) return;
    for_dtype(map.dtype, [&]<class T>() { run<T>(map, out, sigma); });
}

}  // namespace normscan
