// Reads safetensors: the length of a JSON header, the header, tensors one after the other. F32 and F64 alone.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "normscan/scorer.hpp"

namespace normscan {

class Safetensors {
  public:
    // Copies, so that every tensor is aligned. `name` is the file's in messages: Error::Kind::bundle says the tensor,
    // what was found and what was expected.
    Safetensors(std::string_view bytes, const std::string& name);

    // Contiguous; they live as long as this object.
    const NamedTensors& tensors() const { return tensors_; }

  private:
    std::vector<std::vector<std::byte>> memory_;
    NamedTensors tensors_;
};

}  // namespace normscan
