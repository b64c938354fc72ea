// Scratch memory: aligned for the widest vectors, not initialised, freed at the end of the scope.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>

namespace normscan {

template <class T>
class Buffer {
  public:
    explicit Buffer(std::int64_t n)
        : data_(static_cast<T*>(::operator new(static_cast<std::size_t>(n) * sizeof(T), alignment))) {}
    ~Buffer() { ::operator delete(data_, alignment); }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;

    T* get() const { return data_; }
    T& operator[](std::int64_t i) const { return data_[i]; }

  private:
    static constexpr std::align_val_t alignment{64};
    T* data_;
};

}  // namespace normscan
