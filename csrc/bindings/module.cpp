// The Python module normscan._native: the CPU core behind DLPack. Signatures: python/normscan/_native.pyi
#include "bindings/bindings.hpp"

PYBIND11_MODULE(_native, module) {
    module.doc() = "The native core of normscan (CPU).";
    normscan::bindings::register_errors();
    normscan::bindings::bind_core(module);
    normscan::bindings::bind_ops(module);
    normscan::bindings::bind_spec(module);
}
