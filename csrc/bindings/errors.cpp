// normscan::Error -> normscan.errors.ArgumentError / ConfigError / DeviceError.
#include "bindings/bindings.hpp"

namespace py = pybind11;

namespace normscan::bindings {

// The Python classes are looked up when an error is raised: at import of this module the package may be half loaded.
void register_errors() {
    py::register_exception_translator([](std::exception_ptr pointer) {
        try {
            if (pointer) std::rethrow_exception(pointer);
        } catch (const Error& error) {
            const char* const name = error.kind() == Error::Kind::config   ? "ConfigError"
                                     : error.kind() == Error::Kind::device ? "DeviceError"
                                                                           : "ArgumentError";
            const py::object type = py::module_::import("normscan.errors").attr(name);
            py::set_error(type, error.what());
        }
    });
}

}  // namespace normscan::bindings
