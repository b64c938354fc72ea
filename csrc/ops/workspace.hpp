// Scratch memory that a caller gives to an op on a GPU: a uint8 tensor, cut into parts.
#pragma once

#include <cstdint>

#include "ops/check.hpp"

namespace normscan {

// Parts start at multiples of this many bytes.
inline constexpr std::int64_t workspace_alignment = 16;

// How many bytes some parts need together. `Workspace` hands them out in the same order.
class WorkspaceSize {
  public:
    template <class T>
    WorkspaceSize& add(std::int64_t count) {
        const std::int64_t bytes = count * static_cast<std::int64_t>(sizeof(T));
        bytes_ += (bytes + workspace_alignment - 1) / workspace_alignment * workspace_alignment;
        return *this;
    }
    std::int64_t bytes() const { return bytes_; }

  private:
    std::int64_t bytes_ = 0;
};

class Workspace {
  public:
    // Throws where the tensor holds fewer than `bytes`.
    Workspace(const Check& check, const Tensor& tensor, std::int64_t bytes) : next_(tensor.as<char>()) {
        check.rank({"workspace", tensor}, {1}, "[bytes]");
        check.dtype({"workspace", tensor}, {DType::uint8});
        check.output({"workspace", tensor});
        if (tensor.size(0) < bytes) {
            check.fail("workspace has ", tensor.size(0), " bytes, expected at least ", bytes);
        }
        if (bytes > 0 && reinterpret_cast<std::uintptr_t>(next_) % workspace_alignment != 0) {
            check.fail("workspace is not aligned to ", workspace_alignment, " bytes; allocate it by itself");
        }
    }

    template <class T>
    T* take(std::int64_t count) {
        T* const part = reinterpret_cast<T*>(next_);
        next_ += WorkspaceSize().add<T>(count).bytes();
        return part;
    }
    // The rest, for an op that this one calls.
    Tensor rest(std::int64_t bytes) const { return contiguous(reinterpret_cast<std::uint8_t*>(next_), {bytes}); }

  private:
    char* next_;
};

}  // namespace normscan
