// Gradients of one Gaussian on the GPU.
//
// With s the gradient of the loss by a position's squared distance, x = z - mean and y = W x:
//   grad_z = W' (2 s y),   grad_mean = -sum of grad_z,   grad_W = sum of (2 s y) x',
// and through the likelihood's determinant W_ii has -sum of grad_out / W_ii besides. First 2 s goes into the workspace
// for every position, then the products are formed, then partial sums are added in a fixed order.
#include "normscan/cuda.hpp"
#include "ops/check.hpp"
#include "ops/dispatch.hpp"
#include "ops/gaussian.hpp"
#include "ops/kernels/gaussian_distances.cuh"
#include "ops/kernels/gaussian_full_backward.cuh"
#include "ops/kernels/gaussian_sums.cuh"
#include "ops/kernels/workspace.cuh"

namespace normscan::cuda {
namespace {

constexpr int threads = 256, warps = threads / 32;
constexpr std::int64_t part_positions = 16, most_parts = 512;  // positions are summed in parts

template <class T>
struct Slopes {
    const T* grad;
    Steps grad_steps;
    Layout layout;
    GaussianOutput kind;
    T saturation;
    const T* distances;  // saturated: squared distances
    T* slopes;           // [positions]: 2 s
    T* sums;             // [blocks]
};

template <class T>
__global__ void __launch_bounds__(threads) slopes_kernel(Slopes<T> a) {
    const std::int64_t p = static_cast<std::int64_t>(blockIdx.x) * threads + threadIdx.x;
    T slope = T(0);
    if (p < a.layout.positions()) {
        slope = a.grad[a.grad_steps.at_any(a.layout, p)];
        if (a.kind == GaussianOutput::squared_distance) slope *= 2;
        if (a.kind == GaussianOutput::saturated) slope *= 2 * exp(-a.distances[p] / a.saturation) / a.saturation;
        a.slopes[p] = slope;
    }
    const T sum = block_sum<warps>(slope);
    if (threadIdx.x == 0) a.sums[blockIdx.x] = sum;
}

// --- Isotropic and diagonal whiteners: bound by reading z and writing grad_z.

template <class T>
struct DiagonalBackward {
    Gaussians<T> g;
    const T* slopes;
    T* grad_z;
    Steps grad_steps;
    bool grad_vectors;
    std::int64_t parts;
    T* sums;  // [parts][2 D]: of grad_z, then of the whitener's gradient
};

template <class T>
__device__ __forceinline__ T gradient(T slope, T whitener, T centred, T& of_z, T& of_whitener) {
    const T scaled = slope * whitener * centred, grad = scaled * whitener;
    of_z += grad;
    of_whitener += scaled * centred;
    return grad;
}

// Neighbours in memory are channels: 64 threads share a position, the block's four groups the positions of a part.
constexpr int channel_threads = 64, channel_groups = threads / channel_threads;

template <class T>
__global__ void __launch_bounds__(threads) diagonal_backward_by_channels(DiagonalBackward<T> a) {
    __shared__ T sums[channel_groups][channel_threads][8];
    const Latents<T>& z = a.g.z;
    const int own = static_cast<int>(threadIdx.x) % channel_threads;
    const int group = static_cast<int>(threadIdx.x) / channel_threads;
    const std::int64_t total = z.layout.positions(), part = blockIdx.x % a.parts;
    const std::int64_t c = (blockIdx.x / a.parts * channel_threads + own) * 4, channels = z.channels;
    T mean[4], whitener[4], of_z[4] = {}, of_whitener[4] = {};
    load_four(a.g.means + c, channels - c, false, mean);
#pragma unroll
    for (int j = 0; j < 4; ++j) whitener[j] = c + j < channels ? a.g.whiteners[a.g.isotropic ? 0 : c + j] : T(0);
    if (c < channels) {
#pragma unroll 2
        for (std::int64_t p = part * total / a.parts + group; p < (part + 1) * total / a.parts; p += channel_groups) {
            T v[4];
            z.four_channels(z.steps.at_any(z.layout, p), c, v);
            const T slope = a.slopes[p];
#pragma unroll
            for (int j = 0; j < 4; ++j) v[j] = gradient(slope, whitener[j], v[j] - mean[j], of_z[j], of_whitener[j]);
            T* const to = a.grad_z + a.grad_steps.at_any(z.layout, p) + c * a.grad_steps.channel;
            if (a.grad_steps.channel == 1) {
                store_four(to, channels - c, a.grad_vectors, v);
            } else {
                for (int j = 0; j < 4 && c + j < channels; ++j) to[j * a.grad_steps.channel] = v[j];
            }
        }
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) sums[group][own][j] = of_z[j], sums[group][own][4 + j] = of_whitener[j];
    __syncthreads();
    if (group != 0) return;
    for (int j = 0; j < 8; ++j) {
        T sum = T(0);
        for (int i = 0; i < channel_groups; ++i) sum += sums[i][own][j];
        if (c + j % 4 < channels) a.sums[(part * 2 + j / 4) * channels + c + j % 4] = sum;
    }
}

// Neighbours in memory are positions: a warp has one channel of a part of the images' runs of 128 positions.
template <class T>
__global__ void __launch_bounds__(threads) diagonal_backward_by_positions(DiagonalBackward<T> a) {
    const Latents<T>& z = a.g.z;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const std::int64_t part = blockIdx.x % a.parts, c = blockIdx.x / a.parts * warps + threadIdx.x / 32;
    if (c >= z.channels) return;  // a whole warp
    const std::int64_t plane = z.layout.plane(), per_image = ceil_div(plane, plane_positions);
    const std::int64_t runs = z.layout.images * per_image;
    const T mean = a.g.means[c], whitener = a.g.whiteners[a.g.isotropic ? 0 : c];
    T of_z = T(0), of_whitener = T(0);
    for (std::int64_t run = part * runs / a.parts; run < (part + 1) * runs / a.parts; ++run) {
        const std::int64_t n = run / per_image, q = run % per_image * plane_positions + lane_positions * lane;
        T v[4], slopes[4];
        z.four_positions(n, q, c, v);
        load_four(a.slopes + n * plane + q, plane - q, false, slopes);
#pragma unroll
        for (int i = 0; i < 4; ++i) v[i] = gradient(slopes[i], whitener, v[i] - mean, of_z, of_whitener);
        T* const to = a.grad_z + n * a.grad_steps.image + c * a.grad_steps.channel;
        if (a.grad_steps.column == 1 && z.layout.height == 1) {
            store_four(to + q, plane - q, a.grad_vectors, v);
        } else {
            for (int i = 0; i < 4 && q + i < plane; ++i) to[a.grad_steps.at(z.layout, q + i)] = v[i];
        }
    }
    of_z = warp_sum(of_z);
    of_whitener = warp_sum(of_whitener);
    if (lane != 0) return;
    a.sums[part * 2 * z.channels + c] = of_z;
    a.sums[(part * 2 + 1) * z.channels + c] = of_whitener;
}

// --- The sums, into the gradients of mean and whitener.

template <class T>
struct Gradients {
    Gaussians<T> g;
    const T *of_z, *of_whitener;  // summed; full: of_whitener in tiles (gaussian_full_backward.cuh)
    const T* slope;               // [1], likelihood: the sum of grad_out; null otherwise
    T *grad_mean, *grad_whitener;
    std::int64_t row_step;
};

template <class T>
__global__ void __launch_bounds__(threads) store_diagonal_kernel(Gradients<T> a) {
    const std::int64_t channels = a.g.z.channels;
    const T slope = a.slope == nullptr ? T(0) : *a.slope;
    T sum = T(0);
    for (std::int64_t c = threadIdx.x; c < channels; c += threads) {
        a.grad_mean[c] = -a.of_z[c];
        const T whitener = a.g.whiteners[a.g.isotropic ? 0 : c];
        const T grad = a.slope == nullptr ? a.of_whitener[c] : a.of_whitener[c] - slope / whitener;
        if (a.g.isotropic) {
            sum += grad;
        } else {
            a.grad_whitener[c] = grad;
        }
    }
    sum = block_sum<warps>(sum);
    if (a.g.isotropic && threadIdx.x == 0) *a.grad_whitener = sum;
}

template <class T>
__global__ void __launch_bounds__(threads) store_full_kernel(Gradients<T> a) {
    const std::int64_t channels = a.g.z.channels, step = static_cast<std::int64_t>(gridDim.x) * threads;
    for (std::int64_t e = static_cast<std::int64_t>(blockIdx.x) * threads + threadIdx.x; e < channels * channels;
         e += step) {
        const std::int64_t i = e / channels, j = e % channels;
        T grad = j <= i ? a.of_whitener[place_in_tiles(i, j)] : T(0);
        if (i == j && a.slope != nullptr) grad -= *a.slope / a.g.whiteners[i * (a.g.row_step + 1)];
        a.grad_whitener[i * a.row_step + j] = grad;
        if (e < channels) a.grad_mean[e] = -a.of_z[e];
    }
}

// --- The whole.

// Tiles of 64 positions of one image, as many as there may be.
std::int64_t tiles_of(const Layout& l) {
    return l.plane() == 1 ? ceil_div(l.images, tile) : l.images * ceil_div(l.plane(), tile);
}

// Arrays in the workspace, and in how many parts the positions are summed.
template <class T>
struct Scratch {
    std::int64_t diagonal_parts, full_parts, blocks, tiles;
    T *slopes, *slope_sums, *slope, *distances, *row_sums, *y, *parts, *whitener_parts, *of_z, *of_whitener;

