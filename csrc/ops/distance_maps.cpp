// Distances of several levels as one map and one score: checks, and the order of the parts.
#include <cmath>
#include <deque>
#include <string>
#include <vector>

#include "normscan/ops.hpp"
#include "ops/buffer.hpp"
#include "ops/check.hpp"
#include "ops/dispatch.hpp"
#include "ops/distance_maps.hpp"
#include "ops/fuse.hpp"

namespace normscan {
namespace {

void check_level(const Check& check, const FeaturePair& level, const std::string& name, const Tensor& out_map) {
    const std::string a = name + ".a", b = name + ".b";
    check.floating({{a, level.a}, {b, level.b}, {"out_map", out_map}});
    check.same_shape({b, level.b}, {a, level.a});
    if (level.a.size(0) != out_map.size(0)) {
        check.fail(a, " has ", level.a.size(0), " images, out_map has ", out_map.size(0));
    }
    if (level.a.size(1) * level.a.size(2) * level.a.size(3) == 0) {
        check.fail(a, " has shape ", shape_text(level.a), ", expected C, H and W >= 1");
    }
}

void check_weights(const Check& check, std::span<const double> weights, std::size_t levels, Fuse fuse) {
    if (weights.size() != levels) check.fail("weights has ", weights.size(), " values, levels has ", levels);
    for (std::size_t l = 0; l < levels; ++l) {
        if (!std::isfinite(weights[l])) check.fail("weights[", l, "] is ", weights[l], ", expected a finite number");
        if (fuse == Fuse::product && weights[l] != 1.0) {
            check.fail("weights[", l, "] is ", weights[l], ", expected 1 where fuse is \"product\"");
        }
    }
}

template <class T>
void run(std::span<const FeaturePair> levels, const Tensor& out_map, Metric metric, std::span<const double> weights,
         Fuse how, double sigma) {
    const std::int64_t images = out_map.size(0);
    std::deque<Buffer<T>> memory;
    std::vector<Tensor> maps;
    for (const FeaturePair& level : levels) {
        const std::int64_t height = level.a.size(2), width = level.a.size(3);
        memory.emplace_back(images * height * width);
        maps.push_back(contiguous(memory.back().get(), {images, height, width}));
        distance(level.a, level.b, maps.back(), metric);
    }
    if (sigma == 0.0) return fuse(maps, weights, out_map, how);
    const Buffer<T> fused(images * out_map.size(1) * out_map.size(2));
    const Tensor sharp = contiguous(fused.get(), {images, out_map.size(1), out_map.size(2)});
    fuse(maps, weights, sharp, how);
    smooth(sharp, out_map, sigma);
}

}  // namespace

bool check_distance_maps(std::span<const FeaturePair> levels, const Tensor& out_map, const Tensor& out_score,
                         std::span<const double> weights, Fuse fuse, double sigma, PoolMethod pool, double parameter) {
    const Check check("distance_maps");
    if (levels.empty()) check.fail("levels is empty, expected at least one pair (a, b)");
    for (std::size_t l = 0; l < levels.size(); ++l) {  // before out_map: a caller may have made that after them
        const std::string name = "levels[" + std::to_string(l) + "]";
        check.rank({name + ".a", levels[l].a}, {4}, "[N,C,H,W]");
        check.rank({name + ".b", levels[l].b}, {4}, "[N,C,H,W]");
    }
    check.rank({"out_map", out_map}, {3}, "[N,H,W]");
    for (std::size_t l = 0; l < levels.size(); ++l) {
        check_level(check, levels[l], "levels[" + std::to_string(l) + "]", out_map);
    }
    check.floating({{"out_map", out_map}, {"out_score", out_score}});
    if (out_map.size(1) * out_map.size(2) == 0) {
        check.fail("out_map has shape ", shape_text(out_map), ", expected H and W >= 1");
    }
    check.shape({"out_score", out_score}, {out_map.size(0)}, "[N]");
    check.output({"out_map", out_map});
    check.output({"out_score", out_score});
    for (std::size_t l = 0; l < levels.size(); ++l) {
        const std::string name = "levels[" + std::to_string(l) + "]", a = name + ".a", b = name + ".b";
        check.apart({{"out_map", out_map}, {"out_score", out_score}}, {{a, levels[l].a}, {b, levels[l].b}});
    }
    check_weights(check, weights, levels.size(), fuse);
    check.sigma(sigma);
    check.pooling(pool, parameter);
    return out_map.size(0) > 0;
}

void distance_maps(std::span<const FeaturePair> levels, const Tensor& out_map, const Tensor& out_score, Metric metric,
                   std::span<const double> weights, Fuse fuse, double sigma, PoolMethod pool, double parameter) {
    if (!check_distance_maps(levels, out_map, out_score, weights, fuse, sigma, pool, parameter)) return;
    for_dtype(out_map.dtype, [&]<class T>() { run<T>(levels, out_map, metric, weights, fuse, sigma); });
    normscan::pool(out_map, out_score, pool, parameter);
}

}  // namespace normscan
