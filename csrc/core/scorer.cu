// The scorer on the GPU: each term by its own op, and between these whether the outputs are finite (bound by reading
// them, once), values as maps, and what the terms add up to, which is a number a picture.
#include <algorithm>
#include <cstdlib>
#include <limits>
#include <map>
#include <vector>

#include "core/scorer.hpp"
#include "normscan/cuda.hpp"
#include "ops/check.hpp"
#include "ops/kernels/fuse.cuh"
#include "ops/kernels/launch.cuh"
#include "ops/kernels/pool.cuh"
#include "ops/kernels/workspace.cuh"

namespace normscan::cuda {
namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();
constexpr int threads = 256;
constexpr std::int64_t part_values = 16 * threads, most_parts = 256;

template <class T>
__device__ __forceinline__ bool is_finite(T x) {
    return x - x == T(0);
}

// What an output says of one image. Axes are in the order of their steps, the smallest last; those that follow one
// another are one, so that most outputs need no division.
struct Values {
    const float* data;
    std::int64_t image, count, size[3], step[3];

    __device__ float at(std::int64_t n, std::int64_t i) const {
        const float* const own = data + n * image;
        if (count == size[2]) return own[i * step[2]];
        const std::int64_t row = i / size[2];
        return own[row / size[1] * step[0] + row % size[1] * step[1] + i % size[2] * step[2]];
    }
};

// Rank 2 to 4, any strides.
Values values_of(const Tensor& t) {
    std::vector<int> axes;
    for (int i = 1; i < t.rank; ++i) {
        if (t.size(i) > 1) axes.push_back(i);
    }
    std::sort(axes.begin(), axes.end(), [&](int a, int b) { return std::abs(t.step(a)) < std::abs(t.step(b)); });
    Values v = {t.as<const float>(), t.step(0), 1, {1, 1, 1}, {0, 0, 0}};
    int last = 3;
    for (const int axis : axes) {
        v.count *= t.size(axis);
        if (last < 3 && t.step(axis) == v.step[last] * v.size[last]) {
            v.size[last] *= t.size(axis);
            continue;
        }
        --last;
        v.size[last] = t.size(axis);
        v.step[last] = t.step(axis);
    }
    return v;
}

// Which parts of an output's images are not finite: [N, count]. A part has a place of its own, so that none need be
// cleared before.
struct Broken {
    int* parts;
    int count;
};

__global__ void __launch_bounds__(threads) broken_kernel(Values values, Broken broken) {
    const std::int64_t n = blockIdx.x / static_cast<unsigned>(broken.count);
    const std::int64_t part = blockIdx.x % static_cast<unsigned>(broken.count);
    int bad = 0;
    for (std::int64_t i = part * threads + threadIdx.x; i < values.count; i += broken.count * threads) {
        bad |= is_finite(values.at(n, i)) ? 0 : 1;
    }
    bad = __syncthreads_or(bad);
    if (threadIdx.x == 0) broken.parts[blockIdx.x] = bad;
}

// An output [N,1] or [N,1,H,W] as a term's map.
struct Taken {
    const float* from;
    std::int64_t image, row, column, height, width, count;
    float* to;
};

__global__ void __launch_bounds__(threads) take_kernel(Taken a) {
    const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * threads + threadIdx.x;
    for (std::int64_t i = first; i < a.count; i += static_cast<std::int64_t>(gridDim.x) * threads) {
        const std::int64_t line = i / a.width;
        a.to[i] = a.from[line / a.height * a.image + line % a.height * a.row + i % a.width * a.column];
    }
}

// The term's pooled values go to their place, and onto what the terms before it add up to.
struct TermSum {
    const double* pooled;
    Broken outputs[2];  // of those that the term reads; parts: null where it reads one
    double factor;
    bool first;
    double* terms;
    std::int64_t step;
    double* sums;
    int* broken;  // of any output so far
};

// A warp an image.
__global__ void __launch_bounds__(32) term_kernel(TermSum a) {
    const std::int64_t n = blockIdx.x;
    int bad = 0;
    for (const Broken& output : a.outputs) {
        if (output.parts == nullptr) continue;
        for (int i = static_cast<int>(threadIdx.x); i < output.count; i += 32)
            bad |= output.parts[n * output.count + i];
    }
    bad = __any_sync(0xffffffffu, bad);
    if (threadIdx.x != 0) return;
    const double term = bad != 0 ? nan : a.pooled[n];
    a.terms[n * a.step] = term;
    a.sums[n] = (a.first ? 0.0 : a.sums[n]) + a.factor * term;
    a.broken[n] = bad != 0 || (!a.first && a.broken[n] != 0) ? 1 : 0;
}

__global__ void __launch_bounds__(threads)
    score_kernel(const double* values, const int* broken, std::int64_t images, double* scores, std::int64_t step) {
    const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * threads + threadIdx.x;
    for (std::int64_t n = first; n < images; n += static_cast<std::int64_t>(gridDim.x) * threads) {
        scores[n * step] = broken[n] == 0 && is_finite(values[n]) ? values[n] : nan;
    }
}

const Tensor& judged(const Term& term, const NamedTensors& outputs) {
    return find(outputs, term.of[0], "output");
}
const Tensor& reference(const Term& term, const NamedTensors& outputs) {
    return find(outputs, term.of[1], "output");
}
const Tensor& statistic(const Term& term, const NamedTensors& statistics, const char* which) {
    return find(statistics, term.stats + which, "statistic");
}

std::int64_t measure_workspace(const Term& term, const NamedTensors& outputs, const NamedTensors& statistics) {
    switch (term.op) {
        case TermOp::distance:
            return distance_workspace(reference(term, outputs), term.metric);
        case TermOp::stain:
            return stain_workspace(judged(term, outputs), term.stain.metric);
        case TermOp::gaussian:
            if (term.per == Per::position) return 0;
            return gaussian_workspace(judged(term, outputs), statistic(term, statistics, ".whitener"));
        case TermOp::gaussian_mixture:
            return gaussian_mixture_workspace(judged(term, outputs), statistic(term, statistics, ".whitener"));
        case TermOp::value:
            break;
    }
    return 0;
}

void take(Stream stream, const Tensor& output, const Tensor& map) {
    const bool one = output.rank == 2;
    const std::int64_t count = map.size(0) * map.size(1) * map.size(2);
    const Taken a = {output.as<const float>(),
                     output.step(0),
                     one ? 0 : output.step(2),
                     one ? 0 : output.step(3),
                     map.size(1),
                     map.size(2),
                     count,
                     map.as<float>()};
    launch("scorer", stream, {blocks_for(count, threads), threads}, take_kernel, a);
}

// A term's map, by the op that it names.
void measure(Stream stream, const Term& term, const NamedTensors& outputs, const NamedTensors& statistics,
             const Tensor& map, const Tensor& workspace) {
    const Tensor& z = judged(term, outputs);
    if (term.op == TermOp::distance) {
        return distance(stream, z, reference(term, outputs), map, workspace, term.metric, term.window);
    }
    if (term.op == TermOp::stain) return stain(stream, z, reference(term, outputs), map, workspace, term.stain);
    if (term.op == TermOp::value) return take(stream, z, map);
    const Tensor &mean = statistic(term, statistics, ".mean"), &whitener = statistic(term, statistics, ".whitener");
    if (term.per == Per::position) {
        return gaussian_positions(stream, z, mean, whitener, map, term.output, term.saturation);
    }
    const Tensor out = z.rank == 2 ? contiguous(map.as<float>(), {map.size(0)}) : map;
    if (term.op == TermOp::gaussian_mixture) {
        const Tensor& log_weights = statistic(term, statistics, ".log_weights");
        return gaussian_mixture(stream, z, mean, whitener, log_weights, out, workspace, false);
    }
    gaussian(stream, z, mean, whitener, out, workspace, term.output, term.saturation, false);
}

struct Scratch {
    Tensor shared, sharp;      // sharp: the fused map, where it is to be blurred
    std::vector<Tensor> maps;  // of the terms
    std::map<std::string, Broken, std::less<>> broken_outputs;
    double *pooled, *sums;  // [N]
    int* broken;            // [N]

