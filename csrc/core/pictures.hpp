// A caller's picture, checked, and as `prepare` takes it: grey, or RGB side by side.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "normscan/session.hpp"

namespace normscan {

// Throws Error::Kind::argument, "<where>...": sizes, strides, alignment, room for the map.
void check_picture(const Picture& picture, const std::string& where);

// A checked picture; BGR and RGBA are copied.
class PictureView {
  public:
    explicit PictureView(const Picture& picture);

    // [H,W] or [H,W,3]; as long as the picture and this object live.
    const Tensor& tensor() const { return tensor_; }
    // What is wrong with the values themselves: float32 that are not finite, or outside 0..1. Empty: nothing.
    std::string refusal() const;

  private:
    template <class T>
    void convert();

    const Picture& picture_;
    std::int64_t row_stride_;  // in bytes
    Tensor tensor_;
    std::vector<std::byte> copy_;
};

}  // namespace normscan
