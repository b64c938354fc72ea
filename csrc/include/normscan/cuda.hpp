// The operations of normscan on a GPU: caller-owned tensors of one device in, caller-owned tensors out.
//
// What each computes, and which shapes, strides and errors it has, is said in ops.hpp. Here every call is put on the
// caller's stream and returns at once: no synchronisation, no allocation, so that calls can be captured in a graph.
// Where room is needed besides the outputs, the caller gives it as `workspace`, a uint8 tensor [bytes] that starts at a
// multiple of 16: the last tensor of the call. `<op>_workspace` says how many bytes. It may be given to the next call
// on the same stream.
#pragma once

#include <span>

#include "normscan/ops.hpp"
#include "normscan/scorer.hpp"
#include "normscan/tensor.hpp"

namespace normscan::cuda {

// Where a call is put: a cudaStream_t (null: the legacy default stream) and the device that it belongs to.
struct Stream {
    void* handle = nullptr;
    int device = 0;
};

// How many devices this process can use; `why_none` says why there are none.
int device_count();
const char* why_none();

void prepare(Stream stream, const Tensor& image, const Tensor& out, Resize resize, std::span<const double> mean,
             std::span<const double> std);
void restore(Stream stream, const Tensor& map, const Tensor& out, Resize resize);

// allow_tf32: full whiteners of float32 are multiplied on tensor cores with 11 significant bits; else exactly.
std::int64_t gaussian_workspace(const Tensor& z, const Tensor& whitener);
void gaussian(Stream stream, const Tensor& z, const Tensor& mean, const Tensor& whitener, const Tensor& out,
              const Tensor& workspace, GaussianOutput output, double saturation, bool allow_tf32);
std::int64_t gaussian_backward_workspace(const Tensor& z, const Tensor& whitener);
void gaussian_backward(Stream stream, const Tensor& grad_out, const Tensor& z, const Tensor& mean,
                       const Tensor& whitener, const Tensor& grad_z, const Tensor& grad_mean,
                       const Tensor& grad_whitener, const Tensor& workspace, GaussianOutput output, double saturation,
                       bool allow_tf32);
std::int64_t gaussian_mixture_workspace(const Tensor& z, const Tensor& whiteners);
void gaussian_mixture(Stream stream, const Tensor& z, const Tensor& means, const Tensor& whiteners,
                      const Tensor& log_weights, const Tensor& out, const Tensor& workspace, bool allow_tf32);
void gaussian_positions(Stream stream, const Tensor& z, const Tensor& mean, const Tensor& whitener, const Tensor& out,
                        GaussianOutput output, double saturation);

std::int64_t distance_workspace(const Tensor& b, Metric metric);
void distance(Stream stream, const Tensor& a, const Tensor& b, const Tensor& out, const Tensor& workspace,
              Metric metric, int window);
std::int64_t distance_backward_workspace(const Tensor& b, Metric metric);
void distance_backward(Stream stream, const Tensor& grad_out, const Tensor& a, const Tensor& b, const Tensor& grad_a,
                       const Tensor& grad_b, const Tensor& workspace, Metric metric, int window);

// For red_ratio, 12 bytes a pixel.
std::int64_t stain_workspace(const Tensor& a, StainMetric metric);
void stain(Stream stream, const Tensor& a, const Tensor& b, const Tensor& out, const Tensor& workspace,
           const Stain& how);

// At most 8 levels.
std::int64_t distance_maps_workspace(std::span<const FeaturePair> levels, const Tensor& out_map, Metric metric,
                                     double sigma, PoolMethod pool);
void distance_maps(Stream stream, std::span<const FeaturePair> levels, const Tensor& out_map, const Tensor& out_score,
                   const Tensor& workspace, Metric metric, std::span<const double> weights, Fuse fuse, double sigma,
                   PoolMethod pool, double parameter);

// float32 is multiplied exactly, or where `allow_tf32` rounded to tf32 on tensor cores; float16 and bfloat16 are on
// tensor cores, which take the probabilities rounded to them too.
void attention(Stream stream, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out, const Tensor& lse,
               double scale, const GridBias* bias = nullptr, const Gate* gate = nullptr, bool allow_tf32 = false);
std::int64_t attention_backward_workspace(const Tensor& q, const GridBias* bias = nullptr);
void attention_backward(Stream stream, const Tensor& grad_out, const Tensor& q, const Tensor& k, const Tensor& v,
                        const Tensor& out, const Tensor& lse, const Tensor& grad_q, const Tensor& grad_k,
                        const Tensor& grad_v, const Tensor& workspace, double scale, const GridBias* bias = nullptr,
                        const Tensor* grad_bias = nullptr, const GateGradient* gate = nullptr, bool allow_tf32 = false);

void resample(Stream stream, const Tensor& map, const Tensor& out);

std::int64_t smooth_workspace(const Tensor& map);
void smooth(Stream stream, const Tensor& map, const Tensor& out, const Tensor& workspace, double sigma);

std::int64_t pool_workspace(const Tensor& map, PoolMethod method);
void pool(Stream stream, const Tensor& map, const Tensor& out, const Tensor& workspace, PoolMethod method,
          double parameter);

// Scorer::score, with the same results. statistics: those of Scorer::statistics(), in the memory of the GPU.
std::int64_t score_workspace(const Scorer& scorer, const NamedTensors& outputs);
void score(Stream stream, const Scorer& scorer, const NamedTensors& statistics, const NamedTensors& outputs,
           const Tensor& maps, const Tensor& terms, const Tensor& scores, const Tensor& workspace);

}  // namespace normscan::cuda
