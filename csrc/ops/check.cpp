#include "ops/check.hpp"

#include <algorithm>
#include <cmath>

namespace normscan {
namespace {

constexpr double most_sigma = 1e4;  // of maps in pixels; above, the tables would only eat memory

std::string list(std::initializer_list<std::int64_t> numbers) {
    std::string text = "[";
    for (const std::int64_t n : numbers) text.append(text.size() > 1 ? "," : "").append(std::to_string(n));
    return text + "]";
}

std::string strides_text(const Tensor& t) {
    std::string text = "[";
    for (int i = 0; i < t.rank; ++i) text.append(i > 0 ? "," : "").append(std::to_string(t.step(i)));
    return text + "]";
}

}  // namespace

std::string_view dtype_name(DType dtype) {
    switch (dtype) {
        case DType::float32:
            return "float32";
        case DType::float64:
            return "float64";
        case DType::uint8:
            return "uint8";
        case DType::uint16:
            return "uint16";
        case DType::int64:
            return "int64";
        case DType::float16:
            return "float16";
        case DType::bfloat16:
            return "bfloat16";
    }
    return "unknown";
}

std::string shape_text(const Tensor& t) {
    std::string text = "[";
    for (int i = 0; i < t.rank; ++i) text.append(i > 0 ? "," : "").append(std::to_string(t.size(i)));
    return text + "]";
}

void Check::rank(Named t, std::initializer_list<int> allowed, std::string_view layout) const {
    if (std::find(allowed.begin(), allowed.end(), t.tensor.rank) != allowed.end()) return;
    fail(t.name, " has ", t.tensor.rank, " dimensions ", shape_text(t.tensor), ", expected ", layout);
}

void Check::shape(Named t, std::initializer_list<std::int64_t> expected, std::string_view layout) const {
    if (t.tensor.rank == static_cast<int>(expected.size()) &&
        std::equal(expected.begin(), expected.end(), t.tensor.shape.begin())) {
        return;
    }
    fail(t.name, " has shape ", shape_text(t.tensor), ", expected ", layout, " = ", list(expected));
}

void Check::same_shape(Named t, Named as) const {
    const Tensor &a = t.tensor, &b = as.tensor;
    if (a.rank == b.rank && std::equal(a.shape.begin(), a.shape.begin() + a.rank, b.shape.begin())) return;
    fail(t.name, " has shape ", shape_text(a), ", ", as.name, " has ", shape_text(b), "; they must be equal");
}

void Check::dtype(Named t, std::initializer_list<DType> allowed) const {
    if (std::find(allowed.begin(), allowed.end(), t.tensor.dtype) != allowed.end()) return;
    std::string names;
    for (const DType d : allowed) names.append(names.empty() ? "" : " or ").append(dtype_name(d));
    fail(t.name, " is ", dtype_name(t.tensor.dtype), ", expected ", names);
}

void Check::same_dtype(Named t, Named as) const {
    if (t.tensor.dtype == as.tensor.dtype) return;
    fail(t.name, " is ", dtype_name(t.tensor.dtype), ", ", as.name, " is ", dtype_name(as.tensor.dtype),
         "; they must be equal");
}

void Check::strides(Named t) const {
    const Tensor& a = t.tensor;
    if (a.rank == 0 || a.step(a.rank - 1) == 1 || (a.rank == 4 && a.step(1) == 1)) return;
    fail(t.name, " has strides ", strides_text(a), " in elements, expected an inner stride of 1",
         a.rank == 4 ? " or channels_last" : "", "; make it contiguous first");
}

void Check::output(Named t) const {
    if (t.tensor.read_only) fail(t.name, " is read-only, but it is an output; pass a writable tensor");
    for (int i = 0; i < t.tensor.rank; ++i) {
        if (t.tensor.step(i) == 0) fail(t.name, " is an output with stride 0 (expanded); pass a tensor of its own");
    }
    strides(t);
}

void Check::floating(std::initializer_list<Named> tensors, std::initializer_list<DType> allowed) const {
    const Named& first = *tensors.begin();
    dtype(first, allowed);
    for (const Named& t : tensors) {
        same_dtype(t, first);
        strides(t);
    }
}

void Check::sigma(double sigma) const {
    if (!(sigma >= 0.0 && sigma <= most_sigma)) fail("sigma is ", sigma, " pixels, expected 0..", most_sigma);
}

void Check::pooling(PoolMethod method, double parameter) const {
    if (method == PoolMethod::topk && !(parameter > 0.0 && parameter <= 1.0)) {
        fail("parameter is ", parameter, ", expected a share in (0, 1] for topk");
    }
    if (method == PoolMethod::quantile && !(parameter >= 0.0 && parameter <= 1.0)) {
        fail("parameter is ", parameter, ", expected 0..1 for quantile");
    }
    if (method == PoolMethod::area && !std::isfinite(parameter)) {
        fail("parameter is ", parameter, ", expected a finite threshold for area");
    }
}

}  // namespace normscan
