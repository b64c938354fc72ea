// A map back into the picture's own geometry.
#include <algorithm>
#include <vector>

#include "core/geometry.hpp"
#include "core/prepare.hpp"
#include "normscan/ops.hpp"
#include "ops/check.hpp"
#include "ops/parallel.hpp"

namespace normscan {
namespace {

constexpr std::int64_t rows_per_task = 32;

// Where a pixel of the picture lies in the map: between low and high; not seen by the network at all where !seen.
struct Tap {
    std::int64_t low, high;
    float share;
    bool seen;
};

std::vector<Tap> taps(const Placement& place, std::int64_t side) {
    std::vector<Tap> all;
    for (std::int64_t i = 0; i < side; ++i) {
        const double centre = static_cast<double>(i) + 0.5 - place.begin;
        const double at = centre * static_cast<double>(place.size) / place.extent - 0.5;
        const double inside = std::clamp(at, 0.0, static_cast<double>(place.size - 1));
        const auto low = static_cast<std::int64_t>(inside);
        all.push_back({place.offset + low, place.offset + std::min(low + 1, place.size - 1),
                       static_cast<float>(inside - static_cast<double>(low)), centre >= 0.0 && centre <= place.extent});
    }
    return all;
}

}  // namespace

bool check_restore(const Tensor& map, const Tensor& out) {
    const Check check("restore");
    check.rank({"map", map}, {2}, "[h,w]");
    check.rank({"out", out}, {2}, "[H,W]");
    check.dtype({"map", map}, {DType::float32});
    check.dtype({"out", out}, {DType::float32});
    check.strides({"map", map});
    check.output({"out", out});
    check.apart({{"out", out}}, {{"map", map}});
    if (out.size(0) * out.size(1) == 0) return false;
    if (map.size(0) * map.size(1) == 0) check.fail("map is empty, shape ", shape_text(map));
    return true;
}

void restore(const Tensor& map, const Tensor& out, Resize resize) {
    if (!check_restore(map, out)) return;
    const Geometry place = geometry(out.size(0), out.size(1), map.size(0), map.size(1), resize);
    const std::vector<Tap> rows = taps(place.rows, out.size(0)), columns = taps(place.columns, out.size(1));
    parallel_for((out.size(0) + rows_per_task - 1) / rows_per_task, [&](std::int64_t task) {
        for (std::int64_t y = task * rows_per_task; y < std::min((task + 1) * rows_per_task, out.size(0)); ++y) {
            const Tap& r = rows[static_cast<std::size_t>(y)];
            const float* const low = map.as<const float>() + r.low * map.step(0);
            const float* const high = map.as<const float>() + r.high * map.step(0);
            float* to = out.as<float>() + y * out.step(0);
            for (const Tap& c : columns) {
                const float left = (1.0f - r.share) * low[c.low] + r.share * high[c.low];
                const float right = (1.0f - r.share) * low[c.high] + r.share * high[c.high];
                *to = r.seen && c.seen ? (1.0f - c.share) * left + c.share * right : 0.0f;
                to += out.step(1);
            }
        }
    });
}

}  // namespace normscan
