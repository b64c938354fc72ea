// The Python module normscan._cuda: the same ops on the caller's stream. Signatures: python/normscan/_cuda.pyi
//
// Importing it never fails for want of a GPU: `why_none()` says what is missing.
#include "bindings/bindings.hpp"
#include "normscan/cuda.hpp"

namespace py = pybind11;

PYBIND11_MODULE(_cuda, module) {
    module.doc() = "The native core of normscan (CUDA).";
    normscan::bindings::register_errors();
    module.def("device_count", &normscan::cuda::device_count);
    module.def("why_none", &normscan::cuda::why_none);
    normscan::bindings::bind_cuda(module);
}
