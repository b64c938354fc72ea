// The scoring spec: how outputs of a network become a map and a score. Data, read from and written to JSON (schema 1).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "normscan/ops.hpp"

namespace normscan {

struct Pooling {
    PoolMethod method = PoolMethod::mean;
    double parameter = 0.0;  // topk: share; quantile: 0..1; area: threshold
};

struct InputSpec {
    std::int64_t height = 0, width = 0, channels = 0;
    Resize resize = Resize::stretch;
    std::vector<double> mean, std;  // one entry a channel
};

enum class TermOp { distance, stain, gaussian, gaussian_mixture, value };
inline constexpr std::array<std::string_view, 5> term_op_names = {"distance", "stain", "gaussian", "gaussian_mixture",
                                                                  "value"};

// Whether a term takes what is judged, and its reference; the others take one output.
inline bool compares_two(TermOp op) {
    return op == TermOp::distance || op == TermOp::stain;
}

// What the whitener of a Gaussian term is: [1], [D] or [D,D]; of a mixture [K,1], [K,D] or [K,D,D].
enum class Form { isotropic, diagonal, full };
inline constexpr std::array<std::string_view, 3> form_names = {"isotropic", "diagonal", "full"};

// vector: z [N,D], no map. position_shared: z [N,C,H,W], one Gaussian for all positions. position: one at each position
// (form "full": mean [C,H,W], whitener [H,W,C,C] or packed [H,W,C(C+1)/2]; not for a mixture).
// Of a value: vector [N,1], position a map [N,1,H,W].
enum class Per { vector, position_shared, position };
inline constexpr std::array<std::string_view, 3> per_names = {"vector", "position_shared", "position"};

struct Term {
    TermOp op = TermOp::distance;
    std::vector<std::string> of;  // distance, stain: what is judged, and its reference; else one name
    Metric metric = Metric::l1;   // distance
    int window = 11;              // distance, ssim
    Stain stain;                  // stain: of pictures as the network's input has them, in 0..1
    std::string stats;       // Gaussians: tensors "<stats>.mean", "<stats>.whitener", mixture: "<stats>.log_weights"
    Form form = Form::full;  // gaussian, gaussian_mixture
    Per per = Per::position_shared;                            // all that take one output
    GaussianOutput output = GaussianOutput::squared_distance;  // gaussian
    double saturation = 1.0;                                   // gaussian, saturated
    Pooling pool;
    std::optional<double> scale;  // spread on validation normals; nothing counts as 1
    double weight = 1.0;
};

enum class PoolAt { term, image };
inline constexpr std::array<std::string_view, 2> pool_at_names = {"term", "image"};

struct MapSpec {
    std::optional<std::pair<std::int64_t, std::int64_t>> size;  // height, width; nothing: the input's
    double blur_sigma = 0.0;                                    // in pixels of the map
};

struct GroupSpec {
    GroupMethod pool = GroupMethod::max;
    double parameter = 0.0;          // topk: share; fraction: threshold
    std::optional<double> positive;  // a group is positive where its score > this
    std::optional<double> high;      // and of high density where its score > this; at least `positive`
};

struct Calibration {
    std::string rule;
    double threshold = 0.0;  // anomalous where score > threshold
    std::int64_t n = 0;      // normals that it was set on
    double target_specificity = 0.0;
    std::pair<double, double> interval;
};

struct ScoringSpec {
    std::string family;
    InputSpec input;
    std::vector<Term> terms;
    Fuse fuse = Fuse::sum;
    PoolAt pool_at = PoolAt::term;
    std::optional<Pooling> pool;  // where pool_at is image
    MapSpec map;
    std::optional<GroupSpec> group;
    std::optional<Calibration> calibration;

    // Throws Error::Kind::config: the path ("terms[1].metric"), what was found, what is allowed.
    static ScoringSpec parse(std::string_view json);

    // Canonical: every field, keys sorted, no spaces, numbers as short as they round-trip.
    std::string json() const;
};

}  // namespace normscan
