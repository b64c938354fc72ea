// Python arrays as tensors: anything with __dlpack__ on the device of the call, without a copy.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string_view>

#include "normscan/tensor.hpp"

namespace normscan::bindings {

// The device that a call runs on; for a GPU with the stream (a cudaStream_t) that the exporter is to wait on.
struct Device {
    bool cuda = false;
    std::int32_t index = 0;
    std::intptr_t stream = 0;
};

// Memory that nothing in Python owns: an address, and the caller's word that it is on the device of the call. A class
// of the module _cuda alone: to _native it is no tensor.
struct View {
    Tensor tensor;
};

// Holds the exported memory until the end of the call. Made and destroyed with the GIL held; `tensor()` may be read
// without it. `name` is the argument's, for messages.
class Imported {
  public:
    Imported(std::string_view name, const pybind11::object& array, const Device& device = {});
    ~Imported();
    Imported(const Imported&) = delete;
    Imported& operator=(const Imported&) = delete;

    operator const Tensor&() const { return tensor_; }
    const Tensor& tensor() const { return tensor_; }

  private:
    void take(std::string_view name, const pybind11::object& capsule);

    Tensor tensor_;
    void* managed_ = nullptr;
    void (*release_)(void*) = nullptr;
};

}  // namespace normscan::bindings