    Scratch(Workspace& room, const Scorer& scorer, const NamedTensors& outputs) {
        const ScoringSpec& spec = scorer.spec();
        const NamedTensors statistics = scorer.statistics();
        const std::int64_t images = find(outputs, scorer.outputs().front(), "output").size(0);
        const std::int64_t height = scorer.map_height(), width = scorer.map_width();
        std::int64_t bytes = 0;  // that one part after the other needs
        for (const Term& term : spec.terms) {
            const Tensor& z = judged(term, outputs);
            const std::int64_t rows = z.rank == 2 ? 1 : z.size(2), columns = z.rank == 2 ? 1 : z.size(3);
            maps.push_back(contiguous(room.take<float>(images * rows * columns), {images, rows, columns}));
            bytes = std::max(
                {bytes, measure_workspace(term, outputs, statistics), pool_workspace(maps.back(), term.pool.method)});
        }
        const Tensor fused = contiguous(static_cast<float*>(nullptr), {images, height, width});
        if (spec.map.blur_sigma > 0.0) {
            sharp = contiguous(room.take<float>(images * height * width), {images, height, width});
            bytes = std::max(bytes, smooth_workspace(fused));
        }
        if (spec.pool_at == PoolAt::image) bytes = std::max(bytes, pool_workspace(fused, spec.pool->method));
        shared = contiguous(room.take<std::uint8_t>(bytes), {bytes});
        for (const std::string& name : scorer.outputs()) {
            const std::int64_t count = values_of(find(outputs, name, "output")).count;
            const std::int64_t parts = std::min(ceil_div(count, part_values), most_parts);
            broken_outputs[name] = {room.take<int>(images * parts), static_cast<int>(parts)};
        }
        pooled = room.take<double>(images);
        sums = room.take<double>(images);
        broken = room.take<int>(images);
    }
};

// Those of the caller are on the GPU; the scorer's own say what they must be.
void check_statistics(const Scorer& scorer, const NamedTensors& statistics) {
    const Check check("scorer");
    for (const auto& [name, own] : scorer.statistics()) {
        const Named given = {name, find(statistics, name, "statistic")};
        check.dtype(given, {DType::float32});
        check.same_shape(given, {"the scorer's", own});
    }
}

void fuse_and_blur(Stream stream, const ScoringSpec& spec, const std::vector<double>& factors, const Tensor& out,
                   const Scratch& scratch) {
    const bool blurs = spec.map.blur_sigma > 0.0;
    const std::span<const Tensor> maps(scratch.maps);
    const std::span<const double> all(factors);
    for (std::size_t first = 0; first < maps.size(); first += most_fused) {
        const std::size_t count = std::min(maps.size() - first, most_fused);
        fuse("scorer", stream, maps.subspan(first, count), all.subspan(first, count), blurs ? scratch.sharp : out,
             spec.fuse, first > 0);
    }
    if (blurs) smooth(stream, scratch.sharp, out, scratch.shared, spec.map.blur_sigma);
}

}  // namespace

