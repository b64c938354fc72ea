// Scratch in the memory that a caller gives. Included by kernels/*.cu only.
#pragma once

#include "normscan/cuda.hpp"
#include "ops/check.hpp"

namespace normscan::cuda {

// Cuts arrays out of a workspace; without memory it only counts, so that one function says how much an op needs and
// where each array lies.
class Workspace {
  public:
    Workspace() = default;
    explicit Workspace(const Tensor& memory) : memory_(memory.as<unsigned char>()) {}

    template <class T>
    T* take(std::int64_t count) {
        T* const array = memory_ == nullptr ? nullptr : reinterpret_cast<T*>(memory_ + bytes_);
        bytes_ += (count * static_cast<std::int64_t>(sizeof(T)) + 255) / 256 * 256;
        return array;
    }
    std::int64_t bytes() const { return bytes_; }

  private:
    unsigned char* memory_ = nullptr;
    std::int64_t bytes_ = 0;
};

inline void check_workspace(std::string_view op, const Tensor& workspace, std::int64_t bytes) {
    const Check check(op);
    check.rank({"workspace", workspace}, {1}, "[bytes]");
    check.dtype({"workspace", workspace}, {DType::uint8});
    if (bytes == 0) return;
    check.output({"workspace", workspace});
    if (workspace.size(0) < bytes) {
        check.fail("workspace has ", workspace.size(0), " bytes, expected ", bytes, " (", op, "_workspace)");
    }
    if (reinterpret_cast<std::uintptr_t>(workspace.data) % 16 != 0) {
        check.fail("workspace is not aligned, expected an address that 16 divides");
    }
}

}  // namespace normscan::cuda
