// The operations of normscan on the CPU: caller-owned tensors in, caller-owned tensors out.
//
// Tensors are float32 or float64 (all floating arguments of a call alike) unless said (attention takes 16 bits, too).
// Any outer strides; the inner stride is 1, or the tensor is channels_last (4-D, stride of C == 1). Anything else
// throws Error::Kind::argument. A NaN that enters comes out as NaN. Results do not depend on the number of threads.
#pragma once

#include <array>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "normscan/tensor.hpp"

namespace normscan {

// How a picture is brought to the size of the network's input.
enum class Resize { stretch, fit, crop };
inline constexpr std::array<std::string_view, 3> resize_names = {"stretch", "fit", "crop"};

// cs is the contrast-structure factor of ssim alone, as multi-scale SSIM needs it.
enum class Metric { l1, l2, cosine, relative_l1, ssim, cs };
inline constexpr std::array<std::string_view, 6> metric_names = {"l1", "l2", "cosine", "relative_l1", "ssim", "cs"};

// How red two pictures are, position by position, or how many red pixels they have.
enum class StainMetric { residual, red_ratio };
inline constexpr std::array<std::string_view, 2> stain_metric_names = {"residual", "red_ratio"};

// How the maps of several levels or terms become one.
enum class Fuse { sum, product };
inline constexpr std::array<std::string_view, 2> fuse_names = {"sum", "product"};

// What a Gaussian over D channels gives of a squared distance d2: itself; 1 - exp(-d2 / saturation), in 0..1 (Welsch's
// function); or the negative log-likelihood d2 / 2 + D log(2 pi) / 2 - log |det W| in nats.
enum class GaussianOutput { squared_distance, saturated, nll };
inline constexpr std::array<std::string_view, 3> gaussian_output_names = {"squared_distance", "saturated", "nll"};

enum class PoolMethod { mean, max, topk, quantile, area };
inline constexpr std::array<std::string_view, 5> pool_names = {"mean", "max", "topk", "quantile", "area"};

enum class GroupMethod { mean, max, noisy_or, topk, fraction };
inline constexpr std::array<std::string_view, 5> group_names = {"mean", "max", "noisy_or", "topk", "fraction"};

// The place of `name` in a table above, as its enumerator; nothing when it is not there.
template <class Enum, std::size_t n>
std::optional<Enum> named(const std::array<std::string_view, n>& names, std::string_view name) {
    for (std::size_t i = 0; i < n; ++i) {
        if (names[i] == name) return static_cast<Enum>(i);
    }
    return std::nullopt;
}

// Threads of this process, the calling one included. Default: what the processor, affinity and cgroup allow.
void set_threads(int n);
int threads();

// Instruction sets of the kernels: "baseline", "avx2", "avx512". NORMSCAN_CPU_ISA forces one; an unknown or
// unsupported one throws.
std::string_view simd_level();
std::vector<std::string_view> simd_levels();

// Picture [H,W] or [H,W,C] (C 1 or 3; uint8, uint16, or float32 in 0..1) -> out [C',h,w] float32: resized
// (antialiased bilinear as Pillow's), grey <-> colour as C' asks (Rec.601 luma), then (x - mean[c]) / std[c].
void prepare(const Tensor& image, const Tensor& out, Resize resize, std::span<const double> mean,
             std::span<const double> std);

// The inverse geometry of `prepare`: map [h,w] float32 -> out [H,W] float32, the picture's own size. Areas that
// "crop" never looked at get 0.
void restore(const Tensor& map, const Tensor& out, Resize resize);

// Squared Mahalanobis distance |W (z - mean)|^2, in squared standard deviations (PaDiM, eq. 2).
// z [N,D] or [N,C,H,W], mean [D], whitener [1] (1/sigma), [D] (1/sigma each) or [D,D] (inverse Cholesky factor, only
// the lower triangle is read) -> out [N] or [N,H,W]: the squared distance, or what `output` makes of it.
void gaussian(const Tensor& z, const Tensor& mean, const Tensor& whitener, const Tensor& out,
              GaussianOutput output = GaussianOutput::squared_distance, double saturation = 1.0);
void gaussian_backward(const Tensor& grad_out, const Tensor& z, const Tensor& mean, const Tensor& whitener,
                       const Tensor& grad_z, const Tensor& grad_mean, const Tensor& grad_whitener,
                       GaussianOutput output = GaussianOutput::squared_distance, double saturation = 1.0);

// Negative log-likelihood of a mixture of K Gaussians, -log sum_k exp(log_weights[k] - nll_k), in nats. No backward.
// z and out as above, means [K,D], whiteners [K,1], [K,D] or [K,D,D], log_weights [K] (of weights that sum to 1).
void gaussian_mixture(const Tensor& z, const Tensor& means, const Tensor& whiteners, const Tensor& log_weights,
                      const Tensor& out);

// `gaussian` with a Gaussian of its own at every position (PaDiM, eq. 2). There is no backward.
// z [N,C,H,W], mean [C,H,W], whitener [H,W,C,C] (only lower triangles are read; stride 1 along their rows) or packed
// [H,W,C(C+1)/2] (the rows of a lower triangle one after the other: half the memory) -> out [N,H,W].
void gaussian_positions(const Tensor& z, const Tensor& mean, const Tensor& whitener, const Tensor& out,
                        GaussianOutput output = GaussianOutput::squared_distance, double saturation = 1.0);

// Takes z [N,C,H,W] into the mean [C,H,W] and scatter (packed lower triangles [H,W,C(C+1)/2]: sums of products of
// deviations from the mean) of the `count` images before; both float64 and updated in place, zeros at first.
void gaussian_positions_fit(const Tensor& z, std::int64_t count, const Tensor& mean, const Tensor& scatter);
// The scatter of `count` images -> whitener, packed alike: at each position the inverse Cholesky factor of
// (1 - shrinkage) covariance + shrinkage (mean variance) I. Both float64. A singular covariance is an error.
void gaussian_positions_whitener(const Tensor& scatter, const Tensor& whitener, std::int64_t count, double shrinkage);

// Distance of a to its reference b, both [N,C,H,W] -> out [N,H,W]. `window` (odd) is for ssim and cs. The denominator
// of relative_l1 is a constant to the gradient.
void distance(const Tensor& a, const Tensor& b, const Tensor& out, Metric metric, int window = 11);
void distance_backward(const Tensor& grad_out, const Tensor& a, const Tensor& b, const Tensor& grad_a,
                       const Tensor& grad_b, Metric metric, int window = 11);

// Two RGB pictures by their red, as of a brown-red immunostain: a (a reconstruction) and its reference b (the picture),
// both [N,3,H,W] in 0..1 -> out [N,H,W].
// residual: (r(b) - r(a))^2, where r = R - (G + B) / 2, and what is below `cut` is 0.
// red_ratio: (n(b) + 1) / (n(a) + 1), n the red pixels in a `window` (odd) around the position, cut off at the edges,
// or in the whole picture. Red is a hue in [from, to] degrees, round the circle where from > to, whose saturation in
// HSV is at least `least_saturation`. A grey pixel has no hue and is never red (OpenCV gives it the hue 0).
// Colours of 8 bits count exactly: those on an end are in. OpenCV rounds its 8-bit hue to two degrees, so that its
// "H <= 8 or H >= 175" reaches from 349 to 17. A pixel that is not finite makes every count that it is in NaN.
struct Stain {
    StainMetric metric = StainMetric::residual;
    double cut = 0.0;  // residual; the others: red_ratio
    std::array<double, 2> hue = {350.0, 16.0};
    double least_saturation = 0.0;
    std::optional<int> window;
};
void stain(const Tensor& a, const Tensor& b, const Tensor& out, const Stain& how);

// Levels of features at resolutions of their own, a and its reference b [N,C_l,H_l,W_l] -> out_map [N,H,W]: the sum of
// weights[l] * distance(level l), or the product of the distances (weights 1), each brought to H x W bilinearly
// (align_corners false), then `smooth` with sigma -> out_score [N] by `pool`. One map of H x W an image is all that is
// kept beside the levels' own.
struct FeaturePair {
    Tensor a, b;
};
void distance_maps(std::span<const FeaturePair> levels, const Tensor& out_map, const Tensor& out_score, Metric metric,
                   std::span<const double> weights, Fuse fuse, double sigma, PoolMethod pool, double parameter = 0.0);

// A bias of the scores by relative position, for L = M positions on a grid of height x width, row-major: query (y,x)
// and key (y',x') take table [H,2h-1,2w-1] at (h-1 + y-y', w-1 + x-x') (Swin: Liu et al. 2021). -inf hides a key.
struct GridBias {
    const Tensor& table;
    std::int64_t height, width;
};

// The gate of a residual block (SAGAN: Zhang et al. 2019, eq. 3): out = residual + gamma softmax(...) v, residual as
// out, gamma [1]. attended, as out, takes the result before the gate, which backward needs; it may be nullptr.
struct Gate {
    const Tensor &residual, &gamma;
    const Tensor* attended;
};
struct GateGradient {
    const Tensor &gamma, &grad_gamma;
};

// out = softmax(q k^T scale + bias) v, lse = log-sum-exp of the scaled, biased scores, without a table of L x M.
// q [N,H,L,dk], k [N,H,M,dk], v [N,H,M,dv], out [N,H,L,dv], lse [N,H,L]. bias may be nullptr; backwards, grad_bias
// [H,2h-1,2w-1] goes with it. q, k, v, out and residual may also be float16 or bfloat16, and so their gradients; sums,
// lse, bias, gamma and the gradients of the last two are float32 then.
void attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out, const Tensor& lse, double scale,
               const GridBias* bias = nullptr, const Gate* gate = nullptr);
