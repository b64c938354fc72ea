// Pooling of maps to one number an image: checks, selection, threading. A block is one image.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "normscan/ops.hpp"
#include "ops/check.hpp"
#include "ops/dispatch.hpp"
#include "ops/kernels/pool.hpp"
#include "ops/parallel.hpp"
#include "ops/planes.hpp"
#include "ops/pool.hpp"

namespace normscan {
namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

template <class T>
std::vector<T> values(const kernels::Map<const T>& map, std::int64_t height) {
    std::vector<T> all;
    all.reserve(static_cast<std::size_t>(height * map.width));
    for (std::int64_t y = 0; y < height; ++y) {
        for (std::int64_t x = 0; x < map.width; ++x) all.push_back(map.data[y * map.row + x * map.column]);
    }
    return all;
}

// Linear interpolation between order statistics, numpy's default.
template <class T>
double quantile(std::vector<T> all, double q) {
    const double at = q * static_cast<double>(all.size() - 1);
    const auto below = static_cast<std::ptrdiff_t>(std::floor(at));
    const double share = at - static_cast<double>(below);
    std::nth_element(all.begin(), all.begin() + below, all.end());
    const auto low = static_cast<double>(all[static_cast<std::size_t>(below)]);
    if (share == 0.0) return low;
    const auto high = static_cast<double>(*std::min_element(all.begin() + below + 1, all.end()));
    return low == high ? low : low + share * (high - low);
}

// Share of pixels in the largest 8-connected component above the threshold, by flooding.
template <class T>
double largest_area(const std::vector<T>& all, std::int64_t width, double threshold) {
    const auto size = static_cast<std::int64_t>(all.size()), height = size / width;
    std::vector<char> open(all.size());
    for (std::size_t i = 0; i < all.size(); ++i) open[i] = static_cast<double>(all[i]) > threshold;
    std::vector<std::int64_t> stack;
    std::int64_t largest = 0;
    for (std::int64_t seed = 0; seed < size; ++seed) {
        if (!open[static_cast<std::size_t>(seed)]) continue;
        std::int64_t area = 0;
        open[static_cast<std::size_t>(seed)] = false;
        stack.push_back(seed);
        while (!stack.empty()) {
            const std::int64_t y = stack.back() / width, x = stack.back() % width;
            stack.pop_back();
            ++area;
            for (std::int64_t v = std::max<std::int64_t>(0, y - 1); v <= std::min(height - 1, y + 1); ++v) {
                for (std::int64_t u = std::max<std::int64_t>(0, x - 1); u <= std::min(width - 1, x + 1); ++u) {
                    char& next = open[static_cast<std::size_t>(v * width + u)];
                    if (next) stack.push_back(v * width + u);
                    next = false;
                }
            }
        }
        largest = std::max(largest, area);
    }
    return static_cast<double>(largest) / static_cast<double>(size);
}

template <class T>
double pool_one(const kernels::Map<const T>& map, std::int64_t height, PoolMethod method, double parameter) {
    const auto kernel = kernels_of<T>(NORMSCAN_CHOOSE(pool));
    const bool with_sum = method == PoolMethod::mean;
    // Without a sum the order means nothing: rows that follow one another are one.
    const bool joined = !with_sum && map.column == 1 && map.row == map.width;
    const std::int64_t rows = joined ? 1 : height, width = joined ? height * map.width : map.width;
    double sum = 0.0, maximum = -std::numeric_limits<double>::infinity();
    for (std::int64_t y = 0; y < rows; ++y) {
        const kernels::RowSummary row = kernel({map.data + y * map.row, map.column, width, with_sum});
        if (row.has_nan) return nan;
        sum += row.sum;
        maximum = std::max(maximum, row.maximum);
    }
    switch (method) {
        case PoolMethod::mean:
            return sum / static_cast<double>(height * map.width);
        case PoolMethod::max:
            return maximum;
        case PoolMethod::topk: {
            std::vector<T> all = values(map, height);
            return top_mean(all.data(), all.data() + all.size(), parameter);
        }
        case PoolMethod::quantile:
            return quantile(values(map, height), parameter);
        case PoolMethod::area:
            return largest_area(values(map, height), map.width, parameter);
    }
    return nan;
}

}  // namespace

void check_pool_map(const Check& check, const Tensor& map, PoolMethod method, double parameter) {
    check.rank({"map", map}, {3}, "[N,H,W]");
    check.floating({{"map", map}});
    if (map.size(0) > 0 && map.size(1) * map.size(2) == 0) {
        check.fail("map has shape ", shape_text(map), ", expected H and W >= 1");
    }
    check.pooling(method, parameter);
}

std::vector<double> pool(const Tensor& map, PoolMethod method, double parameter) {
    check_pool_map(Check("pool"), map, method, parameter);
    std::vector<double> result(static_cast<std::size_t>(map.size(0)));
    for_dtype(map.dtype, [&]<class T>() {
        parallel_for(map.size(0), [&](std::int64_t n) {
            result[static_cast<std::size_t>(n)] = pool_one(map_of<const T>(map, n), map.size(1), method, parameter);
        });
    });
    return result;
}

void check_pool(const Tensor& map, const Tensor& out, PoolMethod method, double parameter) {
    const Check check("pool");
    check_pool_map(check, map, method, parameter);
    check.same_dtype({"out", out}, {"map", map});
    check.shape({"out", out}, {map.size(0)}, "[N]");
    check.output({"out", out});
    check.apart({{"out", out}}, {{"map", map}});
}

void pool(const Tensor& map, const Tensor& out, PoolMethod method, double parameter) {
    check_pool(map, out, method, parameter);
    const std::vector<double> result = pool(map, method, parameter);
    for_dtype(out.dtype, [&]<class T>() {
        for (std::int64_t n = 0; n < map.size(0); ++n) {
            out.as<T>()[n * out.step(0)] = static_cast<T>(result[static_cast<std::size_t>(n)]);
        }
    });
}

}  // namespace normscan