    Scratch(Workspace& w, const Tensor& z, bool full) : tiles(tiles_of(layout_of(z))) {
        const std::int64_t positions = layout_of(z).positions(), channels = z.size(1);
        const std::int64_t pairs = tile_pairs(channels), whole = full ? 1 : 0;
        diagonal_parts = ceil_div(positions, part_positions);
        if (diagonal_parts > most_parts) diagonal_parts = most_parts;
        full_parts = whitener_parts_of(positions, channels);
        blocks = ceil_div(positions, threads);
        slopes = w.take<T>(positions);
        slope_sums = w.take<T>(blocks);
        slope = w.take<T>(1);
        distances = w.take<T>(positions);
        row_sums = w.take<T>(whole * ceil_div(channels, tile) * positions);
        y = w.take<T>(whole * positions * y_step_of(channels));
        parts = w.take<T>(full ? tiles * channels : diagonal_parts * 2 * channels);
        whitener_parts = w.take<T>(whole * full_parts * pairs * tile * tile);
        of_z = w.take<T>(2 * channels);
        of_whitener = full ? w.take<T>(pairs * tile * tile) : of_z + channels;
    }
};

template <class T>
struct Backward {
    Stream stream;
    Gaussians<T> g;
    Output<T> output;
    const T* grad_out;
    Steps grad_out_steps;
    T* grad_z;
    Steps grad_steps;
    Scratch<T> scratch;
    bool allow_tf32;