// With a gate, `out` is what went into `attended`; the gradient of the residual is grad_out itself.
void attention_backward(const Tensor& grad_out, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out,
                        const Tensor& lse, const Tensor& grad_q, const Tensor& grad_k, const Tensor& grad_v,
                        double scale, const GridBias* bias = nullptr, const Tensor* grad_bias = nullptr,
                        const GateGradient* gate = nullptr);

// map [N,h,w] -> out [N,H,W], bilinear, align_corners false, no antialias.
void resample(const Tensor& map, const Tensor& out);

// Separable Gaussian, radius int(4 sigma + 0.5), edges mirrored with the edge pixel repeated (scipy's "reflect").
void smooth(const Tensor& map, const Tensor& out, double sigma);

// map [N,H,W] -> one number an image. parameter: topk share (0,1], quantile 0..1, area threshold.
void pool(const Tensor& map, const Tensor& out, PoolMethod method, double parameter = 0.0);
// The same in double, whatever the dtype of the map.
std::vector<double> pool(const Tensor& map, PoolMethod method, double parameter = 0.0);

// scores [N] float64, groups [N] int64 in 0..G-1 -> out [G] float64. A group without members is an error.
// parameter: of fraction the threshold (the share of scores above it), of topk the share in (0,1] whose mean is taken
// (of the highest; at least one). noisy_or: 1 - prod(1 - p), scores are probabilities in 0..1.
void aggregate(const Tensor& scores, const Tensor& groups, const Tensor& out, GroupMethod method,
               double parameter = 0.0);

}  // namespace normscan
