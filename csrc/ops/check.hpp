// Checks of arguments, above the kernels. Every message names the op and the tensor, what was found and what was
// expected.
#pragma once

#include <initializer_list>
#include <sstream>
#include <string>
#include <string_view>

#include "normscan/error.hpp"
#include "normscan/ops.hpp"
#include "normscan/tensor.hpp"

namespace normscan {

// fail("gaussian: mean has ", 64, " channels, z has ", 128)
template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
    std::ostringstream text;
    (text << ... << parts);
    throw Error(Error::Kind::argument, text.str());
}

// A tensor with the name it has in messages.
struct Named {
    std::string_view name;
    const Tensor& tensor;
};

// Checks for one op; `op` is the prefix of its messages.
class Check {
  public:
    explicit Check(std::string_view op) : op_(op) {}

    void rank(Named t, std::initializer_list<int> allowed, std::string_view layout) const;
    // Exactly this shape; `layout` names the dimensions, e.g. "[N,H,W]".
    void shape(Named t, std::initializer_list<std::int64_t> expected, std::string_view layout) const;
    void same_shape(Named t, Named as) const;
    void dtype(Named t, std::initializer_list<DType> allowed) const;
    void same_dtype(Named t, Named as) const;
    // Inner stride 1, or channels_last.
    void strides(Named t) const;
    // Writable, no element written twice (an expanded tensor), strides as above.
    void output(Named t) const;

    // The usual first lines of an op: floating dtype, equal for all, strides.
    void floating(std::initializer_list<Named> tensors,
                  std::initializer_list<DType> allowed = {DType::float32, DType::float64}) const;

    // The numbers that blurring and pooling take.
    void sigma(double sigma) const;
    void pooling(PoolMethod method, double parameter) const;

    template <class... Parts>
    [[noreturn]] void fail(const Parts&... parts) const {
        normscan::fail(op_, ": ", parts...);
    }

  private:
    std::string_view op_;
};

std::string_view dtype_name(DType dtype);
std::string shape_text(const Tensor& t);

}  // namespace normscan
