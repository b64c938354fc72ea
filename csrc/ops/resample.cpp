// Resampling of maps: checks, tables and threading. Blocks are 32 rows of one map.
#include <algorithm>
#include <vector>

#include "normscan/ops.hpp"
#include "ops/buffer.hpp"
#include "ops/check.hpp"
#include "ops/dispatch.hpp"
#include "ops/kernels/resample.hpp"
#include "ops/parallel.hpp"
#include "ops/planes.hpp"

namespace normscan {
namespace {

constexpr std::int64_t rows_per_task = 32;

// Half-pixel centres (align_corners false), held at the first and the last input.
template <class T>
struct Axis {
    std::vector<std::int64_t> low, high;
    std::vector<T> share;

    Axis(std::int64_t from, std::int64_t to) {
        const double scale = static_cast<double>(from) / static_cast<double>(to);
        for (std::int64_t i = 0; i < to; ++i) {
            const double at = std::max(0.0, (static_cast<double>(i) + 0.5) * scale - 0.5);
            const std::int64_t first = std::min(static_cast<std::int64_t>(at), from - 1);
            low.push_back(first);
            high.push_back(std::min(first + 1, from - 1));
            share.push_back(static_cast<T>(std::min(1.0, at - static_cast<double>(first))));
        }
    }
    kernels::Taps<T> view() const { return {low.data(), high.data(), share.data()}; }
};

template <class T>
void run(const Tensor& map, const Tensor& out) {
    const auto kernel = kernels_of<T>(NORMSCAN_CHOOSE(resample));
    const std::int64_t height = out.size(1), bands = (height + rows_per_task - 1) / rows_per_task;
    const Axis<T> rows(map.size(1), height), columns(map.size(2), out.size(2));
    parallel_for(map.size(0) * bands, [&](std::int64_t task) {
        const std::int64_t n = task / bands, begin = task % bands * rows_per_task;
        const Buffer<T> scratch(map.size(2));
        kernel({map_of<const T>(map, n), map_of<T>(out, n), begin, std::min(begin + rows_per_task, height), rows.view(),
                columns.view(), scratch.get()});
    });
}

}  // namespace

void resample(const Tensor& map, const Tensor& out) {
    const Check check("resample");
    check.rank({"map", map}, {3}, "[N,h,w]");
    check.rank({"out", out}, {3}, "[N,H,W]");
    check.floating({{"map", map}, {"out", out}});
    check.output({"out", out});
    if (map.size(0) != out.size(0)) check.fail("out has ", out.size(0), " images, map has ", map.size(0));
    if (out.size(0) * out.size(1) * out.size(2) == 0) return;
    if (map.size(1) * map.size(2) == 0) check.fail("map has shape ", shape_text(map), ", expected h and w >= 1");
    for_dtype(map.dtype, [&]<class T>() { run<T>(map, out); });
}

}  // namespace normscan