    static constexpr std::string_view op = "gaussian_backward";
    const Layout& layout() const { return g.z.layout; }

    void slopes(const T* distances) const {
        const Slopes<T> a = {grad_out,          grad_out_steps, layout(),       output.kind,
                             output.saturation, distances,      scratch.slopes, scratch.slope_sums};
        launch(op, stream, {grid_of(op, scratch.blocks), threads}, slopes_kernel<T>, a);
        launch_sum_parts(op, stream, scratch.slope_sums, scratch.blocks, 1, scratch.slope);
    }

    void diagonal() const {
        const Steps flat = {layout().plane(), 0, layout().width, 1};
        if (output.kind == GaussianOutput::saturated) launch_diagonal(op, stream, g, {}, scratch.distances, flat);
        slopes(scratch.distances);
        const bool in_rows = layout().height == 1 && grad_steps.column == 1;
        const bool vectors = g.z.by_channels ? in_vectors(grad_z, {grad_steps.image, grad_steps.row, grad_steps.column})
                                             : in_rows && in_vectors(grad_z, {grad_steps.image, grad_steps.channel});
        const std::int64_t runs = layout().images * ceil_div(layout().plane(), plane_positions);
        const bool by_runs = !g.z.by_channels && runs < scratch.diagonal_parts;
        const DiagonalBackward<T> a = {
            g, scratch.slopes, grad_z, grad_steps, vectors, by_runs ? runs : scratch.diagonal_parts, scratch.parts};
        const std::int64_t columns = ceil_div(g.z.channels, g.z.by_channels ? 4 * channel_threads : warps);
        launch(op, stream, {grid_of(op, columns * a.parts), threads},
               g.z.by_channels ? diagonal_backward_by_channels<T> : diagonal_backward_by_positions<T>, a);
        launch_sum_parts(op, stream, scratch.parts, a.parts, 2 * g.z.channels, scratch.of_z);
    }