std::int64_t score_workspace(const Scorer& scorer, const NamedTensors& outputs) {
    if (scorer.check(outputs) == 0) return 0;
    Workspace counted;
    Scratch(counted, scorer, outputs);
    return counted.bytes();
}

void score(Stream stream, const Scorer& scorer, const NamedTensors& statistics, const NamedTensors& outputs,
           const Tensor& maps, const Tensor& terms, const Tensor& scores, const Tensor& workspace) {
    const std::int64_t images = check_score(scorer, outputs, maps, terms, scores);
    check_statistics(scorer, statistics);
    if (images == 0) return;
    if (images > 0x7fffffff / most_parts) {
        Check("scorer").fail(images, " images are too many for one call on a GPU; split the batch");
    }
    Workspace room(Check("scorer"), workspace, score_workspace(scorer, outputs));
    const Scratch scratch(room, scorer, outputs);
    const ScoringSpec& spec = scorer.spec();
    for (const auto& [name, broken] : scratch.broken_outputs) {
        const auto blocks = static_cast<unsigned>(images * broken.count);
        launch("scorer", stream, {blocks, threads}, broken_kernel, values_of(find(outputs, name, "output")), broken);
    }
    std::vector<double> factors;
    for (std::size_t t = 0; t < spec.terms.size(); ++t) {
        const Term& term = spec.terms[t];
        measure(stream, term, outputs, statistics, scratch.maps[t], scratch.shared);
        pool_doubles(stream, scratch.maps[t], scratch.pooled, scratch.shared, term.pool.method, term.pool.parameter);
        factors.push_back(term.weight / term.scale.value_or(1.0));
        TermSum sum = {scratch.pooled,
                       {},
                       factors.back(),
                       t == 0,
                       terms.as<double>() + static_cast<std::int64_t>(t) * terms.step(1),
                       terms.step(0),
                       scratch.sums,
                       scratch.broken};
        for (std::size_t i = 0; i < term.of.size(); ++i) sum.outputs[i] = scratch.broken_outputs.at(term.of[i]);
        launch("scorer", stream, {static_cast<unsigned>(images), 32}, term_kernel, sum);
    }
    fuse_and_blur(stream, spec, factors, maps, scratch);
    const bool at_image = spec.pool_at == PoolAt::image;
    if (at_image) pool_doubles(stream, maps, scratch.pooled, scratch.shared, spec.pool->method, spec.pool->parameter);
    launch("scorer", stream, {blocks_for(images, threads), threads}, score_kernel,
           at_image ? scratch.pooled : scratch.sums, scratch.broken, images, scores.as<double>(), scores.step(0));
}

}  // namespace normscan::cuda
