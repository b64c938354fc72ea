// Scratch in the memory that a caller gives. Included by kernels/*.cu only.
#pragma once

#include "normscan/cuda.hpp"
#include "ops/check.hpp"

namespace normscan::cuda {

// Cuts arrays out of a workspace; without memory it only counts. So one function says both how much an op needs and
// where each array lies: it takes from whichever it is given.
class Workspace {
  public:
    Workspace() = default;
    // Throws where `memory` is not a uint8 tensor of as many bytes.
    Workspace(const Check& check, const Tensor& memory, std::int64_t bytes) : memory_(memory.as<unsigned char>()) {
        check.rank({"workspace", memory}, {1}, "[bytes]");
        check.dtype({"workspace", memory}, {DType::uint8});
        if (bytes == 0) return;
        check.output({"workspace", memory});
        if (memory.size(0) < bytes) {
            check.fail("workspace has ", memory.size(0), " bytes, expected at least ", bytes);
        }
        if (reinterpret_cast<std::uintptr_t>(memory_) % 16 != 0) {
            check.fail("workspace starts at ", memory.data, ", expected a multiple of 16 bytes");
        }
    }

    // Arrays start at multiples of 256 bytes, so that no two share a cache line where the workspace
    // starts at one.
    template <class T>
    T* take(std::int64_t count) {
        const std::int64_t begin = (bytes_ + 255) / 256 * 256;
        bytes_ = begin + count * static_cast<std::int64_t>(sizeof(T));
        return memory_ == nullptr ? nullptr : reinterpret_cast<T*>(memory_ + begin);
    }
    std::int64_t bytes() const { return bytes_; }

  private:
    unsigned char* memory_ = nullptr;
    std::int64_t bytes_ = 0;
};

}  // namespace normscan::cuda