    void full() const {
        const bool saturated = output.kind == GaussianOutput::saturated;
        launch_project(op, stream, g, saturated ? scratch.row_sums : nullptr, scratch.y, y_step_of(g.z.channels),
                       allow_tf32);
        const Steps flat = {layout().plane(), 0, layout().width, 1};
        if (saturated) launch_finish(op, stream, g, scratch.row_sums, {}, scratch.distances, flat);
        slopes(scratch.distances);
        const FullBackward<T> a = {g,
                                   {scratch.y, scratch.slopes, y_step_of(g.z.channels)},
                                   grad_z,
                                   grad_steps,
                                   scratch.parts,
                                   scratch.full_parts,
                                   scratch.whitener_parts};
        const std::int64_t tiles = layout().images * ceil_div(layout().plane(), tile);
        launch_full_backward(op, stream, a, tiles, allow_tf32);
        launch_sum_parts(op, stream, scratch.parts, tiles, g.z.channels, scratch.of_z);
        launch_sum_parts(op, stream, scratch.whitener_parts, scratch.full_parts, tile_pairs(g.z.channels) * tile * tile,
                         scratch.of_whitener);
    }

    void store(const Tensor& grad_mean, const Tensor& grad_whitener) const {
        const Gradients<T> a = {g,
                                scratch.of_z,
                                scratch.of_whitener,
                                output.kind == GaussianOutput::nll ? scratch.slope : nullptr,
                                grad_mean.as<T>(),
                                grad_whitener.as<T>(),
                                g.full ? step(grad_whitener, 0) : 0};
        const std::int64_t d = g.z.channels;
        if (g.full) {
            launch(op, stream, {blocks_for(d * d, threads), threads}, store_full_kernel<T>, a);
        } else {
            launch(op, stream, {1, threads}, store_diagonal_kernel<T>, a);
        }
    }
};

template <class T>
void run(Stream stream, const Tensor& grad_out, const Tensor& z, const Tensor& mean, const Tensor& whitener,
         const Tensor& grad_z, const Tensor& grad_mean, const Tensor& grad_whitener, const Tensor& workspace,
         Output<T> output, bool allow_tf32) {
    Layout layout = layout_of(z);
    Steps z_steps = steps_of(z), grad_steps = steps_of(grad_z), out_steps = map_steps_of(grad_out);
    merge(layout, {&z_steps, &grad_steps, &out_steps});
    const Gaussians<T> g(Latents<T>(z, layout, z_steps), mean, whitener, whitener.rank);
    Workspace room(Check(Backward<T>::op), workspace, gaussian_backward_workspace(z, whitener));
    const Scratch<T> scratch(room, z, g.full);
    const Backward<T> backward = {stream,     g,       output,    grad_out.as<const T>(), out_steps, grad_z.as<T>(),
                                  grad_steps, scratch, allow_tf32};
    g.full ? backward.full() : backward.diagonal();
    backward.store(grad_mean, grad_whitener);
}

}  // namespace

std::int64_t gaussian_backward_workspace(const Tensor& z, const Tensor& whitener) {
    Workspace counted;
    for_dtype(z.dtype, [&]<class T>() { Scratch<T>(counted, z, whitener.rank == 2); });
    return counted.bytes();
}

void gaussian_backward(Stream stream, const Tensor& grad_out, const Tensor& z, const Tensor& mean,
                       const Tensor& whitener, const Tensor& grad_z, const Tensor& grad_mean,
                       const Tensor& grad_whitener, const Tensor& workspace, GaussianOutput output, double saturation,
                       bool allow_tf32) {
    check_gaussian_backward(grad_out, z, mean, whitener, grad_z, grad_mean, grad_whitener, saturation);
    for_dtype(z.dtype, [&]<class T>() {
        run<T>(stream, grad_out, z, mean, whitener, grad_z, grad_mean, grad_whitener, workspace,
               {output, static_cast<T>(saturation)}, allow_tf32);
    });
}

}  // namespace normscan::cuda
