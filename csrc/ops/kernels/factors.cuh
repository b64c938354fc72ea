// What the sum over channels is multiplied with: for kernels/distance.cu and distance_backward.cu.
#pragma once

#include <algorithm>
#include <utility>

#include "ops/distance.hpp"
#include "ops/kernels/features.cuh"
#include "ops/kernels/workspace.cuh"

namespace normscan::cuda {
namespace {

// One factor for all images, or (relative_l1) one for each, made on the GPU.
template <class T>
struct Factors {
    const T* each;
    T all;

    __device__ T of(std::int64_t n) const { return each != nullptr ? each[n] : all; }
};

constexpr int magnitude_threads = 256;
constexpr int segment = 32 * magnitude_threads;  // values that a block adds up in T before it goes on in double
constexpr std::int64_t most_parts = 256;         // blocks an image

// An image as runs of adjacent values, as long as its strides allow: dimension 0 is the innermost.
template <class T>
struct Runs {
    const T* data;
    std::int64_t image, count[3], step[3], segments;

    std::int64_t items() const { return segments * count[1] * count[2]; }
    std::int64_t parts() const { return std::min(items(), most_parts); }
};

template <class T>
Runs<T> runs_of(const Tensor& t) {
    Runs<T> runs = {t.as<const T>(), t.size(0) > 1 ? t.step(0) : 0, {1, 1, 1}, {1, 0, 0}, 0};
    int order[3] = {3, 2, 1};  // dimensions by stride
    if (t.step(order[1]) < t.step(order[0])) std::swap(order[0], order[1]);
    if (t.step(order[2]) < t.step(order[1])) std::swap(order[1], order[2]);
    if (t.step(order[1]) < t.step(order[0])) std::swap(order[0], order[1]);
    int last = -1;
    for (const int dimension : order) {
        const std::int64_t step = t.step(dimension), size = t.size(dimension);
        if (size == 1) continue;
        if (last >= 0 && step == runs.step[last] * runs.count[last]) {
            runs.count[last] *= size;
        } else {
            ++last;
            runs.step[last] = step;
            runs.count[last] = size;
        }
    }
    runs.segments = ceil_div(runs.count[0], segment);
    return runs;
}

// The sum of a block's values, in its first thread, always in the same order.
__device__ inline double block_sum(double value) {
    __shared__ double part[magnitude_threads / 32];
    value = warp_sum(value);
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = value;
    __syncthreads();
    double sum = 0.0;
    for (const double one : part) sum += one;
    return sum;
}

// sum of |b| of an image, in parts. Memory-bound: reads b once.
template <class T>
__global__ void __launch_bounds__(magnitude_threads) magnitude_kernel(Runs<T> b, double* parts) {
    const std::int64_t n = blockIdx.y;
    double sum = 0.0;
    for (std::int64_t item = blockIdx.x; item < b.segments * b.count[1] * b.count[2]; item += gridDim.x) {
        const std::int64_t run = item / b.segments, begin = item % b.segments * segment;
        const std::int64_t rest = b.count[0] - begin;
        const T* const from = b.data + n * b.image + run % b.count[1] * b.step[1] + run / b.count[1] * b.step[2];
        const int length = static_cast<int>(rest < segment ? rest : segment);
        T some = T(0);
        for (int i = static_cast<int>(threadIdx.x); i < length; i += magnitude_threads) {
            const T value = from[(begin + i) * b.step[0]];
            some += value < T(0) ? -value : value;
        }
        sum += static_cast<double>(some);
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) parts[n * gridDim.x + blockIdx.x] = sum;
}

// 1 / (C mean |b|) of an image a block, from the parts of its sum.
template <class T>
__global__ void __launch_bounds__(32)
    factor_kernel(const double* parts, int count, double channels, double values, T* factors) {
    const std::int64_t n = blockIdx.x;
    double sum = 0.0;
    for (int i = static_cast<int>(threadIdx.x); i < count; i += 32) sum += parts[n * count + i];
    const double mean = warp_sum(sum) / values;
    if (threadIdx.x == 0) {
        factors[n] = static_cast<T>(1.0 / (channels * (mean < least_magnitude ? least_magnitude : mean)));
    }
}

// The magnitudes of parts of images, and the factors that they give; of relative_l1 alone.
template <class T>
struct Magnitudes {
    double* parts = nullptr;
    T* factors = nullptr;

    Magnitudes(Workspace& room, const Tensor& b, Metric metric) {
        if (metric != Metric::relative_l1) return;
        parts = room.take<double>(b.size(0) * most_parts);
        factors = room.take<T>(b.size(0));
    }
};

template <class T>
Factors<T> factors(const Check& check, Stream stream, const Tensor& b, Metric metric, const Magnitudes<T>& scratch) {
    if (metric == Metric::cosine) return {nullptr, T(0.5)};
    const double channels = static_cast<double>(b.size(1));
    if (metric != Metric::relative_l1) return {nullptr, static_cast<T>(1.0 / channels)};
    const std::int64_t images = b.size(0);
    if (images > 65535) check.fail("b has ", images, " images, expected at most 65535 on a GPU; split the batch");
    const Runs<T> runs = runs_of<T>(b);
    const auto blocks = static_cast<unsigned>(runs.parts());
    launch("distance", stream, {dim3(blocks, static_cast<unsigned>(images)), magnitude_threads}, magnitude_kernel<T>,
           runs, scratch.parts);
    launch("distance", stream, {static_cast<unsigned>(images), 32}, factor_kernel<T>, scratch.parts,
           static_cast<int>(blocks), channels, channels * static_cast<double>(b.size(2) * b.size(3)), scratch.factors);
    return {scratch.factors, T(0)};
}

}  // namespace
}  // namespace normscan::cuda
