// One Gaussian and mixtures of them on the GPU.
#include "normscan/cuda.hpp"
#include "ops/check.hpp"
#include "ops/dispatch.hpp"
#include "ops/gaussian.hpp"
#include "ops/kernels/gaussian_distances.cuh"
#include "ops/kernels/workspace.cuh"

namespace normscan::cuda {
namespace {

template <class T>
struct Densities {
    const T *whiteners, *log_weights;  // log_weights: null for one Gaussian
    std::int64_t whitener_step, entry_step, weight_step, channels;
    T* logs;  // [K]
};

// A warp for each component: log weight + log |det W| - D log(2 pi) / 2, summed in float64 as on the CPU.
template <class T>
__global__ void __launch_bounds__(32) densities_kernel(Densities<T> a) {
    const std::int64_t k = blockIdx.x;
    const T* const whitener = a.whiteners + k * a.whitener_step;
    double sum = 0.0;
    for (std::int64_t i = threadIdx.x; i < a.channels; i += 32) {
        sum += log(fabs(static_cast<double>(whitener[i * a.entry_step])));
    }
    sum = warp_sum(sum);
    if (threadIdx.x != 0) return;
    const double weight = a.log_weights == nullptr ? 0.0 : static_cast<double>(a.log_weights[k * a.weight_step]);
    a.logs[k] = static_cast<T>(weight + sum - half_log_two_pi * static_cast<double>(a.channels));
}

template <class T>
void launch_densities(std::string_view op, Stream stream, const Gaussians<T>& g, const Tensor* log_weights, T* logs) {
    const std::int64_t entry = g.full ? g.row_step + 1 : g.isotropic ? 0 : 1;
    const T* const weights = log_weights == nullptr ? nullptr : log_weights->as<const T>();
    const Densities<T> a = {
        g.whiteners,  weights, g.whitener_step, entry, log_weights == nullptr ? 0 : step(*log_weights, 0),
        g.z.channels, logs};
    launch(op, stream, {grid_of(op, g.components), 32}, densities_kernel<T>, a);
}

template <class T>
struct Scratch {
    T *logs, *sums;

    Scratch(Workspace& room, const Tensor& z, std::int64_t components, bool full)
        : logs(room.take<T>(components)),
          sums(room.take<T>(full ? components * ceil_div(z.size(1), tile) * layout_of(z).positions() : 0)) {}
};

std::int64_t bytes(const Tensor& z, std::int64_t components, bool full) {
    Workspace counted;
    for_dtype(z.dtype, [&]<class T>() { Scratch<T>(counted, z, components, full); });
    return counted.bytes();
}

template <class T>
void run(std::string_view op, Stream stream, const Tensor& z, const Tensor& means, const Tensor& whiteners,
         const Tensor* log_weights, const Tensor& out, const Tensor& workspace, Output<T> output, bool allow_tf32) {
    Layout layout = layout_of(z);
    Steps z_steps = steps_of(z), out_steps = map_steps_of(out);
    merge(layout, {&z_steps, &out_steps});
    const int rank = whiteners.rank - (log_weights == nullptr ? 0 : 1);
    const Gaussians<T> g(Latents<T>(z, layout, z_steps), means, whiteners, rank);
    Workspace room(Check(op), workspace, bytes(z, g.components, g.full));
    const Scratch<T> scratch(room, z, g.components, g.full);
    if (output.kind == GaussianOutput::nll) {
        launch_densities(op, stream, g, log_weights, scratch.logs);
        output.logs = scratch.logs;
    }
    if (!g.full) return launch_diagonal(op, stream, g, output, out.as<T>(), out_steps);
    launch_project(op, stream, g, scratch.sums, static_cast<T*>(nullptr), 0, allow_tf32);
    launch_finish(op, stream, g, scratch.sums, output, out.as<T>(), out_steps);
}

}  // namespace

std::int64_t gaussian_workspace(const Tensor& z, const Tensor& whitener) {
    return bytes(z, 1, whitener.rank == 2);
}

std::int64_t gaussian_mixture_workspace(const Tensor& z, const Tensor& whiteners) {
    return bytes(z, whiteners.size(0), whiteners.rank == 3);
}

void gaussian(Stream stream, const Tensor& z, const Tensor& mean, const Tensor& whitener, const Tensor& out,
              const Tensor& workspace, GaussianOutput output, double saturation, bool allow_tf32) {
    check_gaussian(z, mean, whitener, out, saturation);
    for_dtype(z.dtype, [&]<class T>() {
        run<T>("gaussian", stream, z, mean, whitener, nullptr, out, workspace, {output, static_cast<T>(saturation)},
               allow_tf32);
    });
}

void gaussian_mixture(Stream stream, const Tensor& z, const Tensor& means, const Tensor& whiteners,
                      const Tensor& log_weights, const Tensor& out, const Tensor& workspace, bool allow_tf32) {
    check_gaussian_mixture(z, means, whiteners, log_weights, out);
    for_dtype(z.dtype, [&]<class T>() {
        run<T>("gaussian_mixture", stream, z, means, whiteners, &log_weights, out, workspace, {GaussianOutput::nll},
               allow_tf32);
    });
}

}  // namespace normscan::cuda
