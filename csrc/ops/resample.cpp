// Resampling of maps: checks, tables and threading. Blocks are 32 rows of one map.
#include <algorithm>

#include "normscan/ops.hpp"
#include "ops/axis.hpp"
#include "ops/buffer.hpp"
#include "ops/check.hpp"
#include "ops/dispatch.hpp"
#include "ops/kernels/resample.hpp"
#include "ops/parallel.hpp"
#include "ops/planes.hpp"
#include "ops/resample.hpp"

namespace normscan {
namespace {

constexpr std::int64_t rows_per_task = 32;

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

bool check_resample(const Tensor& map, const Tensor& out) {
    const Check check("resample");
    check.rank({"map", map}, {3}, "[N,h,w]");
    check.rank({"out", out}, {3}, "[N,H,W]");
    check.floating({{"map", map}, {"out", out}});
    check.output({"out", out});
    if (map.size(0) != out.size(0)) check.fail("out has ", out.size(0), " images, map has ", map.size(0));
    if (out.size(0) * out.size(1) * out.size(2) == 0) return false;
    if (map.size(1) * map.size(2) == 0) check.fail("map has shape ", shape_text(map), ", expected h and w >= 1");
    return true;
}

void resample(const Tensor& map, const Tensor& out) {
    if (!check_resample(map, out)) return;
    for_dtype(map.dtype, [&]<class T>() { run<T>(map, out); });
}

}  // namespace normscan
