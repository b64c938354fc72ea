// Runs a scoring spec over the outputs of a network: hops 4 and 5, terms -> maps -> map and score.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "normscan/spec.hpp"

namespace normscan {

using NamedTensors = std::map<std::string, Tensor, std::less<>>;

class Scorer {
  public:
    // stats: "<stats>.mean" and "<stats>.whitener" of every Gaussian term, in the shapes of `gaussian` or, per
    // "position", `gaussian_positions`; of a mixture those of `gaussian_mixture`, with "<stats>.log_weights"; float32
    // or float64; they are copied.
    Scorer(ScoringSpec spec, const NamedTensors& stats);
    ~Scorer();
    Scorer(Scorer&&) noexcept;
    Scorer& operator=(Scorer&&) noexcept;

    const ScoringSpec& spec() const { return spec_; }
    const std::vector<std::string>& outputs() const { return outputs_; }  // names, in order of first use
    std::optional<double> threshold() const;
    std::int64_t map_height() const;
    std::int64_t map_width() const;

    // Views of the statistics that it holds, by name: float32, contiguous, in the shapes of the ops (per "position"
    // packed triangles). They live as long as the scorer. For a copy on a GPU: cuda.hpp.
    NamedTensors statistics() const;

    // Number of images N, after checking names, dtypes (float32) and shapes. Names that no term needs are ignored.
    std::int64_t check(const NamedTensors& outputs) const;

    // maps [N,h,w] float32: fused and blurred. terms [N,T] float64: pooled, before scale and weight (where pool_at is
    // image: the mean of the term's map). scores [N] float64: a finite number, or NaN where an output was not finite.
    // An image's numbers do not depend on the others of its batch.
    void score(const NamedTensors& outputs, const Tensor& maps, const Tensor& terms, const Tensor& scores) const;

  private:
    struct Statistics;

    void check_output(std::size_t term, const std::string& name, const Tensor& output, std::int64_t images) const;

    ScoringSpec spec_;
    std::vector<std::string> outputs_;
    std::vector<std::unique_ptr<Statistics>> statistics_;  // one a term, null where it needs none
};

}  // namespace normscan
