// Fusion of maps: tables and threading. Blocks are 32 rows of one fused map; they stay in the cache while all maps
// enter.
#include "ops/fuse.hpp"

#include <algorithm>
#include <vector>

#include "ops/axis.hpp"
#include "ops/buffer.hpp"
#include "ops/dispatch.hpp"
#include "ops/kernels/fuse.hpp"
#include "ops/parallel.hpp"
#include "ops/planes.hpp"

namespace normscan {
namespace {

constexpr std::int64_t rows_per_task = 32;

template <class T>
void run(std::span<const Tensor> maps, std::span<const double> factors, const Tensor& out, Fuse how) {
    const auto kernel = kernels_of<T>(NORMSCAN_CHOOSE(fuse));
    const std::int64_t height = out.size(1), width = out.size(2);
    const std::int64_t bands = (height + rows_per_task - 1) / rows_per_task;
    std::vector<Axis<T>> rows, columns;
    for (const Tensor& map : maps) {
        rows.emplace_back(map.size(1), height);
        columns.emplace_back(map.size(2), width);
    }
    const auto step = how == Fuse::sum ? kernels::FuseStep::add : kernels::FuseStep::multiply;
    parallel_for(out.size(0) * bands, [&](std::int64_t task) {
        const std::int64_t n = task / bands, begin = task % bands * rows_per_task;
        const std::int64_t end = std::min(begin + rows_per_task, height);
        const Buffer<T> scratch(2 * width);
        for (std::size_t m = 0; m < maps.size(); ++m) {
            kernel({map_of<const T>(maps[m], n), rows[m].view(), columns[m].view(), static_cast<T>(factors[m]),
                    m == 0 ? kernels::FuseStep::set : step, map_of<T>(out, n), begin, end, scratch.get()});
        }
    });
}

}  // namespace

void fuse(std::span<const Tensor> maps, std::span<const double> factors, const Tensor& out, Fuse how) {
    for_dtype(out.dtype, [&]<class T>() { run<T>(maps, factors, out, how); });
}

}  // namespace normscan
