// The operations of normscan on a GPU: caller-owned tensors of one device in, caller-owned tensors out.
//
// What each computes, and which shapes, strides and errors it has, is said in ops.hpp. Here every call is put on the
// caller's stream and returns at once: no synchronisation, no allocation, so that calls can be captured in a graph.
// Where room is needed besides the outputs, the caller gives it: `<op>_workspace` says how many bytes.
#pragma once

#include <span>

#include "normscan/ops.hpp"
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

void resample(Stream stream, const Tensor& map, const Tensor& out);

// The Gaussian ops. `workspace` is uint8 [bytes]; the sizes are those of z and the whitener(s), in elements of
// `itemsize` bytes. allow_tf32: full whiteners of float32 are multiplied on tensor cores with 11 significant bits; else
// exactly.
std::int64_t gaussian_workspace(std::span<const std::int64_t> z, std::span<const std::int64_t> whitener,
                                std::int64_t itemsize);
void gaussian(Stream stream, const Tensor& z, const Tensor& mean, const Tensor& whitener, const Tensor& out,
              const Tensor& workspace, GaussianOutput output, double saturation, bool allow_tf32);
std::int64_t gaussian_backward_workspace(std::span<const std::int64_t> z, std::span<const std::int64_t> whitener,
                                         std::int64_t itemsize);
void gaussian_backward(Stream stream, const Tensor& grad_out, const Tensor& z, const Tensor& mean,
                       const Tensor& whitener, const Tensor& grad_z, const Tensor& grad_mean,
                       const Tensor& grad_whitener, const Tensor& workspace, GaussianOutput output, double saturation,
                       bool allow_tf32);
std::int64_t gaussian_mixture_workspace(std::span<const std::int64_t> z, std::span<const std::int64_t> whiteners,
                                        std::int64_t itemsize);
void gaussian_mixture(Stream stream, const Tensor& z, const Tensor& means, const Tensor& whiteners,
                      const Tensor& log_weights, const Tensor& out, const Tensor& workspace, bool allow_tf32);
void gaussian_positions(Stream stream, const Tensor& z, const Tensor& mean, const Tensor& whitener, const Tensor& out,
                        GaussianOutput output, double saturation);

}  // namespace normscan::cuda
