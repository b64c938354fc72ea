// The bundle: a folder with everything that scoring needs, verified before anything in it is parsed
// (python/normscan/deploy/bundle.py writes it, and says what its files are).
#pragma once

#include <array>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "core/safetensors.hpp"
#include "normscan/scorer.hpp"
#include "normscan/spec.hpp"

namespace normscan {

// What a network may be in.
inline constexpr std::array<std::string_view, 4> precisions = {"fp32", "fp16", "bf16", "int8"};

class Bundle {
  public:
    // Verifies and reads; what is missing, added, altered, unsafe or unknown is named in an Error::Kind::bundle. What
    // was hashed is kept, and is what is used.
    static Bundle open(const std::string& folder);

    const std::string& folder() const { return folder_; }
    const ScoringSpec& spec() const { return spec_; }
    // The ONNX file, and the names of its outputs.
    const std::string& model() const { return files_.at("model.onnx"); }
    const std::vector<std::string>& outputs() const { return outputs_; }
    // The standard deviation of the calibration scores: the unit that tolerances are stated in.
    double spread() const { return spread_; }
    // Where the colours of a map begin and end.
    const std::array<double, 2>& map_scale() const { return map_scale_; }
    // Of the network: "fp32", or what it was lowered to.
    const std::string& precision() const { return precision_; }
    // What it may be used for.
    const std::string& notice() const { return notice_; }
    // The engine that a lowered network was accepted on; empty where it was not lowered.
    const std::string& accepted_engine() const { return accepted_engine_; }

    // A scorer with the statistics of the bundle.
    Scorer scorer() const;
    // "x", "map", "score" and "output.<name>" of the recorded inputs.
    Safetensors golden() const;

  private:
    Bundle() = default;

    std::string folder_;
    ScoringSpec spec_;
    std::vector<std::string> outputs_;
    double spread_ = 0.0;
    std::array<double, 2> map_scale_{};
    std::string precision_, accepted_engine_, notice_;
    std::map<std::string, std::string> files_;
};

}  // namespace normscan
